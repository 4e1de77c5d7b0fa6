"""Permanence: how long will it be there unchanged, and who decides that?"""

from __future__ import annotations

import datetime

from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.decide.scores import days_old
from hauslm.records import Cell, Said


def _shutdowns(context: Context) -> tuple[int, int, int]:
    """(API models in the catalog, switched off in the year before, announced for the horizon)."""
    on = context.judged.on
    months = float(context.judged.settings.months)
    end = datetime.date.fromisoformat(on) + datetime.timedelta(days=round(months * 365 / 12))
    models = [m for m in load.models() if m.kind == "api" and (m.price_ref or m.shutdown_date)]
    dates = [m.shutdown_date.date for m in models if m.shutdown_date]
    year = [d for d in dates if d <= on and (days_old(d, on) or 0) <= 365]
    ahead = [d for d in dates if on < d < end.isoformat()]
    return len(models), len(year), len(ahead)


def _cloud_sentence(context: Context, row: int | None) -> Sentence:
    total, past, ahead = _shutdowns(context)
    own: Sentence | str = say("none is announced for the model compared here")
    if row is not None:
        model = context.candidate(row).model
        end = load.model(model).shutdown_date if model in load.ids("models") else None
        if end is not None:
            own = say("the model compared here ends on {day:date}", day=end.date)
    return say(
        "Of {total:,} API models in the catalog {past:,} were switched off in the last year and "
        "{ahead:,} more are announced within the horizon; {own}.",
        total=total, past=past, ahead=ahead, own=own,
    )  # fmt: skip


def _local_sentence(context: Context, row: int) -> Sentence:
    candidate = context.candidate(row)
    model = candidate.scored
    licence = model.licence.id if model and model.licence else say("a licence that is not recorded")
    life = context.parameter("hardware_life_months").value
    return say(
        "The weights stay as they are ({model}, {licence}): results can be repeated. The hardware is "
        "counted with a life of {life:,} months.",
        model=model.name if model else candidate.model, licence=licence, life=life,
    )  # fmt: skip


def judge(context: Context) -> Judgement:
    cloud = Cell(judgement=Said.of(_cloud_sentence(context, context.cloud)))
    if context.local is None:
        return cloud, Cell(judgement=Said.of(say("No own machine is among the options."))), ""
    return cloud, Cell(judgement=Said.of(_local_sentence(context, context.local))), "local"


def argue(context: Context) -> list[Argument]:
    row = context.chosen
    if row is None:
        return []
    if context.candidate(row).kind in ("local", "rented"):
        sentence = _local_sentence(context, row)
        return [(sentence, ()), (_cloud_sentence(context, context.cloud), ())]
    return [(_cloud_sentence(context, row), ())]


def brief(context: Context, row: int) -> Sentence:
    candidate = context.candidate(row)
    if candidate.kind in ("local", "rented"):
        return say("The weights stay as they are.")
    end = (
        load.model(candidate.model).shutdown_date if candidate.model in load.ids("models") else None
    )
    if end is not None:
        return say("Ends on {day:date}.", day=end.date)
    return say("No end is announced; the vendor decides.")


CRITERION = Criterion("permanence", N_("Permanence"), 7, 6, judge, argue, brief)
