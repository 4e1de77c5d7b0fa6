"""What changed between two decisions, and why? Sentences, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator

from hauslm.base.words import Sentence, say
from hauslm.records import Decision, Fact, Option, Said

WORTH_SAYING = 0.01  # a change of cost below 1 % is rounding
MOST_COSTS = 10


def diff(old: Decision, new: Decision) -> list[Said]:
    """The differences from `old` to `new`: verdict, figures and answers, gates, costs, options."""
    found = [
        *_verdict(old, new),
        *_figures(old, new),
        *_answers(old, new),
        *_gates(old, new),
        *_costs(old, new),
        *_options(old, new),
    ]
    if not found:
        found = [say("Nothing changed: the same verdict on the same figures.")]
    return [Said.of(s) for s in found]


def _verdict(old: Decision, new: Decision) -> Iterator[Sentence]:
    if old.verdict.option != new.verdict.option:
        yield say(
            "The verdict went from {old} to {new}.",
            old=old.verdict.title.sentence(), new=new.verdict.title.sentence(),
        )  # fmt: skip
        before = {o.id: o for o in new.options}.get(old.verdict.option)
        if before is None:
            yield say("The former choice, {name}, is no longer among the options shown.",
                      name=old.verdict.option)  # fmt: skip
        elif not before.admissible:
            rules = sorted({g.rule for g in before.gates if g.effect in ("BLOCK", "REQUIRE")})
            yield say("The former choice is no longer admissible: {rules}.", rules=", ".join(rules))
    if old.decision_date != new.decision_date:
        yield say(
            "Prices are those of {new:date} instead of {old:date}.",
            new=new.decision_date, old=old.decision_date,
        )  # fmt: skip
    before_p = old.probability_verdict_holds.value
    after_p = new.probability_verdict_holds.value
    if abs(before_p - after_p) >= WORTH_SAYING:
        yield say(
            "The verdict now holds in {new:.0%} of the draws instead of {old:.0%}.",
            new=after_p, old=before_p,
        )  # fmt: skip


def _key(fact: Fact) -> str:
    return fact.label.template or fact.label.text


def _figures(old: Decision, new: Decision) -> Iterator[Sentence]:
    """Shared figures with another value or another way of knowing."""
    before = {_key(f): f for f in old.parameters}
    for fact in new.parameters:
        former = before.get(_key(fact))
        if former is None:
            continue
        a, b = former.quantity, fact.quantity
        if a.value != b.value:
            yield say(
                "{label}: {new} {unit} instead of {old} ({known}).",
                label=fact.label.sentence(), new=b.value, unit=b.unit, old=a.value, known=_known(b.known),
            )  # fmt: skip
        elif a.known != b.known:
            yield say(
                "{label}: now {new} instead of {old}.",
                label=fact.label.sentence(), new=_known(b.known), old=_known(a.known),
            )  # fmt: skip


def _known(known: str) -> Sentence:
    return {
        "given": say("given"),
        "measured": say("measured"),
        "sourced": say("sourced"),
        "derived": say("derived"),
    }.get(known, say("assumed"))


def _answers(old: Decision, new: Decision) -> Iterator[Sentence]:
    closed = [p for p in old.unanswered if p not in new.unanswered]
    opened = [p for p in new.unanswered if p not in old.unanswered]
    if closed:
        yield say("Answered since, or no longer asked: {names}.", names=_names(closed))
    if opened:
        yield say("Open since: {names}.", names=_names(opened))


def _names(paths: list[str]) -> str:
    return ", ".join(p.removeprefix("scenario.") for p in paths)


def _gates(old: Decision, new: Decision) -> Iterator[Sentence]:
    """Options that a rule or floor newly keeps out, or lets in again; grouped by what did it."""
    before = {o.id: o for o in old.options}
    shut: dict[str, list[str]] = {}
    opened: dict[str, list[str]] = {}
    for option in new.options:
        former = before.get(option.id)
        if former is None or former.admissible == option.admissible:
            continue
        if option.admissible:
            opened.setdefault(_obstacles(former), []).append(option.id)
        else:
            shut.setdefault(_obstacles(option), []).append(option.id)
    for rules, names in shut.items():
        yield say("No longer admissible ({rules}): {names}.", rules=rules, names=", ".join(names))
    for rules, names in opened.items():
        yield say("Admissible now ({rules} gone): {names}.", rules=rules, names=", ".join(names))


def _obstacles(option: Option) -> str:
    hard = {
        g.rule
        for g in option.gates
        if g.effect == "BLOCK" or (g.effect == "REQUIRE" and g.severity == "high")
    }
    return ", ".join(sorted(hard))


def _costs(old: Decision, new: Decision) -> Iterator[Sentence]:
    """Changes of cost, the largest shares first."""
    before = {o.id: o.cost for o in old.options if o.cost}
    changes = []
    for option in new.options:
        former = before.get(option.id)
        if former is None or option.cost is None or not former.monthly.value:
            continue
        share = option.cost.monthly.value / former.monthly.value - 1
        if abs(share) >= WORTH_SAYING:
            changes.append((share, option, former.monthly.value, option.cost.monthly.value))
    changes.sort(key=lambda c: (-abs(c[0]), c[1].id))
    for share, option, was, now in changes[:MOST_COSTS]:
        more = say("more") if share > 0 else say("less")
        yield say(
            "{name}: {now:EUR} a month instead of {was:EUR} ({share:.0%} {more}).",
            name=option.id, now=now, was=was, share=abs(share), more=more,
        )  # fmt: skip
    if len(changes) > MOST_COSTS:
        yield say("{n:,} more options changed their cost.", n=len(changes) - MOST_COSTS)


def _options(old: Decision, new: Decision) -> Iterator[Sentence]:
    was, now = {o.id for o in old.options}, {o.id for o in new.options}
    if now - was:
        yield say("New among the options shown: {names}.", names=", ".join(sorted(now - was)))
    if was - now:
        yield say("No longer among the options shown: {names}.", names=", ".join(sorted(was - now)))
