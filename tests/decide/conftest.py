"""Scenarios and decisions that several tests of the room look at; decided once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from hauslm.decide.verdict import decide
from hauslm.records import Decision
from hauslm.scenario import Scenario

ON = "2026-11-23"  # the day for which the facts were collected


def _lab(**answers: Any) -> Scenario:
    """The lab's team, with answers replaced: lab(data={"may_leave": "yes"})."""
    sections: dict[str, Any] = {"horizon": {"decision_date": ON}}
    for section, values in answers.items():
        if isinstance(values, dict):
            sections[section] = {**sections.get(section, {}), **values}
        else:
            sections[section] = values
    return Scenario.model_validate({"scenario": sections})


@pytest.fixture(scope="session")
def lab() -> Callable[..., Scenario]:
    """Makes the lab's scenario with some answers replaced."""
    return _lab


@cache
def _decided(text: str) -> Decision:
    return decide(Scenario.model_validate_json(text))


@pytest.fixture(scope="session")
def decided() -> Callable[..., Decision]:
    """The decision for lab(**answers), kept for the whole run."""

    def of(**answers: Any) -> Decision:
        return _decided(_lab(**answers).model_dump_json(exclude_unset=True))

    return of
