"""Every published row with known settings, within the accuracy that is promised (docs/accuracy.md)."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "planner" / "accuracy.py"


def _accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planner_accuracy", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planner_accuracy"] = module
    spec.loader.exec_module(module)
    return module


ACCURACY = _accuracy()
DATA = ACCURACY.measured()
MEMORY = ACCURACY.memory_rows(DATA, "training")
SERVING = ACCURACY.serving_rows(DATA)
SPEED = ACCURACY.speed_rows(DATA)


def _name(compared):
    row = compared.row
    return f"{row['model']}-{row.get('method', '')}-{row['source']}"


@pytest.mark.parametrize("compared", MEMORY, ids=_name)
def test_no_row_is_more_than_15_per_cent_off(compared):
    assert abs(compared.error) <= 0.15


def test_half_of_the_rows_are_within_8_per_cent():
    assert statistics.median(abs(c.error) for c in MEMORY) <= 0.08
    assert len(MEMORY) >= 70


@pytest.mark.parametrize("compared", SERVING, ids=_name)
def test_batch_inference_is_within_30_per_cent(compared):
    assert abs(compared.error) <= 0.30


def test_training_speed_is_within_its_range():
    errors = [abs(c.error) for c in SPEED]
    assert statistics.median(errors) <= 0.15
    assert max(errors) <= 0.40


def test_verdicts_on_the_cards_that_were_used():
    """Every run that was published ran: its card must not be refused."""
    from hauslm.plan.subject import card

    for compared in MEMORY:
        gpu = compared.row.get("gpu")
        if gpu:
            assert compared.predicted <= card(gpu).usable_gib * 1.02, compared.row


def test_every_row_left_out_says_why():
    for row in [*DATA["excluded"], *DATA["serving_excluded"]]:
        assert row["what"] and len(row["why"]) > 10
    assert all(row["source"] in DATA["sources"] for row in DATA["training"])


def test_the_page_is_up_to_date():
    page = ACCURACY.PAGE.read_text(encoding="utf-8")
    assert f"Formula: {ACCURACY._summary([c.error for c in MEMORY])}." in page
    assert f"{ACCURACY._summary([c.error for c in SERVING])}." in page
    assert "Trace: " in page
