"""Which option, why, and what would overturn it: gates, then cost, then sensitivity.

`decide` is the room's one entrance: it puts together what the other modules found and says it in
sentences. It never weighs criteria against each other: rules and floors exclude, cost ranks, scores
break ties within one place, and what privacy would have to be worth is printed as a price.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import Sentence, language, say, speaking
from hauslm.catalog import load
from hauslm.catalog.local import catalog_id_of
from hauslm.decide import keep, sensitivity
from hauslm.decide.answers import answer_flips, asked
from hauslm.decide.candidate import Candidate, Collected, fact
from hauslm.decide.choice import ADMISSIBLE, CONDITIONAL, TIE_SHARE
from hauslm.decide.context import Context
from hauslm.decide.cost import LINES
from hauslm.decide.criteria import criteria
from hauslm.decide.gates import legal_notice, rule_text, unknown_answers
from hauslm.decide.judge import Judged, judge
from hauslm.decide.measured import counted, measurements
from hauslm.decide.options import generate
from hauslm.decide.settings import parameters, settings_of
from hauslm.records import (
    Cost,
    Decision,
    Evaluation,
    Fact,
    Flip,
    Option,
    Reason,
    Record,
    Said,
    Verdict,
    sentences,
)
from hauslm.scenario import Scenario

REVISIT_DAYS = 183  # prices and rules are looked at again after half a year at the latest
FIRST_DATE = "2023-03-01"  # before this the catalog knows no API price


Measured = Iterable[Record] | Mapping[str, Record]


@dataclass(frozen=True)
class Situation:
    """The scenario before the gates: what `decide` and `compare` start from."""

    context: Context
    collected: Collected
    notices: tuple[Sentence, ...]


def situation(
    scenario: Scenario,
    *,
    measured: Measured = (),
    evaluation: Evaluation | None = None,
) -> Situation:
    """Candidates, rules and figures of a scenario, with the winner if there is one.

    Raises `UsageError` H120 (unknown GPU), H231 (no tariff), H241 (date outside the price data),
    H240 (a gap of the catalog that only the
    user can fill).
    """
    answers = scenario.scenario
    on = decision_date(scenario)
    records = tuple(measured.values() if isinstance(measured, Mapping) else measured)
    named = named_base(scenario)
    texts, notices = counted(records, answers, named)
    notices += _unlisted(named)
    found = parameters(answers, texts)
    rows, said = measurements(records, answers)
    notices += said
    collected = generate(answers, settings_of(found), on, rows, texts)
    judged = judge(collected, answers, found, on.isoformat(), named)
    return Situation(Context(judged, judged.choose(), evaluation), collected, tuple(notices))


def named_base(scenario: Scenario) -> str:
    """The base model of the project file as the catalog calls it, else as it stands there."""
    base = scenario.model.base
    return catalog_id_of(base) or base


def _unlisted(base: str) -> list[Sentence]:
    """A base model of the team's own has no catalog figures: it cannot be an option by itself."""
    if base in load.ids("models") or base == "embedded":
        return []
    return [
        say(
            "The base model {name} of the project file is not in the catalog and so is not among the "
            "options; enter it under scenario.options with its figures.",
            name=base,
        )
    ]


def decision_date(scenario: Scenario) -> datetime.date:
    """The day whose prices count. H241 for a day that the price data cannot know."""
    stated = scenario.scenario.horizon.decision_date
    today = datetime.date.today()
    if stated is None:
        return today
    try:
        day = datetime.date.fromisoformat(stated)
    except ValueError as error:
        raise UsageError(
            "H241",
            say("There is no day {day}.", day=stated),
            where="hauslm.yaml: scenario.horizon.decision_date",
            next_step=say("Write the date as YYYY-MM-DD, or leave it empty for today."),
        ) from error
    if stated < FIRST_DATE or day > today + datetime.timedelta(days=366):
        raise UsageError(
            "H241",
            say("For {day:date} there are no prices: the price data begin on {first:date}, and more "
                "than a year ahead nobody has announced any.", day=stated, first=FIRST_DATE),
            where="hauslm.yaml: scenario.horizon.decision_date",
            next_step=say("Choose a day in between, or leave it empty for today."),
        )  # fmt: skip
    return day


def decide(
    scenario: Scenario,
    *,
    measured: Measured = (),
    evaluation: Evaluation | None = None,
    previous: Decision | None = None,
    seed: int = 0,
) -> Decision:
    """The decision for a scenario.

    `measured` are records of this machine (Plan with evidence probe, Run, Analysis; by name or in any
    order) whose figures replace estimates; `evaluation` replaces benchmarks; against `previous` the changes are told.
    Raises `RefusedError` H460 with the rules if no option is left, and what `situation` raises.
    """
    with speaking(language()):  # asked once, not for every sentence
        return _decide(scenario, measured, evaluation, previous, seed)


def _decide(
    scenario: Scenario,
    measured: Measured,
    evaluation: Evaluation | None,
    previous: Decision | None,
    seed: int,
) -> Decision:
    place = situation(scenario, measured=measured, evaluation=evaluation)
    context = place.context
    if context.chosen is None:
        raise _refused(context)
    field = sensitivity.field_of(context.judged, context.chosen)
    kept = keep.kept_rows(context, context.chosen)
    ranges = context.judged.cost_ranges(kept)
    beaten = keep.dominated(context, kept)
    cuts = keep.pruned(context, place.collected, kept)
    flips = [*answer_flips(context), *sensitivity.figure_flips(context, field)]
    decision = Decision(
        notices=sentences(_notices(place)),
        verdict=_verdict(context),
        options=(
            *(_option(context, context.candidate(r), ranges[r], beaten.get(r, "")) for r in kept),
            *(_option(context, c, None, "") for c in _incomplete(context.judged)),
        ),
        break_even=sensitivity.break_even(context),
        alternatives=tuple(sensitivity.alternatives(context)),
        flips=tuple(_titled(context, f) for f in flips[: sensitivity.MOST_FLIPS]),
        sensitivity=tuple(sensitivity.tornado(context)),
        probability_verdict_holds=sensitivity.probability(context, field, seed=seed),
        switching_value=sensitivity.switching_value(context),
        considered=place.collected.considered,
        pruned={k: Said.of(v) for k, v in cuts.items()},
        assumptions=tuple(_figures(context, assumed=True)),
        parameters=tuple(_figures(context, assumed=False)),
        unanswered=unknown_answers(load.rules(), context.judged.scenario),
        decision_date=context.judged.on,
        revisit_on=_revisit(context),
        triggers=sentences(_triggers(context)),
    )
    if previous is None:
        return decision
    from hauslm.decide.diff import diff

    return decision.model_copy(update={"changes": tuple(diff(previous, decision))})


# ---------------------------------------------------------------- the verdict in words


def _verdict(context: Context) -> Verdict:
    chosen = context.chosen
    assert chosen is not None  # noqa: S101 - decide refuses before
    candidate = context.candidate(chosen)
    reasons: list[Reason] = []
    for criterion in sorted(criteria(), key=lambda c: c.place_in_verdict):
        for sentence, facts in criterion.argue(context):
            said = Said.of(sentence)
            reasons.append(
                Reason(
                    text=said.text, template=said.template, values=said.values,
                    criterion=criterion.id, facts=facts,
                )
            )  # fmt: skip
    cheapest = context.cheapest
    cheaper = ""
    if cheapest is not None and context.judged.cost(cheapest) < context.judged.cost(chosen):
        other = context.candidate(cheapest)
        cheaper = other.id if other.setting != candidate.setting else ""
    return Verdict(
        option=candidate.id,
        kind=candidate.kind,
        title=Said.of(candidate.title),
        reasons=tuple(reasons),
        cheaper_option=cheaper,
    )


def _refused(context: Context) -> RefusedError:
    """No option is left: which rules keep out what, and where to look."""
    judged = context.judged
    by_kind: dict[str, set[str]] = {}
    for row, candidate in enumerate(judged.candidates):
        rules = {g.rule for g in context.obstacles(row) if g.effect == "BLOCK"}
        known = by_kind.get(candidate.kind)
        # The shortest list of obstacles is what stands between this kind and a verdict.
        if known is None or len(rules) < len(known):
            by_kind[candidate.kind] = rules
    parts = "; ".join(
        f"{kind}: {', '.join(sorted(names))}" for kind, names in sorted(by_kind.items())
    )
    named = sorted({n for names in by_kind.values() for n in names})
    known_rules = set(load.ids("rules"))
    texts = [load.rule(n) for n in named if n in known_rules]
    first = (
        rule_text(texts[0])
        if texts
        else say("No machine that is there or may be bought can do it.")
    )
    questions = sorted({p for r in texts for p in r.when if p.startswith("scenario.")})
    return RefusedError(
        "H460",
        say(
            "No option is left. What stands against each kind: {parts}. {text}",
            parts=parts,
            text=first,
        ),
        where="hauslm.yaml: " + (", ".join(questions) if questions else "scenario"),
        next_step=say(
            "Check these answers, or add a machine, staff or an option of the own institution "
            "(scenario.options with under_own_contract)."
        ),
    )


# ---------------------------------------------------------------- options


def _incomplete(judged: Judged) -> tuple[Candidate, ...]:
    return tuple(sorted(judged.incomplete, key=lambda c: c.id))


def _option(
    context: Context, candidate: Candidate, ends: tuple[float, float] | None, beaten_by: str
) -> Option:
    judged = context.judged
    row = judged.row.get(candidate.id)
    gates = judged.gates(candidate)
    facts = candidate.facts
    said: dict[str, Said] = {}
    if row is not None:
        said = {c.id: Said.of(c.brief(context, row)) for c in criteria()}
    for missing in candidate.missing:
        said["missing"] = Said.of(missing)
    for number, note in enumerate(candidate.notes, 1):
        said[f"note_{number}"] = Said.of(note)
    admissible = (
        not context.obstacles(row)
        if row is not None
        else not any(
            g.effect == "BLOCK" or (g.effect == "REQUIRE" and g.severity == "high") for g in gates
        )
    )
    return Option(
        id=candidate.id,
        kind=candidate.kind,
        title=Said.of(candidate.title),
        model=candidate.model,
        hardware=candidate.hardware,
        quantisation=candidate.quantisation,
        adaptation=candidate.adaptation,
        admissible=admissible,
        complete=candidate.complete,
        gates=gates,
        cost=_cost(context, row, ends) if row is not None and ends is not None else None,
        criteria=said,
        facts=facts,
        dominated_by=beaten_by,
    )


def _cost(context: Context, row: int, ends: tuple[float, float]) -> Cost:
    judged = context.judged
    source = "cost formula over the horizon"
    low, high = ends
    months = float(judged.settings.months)
    total = judged.cost(row)
    lines = [
        fact(Sentence(title, {}), derived(float(judged.costs.lines[name][row, 0]), "EUR", source))
        for name, title in LINES.items()
        if float(judged.costs.lines[name][row, 0]) != 0.0
    ]
    each = context.per_document(row)
    return Cost(
        monthly=derived(total / months, "EUR/month", source, low / months, high / months),
        horizon=derived(total, "EUR", source, low, high),
        per_document=_per_document(each, total, low, high, source),
        lines=tuple(lines),
    )


def _per_document(
    each: float | None, total: float, low: float, high: float, source: str
) -> Quantity:
    """Per document; without any demand the whole horizon stands for one, and the source says so."""
    if each is None:
        return derived(total, "EUR/document", source + "; no documents are demanded", low, high)
    scale = each / total if total else 0.0
    return derived(each, "EUR/document", source, low * scale, high * scale)


# ---------------------------------------------------------------- notices, assumptions, revisit


def _figures(context: Context, *, assumed: bool) -> list[Fact]:
    """The shared figures: those that nobody stated, or all of them."""
    found = [
        fact(Sentence(p.title, {}), p.quantity)
        for p in context.judged.parameters.values()
        if not assumed or p.quantity.known == "assumed"
    ]
    if assumed:
        tie = Quantity(TIE_SHARE, "1", "assumed", source="what a cost estimate can tell apart")
        found.append(fact(say("Costs of one place that count as equal"), tie))
    return found


def _titled(context: Context, flip: Flip) -> Flip:
    row = context.judged.row.get(flip.becomes)
    if row is None:
        return flip
    return flip.model_copy(update={"becomes_title": Said.of(context.name(row))})


def _notices(place: Situation) -> list[Sentence]:
    context = place.context
    judged, chosen = context.judged, context.chosen
    assert chosen is not None  # noqa: S101 - decide refuses before
    found = [legal_notice(), *place.notices]
    standing = judged.standing[chosen]
    if standing == CONDITIONAL:
        rules = ", ".join(sorted({g.rule for g in context.obstacles(chosen)}))
        found.append(
            say("No option is free of obstacles. The verdict holds only once the condition of rule "
                "{rules} is met; until then no document may be sent.", rules=rules)
        )  # fmt: skip
    if context.evaluation is not None and context.evaluation.verdict != "better":
        found.append(
            say(
                "The own evaluation shows no gain from the adapter: if that stays so, set adaptation.needed "
                "to false and decide again."
            )
        )
    expired = sorted(r.id for r in load.rules() if r.expired(judged.on))
    if expired:
        found.append(
            say("The sources of these rules should have been checked again by now: {rules}.",
                rules=", ".join(expired))
        )  # fmt: skip
    missing = sorted(judged.incomplete, key=lambda c: c.id)
    if missing:
        found.append(
            say("Listed without a cost, because a price was not found: {names}.",
                names=[c.title for c in missing])
        )  # fmt: skip
    cheaper = sensitivity.rival_cheaper(context)
    if cheaper is not None and context.rival is not None:
        found.append(
            say("By cost alone {name} would win in {share:.0%} of the draws over the assumed ranges.",
                name=context.name(context.rival), share=cheaper)
        )  # fmt: skip
    open_answers = unknown_answers(load.rules(), judged.scenario)
    if open_answers:
        found.append(
            say("Unanswered, so the stricter case was taken: {names}.",
                names=asked([p.removeprefix("scenario.") for p in open_answers]))
        )  # fmt: skip
    if judged.scenario.hardware.count > 1 and standing == ADMISSIBLE:
        found.append(say("Each model has to fit on one GPU; several GPUs share the documents."))
    found += context.candidate(chosen).notes
    return found


def _revisit(context: Context) -> str:
    """Half a year on, or earlier when a rule's source is due or a price changes."""
    on = context.judged.on
    days = [(datetime.date.fromisoformat(on) + datetime.timedelta(days=REVISIT_DAYS)).isoformat()]
    days += [r.expires_on for r in load.rules() if r.expires_on > on]
    days += [d for d in _price_changes(context) if d > on]
    return min(days)


def _price_changes(context: Context) -> list[str]:
    """Announced price changes and shut-downs of the API compared with."""
    row = context.cloud
    if row is None:
        return []
    model = context.candidate(row).model
    end = load.model(model).shutdown_date if model in load.ids("models") else None
    changes = context.facts_named(row, "Price of input from {day:date} on")
    found = [end.date] if end else []
    return [d for d in (*found, *(str(c.label.values.get("day", "")) for c in changes)) if d]


def _triggers(context: Context) -> list[Sentence]:
    """Events that call for a new decision before the date."""
    found = [
        say("An answer that is still open is given: {names}.", names=", ".join(
            p.removeprefix("scenario.")
            for p in unknown_answers(load.rules(), context.judged.scenario)
        ))
        if unknown_answers(load.rules(), context.judged.scenario)
        else say("An answer about the data changes."),
        say("The demand doubles or halves ({documents:,} documents a month were counted).",
            documents=context.parameter("documents_per_month").value),
        say("The own evaluation contradicts the benchmarks, or shows no gain from the adapter."),
        say("A court or a regulator changes a rule named here (C-703/25 P and C-250/25 are pending)."),
    ]  # fmt: skip
    found += [
        say("On {day:date} a price changes or a model ends.", day=d)
        for d in _price_changes(context)
    ]
    return found
