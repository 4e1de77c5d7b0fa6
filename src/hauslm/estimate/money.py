"""What does it cost in EUR? Energy, rent and depreciation, each with its range.

Prices are quantities from the catalog or the project file; nothing here has a price of its own, and a
missing one is an error or None, never 0. Units are checked: a price per kWh cannot be taken for one
per hour.
"""

from __future__ import annotations

from dataclasses import replace

from hauslm.base.errors import UsageError
from hauslm.base.quantity import Quantity, derived, given
from hauslm.base.words import say
from hauslm.catalog import load

HOURS_PER_MONTH = 8766 / 12


def _require(quantity: Quantity, *units: str) -> None:
    if quantity.unit not in units:
        raise ValueError(f"expected {' or '.join(units)}, got {quantity.unit}")


def product(unit: str, *factors: Quantity) -> Quantity:
    """Product of non-negative quantities in `unit`, ranges multiplied, sources joined."""
    value = low = high = 1.0
    for factor in factors:
        value *= factor.value
        low *= factor.lowest
        high *= factor.highest
    sources = "; ".join(dict.fromkeys(f.source for f in factors if f.source))
    return derived(value, unit, sources, low, high)


def total(unit: str, *summands: Quantity) -> Quantity:
    """Sum of quantities of one unit; ends add up (a bound, as if all were off the same way)."""
    for summand in summands:
        _require(summand, unit)
    sources = "; ".join(dict.fromkeys(s.source for s in summands if s.source))
    return derived(
        sum(s.value for s in summands),
        unit,
        sources,
        sum(s.lowest for s in summands),
        sum(s.highest for s in summands),
    )


def energy_cost(energy: Quantity, price: Quantity) -> Quantity:
    """EUR for `energy` in kWh at `price` in EUR/kWh."""
    _require(energy, "kWh")
    _require(price, "EUR/kWh")
    return product("EUR", energy, price)


def in_eur(amount: Quantity, eur_per_usd: Quantity) -> Quantity:
    """An amount or price in USD (per hour, per month, per Mtok) in EUR."""
    _require(eur_per_usd, "EUR/USD")
    if not amount.unit.startswith("USD"):
        raise ValueError(f"expected an amount in USD, got {amount.unit}")
    return product(amount.unit.replace("USD", "EUR", 1), amount, eur_per_usd)


def rental_cost(hours: Quantity, price: Quantity, count: int = 1) -> Quantity:
    """EUR for renting `count` GPUs for `hours` at `price` in EUR/h each."""
    _require(hours, "h")
    _require(price, "EUR/h")
    return product("EUR", hours, price).times(count)


def depreciation_per_month(price: Quantity, life_months: Quantity) -> Quantity:
    """EUR/month of a purchase written off in equal parts over its life."""
    _require(price, "EUR")
    _require(life_months, "month", "months")
    return derived(
        price.value / life_months.value,
        "EUR/month",
        f"{price.source}; {life_months.source}",
        price.lowest / life_months.highest,
        price.highest / life_months.lowest,
    )


def depreciation_of_run(price: Quantity, life_months: Quantity, hours: Quantity) -> Quantity:
    """EUR of a purchase that a run of `hours` uses up, were the machine always busy."""
    _require(hours, "h")
    monthly = depreciation_per_month(price, life_months)
    return product("EUR", monthly, hours).times(1 / HOURS_PER_MONTH)


# ---------------------------------------------------------------- prices of the surroundings


def electricity_price(region: str, stated: float | None = None) -> Quantity:
    """EUR/kWh: the user's figure, else the region's newest household tariff in the catalog, with
    the spread of all tariffs of that region as its range. H231 for a region without tariff."""
    if stated is not None:
        return given(stated, "EUR/kWh")
    known = [t for t in load.tariffs() if t.kind == "electricity" and t.value is not None]
    here = [t for t in known if t.region == region]
    if not here:
        regions = ", ".join(sorted({t.region for t in known}))
        raise UsageError(
            "H231",
            say("There is no electricity tariff for the region '{region}'.", region=region),
            where="hauslm.yaml: scenario.hardware.region",
            next_step=say(
                "Give scenario.hardware.price_eur_per_kwh, or one of the regions {regions}.",
                regions=regions,
            ),
        )
    values = [t.value for t in here if t.value is not None]
    homes = [t.value for t in here if t.value is not None and "household" in t.customer] or values
    chosen = max(homes, key=lambda q: q.date)
    return replace(chosen, low=min(v.value for v in values), high=max(v.value for v in values))


def exchange_rate(stated: float | None = None) -> Quantity | None:
    """EUR/USD: the user's figure, else the catalog's tariff, else the median of what vendors' price
    lists in both currencies imply (10 per cent either way); None if there is nothing to go by."""
    if stated is not None:
        return given(stated, "EUR/USD")
    listed = [t.value for t in load.tariffs() if t.kind == "fx" and t.value is not None]
    if listed:
        return max(listed, key=lambda q: q.date)
    ratios: list[tuple[float, str]] = []
    for model in load.models():
        euro, dollar = model.listed_price("EUR"), model.listed_price("USD")
        if euro is not None and dollar is not None and dollar.output.value >= 1:
            ratios.append((euro.output.value / dollar.output.value, model.name))
    if not ratios:
        return None
    value, name = sorted(ratios)[len(ratios) // 2]
    source = f"price list of {name} in both currencies"
    return derived(value, "EUR/USD", source, 0.9 * value, 1.1 * value)


def rent_per_hour(gpu_id: str, eur_per_usd: Quantity) -> Quantity | None:
    """EUR/h of one such card: the median of the catalog's offers, their spread as its range."""
    prices = sorted(
        (o.usd_per_hour for o in load.offers() if o.gpu == gpu_id), key=lambda q: q.value
    )
    if not prices:
        return None
    middle = prices[len(prices) // 2]
    spread = replace(middle, low=min(p.lowest for p in prices), high=max(p.highest for p in prices))
    return in_eur(spread, eur_per_usd)
