"""Which figures do all options share, and how is each known? Scenario, catalog, assumptions.

What the project file states is *given*; a field left at its default was said by nobody and is an
*assumption* with a range, like the habits of the trade listed below. Prices of the surroundings
(electricity, working time, exchange rate) come from the catalog unless the project file has them.
The sensitivity analysis starts from whatever has a range here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.base.quantity import Quantity, assumed, given, measured
from hauslm.base.words import N_, say
from hauslm.catalog import load
from hauslm.decide.cost import Settings
from hauslm.decide.tokens import Counted, reference_characters_per_token
from hauslm.estimate.money import electricity_price
from hauslm.estimate.money import exchange_rate as rate_of
from hauslm.scenario import ScenarioAnswers


@dataclass(frozen=True)
class Parameter:
    """A shared figure: its name in `Settings`, a title (English template), the quantity."""

    name: str
    title: str
    quantity: Quantity


# name -> (title, unit, value, low, high, why)
HABITS: Mapping[str, tuple[str, str, float, float, float, str]] = {
    "instruction_tokens": (
        N_("Tokens of the instruction per document"), "tokens", 300, 100, 1500,
        "a task description of one page",
    ),
    "glossary_tokens": (
        N_("Tokens of terms and examples in the prompt where the model is not adapted"), "tokens",
        2000, 500, 8000, "a glossary of some 100 terms with a few worked examples",
    ),
    "reasoning_tokens": (
        N_("Tokens of thought per document, where a model cannot answer without"), "tokens",
        300, 0, 2000, "lowest effort; paid for like an answer",
    ),
    "token_factor": (
        N_("Tokens against our figure, for tokenizers nobody has offline"), "1", 1.0, 0.85, 1.25,
        "tokenizers in use differ by about 25 % on the same text",
    ),
    "repeat_factor": (
        N_("Repetitions of failed or rejected answers"), "1", 1.0, 1.0, 1.1,
        "up to one answer in ten is asked for again",
    ),
    "api_price_factor": (
        N_("API prices against the list price"), "1", 1.0, 0.9, 1.1, "list prices move",
    ),
    "api_price_decline_per_year": (
        N_("Yearly decline of API prices"), "1", 0.0, -0.1, 0.4,
        "a listed price stays until the vendor changes it; successors have been cheaper",
    ),
    "rent_factor": (
        N_("Rent of GPUs against the offer"), "1", 1.0, 0.8, 1.4, "offers vary by provider and day",
    ),
    "rent_overhead": (
        N_("Hours paid per hour of work at a rented GPU"), "1", 1.15, 1.05, 1.5,
        "start, loading of weights, time until somebody stops it (15 % also in induwara.lk, 2026-06)",
    ),
    "service_tax": (
        N_("Tax on services that cannot be deducted"), "1", 0.0, 0.0, 0.19,
        "list prices are net; a public research body in Germany pays 19 % itself",
    ),
    "speed_factor": (
        N_("Speed of the machine against the estimate"), "1", 1.0, 0.7, 1.3,
        "the speed formula is held to 30 % of published measurements",
    ),
    "load_power_factor": (
        N_("Power under load against the rated power of the GPU"), "1", 0.9, 0.6, 1.0,
        "generation is bound by memory and rarely draws the rated power",
    ),
    "available_hours_per_month": (
        N_("Hours per month in which the machine may work"), "h/month", 500, 250, 700,
        "others use it too, and it is serviced",
    ),
    "hardware_price_factor": (
        N_("Purchase price against the catalog"), "1", 1.0, 0.8, 1.3, "street prices vary",
    ),
    "value_loss_per_year": (
        N_("Loss of value per year"), "1", 0.25, 0.15, 0.4, "used prices of earlier cards",
    ),
    "residual_share": (
        N_("Share of the remaining value that is realised"), "1", 0.5, 0.0, 1.0,
        "institutions seldom sell",
    ),
    "hardware_life_months": (
        N_("Life of the hardware"), "months", 60, 48, 84, "five years are usual",
    ),
    "repair_share_per_year": (
        N_("Reserve for repairs, share of the price per year"), "1", 0.03, 0.0, 0.12,
        "desktop parts; Lenovo counts 12 % for servers (LP2225)",
    ),
    "training_hours_of_staff": (
        N_("Working hours per training"), "h", 4, 1, 16, "data, start, evaluation",
    ),
    "migration_hours": (
        N_("Working hours per move to another model after a shut-down"), "h", 16, 4, 40,
        "prompts, tests, comparison of results",
    ),
}  # fmt: skip

IDLE_HOURS = (160.0, 0.0, 730.0)  # switched on during working hours
HOST_LOAD_W = (120.0, 80.0, 200.0)  # processor, memory, drives, power supply losses
HOST_IDLE_SHARE = 0.5
HOST_PRICE_EUR = (1200.0, 800.0, 2500.0)  # a tower that takes a card of 450 W
RATE_SPREAD = 0.1
DEFAULT_SPREAD = 2.0  # a default nobody confirmed may be off by this factor

# scenario section, field, name in Settings, title, unit
_FROM_SCENARIO: tuple[tuple[str, str, str, str, str], ...] = (
    ("workload", "documents_per_month", "documents_per_month", N_("Documents per month"),
     "documents/month"),
    ("workload", "backlog_documents", "backlog_documents", N_("Documents waiting at the start"),
     "documents"),
    ("workload", "characters_per_document", "characters_per_document",
     N_("Characters per document"), "characters"),
    ("workload", "tokens_out_per_document", "tokens_out_per_document",
     N_("Tokens of the answer per document"), "tokens"),
    ("adaptation", "training_tokens", "training_tokens", N_("Training tokens per pass"), "tokens"),
    ("adaptation", "runs_per_year", "training_runs_per_year", N_("Trainings per year"), "1"),
    ("people", "setup_hours_local", "setup_hours_local", N_("Hours to set up the own model"), "h"),
    ("people", "setup_hours_cloud", "setup_hours_cloud", N_("Hours to set up an API"), "h"),
    ("people", "upkeep_hours_per_month_local", "upkeep_hours_per_month_local",
     N_("Hours per month to keep the own model running"), "h/month"),
    ("people", "upkeep_hours_per_month_cloud", "upkeep_hours_per_month_cloud",
     N_("Hours per month to keep the API connection running"), "h/month"),
)  # fmt: skip


def parameters(scenario: ScenarioAnswers, counted: Counted | None = None) -> dict[str, Parameter]:
    """Every shared figure by its name in `Settings`; what was `counted` replaces assumptions.

    Raises `UsageError`: H231 for a region without tariff, H240 where the catalog has a gap that only
    the user can fill.
    """
    found: dict[str, Parameter] = {}

    def put(name: str, title: str, quantity: Quantity) -> None:
        found[name] = Parameter(name, title, quantity)

    for section_name, field, name, title, unit in _FROM_SCENARIO:
        put(name, title, _stated(getattr(scenario, section_name), field, unit))
    put("months", N_("Months over which cost is counted"),
        _stated(scenario.horizon, "months", "months", spread=False))  # fmt: skip
    put("training_epochs", N_("Passes over the training texts"),
        _stated(scenario.adaptation, "epochs", "1"))  # fmt: skip
    for name, (title, unit, value, low, high, why) in HABITS.items():
        put(name, title, assumed(value, unit, low, high, why))
    found["glossary_tokens"] = glossary(scenario)
    put("reference_characters_per_token", N_("Characters per token of the reference tokenizer"),
        reference_characters_per_token(scenario.workload.languages, counted))  # fmt: skip
    if counted is not None:
        _from_documents(scenario, counted, found)
    put("price_eur_per_kwh", N_("Electricity price"), electricity(scenario))
    put("hourly_cost_eur", N_("Cost of a working hour"), working_hour(scenario))
    put("eur_per_usd", N_("Exchange rate"), exchange_rate(scenario))
    _machine_habits(scenario, put)
    return found


def _from_documents(
    scenario: ScenarioAnswers, counted: Counted, found: dict[str, Parameter]
) -> None:
    """The team's prepared documents instead of defaults nobody confirmed; stated figures stay."""
    source = "hauslm prepare (corpus.json)"
    if "characters_per_document" not in scenario.workload.model_fields_set:
        old = found["characters_per_document"]
        mean = measured(counted.characters_per_document, "characters", counted.date, source)
        found[old.name] = replace(old, quantity=mean)
    if "training_tokens" not in scenario.adaptation.model_fields_set and counted.training_tokens:
        old = found["training_tokens"]
        tokens = measured(float(counted.training_tokens), "tokens", counted.date, source)
        found[old.name] = replace(old, quantity=tokens)


def glossary(scenario: ScenarioAnswers) -> Parameter:
    """Tokens of terms and examples in the prompt: none where no adaptation is wanted."""
    title, unit, value, low, high, why = HABITS["glossary_tokens"]
    if not scenario.adaptation.needed:
        return Parameter("glossary_tokens", title, given(0, "tokens"))
    return Parameter("glossary_tokens", title, assumed(value, unit, low, high, why))


def _machine_habits(scenario: ScenarioAnswers, put: Callable[[str, str, Quantity], None]) -> None:
    hardware = scenario.hardware
    load_w = _or_assumed(hardware.host_power_w, "W", HOST_LOAD_W, "processor, memory, drives")
    put("host_load_w", N_("Power of the computer around the GPU under load"), load_w)
    put("host_idle_w", N_("Power of the computer around the GPU in idleness"),
        assumed(load_w.value * HOST_IDLE_SHARE, "W", load_w.lowest * 0.3, load_w.highest * 0.7,
                "half of the power under load"))  # fmt: skip
    idle = _or_assumed(
        hardware.idle_hours_per_month, "h/month", IDLE_HOURS, "on during working hours"
    )
    put("idle_hours_per_month", N_("Hours per month switched on without work"), idle)


def _stated(section: Any, field: str, unit: str, *, spread: bool = True) -> Quantity:
    """A scenario field: given if the user wrote it, else the default as an assumption."""
    value = float(getattr(section, field))
    if field in section.model_fields_set:
        return given(value, unit)
    why = "default of hauslm.yaml (the lab's research team)"
    if not spread or value == 0:
        return assumed(value, unit, why=why)
    return assumed(value, unit, value / DEFAULT_SPREAD, value * DEFAULT_SPREAD, why)


def _or_assumed(
    value: float | None, unit: str, habit: tuple[float, float, float], why: str
) -> Quantity:
    return given(value, unit) if value is not None else assumed(habit[0], unit, *habit[1:], why)


def settings_of(found: Mapping[str, Parameter]) -> Settings:
    """The figures as the cost formula takes them."""
    return Settings(**{name: p.quantity.value for name, p in found.items()})


# ---------------------------------------------------------------- prices of the surroundings


def electricity(scenario: ScenarioAnswers) -> Quantity:
    """Price of a kWh: the user's, else the region's tariff. H231 for a region without one."""
    return electricity_price(scenario.hardware.region, scenario.hardware.price_eur_per_kwh)


def exchange_rate(scenario: ScenarioAnswers) -> Quantity:
    """EUR per USD: the user's, else the catalog's; a rate moves by some 10 % in a year."""
    rate = rate_of(scenario.budget.eur_per_usd)
    if rate is None:
        raise _gap("budget.eur_per_usd")
    if rate.known == "given" or rate.low is not None:
        return rate
    return replace(rate, low=rate.value * (1 - RATE_SPREAD), high=rate.value * (1 + RATE_SPREAD))


def working_hour(scenario: ScenarioAnswers) -> Quantity:
    """Full cost of a working hour: the user's, else the middle one of the catalog's full rates, with
    the lowest and highest of them as its range."""
    stated = scenario.people.hourly_cost_eur
    if stated is not None:
        return given(stated, "EUR/h")
    rates = [
        t.value
        for t in load.tariffs()
        if t.kind == "labour" and t.value is not None and t.value.unit == "EUR/h"
        and "without overhead" not in t.customer
    ]  # fmt: skip
    if not rates:
        raise _gap("people.hourly_cost_eur")
    ordered = sorted(rates, key=lambda q: q.value)
    middle = ordered[len(ordered) // 2]
    return replace(middle, low=ordered[0].value, high=ordered[-1].value)


def _gap(field: str) -> UsageError:
    return UsageError(
        "H240",
        say("The catalog has no figure for {field}, and nothing is guessed.", field=field),
        where=f"hauslm.yaml: scenario.{field}",
        next_step=say("Give the figure there."),
    )
