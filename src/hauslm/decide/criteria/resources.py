"""Compute resources: does it fit, how fast is it, how long does the backlog take?"""

from __future__ import annotations

from hauslm.base.quantity import derived
from hauslm.base.words import N_, Sentence, say
from hauslm.decide.candidate import fact
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.records import Cell, Fact, Said


def _figures(context: Context, row: int) -> dict[str, float]:
    found, settings = context.judged.costs, context.judged.settings
    hours = float(settings.available_hours_per_month)
    running = float(found.hours_per_month[row, 0])
    free = max(hours - running, 1e-9)
    labels = {f.label.template: f.quantity.value for f in context.candidate(row).facts}
    return {
        "need": labels.get("Memory needed", 0.0),
        "room": labels.get("Memory of the GPU", 0.0),
        "per_hour": labels.get("Documents per hour", 0.0),
        "backlog_days": float(found.backlog_hours[row, 0]) / free * 365 / 12,
        "running": running,
        "share": running / hours if hours else 0.0,
    }


def _facts(context: Context, row: int) -> tuple[Fact, ...]:
    hours = float(context.judged.costs.backlog_hours[row, 0])
    return (
        *context.facts_named(row, "Memory", "Documents per hour", "Rated"),
        fact(say("Hours of work for the backlog"), derived(hours, "h", "speed formula of the planner")),
        fact(say("Hours per month in which the machine may work"),
             context.parameter("available_hours_per_month")),
    )  # fmt: skip


def judge(context: Context) -> Judgement:
    cloud = Cell(
        judgement=Said.of(
            say("No own hardware (0 GPUs); the provider's rate limits decide, and they are not in the "
                "catalog.")
        )
    )  # fmt: skip
    row = context.local
    if row is None:
        return cloud, Cell(judgement=Said.of(say("No own machine is among the options."))), ""
    figures = _figures(context, row)
    what = say(
        "{need:.1f} of {room:.0f} GiB are needed; {per_hour:,} documents an hour; the backlog takes "
        "{backlog_days:.0f} days, the running demand {running:.0f} hours a month ({share:.0%} of what "
        "the machine may work).",
        **figures,
    )
    return cloud, Cell(judgement=Said.of(what), facts=_facts(context, row)), "cloud"


def argue(context: Context) -> list[Argument]:
    row = context.chosen
    if row is None:
        return []
    candidate = context.candidate(row)
    if candidate.bill is None or not candidate.bill.gpus:
        return [
            (say("No own hardware is needed; rate limits of the provider are to be checked."), ())
        ]
    figures = _figures(context, row)
    if not figures["room"]:
        return [
            (say("The machine works {running:.0f} hours a month.", running=figures["running"]), ())
        ]
    what = say(
        "{name} fits: {need:.1f} of {room:.0f} GiB. The backlog takes {backlog_days:.0f} days, after "
        "that the machine works {running:.0f} hours a month; single answers are slower than an API's, "
        "which does not matter for batch work.",
        name=context.name(row), **figures,
    )  # fmt: skip
    return [(what, _facts(context, row))]


def brief(context: Context, row: int) -> Sentence:
    bill = context.candidate(row).bill
    if bill is None or not bill.gpus:
        return say("No own hardware.")
    figures = _figures(context, row)
    return say("{need:.1f} of {room:.0f} GiB, {per_hour:,} documents an hour", **figures)


CRITERION = Criterion("resources", N_("Compute resources"), 6, 4, judge, argue, brief)
