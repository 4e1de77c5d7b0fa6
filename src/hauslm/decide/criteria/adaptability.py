"""Adaptability: can the model learn the team's terms, how long is that sold, what does it cost?"""

from __future__ import annotations

from hauslm.base.quantity import derived
from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.decide.candidate import fact
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.records import Cell, Fact, Said


def _tunable(context: Context) -> tuple[int, int, str]:
    """(API models with a price, those that can be tuned on the decision date, the last day of it)."""
    on = context.judged.on
    priced = [m for m in load.models() if m.kind == "api" and (m.price_ref or m.listed_prices)]
    offered = [m for m in priced if not (m.shutdown_date and m.shutdown_date.date <= on)]
    tuned = [
        m
        for m in offered
        if m.fine_tuning == "yes"
        or (m.fine_tuning == "ending" and (m.fine_tuning_until or "9999") > on)
    ]
    last = max((m.fine_tuning_until or "" for m in tuned), default="")
    return len(offered), len(tuned), last


def _cloud_sentence(context: Context) -> Sentence:
    offered, tuned, last = _tunable(context)
    if not tuned:
        return say("None of the {n:,} API models in the catalog is tuned by its vendor.", n=offered)
    if last:
        return say(
            "{tuned:,} of {n:,} API models can still be tuned by the vendor, until {last:date} at the "
            "latest; elsewhere the terms have to stand in every prompt.",
            tuned=tuned, n=offered, last=last,
        )  # fmt: skip
    return say("{tuned:,} of {n:,} API models can be tuned by the vendor.", tuned=tuned, n=offered)


def _training(context: Context, row: int) -> tuple[float, tuple[Fact, ...]]:
    """Hours of one training of the adapter on the machine."""
    found = context.judged.costs
    settings = context.judged.settings
    runs = max(1.0, float(settings.training_runs_per_year) * float(settings.months) / 12)
    hours = float(found.training_hours[row, 0]) / runs
    facts = (
        fact(say("Hours of one training"), derived(hours, "h", "speed formula of the planner")),
        fact(say("Training tokens per pass"), context.parameter("training_tokens")),
    )
    return hours, facts


def judge(context: Context) -> Judgement:
    cloud = Cell(judgement=Said.of(_cloud_sentence(context)))
    row = context.local
    if row is None or not context.candidate(row).tuned:
        return cloud, Cell(judgement=Said.of(say("No own machine that takes an adapter."))), ""
    hours, facts = _training(context, row)
    what = say(
        "The team trains a LoRA adapter itself, {hours:.1f} hours per training, as often as it "
        "likes, and can pass the adapter file on.",
        hours=hours,
    )
    return cloud, Cell(judgement=Said.of(what), facts=facts), "local"


def argue(context: Context) -> list[Argument]:
    if context.chosen is None:
        return []
    chosen = context.candidate(context.chosen)
    found: list[Argument] = []
    if chosen.adaptation == "lora" and chosen.bill is not None and chosen.bill.gpus:
        hours, facts = _training(context, context.chosen)
        what = say(
            "With LoRA the team adapts the model to its terms itself: {hours:.1f} hours per training, "
            "and the adapter file can be shared.",
            hours=hours,
        )
        found.append((what, facts))
    elif not chosen.tuned and context.judged.scenario.adaptation.needed:
        tokens = context.parameter("glossary_tokens")
        what = say(
            "The model is not adapted; {tokens:,} tokens of terms and examples in every prompt stand "
            "in for it. Whether that is enough, the own evaluation must show.",
            tokens=tokens.value,
        )
        found.append((what, (fact(say("Tokens of terms and examples"), tokens),)))
    found.append((_cloud_sentence(context), ()))
    return found


def brief(context: Context, row: int) -> Sentence:
    candidate = context.candidate(row)
    if candidate.adaptation == "vendor":
        return say("Tuned by the vendor.")
    if candidate.tuned:
        return say("Adapted by the team (LoRA).")
    return say("Not adapted: terms stand in every prompt.")


CRITERION = Criterion("adaptability", N_("Adaptability"), 5, 2, judge, argue, brief)
