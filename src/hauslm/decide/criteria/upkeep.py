"""Upkeep: how many working hours does each side take, and what do they cost?"""

from __future__ import annotations

from hauslm.base.words import N_, Sentence, say
from hauslm.decide.candidate import fact
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.records import Cell, Fact, Said

_LINES = ("staff_setup", "staff_upkeep", "staff_training", "staff_migration")


def _hours(context: Context, row: int) -> tuple[float, float]:
    """(hours a month over the horizon with everything, EUR a month)."""
    months = float(context.judged.settings.months)
    money = context.line(row, *_LINES)
    wage = context.parameter("hourly_cost_eur").value
    return (money / wage / months if wage else 0.0), money / months


def _facts(context: Context, row: int) -> tuple[Fact, ...]:
    own = context.candidate(row).bill
    side = "local" if own is not None and own.own_staff else "cloud"
    names = (f"setup_hours_{side}", f"upkeep_hours_per_month_{side}", "hourly_cost_eur")
    return tuple(fact(say(context.judged.parameters[n].title), context.parameter(n)) for n in names)


def judge(context: Context) -> Judgement:
    cells, hours = [], []
    for row in (context.cloud, context.local):
        if row is None:
            cells.append(Cell(judgement=Said.of(say("No option of this kind."))))
            continue
        each, money = _hours(context, row)
        hours.append(each)
        what = say(
            "{hours:.1f} working hours a month over the horizon, set-up and trainings included "
            "({money:EUR} a month).",
            hours=each, money=money,
        )  # fmt: skip
        cells.append(Cell(judgement=Said.of(what), facts=_facts(context, row)))
    if len(hours) < 2:
        return cells[0], cells[1], ""
    return cells[0], cells[1], "cloud" if hours[0] < hours[1] else "local"


def argue(context: Context) -> list[Argument]:
    if context.chosen is None:
        return []
    hours, money = _hours(context, context.chosen)
    what = say(
        "Upkeep takes {hours:.1f} working hours a month, {money:EUR}: set-up, upkeep, trainings and "
        "forced moves over the horizon.",
        hours=hours, money=money,
    )  # fmt: skip
    return [(what, _facts(context, context.chosen))]


def brief(context: Context, row: int) -> Sentence:
    hours, _ = _hours(context, row)
    return say("{hours:.1f} working hours a month", hours=hours)


CRITERION = Criterion("upkeep", N_("Upkeep"), 4, 5, judge, argue, brief)
