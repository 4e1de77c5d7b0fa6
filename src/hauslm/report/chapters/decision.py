"""The decision as a consultant would tell it: verdict, reasons, figures, what would flip it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from hauslm.base.words import N_, say
from hauslm.records import Decision, Fact, Flip, Option
from hauslm.report import plots
from hauslm.report.blocks import Writer

CRITERIA = {
    "cost": N_("Cost"),
    "adaptability": N_("Adaptability"),
    "privacy": N_("Privacy and rights"),
    "resources": N_("Compute resources"),
    "upkeep": N_("Upkeep"),
    "permanence": N_("Permanence"),
    "performance": N_("Performance"),
}
KINDS = {
    "local": N_("local"),
    "rented": N_("rented GPU"),
    "cloud": N_("cloud API"),
    "hosted": N_("hosted open model"),
}
# What the raw answers of the project file mean.
ANSWERS = {
    "yes": N_("yes"),
    "no": N_("no"),
    "unknown": N_("unknown"),
    "own": N_("our own works"),
    "open": N_("works under an open licence"),
    "third_party": N_("works of third parties"),
    "non_commercial": N_("non-commercial research"),
    "commercial": N_("commercial"),
    "none": N_("no GPU"),
}
EFFECTS = {
    "BLOCK": N_("forbids"),
    "REQUIRE": N_("demands"),
    "WARN": N_("warns"),
    "ALLOW": N_("allows"),
    "FAVOUR": N_("speaks for"),
}
SHOWN_OPTIONS = 12
SHOWN_FLIPS = 12


def write(w: Writer, decision: Decision) -> None:
    w.heading(say("The decision"))
    w.callout("verdict", say("{title}", title=w.t(decision.verdict.title)))
    _reasons(w, decision)
    _options(w, decision)
    _alternatives(w, decision)
    _break_even(w, decision)
    _flips(w, decision)
    if not w.brief:
        _tornado(w, decision)
        _assumptions(w, decision)
        _rules(w, decision)
    for notice in decision.notices:
        w.callout("note", notice)


def _reasons(w: Writer, decision: Decision) -> None:
    """One short list per criterion, in the order of the verdict (the lab sheet's)."""
    w.heading(say("Why"), 3)
    for criterion in dict.fromkeys(r.criterion for r in decision.verdict.reasons):
        w.heading(CRITERIA.get(criterion, criterion), 4)
        lines = []
        for reason in decision.verdict.reasons:
            if reason.criterion == criterion:
                figures = "" if w.brief else "; ".join(w.facts(_telling(reason.facts), 4))
                lines.append(w.t(reason) + (f" ({figures})" if figures else ""))
        w.bullets(lines)


def _telling(facts: Iterable[Fact]) -> list[Fact]:
    """What the sentence does not say already: figures with a source, a range or an assumption of their
    own. Computed sums of one option and of its rival bear the same label; the tables tell them apart."""
    return [f for f in facts if f.quantity.known != "derived" or f.quantity.low is not None]


def _by_cost(options: Iterable[Option]) -> list[Option]:
    return sorted(options, key=lambda o: o.cost.horizon.value if o.cost else float("inf"))


def _adapted(option: Option) -> bool:
    return option.adaptation not in ("", "none")


def _shown(decision: Decision, room: int) -> list[Option]:
    """The rows of the table: what a reader would weigh against the recommendation, in that order.

    The recommended one; what does the same work (adapted, where it is adapted), each place's cheapest
    before further models in the same place; the same model without an adapter, which says what the
    adaptation costs; and the cheapest of what a rule keeps out, which says what the rule costs.
    """
    chosen = next((o for o in decision.options if o.id == decision.verdict.option), None)
    refused = _by_cost(o for o in decision.options if not o.admissible and o.cost)[: room // 3]
    open_ones = _by_cost(o for o in decision.options if o.admissible and o is not chosen)
    if chosen is None:
        return [*open_ones[: room - len(refused)], *refused]
    same = [o for o in open_ones if _adapted(o) == _adapted(chosen)]
    bare = [o for o in open_ones if o not in same and o.model == chosen.model]
    cheapest = [o for o in open_ones if o not in same and o not in bare][:1]
    rest = [*bare[:1], *cheapest]
    places: dict[str, Option] = {chosen.hardware: chosen}
    for option in same:
        places.setdefault(option.hardware, option)
    first = [o for o in places.values() if o is not chosen]
    same = [*_by_cost(first), *(o for o in same if o not in first)]
    return [chosen, *same[: room - 1 - len(rest) - len(refused)], *rest, *refused]


def _options(w: Writer, decision: Decision) -> None:
    w.heading(say("The options"), 3)
    kept = len(decision.options)
    shown = _shown(decision, SHOWN_OPTIONS if not w.brief else 8)
    rows = []
    for option in shown:
        cost = option.cost
        blocking = [g for g in option.gates if g.effect in ("BLOCK", "REQUIRE")]
        if option.admissible:
            allowed = w.t(say("yes"))
        else:
            rules = ", ".join(dict.fromkeys(g.rule for g in blocking)) or w.t(say("see gates"))
            allowed = w.t(say("no: {rules}", rules=rules))
        rows.append(
            (
                w.t(option.title),
                w.t(KINDS[option.kind]),
                w.t(say("yes") if _adapted(option) else say("no")),
                w.number(cost.monthly.value, "EUR") if cost else w.t(say("price not found")),
                w.number(cost.per_document.value * 1000, "EUR") if cost else "–",
                allowed,
            )
        )
    w.table(
        [
            say("Option"), say("Kind"), say("Adapted"), say("Per month"), say("Per 1,000 documents"),
            say("Admissible"),
        ],
        rows,
        caption=say(
            "{shown} of {kept} options; {considered:,} combinations were evaluated.",
            shown=len(shown), kept=kept, considered=max(decision.considered, kept),
        ),
        align="lllrrl",
        marked=0,
    )  # fmt: skip
    priced = [o for o in shown if o.cost]
    if not w.brief and priced:
        table = w.make_table(
            [say("Option"), say("Cost over the horizon")],
            [(w.t(o.title), w.number(o.cost.horizon.value, "EUR")) for o in priced if o.cost],
            align="lr",
        )
        svg = plots.bars(
            [
                (
                    textwrap.fill(w.t(o.title), 44),
                    o.cost.horizon.value,
                    o.id == decision.verdict.option,
                )
                for o in priced
                if o.cost
            ],
            w.t(say("Cost of each option over the horizon")),
            "EUR",
            language=w.language,
        )
        w.figure(
            svg,
            say("Cost over the horizon"),
            say(
                "The recommended option is drawn in blue. Options that are not admissible are shown too: a cheaper one among them says what the rule costs."
            ),
            table,
        )
    chosen = next((o for o in decision.options if o.id == decision.verdict.option), None)
    if chosen and chosen.cost and not w.brief:
        w.table(
            [say("Cost item of the recommended option"), say("Over the horizon")],
            [(w.t(f.label), w.quantity(f.quantity)) for f in chosen.cost.lines],
            align="lr",
        )


def _alternatives(w: Writer, decision: Decision) -> None:
    """The best of every other kind: what it would save, what keeps it out, where costs meet."""
    if not decision.alternatives:
        return
    rows = []
    for other in decision.alternatives:
        even = other.break_even.documents_per_month
        rows.append(
            (
                w.t(other.title),
                w.number(other.monthly.value, "EUR"),
                w.number(other.difference.value, "EUR"),
                w.t(say("yes") if other.adapted else say("no")),
                ", ".join(other.obstacles) or w.t(say("none")),
                w.number(even, ",.0f") if even is not None else w.t(say("nowhere")),
            )
        )
    w.heading(say("Against the best of every other kind"), 3)
    w.table(
        [
            say("Alternative"), say("Per month"), say("Cheaper by"), say("Adapted"),
            say("Kept out by"), say("Equal at"),
        ],
        rows,
        caption=say(
            "A positive sum under Cheaper by is what the rules that keep an alternative out cost a "
            "month. Equal at: documents a month at which both cost the same."
        ),
        align="lrrllr",
    )  # fmt: skip


def _break_even(w: Writer, decision: Decision) -> None:
    even = decision.break_even
    w.heading(say("Break-even"), 3)
    if even.reason is not None:
        w.text(even.reason)
    rows = [
        (w.t(label), w.number(value, ",.0f" if value >= 100 else ".1f"))
        for label, value in (
            (say("Documents per month"), even.documents_per_month),
            (say("Tokens per month"), even.tokens_per_month),
            (say("Months"), even.months),
        )
        if value is not None
    ]
    if rows:
        w.table(
            [say("Equal cost at"), say("Figure")],
            rows,
            align="lr",
            caption=say("Against {option}.", option=even.against),
        )


def end_of(w: Writer, value: object, unit: str) -> str:
    """One end of a flip: a figure with its unit, or answers in words."""
    if isinstance(value, bool):
        return w.t(say("yes") if value else say("no"))
    if isinstance(value, (int, float)):
        return f"{w.number(value, 'g')} {'' if unit == '1' else w.t(unit)}".strip()
    if value is None:
        return "–"
    return ", ".join(w.t(ANSWERS.get(part, part)) for part in str(value).split(", "))


def _becomes(w: Writer, decision: Decision, flip: Flip) -> str:
    """The option's title where the record holds it, else its id."""
    if not flip.becomes:
        return w.t(say("nothing that is admissible"))
    if flip.becomes_title is not None:
        return w.t(flip.becomes_title)
    return next((w.t(o.title) for o in decision.options if o.id == flip.becomes), flip.becomes)


def _flips(w: Writer, decision: Decision) -> None:
    w.heading(say("What would flip the verdict"), 3)
    probability = decision.probability_verdict_holds
    w.text(
        say(
            "Over the ranges of all assumptions the verdict holds in {share:.0%} of the cases.",
            share=probability.value / 100 if probability.unit == "%" else probability.value,
        )
    )
    flips = decision.flips[: SHOWN_FLIPS if not w.brief else 6]
    w.table(
        [say("If this changed"), say("from"), say("to"), say("the verdict would be")],
        [
            (
                w.t(f.title),
                end_of(w, f.from_, f.unit),
                end_of(w, f.to, f.unit),
                _becomes(w, decision, f),
            )
            for f in flips
        ],
        align="lrrl",
    )
    if decision.switching_value is not None:
        w.text(
            say(
                "Switching value: {value} is what the recommendation costs or saves against the best rival.",
                value=w.quantity(decision.switching_value, cite=False),
            )
        )


def _tornado(w: Writer, decision: Decision) -> None:
    rows = [
        (w.t(i.title), i.advantage_at_low, i.advantage_at_high) for i in decision.sensitivity[:10]
    ]
    if not rows:
        return
    here = next(
        (
            (i.advantage_at_low + i.advantage_at_high) / 2
            for i in decision.sensitivity
            if i.low == i.high
        ),
        None,
    )
    if here is None:
        # The advantage now lies inside every bar; the narrowest bar is the best guess of it.
        narrow = min(
            decision.sensitivity, key=lambda i: abs(i.advantage_at_high - i.advantage_at_low)
        )
        here = (narrow.advantage_at_low + narrow.advantage_at_high) / 2
    table = w.make_table(
        [say("Assumption"), say("at its low end"), say("at its high end")],
        [(n, w.number(a, "EUR"), w.number(b, "EUR")) for n, a, b in rows],
        align="lrr",
    )
    svg = plots.tornado(
        rows,
        w.t(say("Cost advantage over the rival for each assumption")),
        "EUR",
        here,
        language=w.language,
    )
    w.figure(
        svg,
        say("Which assumption matters most"),
        say(
            "Cost advantage of the recommended option over its best rival, with each assumption at the low (orange) and high (blue) end of its range. Left of the dashed line the rival is cheaper."
        ),
        table,
    )


def _assumptions(w: Writer, decision: Decision) -> None:
    if decision.assumptions:
        w.heading(say("Assumptions"), 3)
        w.bullets(w.facts(decision.assumptions))


def _rules(w: Writer, decision: Decision) -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for option in decision.options:
        for gate in option.gates:
            mark = f"{gate.source} ⚠" if gate.source_expired else gate.source
            seen.setdefault(
                gate.rule,
                (gate.rule, w.t(EFFECTS.get(gate.effect, gate.effect)), w.t(gate.why), mark),
            )
    if seen:
        w.heading(say("Rules that were applied"), 3)
        w.table(
            [say("Rule"), say("Effect"), say("Why"), say("Source")], [seen[k] for k in sorted(seen)]
        )
        w.callout(
            "note",
            say(
                "These rules are no legal advice; a rule marked ⚠ rests on a source that should be checked again."
            ),
        )
