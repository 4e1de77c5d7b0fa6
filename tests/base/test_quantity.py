"""A figure says how it is known, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.base.quantity import (
    UNITS,
    Quantity,
    assumed,
    from_json,
    sourced,
)
from hauslm.base.quantity import (
    given as given_by_user,
)


@pytest.mark.parametrize(
    "bad",
    [
        {"value": 1, "unit": "EUR", "known": "sourced"},
        {"value": 1, "unit": "EUR", "known": "sourced", "source": "x"},
        {"value": 1, "unit": "EUR", "known": "measured"},
        {"value": 1, "unit": "EUR", "known": "guessed"},
        {"value": 1, "unit": "EUR/ktok", "known": "given"},
        {"value": 1, "unit": "EUR", "known": "assumed", "low": 2},
        {"value": 1, "unit": "EUR", "known": "assumed", "high": 0.5},
        {"value": float("nan"), "unit": "EUR", "known": "assumed"},
        {"value": "1", "unit": "EUR", "known": "assumed"},
        {"value": True, "unit": "EUR", "known": "assumed"},
        {"value": 1, "unit": "EUR", "known": "assumed", "price": 3},
    ],
)
def test_unsound_quantities_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError):
        from_json(bad)


@given(
    value=st.floats(-1e9, 1e9),
    spread=st.floats(0, 1e6),
    factor=st.floats(-1e3, 1e3),
    unit=st.sampled_from(sorted(UNITS)),
)
def test_scaling_keeps_the_range_around_the_value(
    value: float, spread: float, factor: float, unit: str
) -> None:
    scaled = assumed(value, unit, value - spread, value + spread).times(factor)
    slack = abs(scaled.value) * 1e-9 + 1e-6
    assert scaled.lowest <= scaled.value + slack
    assert scaled.highest >= scaled.value - slack


def test_text_is_local() -> None:
    price = sourced(1234.5, "EUR", "list", "2026-11-01")
    assert price.text(language="en") == "€1,234.50"
    assert price.text(language="de").replace("\xa0", " ") == "1.234,50 €"
    assert given_by_user(24, "GiB").text(".1f", "de") == "24,0 GiB"


def test_a_quantity_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Quantity(1, "EUR", "given").value = 2  # type: ignore[misc]
