"""Who may compete? The candidates before the gates: rules, floors, and what the figures rule out.

`judge` takes the candidates of a scenario and the team's answers and says for each: admissible,
conditional or blocked, and why. It is cheap, so that the flip table can ask it again with another
answer. Which of the admissible ones wins is for `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.schema import Model, Rule
from hauslm.decide import choice
from hauslm.decide.candidate import Candidate, Collected
from hauslm.decide.choice import Contenders, Limits
from hauslm.decide.cost import Array, Bills, Costs, Settings, costs, documents_at_capacity
from hauslm.decide.gates import floor, rule_gates, standing_by_rules, warning
from hauslm.decide.places import has_gpu
from hauslm.decide.scores import Panel, panel_for, rank_panel
from hauslm.decide.settings import Parameter, glossary, settings_of
from hauslm.records import Gate
from hauslm.scenario import ScenarioAnswers

# AI Act guidelines: a modifier becomes a provider above a third of the original training compute;
# where that is not known, a third of the 1e23 FLOP that make a model general-purpose.
THIRD_OF_COMPUTE_FLOP = 1e23 / 3


_BITS = {"nf4": 4, "nf4_dq": 4, "int8": 8, "fp8": 8, "bf16": 16}


@dataclass(frozen=True)
class Judged:
    """The candidates with a cost, in the order of `contenders.bills`, and those without."""

    scenario: ScenarioAnswers
    parameters: Mapping[str, Parameter]
    on: str
    candidates: tuple[Candidate, ...]
    incomplete: tuple[Candidate, ...]
    contenders: Contenders
    groups: Alike
    named_model: str = ""  # the base model of the project file: taken where it ties in cost

    @cached_property
    def settings(self) -> Settings:
        return settings_of(self.parameters)

    @cached_property
    def costs(self) -> Costs:
        return costs(self.contenders.bills, self.settings)

    def cost_ranges(self, rows: Sequence[int]) -> dict[int, tuple[float, float]]:
        """Lowest and highest cost of options when one figure at a time is at an end of its range.

        The deviations of the single figures are combined as independent ones (root of the sum of
        squares), which is neither the best nor the worst of all worlds.
        """
        names = [n for n, p in self.parameters.items() if p.quantity.lowest < p.quantity.highest]
        columns: dict[str, Array] = {}
        for place, name in enumerate(names):  # column 2k: the k-th figure low, 2k+1: high
            q = self.parameters[name].quantity
            values = np.full(2 * len(names), float(q.value))
            values[2 * place], values[2 * place + 1] = q.lowest, q.highest
            columns[name] = values
        bills = Bills([self.contenders.bills.rows[r] for r in rows])
        moved = costs(bills, self.settings.with_(**columns)).horizon
        base = np.array([self.cost(r) for r in rows])[:, None]
        delta = (moved - base).reshape(len(rows), len(names), 2)
        down = np.sqrt((np.minimum(delta.min(axis=2), 0.0) ** 2).sum(axis=1))
        up = np.sqrt((np.maximum(delta.max(axis=2), 0.0) ** 2).sum(axis=1))
        return {
            r: (float(base[k, 0] - down[k]), float(base[k, 0] + up[k])) for k, r in enumerate(rows)
        }

    @cached_property
    def row(self) -> Mapping[str, int]:
        return {c.id: r for r, c in enumerate(self.candidates)}

    def cost(self, row: int) -> float:
        """EUR over the horizon."""
        return float(self.costs.horizon[row, 0])

    @cached_property
    def _panels(self) -> dict[frozenset[str], Panel | None]:
        return {}

    @cached_property
    def standing(self) -> list[int]:
        """ADMISSIBLE, CONDITIONAL or BLOCKED with the figures as they are, by row."""
        found = choice.standing_at(self.contenders, self.costs, self.settings)[:, 0]
        return [int(x) for x in found]

    def gates(self, candidate: Candidate) -> tuple[Gate, ...]:
        """All gates of a candidate: what blocks first, the rules, then warnings."""
        own = (*candidate.floors, *(_as_gate(f) for f in answer_floors(candidate, self.scenario)))
        row = self.row.get(candidate.id)
        figures = () if row is None else _figure_gates(self, row)
        blocking = tuple(g for g in own if g.effect == "BLOCK")
        others = tuple(g for g in own if g.effect != "BLOCK")
        answers, traits = before_the_rules(candidate, self.scenario)
        rules = rule_gates(load.rules(), candidate.kind, answers, traits, self.on)
        return (*figures, *blocking, *rules, *others)

    @cached_property
    def exceeded(self) -> Mapping[str, list[bool]]:
        """Which rows exceed capacity, deadline or budget with the figures as they are."""
        found, settings, contenders = self.costs, self.settings, self.contenders
        masks = {
            "capacity": choice.out_of_capacity(contenders.bills, found, settings),
            "deadline": choice.too_late(contenders.bills, contenders.limits, found, settings),
            "budget": choice.out_of_budget(contenders, found, settings),
        }
        return {name: [bool(x) for x in mask[:, 0]] for name, mask in masks.items()}

    def misses_a_floor(self, row: int) -> bool:
        """Blocked by something that is not a rule: fit, figures, or what the team has."""
        candidate = self.candidates[row]
        if any(mask[row] for mask in self.exceeded.values()):
            return True
        if any(g.effect == "BLOCK" for g in candidate.floors):
            return True
        return any(f.effect == "BLOCK" for f in answer_floors(candidate, self.scenario))

    def choose(self) -> int | None:
        """Row of the winner; None if nothing is left."""
        return choice.choose(self.contenders, self.settings, self.better, self.costs)

    def better(self, rows: Sequence[int]) -> int:
        """Among options that tie in cost: the team's own model, the best score, the most room.

        The same model in fewer bits leaves more of the GPU for long articles and for training; its
        quality on the team's task is for the evaluation to say.
        """
        rows = [r for r in rows if self.candidates[r].model == self.named_model] or rows
        models = {r: self.candidates[r].scored for r in rows}
        panel = self.panel([m for m in models.values() if m is not None])

        def order(row: int) -> tuple[float, int, float, str]:
            model = models[row]
            place = panel.place(model.id) if panel and model else float("inf")
            candidate = self.candidates[row]
            bits = _BITS.get(candidate.quantisation, 16)
            return place, bits, self.cost(row), candidate.id

        return min(rows, key=order)

    def panel(self, models: Sequence[Model]) -> Panel | None:
        """The scores by which these models can be compared."""
        unique = {m.id: m for m in models}
        key = frozenset(unique)
        if key not in self._panels:
            languages = tuple(self.scenario.workload.languages)
            pool = list(unique.values())
            self._panels[key] = rank_panel(pool, languages) or panel_for(pool, languages)
        return self._panels[key]


def judge(
    collected: Collected,
    scenario: ScenarioAnswers,
    parameters: Mapping[str, Parameter],
    on: str,
    named_model: str = "",
) -> Judged:
    """Put every candidate before the rules and the fixed floors."""
    complete = tuple(c for c in collected.candidates if c.complete)
    incomplete = tuple(c for c in collected.candidates if not c.complete)
    needed = scenario.adaptation.needed
    groups = alike(complete, by_score=scenario.quality.floor is not None)
    contenders = Contenders(
        Bills([c.bill for c in complete if c.bill is not None]),
        standings(groups, scenario),
        tuple(c.setting for c in complete),
        np.array([c.tuned or not needed for c in complete], dtype=bool),
        Limits(
            scenario.budget.max_monthly_eur,
            scenario.budget.max_purchase_eur,
            scenario.workload.deadline_days,
        ),
    )
    return Judged(scenario, parameters, on, complete, incomplete, contenders, groups, named_model)


def answered(judged: Judged, scenario: ScenarioAnswers) -> Judged:
    """The same candidates and figures before another set of answers."""
    needed = scenario.adaptation.needed
    contenders = replace(
        judged.contenders,
        standing=standings(judged.groups, scenario),
        meets_need=np.array([c.tuned or not needed for c in judged.candidates], dtype=bool),
    )
    parameters = judged.parameters
    same_figures = needed == judged.scenario.adaptation.needed
    if not same_figures:
        parameters = {**parameters, "glossary_tokens": glossary(scenario)}
    found = replace(judged, scenario=scenario, parameters=parameters, contenders=contenders)
    if same_figures:  # the answers change no cost: what was computed is kept
        for name in ("settings", "costs", "row", "_panels"):
            found.__dict__[name] = getattr(judged, name)
    return found


@dataclass(frozen=True)
class Alike:
    """Candidates that stand alike before rules and floors, so that one of each is judged."""

    examples: tuple[Candidate, ...]
    index: choice.Ints  # candidate row -> example


def alike(candidates: Sequence[Candidate], *, by_score: bool) -> Alike:
    """Group the candidates; `by_score` keeps models apart (a quality floor looks at them)."""
    numbers: dict[object, int] = {}
    examples: list[Candidate] = []
    index = np.empty(len(candidates), dtype=np.int64)
    for row, candidate in enumerate(candidates):
        key = _key(candidate, by_score)
        if key not in numbers:
            numbers[key] = len(examples)
            examples.append(candidate)
        index[row] = numbers[key]
    return Alike(tuple(examples), index)


def _key(candidate: Candidate, by_score: bool) -> object:
    """What decides the standing of a candidate."""
    return (
        candidate.kind, candidate.alike, candidate.paid, candidate.batch,
        candidate.scored.id if candidate.scored and by_score else "",
        candidate.retention_days, candidate.training_flop > THIRD_OF_COMPUTE_FLOP,
        any(g.effect == "BLOCK" for g in candidate.floors),
        candidate.bill is not None and candidate.bill.own_staff,
    )  # fmt: skip


def standings(groups: Alike, scenario: ScenarioAnswers) -> choice.Ints:
    """Standing of every candidate after rules and fixed floors."""
    hard = [r for r in load.rules() if r.effect in ("BLOCK", "REQUIRE")]
    found = np.array([_standing(c, scenario, hard) for c in groups.examples], dtype=np.int64)
    return np.asarray(found[groups.index] if len(groups.index) else groups.index)


def _standing(candidate: Candidate, scenario: ScenarioAnswers, rules: Sequence[Rule]) -> int:
    if any(g.effect == "BLOCK" for g in candidate.floors):
        return choice.BLOCKED
    if any(f.effect == "BLOCK" for f in answer_floors(candidate, scenario)):
        return choice.BLOCKED
    answers, traits = before_the_rules(candidate, scenario)
    return standing_by_rules(rules, candidate.kind, answers, traits)


def before_the_rules(
    candidate: Candidate, scenario: ScenarioAnswers
) -> tuple[ScenarioAnswers, dict[str, str]]:
    """The answers and traits that the rules see. The user's own option answers for its contract."""
    traits = traits_at(candidate, scenario)
    contract = traits.pop("processor_contract", None)
    if contract is None:
        return scenario, traits
    data = scenario.data.model_copy(update={"processor_contract": contract})
    return scenario.model_copy(update={"data": data}), traits


def traits_at(candidate: Candidate, scenario: ScenarioAnswers) -> dict[str, str]:
    """What the rules may ask about a candidate, with those traits that an answer decides."""
    traits = dict(candidate.traits)
    allowed = scenario.data.max_retention_days
    if traits["third_party"] == "no" or allowed is None:
        traits["retention"] = "within"
    elif candidate.retention_days is None:
        traits["retention"] = "unknown"
    else:
        traits["retention"] = "within" if candidate.retention_days <= allowed else "beyond"
    over = candidate.training_flop > THIRD_OF_COMPUTE_FLOP
    traits["over_third_of_compute"] = "yes" if over else "no"
    return traits


# ---------------------------------------------------------------- floors that an answer decides


@dataclass(frozen=True)
class Floor:
    """A floor that an answer of the team decides; a sentence, not yet a gate."""

    name: str
    why: Sentence
    effect: str = "BLOCK"


def _as_gate(missed: Floor) -> Gate:
    make = floor if missed.effect == "BLOCK" else warning
    return make(missed.name, missed.why)


def answer_floors(candidate: Candidate, scenario: ScenarioAnswers) -> list[Floor]:
    """What the team has, wants and can do, against what the candidate needs."""
    found: list[Floor] = []
    owned = scenario.hardware.owned and has_gpu(scenario)
    if candidate.paid and not owned:
        found.append(Floor("availability", say("The team does not own this machine.")))
    own_staff = candidate.bill is not None and candidate.bill.own_staff
    if own_staff and not scenario.people.staff_available:
        what = say("Nobody is there to look after a model that the team runs itself.")
        found.append(Floor("staff", what))
    if candidate.batch and not scenario.workload.batch_possible:
        what = say("Answers may not wait, and the batch price means up to a day.")
        found.append(Floor("waiting", what))
    found += _quality(candidate, scenario)
    if scenario.adaptation.needed and not candidate.tuned:
        what = say(
            "The model is not adapted: domain terms have to stand in every prompt (counted in the "
            "cost), and whether that is enough only the own evaluation shows."
        )
        found.append(Floor("adaptation", what, "WARN"))
    return found


def _quality(candidate: Candidate, scenario: ScenarioAnswers) -> list[Floor]:
    """The quality floor: the lowest recorded score counts, and no score is no proof."""
    least = scenario.quality.floor
    if least is None:
        return []
    name = scenario.quality.benchmark
    model = candidate.scored
    scores = [
        s.score for s in (model.scores if model else ()) if s.benchmark == name and not s.suspect
    ]
    if not scores:
        what = say(
            "No score on {benchmark} is recorded, so the floor of {least:.1f} is not shown to be met.",
            benchmark=name, least=least,
        )  # fmt: skip
        return [Floor("quality", what)]
    if min(scores) < least:
        what = say("Scores {score:.1f} on {benchmark}; the floor is {least:.1f}.",
                   score=min(scores), benchmark=name, least=least)  # fmt: skip
        return [Floor("quality", what)]
    return []


# ---------------------------------------------------------------- floors that figures decide


def _figure_gates(judged: Judged, row: int) -> tuple[Gate, ...]:
    found, settings, contenders = judged.costs, judged.settings, judged.contenders
    gates: list[Gate] = []
    if judged.exceeded["capacity"][row]:
        most = float(documents_at_capacity(found, settings)[row, 0])
        what = say(
            "In the {hours:,} hours a month that it may work it does {most:,} documents; asked for "
            "are {demand:,} a month and {backlog:,} at the start.",
            hours=float(settings.available_hours_per_month), most=most,
            demand=float(settings.documents_per_month), backlog=float(settings.backlog_documents),
        )  # fmt: skip
        gates.append(floor("capacity", what))
    if judged.exceeded["deadline"][row]:
        what = say(
            "The backlog takes {hours:,} hours of work, more than fit into {days:,} days.",
            hours=float(found.backlog_hours[row, 0]), days=contenders.limits.deadline_days or 0.0,
        )  # fmt: skip
        gates.append(floor("deadline", what))
    if judged.exceeded["budget"][row]:
        what = say(
            "It costs {monthly:EUR} a month (purchase {purchase:EUR}), more than the budget allows.",
            monthly=float(found.monthly[row, 0]),
            purchase=float(choice.purchase_eur(contenders.bills.columns, settings)[row, 0]),
        )  # fmt: skip
        gates.append(floor("budget", what))
    return tuple(gates)
