"""Short examples first, in the first pass, and only where asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.data.store import ExampleStore
from hauslm.train import leg
from hauslm.train.batches import Schedule, short_first
from tests.train.conftest import Project


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.booleans())
def test_every_example_once_in_order_of_length(lengths: list[int], packing: bool) -> None:
    bins = short_first(lengths, 64, packing)
    flat = [i for one in bins for i in one]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths)
    assert all(sum(lengths[i] for i in one) <= 64 for one in bins)


def schedule(project: Project, monkeypatch: Any, **training: Any) -> Schedule:
    kept = []
    real = leg.Leg.learn
    monkeypatch.setattr(leg.Leg, "learn", lambda self: (kept.append(self.schedule), real(self))[1])
    project.run(training)
    return kept[0]


@pytest.mark.parametrize("packing", [True, False])
def test_the_first_pass_only(project: Project, monkeypatch: Any, packing: bool) -> None:
    made = schedule(
        project, monkeypatch, curriculum="length", max_steps=None, epochs=2, packing=packing
    )
    store = ExampleStore.open(project.folder.work / "prepared" / "train")
    lengths = [int(n) for n in store.lengths()]
    seen = [lengths[i] for s in range(made.steps) for one in made.bins(s) for i in one]
    half = len(seen) // 2
    assert seen[:half] == sorted(seen[:half]) and seen[half:] != sorted(seen[half:])
    assert sorted(seen[half:]) == seen[:half]


def test_off_by_default_and_then_no_part_of_the_identity(
    project: Project, monkeypatch: Any
) -> None:
    made = schedule(project, monkeypatch)
    assert made.settings.curriculum == "off" and "curriculum" not in made.settings.identity()
    other = replace(made.settings, curriculum="length")
    assert other.identity() != made.settings.identity()
    store = ExampleStore.open(project.folder.work / "prepared" / "train")
    seen = [i for one in made.bins(0) for i in one]
    short = [i for one in Schedule(store, other, made.usable).bins(0) for i in one]
    assert seen != short
