"""Money: units are checked, ranges multiply, a missing price is never 0."""

from __future__ import annotations

import pytest

from hauslm.base.errors import UsageError
from hauslm.base.quantity import assumed, given
from hauslm.estimate import money


def test_energy_cost_multiplies_values_and_ends():
    cost = money.energy_cost(
        assumed(10, "kWh", 8, 12, "run"), assumed(0.3, "EUR/kWh", 0.2, 0.4, "tariff")
    )
    assert (cost.value, cost.unit) == (pytest.approx(3.0), "EUR")
    assert (cost.low, cost.high) == (pytest.approx(1.6), pytest.approx(4.8))
    assert "run" in cost.source and "tariff" in cost.source


def test_units_are_not_confused():
    with pytest.raises(ValueError, match="EUR/kWh"):
        money.energy_cost(given(10, "kWh"), given(0.3, "EUR/h"))
    with pytest.raises(ValueError, match="USD"):
        money.in_eur(given(1, "EUR/h"), given(0.9, "EUR/USD"))


def test_rent_and_depreciation():
    rent = money.rental_cost(given(5, "h"), given(2, "EUR/h"), count=2)
    assert rent.value == 20
    monthly = money.depreciation_per_month(given(1800, "EUR"), given(36, "months"))
    assert monthly.value == 50
    used = money.depreciation_of_run(given(1800, "EUR"), given(36, "months"), given(73.05, "h"))
    assert used.value == pytest.approx(5.0)


def test_electricity_price_comes_from_the_region_or_the_user():
    price = money.electricity_price("DE")
    assert price.unit == "EUR/kWh" and 0.1 < price.value < 0.6
    assert price.lowest <= price.value <= price.highest
    assert money.electricity_price("DE", 0.25).known == "given"
    with pytest.raises(UsageError) as caught:
        money.electricity_price("Atlantis")
    assert "DE" in str(caught.value)


def test_rent_per_hour_is_none_without_an_offer():
    rate = given(0.9, "EUR/USD")
    assert money.rent_per_hour("rtx-4090", rate) is not None
    assert money.rent_per_hour("gb10-dgx-spark", rate) is None
