"""Drawings: well-formed, without inline style, in the reader's numbers, harmless whatever a name contains."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.report import plots
from hauslm.report.svg import log_ticks, nice_step, ticks, wrapped

EVIL = "a <b> & \"c\" 'd'"
DRAWINGS = {
    "memory_bar": lambda n, v: plots.memory_bar([(n, abs(v)), ("b", 0.2)], [(n, 24.0)], n, "GiB", language="de"),
    "bars": lambda n, v: plots.bars([(n, v, True), ("b", 2.0, False)], n, "EUR", language="de"),
    "tornado": lambda n, v: plots.tornado([(n, -v, v)], n, "EUR", v / 2, language="de"),
    "curves": lambda n, v: plots.curves([(n, [1, 2], [v, v]), ("b", [1], [0])], n, n, n, marks=[(1.5, n)], language="de"),
    "intervals": lambda n, v: plots.intervals([(n, v, v - 1, v + 1)], n, n, language="de"),
    "histogram": lambda n, v: plots.histogram([(n, int(abs(v)))], n, n, n, language="de"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWINGS)
@given(value=st.floats(-1e9, 1e9).map(lambda v: round(v, 3)))
def test_any_value_draws_well_formed_and_finite(name: str, value: float) -> None:
    svg = DRAWINGS[name](EVIL, value)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own drawing
    assert root.get("aria-label") == EVIL and root.get("role") == "img"
    assert "style=" not in svg and "nan" not in svg and "inf" not in svg
    assert svg == DRAWINGS[name](EVIL, value)


@pytest.mark.parametrize("draw", [
    lambda: plots.memory_bar([], [], "x", "GiB"), lambda: plots.bars([], "x", "EUR"),
    lambda: plots.tornado([], "x", "EUR", 0.0), lambda: plots.curves([], "x", "a", "b"),
    lambda: plots.intervals([], "x", "u"), lambda: plots.histogram([], "x", "a", "b"),
])  # fmt: skip
def test_nothing_to_draw_is_an_empty_drawing(draw: object) -> None:
    ElementTree.fromstring(draw())  # type: ignore[operator]  # noqa: S314


def test_axes_speak_the_readers_language() -> None:
    rows = [("x", 12345.6, True)]
    assert "12.346 €" in plots.bars(rows, "l", "EUR", language="de")
    assert "12,346 €" in plots.bars(rows, "l", "EUR", language="en")


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6), st.integers(2, 9))
def test_ticks_lie_inside_and_are_few(low: float, span: float, wanted: int) -> None:
    found = ticks(low, low + span, wanted)
    step = nice_step(span, wanted)
    assert len(found) <= wanted + 1
    assert all(low - step * 1e-6 <= t <= low + span + step * 1e-6 for t in found)


@given(st.floats(0.01, 1e6), st.floats(1.5, 1e6))
def test_log_ticks_lie_inside(low: float, factor: float) -> None:
    assert all(low * 0.99 <= t <= low * factor * 1.01 for t in log_ticks(low, low * factor))
    assert math.isfinite(sum(log_ticks(low, low * factor)))


@given(st.text(max_size=200))
def test_wrapped_lines_are_at_most_three(text: str) -> None:
    assert 1 <= len(wrapped(text, 12, 200)) <= 3
