"""What does an hour of analysing cost, and how fast should it be? From the plan; nothing is guessed.

Energy is the plan's power of the machine over the time that passed, cost its euros for an hour: both
are derived, and say so. A speed is predicted where the plan is for a card of the catalog and the base
model's shape is known; for a processor the planner has no formula for answering, so there is none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import as_text, say

if TYPE_CHECKING:
    from hauslm.records import Plan
    from hauslm.scenario import Scenario

HOUR_S = 3600.0


@dataclass(frozen=True)
class Expected:
    """What the plan says about the machine; None where it says nothing."""

    watts: Quantity | None = None
    eur_per_hour: Quantity | None = None
    documents_per_hour: Quantity | None = None

    @property
    def per_hour(self) -> int | None:
        found = self.documents_per_hour
        return None if found is None else round(found.value)

    def energy_kwh(self, seconds: float) -> float | None:
        found = self.energy(seconds)
        return None if found is None else round(found.value, 4)

    def cost_eur(self, seconds: float) -> float | None:
        found = self.cost(seconds)
        return None if found is None else round(found.value, 4)

    def energy(self, seconds: float) -> Quantity | None:
        """kWh of `seconds`, by the plan's power."""
        return _times(self.watts, seconds / HOUR_S / 1000, "kWh")

    def cost(self, seconds: float) -> Quantity | None:
        """EUR of `seconds`, by what an hour of the plan costs."""
        return _times(self.eur_per_hour, seconds / HOUR_S, "EUR")


def expected(scenario: Scenario, plan: Plan | None) -> Expected:
    """What the plan's machine takes for an hour, and how many articles of the stated length it reads."""
    if plan is None or plan.time.hours.value <= 0:
        return Expected()
    watts = _per_hour(plan.energy.kwh, plan, 1000.0, "W")
    eur = _per_hour(plan.cost, plan, 1.0, "EUR/h") if plan.cost.unit == "EUR" else None
    return Expected(watts, eur, _speed(scenario, plan))


def _per_hour(total: Quantity, plan: Plan, factor: float, unit: str) -> Quantity:
    source = as_text(say("plan: its whole training divided by its hours"))
    return derived(factor * total.value / plan.time.hours.value, unit, source)


def _times(rate: Quantity | None, factor: float, unit: str) -> Quantity | None:
    if rate is None:
        return None
    low = None if rate.low is None else rate.low * factor
    high = None if rate.high is None else rate.high * factor
    return derived(rate.value * factor, unit, rate.source, low, high)


def _speed(scenario: Scenario, plan: Plan) -> Quantity | None:
    from hauslm.catalog import load
    from hauslm.decide.tokens import density
    from hauslm.estimate.serving import analysis_throughput

    device, work = plan.device, scenario.scenario.workload
    if device is None:
        return None
    with suppress(HauslmError):  # a card or model that the catalog does not know: no figure
        model = load.model(scenario.model.base)
        if model.architecture is None:
            return None
        per_token = density(model, work.languages).quantity.value
        return analysis_throughput(
            model.architecture,
            load.gpu(device.id),
            tokens_in=work.characters_per_document / per_token,
            tokens_out=work.tokens_out_per_document,
            engine="vllm" if scenario.analysis.engine == "vllm" else "transformers",
            concurrency=scenario.analysis.batch_size,
            gpus=device.count,
        ).documents_per_hour
    return None
