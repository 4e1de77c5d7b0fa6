"""Does it fit, how long, how much, and which settings would a specialist choose?

`plan` answers for a project, `plan_free` for a free-standing question. Both go the same way: what is
planned for (`subject`), what may vary (`choose`), the verdict in words (`advice`), the record
(`record`). What the user fixed is honoured; everything else is chosen and says why.
"""

from __future__ import annotations

from pathlib import Path

from hauslm.base.errors import UsageError
from hauslm.base.progress import Progress
from hauslm.base.quantity import Quantity, given
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.estimate.money import electricity_price, exchange_rate, rent_per_hour
from hauslm.plan import context as contexts
from hauslm.plan import evidence as levels
from hauslm.plan import here
from hauslm.plan import subject as subjects
from hauslm.plan.advice import suggestions
from hauslm.plan.choose import best, best_length, points
from hauslm.plan.free import plan_free
from hauslm.plan.project import Wanted
from hauslm.plan.record import Evidence, Outcome, record
from hauslm.plan.sizes import amount
from hauslm.plan.subject import Machine
from hauslm.plan.tables import answer as table
from hauslm.plan.tables import fitting_gpus, fitting_models, for_plan
from hauslm.records import Corpus, Decision, Plan
from hauslm.scenario import Scenario

EMBEDDED = "embedded"

__all__ = ["fitting_gpus", "fitting_models", "plan", "plan_free", "table"]


def plan(
    scenario: Scenario,
    decision: Decision | None,
    corpus: Corpus | None,
    *,
    project_root: Path,
    evidence: Evidence = "formula",
    progress: Progress | None = None,
    gpu_override: str | None = None,
    machine_profile: Path | None = None,
) -> Plan:
    """The plan of a project: settings that fit and are fastest, with memory, time, energy, cost.

    `gpu_override` plans for another card of the catalog. `machine_profile` is the JSON file of an
    earlier probe (`estimate.probe`), by default the user's; with `evidence="probe"` it is written. A plan that does not fit
    is returned, with suggestions; whether that ends the process is for the caller. Raises UsageError
    for combinations that cannot exist.
    """
    base = subjects.subject(
        scenario.model.base, project_root, path=scenario.model.path, trace=evidence == "trace"
    )
    machine, notices = _machine(scenario, decision, gpu_override)
    wanted = Wanted(scenario, base, machine, amount(scenario, corpus, project_root))
    correction, said = levels.correction(machine, machine_profile, evidence)
    notices = [*notices, *said]
    by_length = [points(wanted.grid(n), machine, correction) for n in wanted.seq_lens()]
    found = [point for group in by_length for point in group]
    chosen = best_length([best(group) for group in by_length])
    may_checkpoint = scenario.training.activation_checkpointing == "auto"
    chosen, level, said = levels.confirm(
        chosen, base, machine, evidence, may_checkpoint, machine_profile, progress
    )
    notices += said
    context = contexts.check(base, wanted.amount, chosen.setup.seq_len)
    if context is not None and context.longer_than_context >= contexts.WORTH_SAYING:
        notices.append(context.text.sentence())
    shows_the_way = base.id == EMBEDDED  # on the processor on purpose, which its notice says
    elsewhere = None if gpu_override or shows_the_way else here.differs(machine)
    if elsewhere is not None:
        notices.append(elsewhere)
    advice, _ = ([], None) if chosen.fits else suggestions(chosen.setup, machine, correction)
    hardware = scenario.scenario.hardware
    host = hardware.host_power_w
    return record(
        Outcome(
            subject=base,
            machine=machine,
            method=chosen.setup.method,
            memory=chosen.memory,
            speed=chosen.speed,
            tokens=wanted.trained_tokens(chosen.setup),
            settings=wanted.settings(chosen, found),
            price_per_kwh=electricity_price(hardware.region, hardware.price_eur_per_kwh),
            evidence=level,
            suggestions=tuple(advice),
            candidates=tuple(found),
            notices=tuple(notices),
            host_power=given(host, "W") if host is not None else None,
            rent=_rent(scenario, decision, machine),
            context=context,
            tables=for_plan(base, machine, chosen.setup.seq_len),
        )
    )


# ---------------------------------------------------------------- on what


def _machine(
    scenario: Scenario, decision: Decision | None, override: str | None
) -> tuple[Machine, list[Sentence]]:
    """The machine to plan for: the one asked for, the decided one, the team's, or this computer."""
    hardware = scenario.scenario.hardware
    if override:
        return subjects.card(override), []
    if scenario.model.base == EMBEDDED:
        notice = say(
            "The embedded model shows the way on this computer's processor; name a real base model "
            "to plan for your card."
        )
        return subjects.this_computer(), [notice]
    if hardware.gpu.lower() == "none" or hardware.count == 0:
        return subjects.this_computer(), []
    rented = _verdict_hardware(decision)
    if rented is not None and rented != hardware.gpu:
        notice = say(
            "Planned for {gpu}, which the decision chose, not for {own}.",
            gpu=rented,
            own=hardware.gpu,
        )
        return subjects.card(rented, hardware.count), [notice]
    return subjects.card(hardware.gpu, hardware.count), []


def _verdict_hardware(decision: Decision | None) -> str | None:
    """The catalog card of the chosen option, where it is one that the team trains on."""
    if decision is None or decision.verdict.kind not in ("local", "rented"):
        return None
    for option in decision.options:
        if option.id == decision.verdict.option and option.hardware in load.ids("gpus"):
            return option.hardware
    return None


def _rent(scenario: Scenario, decision: Decision | None, machine: Machine) -> Quantity | None:
    """EUR/h where the decision is to rent; None where the machine is one's own."""
    if decision is None or decision.verdict.kind != "rented" or machine.gpu is None:
        return None
    for price in scenario.scenario.prices:
        if price.model == machine.id and price.usd_per_hour is not None:
            rate = exchange_rate(scenario.scenario.budget.eur_per_usd)
            if rate is not None:
                return given(price.usd_per_hour * rate.value * machine.count, "EUR/h")
    rate = exchange_rate(scenario.scenario.budget.eur_per_usd)
    single = rent_per_hour(machine.id, rate) if rate is not None else None
    if single is None:
        raise UsageError(
            "H232",
            say(
                "There is no rental price in EUR for {gpu}, and nothing is guessed.", gpu=machine.id
            ),
            where="hauslm.yaml: scenario.prices",
            next_step=say(
                "Give scenario.prices with usd_per_hour, and scenario.budget.eur_per_usd."
            ),
        )
    return single.times(machine.count)
