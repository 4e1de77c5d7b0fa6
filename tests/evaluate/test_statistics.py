"""Do the intervals cover, does the test keep its level, and are the formulas the textbook's?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from hauslm.evaluate.statistics import (
    FEWEST_DOCUMENTS,
    Array,
    by_document,
    compare,
    finding,
    holm,
    sign_flip_p,
    why_no_evidence,
)


def simulated(
    generator: np.random.Generator, documents: int, items: int, gain: float, correlation: float
) -> tuple[Array, Array]:
    """Right answers of two systems; items of one document share a random difficulty."""

    def system(mean: float, shared: Array) -> Array:
        noise = generator.standard_normal((documents, items))
        latent = np.sqrt(correlation) * shared[:, None] + np.sqrt(1 - correlation) * noise
        right = (latent < scipy_stats.norm.ppf(mean)).sum(1)
        return np.column_stack([right, np.full(documents, items)]).astype(float)

    # Half of what a document shares is shared by both systems, so that the differences correlate too.
    both = generator.standard_normal(documents)
    mixed = [
        np.sqrt(0.5) * both + np.sqrt(0.5) * generator.standard_normal(documents) for _ in "ab"
    ]
    return system(0.6 + gain, mixed[0]), system(0.6, mixed[1])


@pytest.mark.parametrize(
    ("documents", "items", "correlation"), [(15, 10, 0.3), (40, 10, 0.3), (40, 10, 0.0)]
)
def test_interval_covers_the_true_gain(documents: int, items: int, correlation: float) -> None:
    """Nominal 95 %; 400 seeded repetitions leave a standard error of 1.1 points."""
    generator = np.random.default_rng(20240611)
    covered = 0
    for _ in range(400):
        a, b = simulated(generator, documents, items, 0.05, correlation)
        difference = (a[:, 0] - b[:, 0]) / items
        error = difference.std(ddof=1) / np.sqrt(documents)
        reach = scipy_stats.t.ppf(0.975, documents - 1) * error
        covered += difference.mean() - reach <= 0.05 <= difference.mean() + reach
        made = compare(a, b, seed=1) if _ < 20 else None
        if made is not None:  # equal documents: the jackknife is the paired t-interval
            assert made.low == pytest.approx(difference.mean() - reach)
            assert made.high == pytest.approx(difference.mean() + reach)
    assert 0.92 <= covered / 400 <= 0.98


def test_true_null_is_kept_where_items_are_correlated() -> None:
    """The item-level McNemar test fails here (11 % at 5 %); the document sign-flip must not."""
    generator = np.random.default_rng(7)
    rejected = item_level = better = 0
    for _ in range(300):
        a, b = simulated(generator, 12, 30, 0.0, 0.3)
        made = compare(a, b)
        rejected += made.p < 0.05
        better += finding(made) != "no_evidence"
        gap = abs(a[:, 0].sum() - b[:, 0].sum())
        spread = np.sqrt(2 * 0.6 * 0.4 * 360)  # as if 360 items were independent
        item_level += gap > 1.96 * spread
    assert rejected / 300 <= 0.08
    assert better / 300 <= 0.03  # the smallest detectable difference makes a finding stricter still
    assert item_level / 300 > 0.10  # what this guards against is really there


def test_ratio_of_unequal_documents_covers() -> None:
    """Bits per byte: documents of very different length, so the jackknife does real work."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        size = generator.integers(200, 5000, 25).astype(float)
        rate = 1.5 + 0.3 * generator.standard_normal(25)
        other = rate + 0.05 + 0.1 * generator.standard_normal(25)
        made = compare(np.column_stack([rate * size, size]), np.column_stack([other * size, size]))
        covered += made.low <= -0.05 <= made.high
    assert 0.91 <= covered / 300 <= 0.99


def test_sign_flip_is_exact_for_few_documents() -> None:
    """Six documents that all point the same way: 2 of 64 flips are as extreme."""
    b = np.tile([3.0, 10.0], (6, 1))
    a = b + np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0]])
    assert sign_flip_p(a, b) == pytest.approx(2 / 64)
    assert sign_flip_p(b, b) == 1.0


def test_sampled_flips_agree_with_exact_ones() -> None:
    generator = np.random.default_rng(0)
    a = np.column_stack([generator.normal(0.4, 1, 15), np.ones(15)])
    b = np.column_stack([np.zeros(15), np.ones(15)])
    signs = (np.arange(2**15)[:, None] >> np.arange(15)) & 1
    differences = np.abs(((1 - 2 * signs) * a[:, 0]).mean(1))
    exact = float(np.mean(differences >= abs(a[:, 0].mean()) - 1e-12))
    assert sign_flip_p(a, b, seed=5) == pytest.approx(exact, abs=0.015)
    assert sign_flip_p(a, b, seed=5) == sign_flip_p(a, b, seed=5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_never_below_p(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= 1 or q == 1
    assert min(adjusted) == pytest.approx(min(1.0, min(p_values) * len(p_values)))
    by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)


def test_holm_textbook() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_changing_places_changes_the_sign_only(documents: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = simulated(generator, documents, 5, 0.2, 0.3)
    forth, back = compare(a, b), compare(b, a)
    assert forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high)
    assert forth.p == pytest.approx(back.p)
    assert forth.detectable == pytest.approx(back.detectable)


def test_too_few_documents_give_no_verdict_however_large_the_difference() -> None:
    """Five documents, all the same huge gain, no spread at all: p cannot reach 5 %."""
    few = FEWEST_DOCUMENTS - 1
    made = compare(np.tile([9.0, 10.0], (few, 1)), np.tile([1.0, 10.0], (few, 1)))
    assert made.value == pytest.approx(0.8)
    assert finding(made) == "no_evidence"
    assert "too few" in why_no_evidence(made).text("en")


def test_below_the_detectable_difference_there_is_no_verdict() -> None:
    """Excludes 0, but smaller than what the sample finds in four of five repetitions."""
    spread = np.linspace(-0.23, 0.23, 20)
    a = np.column_stack([0.07 + spread, np.ones(20)])
    made = compare(a, np.column_stack([np.zeros(20), np.ones(20)]))
    assert made.low > 0 and made.p < 0.05 and made.value < made.detectable
    assert finding(made) == "no_evidence"
    assert "smaller" in why_no_evidence(made).text("en")


def test_lower_is_better_for_bits_per_byte() -> None:
    size = np.arange(1.0, 11.0) * 100
    better = np.column_stack([1.2 * size + np.arange(10), size])
    base = np.column_stack([1.6 * size, size])
    made = compare(better, base, higher_is_better=False)
    assert made.value < 0 and finding(made) == "better"
    assert finding(compare(base, better, higher_is_better=False)) == "worse"


def test_one_document_has_no_interval() -> None:
    made = compare(np.array([[5.0, 10.0]]), np.array([[1.0, 10.0]]))
    assert made.p == 1.0 and np.isinf(made.high) and finding(made) == "no_evidence"


def test_items_are_summed_by_document() -> None:
    names, table = by_document(["b", "a", "b"], [(1, 1), (0, 1), (1, 1)])
    assert names == ("a", "b")
    assert table.tolist() == [[0, 1], [2, 2]]
    with pytest.raises(ValueError, match="unpaired"):
        compare(table, table[:1])


def test_what_no_outcome_could_show_is_not_called_detectable() -> None:
    few = compare(_counts([8, 7, 9, 8, 8]), _counts([2, 1, 2, 2, 1]))
    assert few.p > 0.05 and few.detectable == np.inf  # 2 / 2^5 is the smallest p there is
    same = compare(_counts([8] * 20), _counts([8] * 20))
    assert same.value == 0 and same.detectable == np.inf  # nothing varied, so nothing is known
    assert np.isfinite(compare(_counts(range(10)), _counts([5] * 10)).detectable)


def _counts(hits: Iterable[int]) -> Array:
    return np.array([[h, 10.0] for h in hits], dtype=np.float64)
