"""Privacy and copyright: who gets the documents, and which rules stand in the way?"""

from __future__ import annotations

from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.decide.gates import obstacles
from hauslm.decide.providers import terms
from hauslm.records import Cell, Gate, Said


def judge(context: Context) -> Judgement:
    cloud = _away(context, context.cloud)
    local = _home(context, context.local)
    return cloud, local, "local" if context.local is not None else ""


def _away(context: Context, row: int | None) -> Cell:
    if row is None:
        return Cell(judgement=Said.of(say("No option of this kind has a complete price.")))
    candidate = context.candidate(row)
    provider = terms(_provider(candidate.model))
    standing = obstacles(context.judged.gates(candidate))
    kept: Sentence | str = say("for an unknown time")
    if provider.retention_days is not None:
        kept = say("up to {days:,} days", days=provider.retention_days)
    what = say(
        "The documents go to {provider}; inputs are kept {kept}; training on them: {training}; "
        "processing in the EU: {eu}. {rules}",
        provider=provider.name, kept=kept, training=_word(provider.training),
        eu=_word(provider.eu), rules=_standing(standing),
    )  # fmt: skip
    return Cell(judgement=Said.of(what), facts=context.facts_named(row, "Retention"))


def _provider(model: str) -> str:
    return load.model(model).provider or "" if model in load.ids("models") else ""


def _vendor(model: str) -> str:
    """The vendor's name where its terms were not looked up."""
    return load.model(model).vendor if model in load.ids("models") else model


def _word(answer: str) -> Sentence:
    return {"yes": say("yes"), "no": say("no")}.get(answer, say("not known"))


def _standing(gates: tuple[Gate, ...]) -> Sentence:
    if not gates:
        return say("No rule stands against it with these answers.")
    return say("Against it: rule {rules}.", rules=", ".join(sorted({g.rule for g in gates})))


def _home(context: Context, row: int | None) -> Cell:
    if row is None:
        return Cell(judgement=Said.of(say("No own machine is among the options.")))
    candidate = context.candidate(row)
    standing = obstacles(context.judged.gates(candidate))
    if candidate.traits["third_party"] == "no":
        what = say(
            "The documents stay on the team's own machine: 0 providers receive them. {rules}",
            rules=_standing(standing),
        )
    else:
        what = say("A lessor of the machine could reach the documents. {rules}",
                   rules=_standing(standing))  # fmt: skip
    return Cell(judgement=Said.of(what))


def argue(context: Context) -> list[Argument]:
    """The rules that decide: those that keep the rival out, and those on the winner's side."""
    found: list[Argument] = []
    if context.chosen is None:
        return found
    chosen = context.candidate(context.chosen)
    row = context.cheapest if context.candidate(context.chosen).kind == "local" else context.rival
    if row is not None and row != context.chosen:
        for gate in context.obstacles(row):
            if gate.source:
                what = say(
                    "Rule {rule} keeps {name} out: {text}",
                    rule=gate.rule, name=context.name(row), text=gate.why.sentence(),
                )  # fmt: skip
                found.append((what, ()))
    for gate in context.judged.gates(chosen):
        if gate.effect in ("ALLOW", "FAVOUR"):
            what = say(
                "Rule {rule} speaks for it: {text}", rule=gate.rule, text=gate.why.sentence()
            )
            found.append((what, ()))
        elif gate.effect == "REQUIRE" and gate.severity == "high":
            what = say(
                "Only under a condition, rule {rule}: {text}",
                rule=gate.rule,
                text=gate.why.sentence(),
            )
            found.append((what, ()))
        elif gate.effect == "REQUIRE":
            what = say(
                "To be done as well, rule {rule}: {text}", rule=gate.rule, text=gate.why.sentence()
            )
            found.append((what, ()))
    if not found:
        found.append((say("No rule stands for or against an option with these answers."), ()))
    return found


def brief(context: Context, row: int) -> Sentence:
    if context.candidate(row).traits["third_party"] == "no":
        return say("The documents stay in-house.")
    rules = sorted({g.rule for g in context.obstacles(row) if g.source})
    if rules:
        return say("The documents leave the house; against it: {rules}.", rules=", ".join(rules))
    return say("The documents leave the house; no rule stands against it.")


CRITERION = Criterion("privacy", N_("Privacy and copyright"), 3, 3, judge, argue, brief)
