"""What does it cost in EUR? Energy, rent and depreciation, each with its range.

Prices are quantities that the caller brings (catalog, project file); nothing here has a price of its
own, and a missing one is an error of the caller, never 0. Units are checked: a price per kWh cannot
be taken for one per hour.
"""

from __future__ import annotations

from hauslm.base.quantity import Quantity, derived

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
