"""What does an option cost over the horizon? One formula for all options, in arrays.

A `Bill` says what an option pays for, before anybody asks how much is demanded; `Settings` are the
demand, prices and habits that all options share. `costs(bills, settings)` returns every line of the
bill in EUR for every option at once, and for every draw at once when a setting is an array: the
verdict, the break-even, the flip table and the Monte-Carlo run through the same few lines of numpy.

Kept apart on purpose, because published comparisons mix them up (Pan et al., arXiv 2509.18101, set
demand equal to full capacity): what is demanded and what a machine could do; what is already paid
and what is still to be bought; power under load and power in idleness; a price today and the dated
price after a scheduled change. Which figure a setting has, and how it is known, is for `settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauslm.base.words import N_

Array = NDArray[np.float64]
Number = float | Array

HOURS_PER_MONTH = 730.0  # 365 * 24 / 12
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class PriceStep:
    """List prices per million tokens that hold from `from_month` of the horizon on.

    `cached` is the price of a prompt prefix read from the provider's cache; None: none is sold.
    """

    from_month: float
    input: float
    output: float
    cached: float | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What one option pays for. Currency: `usd` prices are multiplied by the EUR/USD rate.

    `seconds_per_input_token` and `seconds_per_output_token` are the machine's time at the batch
    size that was planned, for one GPU; `gpus` share the work. `gpu_price` (USD where
    `gpu_price_in_usd`) and `host_price_eur` are for the whole machine; a `paid` machine is sunk and
    only its replacement is counted.
    `migrations` are the months in which the provider switches the model off.
    """

    id: str
    characters_per_token: float = 4.3
    tokenizer_known: bool = True
    reasons: bool = False  # thinks before it answers, and the thoughts are paid for as output
    tuned: bool = False
    # an API
    usd: bool = True
    prices: tuple[PriceStep, ...] = ()
    migrations: tuple[float, ...] = ()
    training_price_per_mtok: float = 0.0
    fixed_eur_per_month: float = 0.0
    # a machine
    gpus: float = 0.0
    seconds_per_input_token: float = 0.0
    seconds_per_output_token: float = 0.0
    training_seconds_per_token: float = 0.0
    load_w: float = 0.0
    idle_w: float = 0.0
    own_machine: bool = False
    paid: bool = False
    gpu_price: float = 0.0
    gpu_price_in_usd: bool = False
    host_price_eur: float = 0.0
    rent_per_hour: float = 0.0
    # people
    own_staff: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Demand, prices and habits shared by all options; a float, or an array with one value a draw.

    The `*_factor` settings scale a figure that each option has for itself (1: as listed).
    """

    documents_per_month: Number = 0.0
    backlog_documents: Number = 0.0
    characters_per_document: Number = 35_000.0
    tokens_out_per_document: Number = 500.0
    months: Number = 36.0
    # tokens
    instruction_tokens: Number = 0.0
    glossary_tokens: Number = 0.0
    reasoning_tokens: Number = 0.0
    reference_characters_per_token: Number = 4.3
    token_factor: Number = 1.0
    repeat_factor: Number = 1.0
    # prices
    eur_per_usd: Number = 1.0
    api_price_factor: Number = 1.0
    api_price_decline_per_year: Number = 0.0
    rent_factor: Number = 1.0
    rent_overhead: Number = 1.0
    service_tax: Number = 0.0
    # machine
    price_eur_per_kwh: Number = 0.0
    speed_factor: Number = 1.0
    load_power_factor: Number = 1.0
    host_load_w: Number = 0.0
    host_idle_w: Number = 0.0
    idle_hours_per_month: Number = 0.0
    available_hours_per_month: Number = HOURS_PER_MONTH
    hardware_price_factor: Number = 1.0
    value_loss_per_year: Number = 0.0
    residual_share: Number = 1.0
    hardware_life_months: Number = NEVER
    repair_share_per_year: Number = 0.0
    # training
    training_tokens: Number = 0.0
    training_epochs: Number = 1.0
    training_runs_per_year: Number = 0.0
    training_hours_of_staff: Number = 0.0
    # people
    hourly_cost_eur: Number = 0.0
    setup_hours_local: Number = 0.0
    setup_hours_cloud: Number = 0.0
    upkeep_hours_per_month_local: Number = 0.0
    upkeep_hours_per_month_cloud: Number = 0.0
    migration_hours: Number = 0.0

    def with_(self, **changes: Number) -> Settings:
        """A copy with some settings changed."""
        return Settings(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, Number]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


LINES: Mapping[str, str] = {
    "input_tokens": N_("Input tokens"),
    "output_tokens": N_("Output tokens"),
    "cached_tokens": N_("Input tokens from the cache"),
    "training_price": N_("Training by the provider"),
    "fixed": N_("Fixed monthly price"),
    "rent": N_("Rent of the GPU"),
    "gpu_purchase": N_("Purchase of the GPU"),
    "host_purchase": N_("Purchase of the computer around it"),
    "residual": N_("Value left at the end"),
    "repair": N_("Reserve for repair and replacement"),
    "electricity_load": N_("Electricity under load"),
    "electricity_idle": N_("Electricity in idleness"),
    "staff_setup": N_("Working time: set-up"),
    "staff_upkeep": N_("Working time: upkeep"),
    "staff_training": N_("Working time: trainings"),
    "staff_migration": N_("Working time: moves forced by shut-downs"),
}


class Bills:
    """Many bills as columns of shape (options, 1), built once and evaluated often."""

    def __init__(self, bills: Sequence[Bill]) -> None:
        self.ids = tuple(b.id for b in bills)
        self.rows = tuple(bills)
        steps = max((len(b.prices) for b in bills), default=0) or 1
        moves = max((len(b.migrations) for b in bills), default=0)
        table = np.zeros((4, len(bills), steps))
        table[0] = NEVER
        table[3] = np.nan
        events = np.full((len(bills), moves), NEVER)
        for row, bill in enumerate(bills):
            for column, step in enumerate(bill.prices):
                cached = np.nan if step.cached is None else step.cached
                table[:, row, column] = (step.from_month, step.input, step.output, cached)
            events[row, : len(bill.migrations)] = bill.migrations
        self.step_start, self.step_input, self.step_output, self.step_cached = table
        self.migration_months = events

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> Array:
        """One attribute of all bills, shape (options, 1)."""
        return np.array([[float(getattr(b, name))] for b in self.rows]).reshape(-1, 1)

    @cached_property
    def columns(self) -> dict[str, Array]:
        skipped = {"id", "prices", "migrations"}
        return {f.name: self.column(f.name) for f in fields(Bill) if f.name not in skipped}


@dataclass(frozen=True, slots=True)
class Costs:
    """EUR over the horizon, shape (options, draws), and the machine hours behind them."""

    ids: tuple[str, ...]
    lines: dict[str, Array]
    horizon: Array
    monthly: Array
    per_document: Array
    tokens_in: Array  # per document, with instructions
    tokens_out: Array
    seconds_per_document: Array  # of the machine; 0 for an API
    hours_per_month: Array  # of the running demand, without the backlog
    backlog_hours: Array
    training_hours: Array  # over the horizon
    load_hours: Array  # over the horizon

    def row(self, option: str) -> int:
        return self.ids.index(option)


def costs(bills: Bills, settings: Settings) -> Costs:
    """Every line of every bill over the horizon, in EUR.

    `settings` holds floats (one column results) or equally long 1-d arrays (one column per draw).
    A line is zero when an option does not have it; `horizon` is the sum of the lines, `monthly` that
    sum over the months, `per_document` that sum over all documents of the horizon.
    """
    s = {
        k: np.atleast_1d(np.asarray(v, dtype=float))[None, :] for k, v in settings.as_dict().items()
    }
    c = bills.columns
    months = s["months"]
    documents = s["backlog_documents"] + s["documents_per_month"] * months
    tokens = _tokens(c, s)
    machine = _machine(c, s, tokens, documents)
    lines = _api(bills, c, s, tokens)
    lines |= _hardware(c, s)
    lines |= _electricity(c, s, machine)
    lines |= _people(bills, c, s)
    lines["rent"] = _rent(c, s, machine)
    shape = (len(bills), max(v.shape[1] for v in s.values()))

    def full(values: Array) -> Array:
        return np.broadcast_to(values, shape)

    ordered = {k: full(lines[k]) for k in LINES}
    horizon = np.sum(np.stack(tuple(ordered.values())), axis=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        per_document = np.where(documents > 0, horizon / documents, np.nan)
    return Costs(
        bills.ids,
        ordered,
        horizon,
        horizon / months,
        per_document,
        full(tokens["input"] + tokens["prefix"]),
        full(tokens["output"]),
        full(machine["seconds"]),
        full(machine["hours_per_month"]),
        full(machine["backlog_hours"]),
        full(machine["training_hours"]),
        full(machine["load_hours"]),
    )


Columns = dict[str, Array]


def _tokens(c: Columns, s: Columns) -> Columns:
    """Tokens per document with each option's own tokenizer.

    The answer's and the instructions' lengths are given in tokens of a reference tokenizer, so an
    option that needs more tokens for the same text pays for more. `token_factor` is the doubt about
    tokenizers that nobody has offline; it does not touch the others.
    """
    doubt = np.where(c["tokenizer_known"] > 0, 1.0, s["token_factor"])
    ratio = s["reference_characters_per_token"] / c["characters_per_token"] * doubt
    prefix = s["instruction_tokens"] + np.where(c["tuned"] > 0, 0.0, s["glossary_tokens"])
    repeat = s["repeat_factor"]
    document = s["characters_per_document"] / c["characters_per_token"] * doubt
    thoughts = np.where(c["reasons"] > 0, s["reasoning_tokens"], 0.0)
    return {
        "ratio": ratio,
        "input": document * repeat,
        "prefix": prefix * ratio * repeat,
        "output": (s["tokens_out_per_document"] + thoughts) * ratio * repeat,
    }


def _training_runs(c: Columns, s: Columns) -> Array:
    """Trainings in the horizon: at least one where the model is adapted."""
    runs = np.maximum(1.0, s["training_runs_per_year"] * s["months"] / 12)
    return np.asarray(np.where(c["tuned"] > 0, runs, 0.0))


def _machine(c: Columns, s: Columns, tokens: Columns, documents: Array) -> Columns:
    """Hours that the machine works: per month of demand, for the backlog, for the trainings."""
    speed = s["speed_factor"] * np.maximum(c["gpus"], 1.0)
    read = (tokens["input"] + tokens["prefix"]) * c["seconds_per_input_token"]
    seconds = (read + tokens["output"] * c["seconds_per_output_token"]) / speed
    trained = s["training_tokens"] * s["training_epochs"] * tokens["ratio"]
    training = _training_runs(c, s) * trained * c["training_seconds_per_token"] / speed / 3600
    return {
        "seconds": seconds,
        "hours_per_month": s["documents_per_month"] * seconds / 3600,
        "backlog_hours": s["backlog_documents"] * seconds / 3600,
        "training_hours": training,
        "load_hours": documents * seconds / 3600 + training,
    }


def _api(bills: Bills, c: Columns, s: Columns, tokens: Columns) -> Columns:
    """Token prices with their dated steps and a yearly decline.

    The running demand is spread evenly; within a step the price falls by the decline d, so a step
    from month a to b weighs the integral of (1-d)^(t/12). The backlog is paid at the first price.
    """
    rate = np.where(c["usd"] > 0, s["eur_per_usd"], 1.0) * s["api_price_factor"] / 1e6
    rate = rate * (1 + s["service_tax"])
    fresh = np.zeros((len(bills), 1))
    written = np.zeros((len(bills), 1))
    reused = np.zeros((len(bills), 1))
    steps = bills.step_start.shape[1]
    for k in range(steps):
        start = bills.step_start[:, k : k + 1]
        end = bills.step_start[:, k + 1 : k + 2] if k + 1 < steps else np.full_like(start, NEVER)
        weight = _weight(np.minimum(start, s["months"]), np.minimum(end, s["months"]), s)
        volume = s["documents_per_month"] * weight + (s["backlog_documents"] if k == 0 else 0.0)
        price_in = bills.step_input[:, k : k + 1]
        price_cached = bills.step_cached[:, k : k + 1]
        sold = ~np.isnan(price_cached)
        prefix_fresh = np.where(sold, 0.0, tokens["prefix"])
        prefix_cached = np.where(sold, tokens["prefix"], 0.0)
        fresh = fresh + volume * price_in * (tokens["input"] + prefix_fresh)
        reused = reused + volume * np.where(sold, price_cached, 0.0) * prefix_cached
        written = written + volume * bills.step_output[:, k : k + 1] * tokens["output"]
    trained = s["training_tokens"] * s["training_epochs"] * tokens["ratio"]
    training = _training_runs(c, s) * trained * c["training_price_per_mtok"]
    return {
        "input_tokens": fresh * rate,
        "cached_tokens": reused * rate,
        "output_tokens": written * rate,
        "training_price": training * rate,
        "fixed": c["fixed_eur_per_month"] * s["months"] * (1 + s["service_tax"]),
    }


def _weight(start: Array, end: Array, s: Columns) -> Array:
    """Months from `start` to `end`, each weighted with the price level (1-d)^(t/12)."""
    decline = s["api_price_decline_per_year"]
    length = end - start
    slope = np.log1p(-np.clip(decline, -10.0, 0.999999)) / 12
    safe = np.where(slope == 0, 1.0, slope)
    declining = (np.exp(safe * end) - np.exp(safe * start)) / safe
    return np.asarray(np.where(slope == 0, length, declining))


def _rent(c: Columns, s: Columns, machine: Columns) -> Array:
    rate = np.where(c["usd"] > 0, s["eur_per_usd"], 1.0) * s["rent_factor"] * s["rent_overhead"]
    hours = machine["load_hours"] * np.maximum(c["gpus"], 1.0)
    return np.asarray(hours * c["rent_per_hour"] * rate * (1 + s["service_tax"]))


def _hardware(c: Columns, s: Columns) -> Columns:
    """Purchases within the horizon, what is left of the last one, and a reserve for repairs.

    A machine that is already paid for costs nothing at the start: it is bought again only when its
    life ends inside the horizon, and only what was bought within the horizon has a value left.
    """
    life = s["hardware_life_months"]
    with np.errstate(invalid="ignore"):
        renewals = np.where(np.isinf(life), 0.0, np.ceil(s["months"] / life - 1e-9) - 1)
        age = np.where(
            renewals > 0, s["months"] - renewals * np.where(renewals > 0, life, 0), s["months"]
        )
    bought = np.where(c["own_machine"] > 0, renewals + np.where(c["paid"] > 0, 0.0, 1.0), 0.0)
    rate = np.where(c["gpu_price_in_usd"] > 0, s["eur_per_usd"], 1.0)
    gpu = c["gpu_price"] * rate * s["hardware_price_factor"]
    host = c["host_price_eur"] * s["hardware_price_factor"]
    left = (1 - s["value_loss_per_year"]) ** (age / 12) * s["residual_share"]
    whole = gpu + host
    return {
        "gpu_purchase": bought * gpu,
        "host_purchase": bought * host,
        "residual": -np.where(bought > 0, whole * left, 0.0),
        "repair": np.where(c["own_machine"] > 0, whole, 0.0)
        * s["repair_share_per_year"]
        * s["months"]
        / 12,
    }


def _electricity(c: Columns, s: Columns, machine: Columns) -> Columns:
    own = (c["own_machine"] > 0).astype(float)
    load_kw = (c["gpus"] * c["load_w"] * s["load_power_factor"] + s["host_load_w"]) / 1000
    idle_kw = (c["gpus"] * c["idle_w"] + s["host_idle_w"]) / 1000
    free = np.maximum(HOURS_PER_MONTH * s["months"] - machine["load_hours"], 0.0)
    idle = np.minimum(s["idle_hours_per_month"] * s["months"], free)
    price = s["price_eur_per_kwh"] * own
    return {
        "electricity_load": machine["load_hours"] * load_kw * price,
        "electricity_idle": idle * idle_kw * price,
    }


def _people(bills: Bills, c: Columns, s: Columns) -> Columns:
    own = c["own_staff"] > 0
    wage = s["hourly_cost_eur"]
    setup = np.where(own, s["setup_hours_local"], s["setup_hours_cloud"])
    upkeep = np.where(own, s["upkeep_hours_per_month_local"], s["upkeep_hours_per_month_cloud"])
    moves = np.zeros((len(bills), 1))
    for k in range(bills.migration_months.shape[1]):
        moves = moves + (bills.migration_months[:, k : k + 1] < s["months"])
    return {
        "staff_setup": setup * wage,
        "staff_upkeep": upkeep * s["months"] * wage,
        "staff_training": _training_runs(c, s) * s["training_hours_of_staff"] * wage,
        "staff_migration": moves * s["migration_hours"] * wage,
    }


def documents_at_capacity(costs_: Costs, settings: Settings) -> Array:
    """Documents per month that the machine can do in its available hours, after the trainings;
    infinite for an API. Shape as `costs_.horizon`."""
    months = np.atleast_1d(np.asarray(settings.months, dtype=float))
    hours = np.atleast_1d(np.asarray(settings.available_hours_per_month, dtype=float))
    free = np.maximum(hours - costs_.training_hours / months, 0.0)
    with np.errstate(divide="ignore"):
        return np.where(
            costs_.seconds_per_document > 0, free * 3600 / costs_.seconds_per_document, NEVER
        )


def single(bill: Bill, settings: Settings) -> dict[str, Any]:
    """One option as plain floats: horizon, monthly, per_document and the lines."""
    found = costs(Bills([bill]), settings)
    return {
        "horizon": float(found.horizon[0, 0]),
        "monthly": float(found.monthly[0, 0]),
        "per_document": float(found.per_document[0, 0]),
        "lines": {k: float(v[0, 0]) for k, v in found.lines.items()},
    }
