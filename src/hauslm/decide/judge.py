"""Who may compete? The candidates before the gates: rules, floors, and what the figures rule out.

`judge` takes the candidates of a scenario and the team's answers and says for each: admissible,
conditional or blocked, and why. It is cheap, so that the flip table can ask it again with another
answer. Which of the admissible ones wins is for `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hauslm.base.words import say
from hauslm.catalog import load
from hauslm.catalog.schema import Model
from hauslm.decide import choice
from hauslm.decide.candidate import Candidate, Collected
from hauslm.decide.choice import Contenders, Limits
from hauslm.decide.cost import Bills, Costs, Settings, costs, documents_at_capacity
from hauslm.decide.gates import floor, rule_gates, standing, warning
from hauslm.decide.machines import has_gpu
from hauslm.decide.scores import Panel, panel_for, rank_panel
from hauslm.decide.settings import Parameter, settings_of
from hauslm.records import Gate
from hauslm.scenario import ScenarioAnswers

# AI Act guidelines: a modifier becomes a provider above a third of the original training compute;
# where that is not known, a third of the 1e23 FLOP that make a model general-purpose.
THIRD_OF_COMPUTE_FLOP = 1e23 / 3

FIGURES = ("capacity", "deadline", "budget")  # floors that the figures decide


@dataclass(frozen=True)
class Judged:
    """The candidates with a cost, in the order of `contenders.bills`, and those without."""

    scenario: ScenarioAnswers
    parameters: Mapping[str, Parameter]
    on: str
    candidates: tuple[Candidate, ...]
    incomplete: tuple[Candidate, ...]
    rules: Mapping[str, tuple[Gate, ...]]  # gates that do not depend on figures, by candidate id
    contenders: Contenders

    @cached_property
    def settings(self) -> Settings:
        return settings_of(self.parameters)

    @cached_property
    def costs(self) -> Costs:
        return costs(self.contenders.bills, self.settings)

    @cached_property
    def row(self) -> Mapping[str, int]:
        return {c.id: r for r, c in enumerate(self.candidates)}

    def cost(self, row: int) -> float:
        """EUR over the horizon."""
        return float(self.costs.horizon[row, 0])

    @cached_property
    def standing(self) -> list[int]:
        """ADMISSIBLE, CONDITIONAL or BLOCKED with the figures as they are, by row."""
        found = choice.standing_at(self.contenders, self.costs, self.settings)[:, 0]
        return [int(x) for x in found]

    def gates(self, candidate: Candidate) -> tuple[Gate, ...]:
        """All gates of a candidate, those of the figures included."""
        fixed = self.rules[candidate.id]
        row = self.row.get(candidate.id)
        return fixed if row is None else (*_figure_gates(self, row), *fixed)

    def choose(self) -> int | None:
        """Row of the winner; None if nothing is left."""
        return choice.choose(self.contenders, self.settings, self.better)

    def better(self, rows: Sequence[int]) -> int:
        """Among options that tie in cost: best comparable score, then the lower cost."""
        models = {r: self.candidates[r].scored for r in rows}
        panel = self.panel([m for m in models.values() if m is not None])

        def order(row: int) -> tuple[float, float, str]:
            model = models[row]
            place = panel.place(model.id) if panel and model else float("inf")
            return place, self.cost(row), self.candidates[row].id

        return min(rows, key=order)

    def panel(self, models: Sequence[Model]) -> Panel | None:
        """The scores by which these models can be compared."""
        unique = list({m.id: m for m in models}.values())
        languages = tuple(self.scenario.workload.languages)
        return rank_panel(unique, languages) or panel_for(unique, languages)


def judge(
    collected: Collected,
    scenario: ScenarioAnswers,
    parameters: Mapping[str, Parameter],
    on: str,
) -> Judged:
    """Put every candidate before the rules and the fixed floors."""
    complete = tuple(c for c in collected.candidates if c.complete)
    incomplete = tuple(c for c in collected.candidates if not c.complete)
    memory: dict[object, tuple[Gate, ...]] = {}
    gates = {c.id: _fixed_gates(c, scenario, on, memory) for c in (*complete, *incomplete)}
    bills = [c.bill for c in complete if c.bill is not None]
    needed = scenario.adaptation.needed
    contenders = Contenders(
        Bills(bills),
        np.array([standing(gates[c.id]) for c in complete], dtype=np.int64),
        tuple(c.setting for c in complete),
        np.array([c.tuned or not needed for c in complete], dtype=bool),
        Limits(
            scenario.budget.max_monthly_eur,
            scenario.budget.max_purchase_eur,
            scenario.workload.deadline_days,
        ),
    )
    return Judged(scenario, parameters, on, complete, incomplete, gates, contenders)


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


def _fixed_gates(
    candidate: Candidate,
    scenario: ScenarioAnswers,
    on: str,
    memory: dict[object, tuple[Gate, ...]],
) -> tuple[Gate, ...]:
    """Rules (the same for candidates with the same traits) and floors that are not figures."""
    traits = traits_at(candidate, scenario)
    answers = scenario
    contract = traits.pop("processor_contract", None)
    key = (candidate.kind, contract, *sorted(traits.items()))
    if key not in memory:
        if contract is not None:  # the user's own option answers that for itself
            data = scenario.data.model_copy(update={"processor_contract": contract})
            answers = scenario.model_copy(update={"data": data})
        memory[key] = rule_gates(load.rules(), candidate.kind, answers, traits, on)
    own = (*candidate.floors, *_answer_floors(candidate, scenario))
    blocking = tuple(g for g in own if g.effect == "BLOCK")
    return (*blocking, *memory[key], *(g for g in own if g.effect != "BLOCK"))


# ---------------------------------------------------------------- floors that an answer decides


def _answer_floors(candidate: Candidate, scenario: ScenarioAnswers) -> list[Gate]:
    found: list[Gate] = []
    owned = scenario.hardware.owned and has_gpu(scenario)
    if candidate.paid and not owned:
        found.append(floor("availability", say("The team does not own this machine.")))
    if candidate.bill is not None and candidate.bill.own_staff and not scenario.people.staff_available:
        found.append(
            floor("staff", say("Nobody is there to look after a model that the team runs itself."))
        )
    if candidate.batch and not scenario.workload.batch_possible:
        found.append(
            floor("waiting", say("Answers may not wait, and the batch price means up to a day."))
        )
    found += _quality(candidate, scenario)
    if scenario.adaptation.needed and not candidate.tuned:
        found.append(
            warning(
                "adaptation",
                say("The model is not adapted: domain terms have to stand in every prompt (counted in "
                    "the cost), and whether that is enough only the own evaluation shows."),
            )
        )  # fmt: skip
    return found


def _quality(candidate: Candidate, scenario: ScenarioAnswers) -> list[Gate]:
    """The quality floor: the lowest recorded score counts, and no score is no proof."""
    least = scenario.quality.floor
    if least is None:
        return []
    name = scenario.quality.benchmark
    model = candidate.scored
    scores = [s.score for s in (model.scores if model else ()) if s.benchmark == name and not s.suspect]
    if not scores:
        return [
            floor("quality", say("No score on {benchmark} is recorded, so the floor of {least:.1f} is "
                                 "not shown to be met.", benchmark=name, least=least))
        ]  # fmt: skip
    if min(scores) < least:
        return [
            floor("quality", say("Scores {score:.1f} on {benchmark}; the floor is {least:.1f}.",
                                 score=min(scores), benchmark=name, least=least))
        ]  # fmt: skip
    return []


# ---------------------------------------------------------------- floors that figures decide


def _figure_gates(judged: Judged, row: int) -> tuple[Gate, ...]:
    found, settings, contenders = judged.costs, judged.settings, judged.contenders
    gates: list[Gate] = []
    if choice.out_of_capacity(contenders.bills, found, settings)[row, 0]:
        most = float(documents_at_capacity(found, settings)[row, 0])
        what = say(
            "In the {hours:,} hours a month that it may work it does {most:,} documents; asked for "
            "are {demand:,} a month and {backlog:,} at the start.",
            hours=float(settings.available_hours_per_month), most=most,
            demand=float(settings.documents_per_month), backlog=float(settings.backlog_documents),
        )  # fmt: skip
        gates.append(floor("capacity", what))
    if choice.too_late(contenders.bills, contenders.limits, found, settings)[row, 0]:
        what = say(
            "The backlog takes {hours:,} hours of work, more than fit into {days:,} days.",
            hours=float(found.backlog_hours[row, 0]), days=contenders.limits.deadline_days or 0.0,
        )  # fmt: skip
        gates.append(floor("deadline", what))
    if choice.out_of_budget(contenders, found, settings)[row, 0]:
        what = say(
            "It costs {monthly:EUR} a month (purchase {purchase:EUR}), more than the budget allows.",
            monthly=float(found.monthly[row, 0]),
            purchase=float(choice.purchase_eur(contenders.bills.columns, settings)[row, 0]),
        )  # fmt: skip
        gates.append(floor("budget", what))
    return tuple(gates)
