"""What the plan says an hour costs is what the analysis shows; without a plan there is no figure."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hauslm.analyse.expected import Expected, expected
from hauslm.base.quantity import derived
from hauslm.scenario import parse


def plan(device: str | None, unit: str = "EUR") -> Any:
    """The fields of a plan that are read: 2 h, 0.9 kWh, 0.27 of `unit`."""
    return cast(
        "Any",
        SimpleNamespace(
            time=SimpleNamespace(hours=derived(2.0, "h", "plan")),
            energy=SimpleNamespace(kwh=derived(0.9, "kWh", "plan")),
            cost=derived(0.27, unit, "plan"),
            device=None if device is None else SimpleNamespace(id=device, count=1),
        ),
    )


def test_energy_and_cost_grow_with_the_time_that_passed() -> None:
    scenario = parse(json.dumps({"model": {"base": "mistral-7b-v0.3"}}))
    found = expected(scenario, plan("rtx-4090"))
    assert found.energy_kwh(3600) == pytest.approx(0.45)
    assert found.cost_eur(1800) == pytest.approx(0.0675)
    speed = found.documents_per_hour
    assert speed is not None and speed.low is not None and speed.high is not None
    assert 100 < speed.low < speed.value < speed.high < 50_000
    assert found.per_hour == round(speed.value)


def test_nothing_is_guessed() -> None:
    scenario = parse(json.dumps({"model": {"base": "nobody-knows-it"}}))
    assert expected(scenario, None) == Expected()
    found = expected(scenario, plan("rtx-4090", "USD"))
    assert found.documents_per_hour is None and found.cost(60) is None
    assert expected(scenario, plan("cpu")).documents_per_hour is None
