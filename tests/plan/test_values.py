"""Learning rate, batch, lengths and histograms."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.catalog import load
from hauslm.estimate.rate import HIGHEST_LEARNING_RATE
from hauslm.plan import values


def rate(model: str, method: str) -> float:
    return values.learning_rate(load.model(model).architecture, method).value


def test_learning_rates_follow_method_and_size():
    assert rate("llama-3.1-8b", "lora") == pytest.approx(2.86e-4, rel=0.01)
    assert rate("llama-3.2-3b", "lora") == pytest.approx(3.6e-4, rel=0.02)
    assert rate("mistral-7b-v0.3", "qlora") == 2e-4
    assert rate("mistral-small-3-24b", "qlora") == 1e-4
    assert rate("llama-3.1-8b", "full") == pytest.approx(
        rate("llama-3.1-8b", "lora") / 10, rel=0.01
    )
    tiny = replace(load.model("llama-3.1-8b").architecture, hidden_size=256)
    assert values.learning_rate(tiny, "lora").value == HIGHEST_LEARNING_RATE


def test_no_rate_reaches_the_one_that_diverged():
    for model in load.models():
        if model.architecture is not None:
            for method in ("lora", "qlora", "full"):
                assert values.learning_rate(model.architecture, method).value < 3e-3


def test_batches_shrink_only_for_small_corpora():
    assert values.sequences_per_step(10_000, 1).value == 16
    assert values.sequences_per_step(70, 1).value == 4
    assert values.sequences_per_step(70, float("inf")).value == 16


HISTOGRAM = {"128-255": 10, "4096-8191": 30, "8192-16383": 50, "16384-": 10}


def test_histograms_are_read():
    assert 8192 < values.median_tokens(HISTOGRAM) < 16384
    assert values.share_longer_than(HISTOGRAM, 8192) == pytest.approx(0.6)
    assert values.share_longer_than(HISTOGRAM, 1) == pytest.approx(1.0)
    assert values.median_tokens({}) is None
    assert values.share_longer_than({}, 100) == 0


@given(st.dictionaries(st.text(max_size=12), st.integers(0, 100), max_size=6), st.floats(0, 1e6))
def test_any_histogram_gives_a_share(histogram, tokens):
    assert 0 <= values.share_longer_than(histogram, tokens) <= 1
