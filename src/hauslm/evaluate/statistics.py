"""Is the difference real? Paired comparisons with the document as the unit.

Items of one document resemble each other, so counting items as independent finds differences that are
none: in a simulation without any difference (40 documents of 10 items, intra-document correlation 0.3)
the item-level McNemar test rejected 11 % of the time at a level of 5 %. Here whole documents are the
unit throughout.

A system's results enter as one row of sufficient statistics per document (hits and items, bits and
bytes, counts of a confusion table ...); a metric is a function of their sum over documents. So one
method serves accuracy, macro-F1, entity F1 and bits per byte alike:

- interval: delete-one-document jackknife with a t quantile (for equal documents and a mean it is
  exactly the paired t-interval over documents); Miller, "Adding Error Bars to Evals",
  arXiv 2411.00640, section 3, recommends clustered errors of paired differences;
- p: sign-flip test, the two systems change places in whole documents; all 2^D flips are counted for
  few documents, seeded ones otherwise;
- detectable: the difference that a study of this size finds with 80 % power; infinite where no outcome
  could have counted as shown (too few documents) or where nothing varied, so that nothing is known;
- Holm (1979) for several metrics or several adapters.

D documents, K sufficient statistics, F flips. Randomness comes from the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hauslm.base.words import Sentence, say

ALPHA = 0.05
POWER = 0.80
# With fewer documents not even the most extreme outcome has p < 0.05: 2 / 2^5 = 0.0625.
FEWEST_DOCUMENTS = 6
EXACT_DOCUMENTS = 14
FLIPS = 9999

Array = NDArray[np.float64]
# Sums of sufficient statistics, shape [..., K] -> the metric, shape [...].
Metric = Callable[[Array], Array]
Finding = Literal["better", "no_evidence", "worse"]


@dataclass(frozen=True)
class Comparison:
    """System minus other on one metric, in the metric's own unit."""

    value: float
    low: float
    high: float
    p: float
    detectable: float
    documents: int
    higher_is_better: bool = True
    p_holm: float | None = None

    @property
    def gain(self) -> float:
        """The difference with its sign turned so that positive is better."""
        return self.value if self.higher_is_better else -self.value


def ratio(sums: Array) -> Array:
    """The metric of two sufficient statistics (numerator, denominator); 0 where there is nothing."""
    bottom = sums[..., 1]
    safe = np.where(bottom > 0, bottom, 1.0)
    return np.asarray(np.where(bottom > 0, sums[..., 0] / safe, 0.0))


def compare(
    system_DK: Array,  # noqa: N803 - shape suffix
    other_DK: Array,  # noqa: N803
    metric: Metric = ratio,
    *,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Comparison:
    """`metric(system) - metric(other)` on the same documents in the same order.

    One document gives a value without interval (infinite ends) and p = 1; none is a ValueError.
    """
    system, other = _table(system_DK), _table(other_DK)
    if system.shape != other.shape:
        raise ValueError(f"unpaired: {system.shape} against {other.shape}")
    documents = len(system)
    total_system, total_other = system.sum(0), other.sum(0)
    value = float(metric(total_system) - metric(total_other))
    if documents < 2:
        return Comparison(
            value, -np.inf, np.inf, 1.0, np.inf, documents, higher_is_better=higher_is_better
        )
    without = metric(total_system - system) - metric(total_other - other)
    spread = without - without.mean()
    error = float(np.sqrt((documents - 1) / documents * np.sum(spread**2)))
    t_interval, t_power = _quantiles(documents - 1)
    untold = documents < FEWEST_DOCUMENTS or (error == 0 and value == 0)
    return Comparison(
        value=value,
        low=value - t_interval * error,
        high=value + t_interval * error,
        p=sign_flip_p(system, other, metric, seed=seed),
        detectable=np.inf if untold else (t_interval + t_power) * error,
        documents=documents,
        higher_is_better=higher_is_better,
    )


def sign_flip_p(
    system_DK: Array,  # noqa: N803
    other_DK: Array,  # noqa: N803
    metric: Metric = ratio,
    *,
    seed: int = 0,
    flips: int = FLIPS,
) -> float:
    """Two-sided p of the test in which the systems change places in whole documents.

    Exact up to 14 documents. Above that, seeded flips with the observed outcome counted among them
    (Phipson and Smyth 2010), so p is never 0.
    """
    system, other = _table(system_DK), _table(other_DK)
    documents = len(system)
    observed = abs(float(metric(system.sum(0)) - metric(other.sum(0))))
    # Rounding must not separate outcomes that are equal in exact arithmetic.
    bar = observed - 1e-9 * max(1.0, observed)
    if documents <= EXACT_DOCUMENTS:
        # Turning every sign gives the same absolute value, so half of the flips will do.
        codes = np.arange(2 ** max(0, documents - 1))
        signs = (codes[:, None] >> np.arange(documents)) & 1
        return float(np.mean(_flipped(signs, system, other, metric) >= bar))
    generator = np.random.default_rng(seed)
    reached = 0
    step = 1000  # bounded memory: step x documents
    for start in range(0, flips, step):
        signs = generator.integers(0, 2, size=(min(step, flips - start), documents))
        reached += int(np.sum(_flipped(signs, system, other, metric) >= bar))
    return (reached + 1) / (flips + 1)


def _flipped(signs_FD: NDArray[np.int64], system: Array, other: Array, metric: Metric) -> Array:  # noqa: N803
    """|difference| after changing places where the sign is 1, shape [F]."""
    swapped = signs_FD.astype(np.float64) @ (other - system)
    return np.asarray(np.abs(metric(system.sum(0) + swapped) - metric(other.sum(0) - swapped)))


def _table(rows: Array) -> Array:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"one row per document is needed, not shape {table.shape}")
    return table


@lru_cache(maxsize=256)
def _quantiles(degrees: int) -> tuple[float, float]:
    """t quantiles for a two-sided interval at ALPHA and for POWER."""
    from scipy.stats import t

    return float(t.ppf(1 - ALPHA / 2, degrees)), float(t.ppf(POWER, degrees))


def by_document(
    documents: Sequence[str], rows: Sequence[Sequence[float]]
) -> tuple[tuple[str, ...], Array]:
    """Sum the items' sufficient statistics per document; names sorted, array [D, K]."""
    if len(documents) != len(rows):
        raise ValueError(f"{len(documents)} documents for {len(rows)} rows")
    names = tuple(sorted(set(documents)))
    place = {name: i for i, name in enumerate(names)}
    width = len(rows[0]) if rows else 0
    table = np.zeros((len(names), width))
    np.add.at(table, [place[d] for d in documents], np.asarray(rows, dtype=np.float64))
    return names, table


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979): step-down, monotone, at most 1, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def with_holm(comparisons: dict[str, Comparison]) -> dict[str, Comparison]:
    """The same comparisons, each with its p corrected for being one of several."""
    adjusted = holm([c.p for c in comparisons.values()])
    return {
        name: replace(c, p_holm=p)
        for (name, c), p in zip(comparisons.items(), adjusted, strict=True)
    }


def finding(comparison: Comparison, *, corrected: bool = False) -> Finding:
    """better, worse or no_evidence.

    A finding needs an interval that excludes 0, a sign-flip p below 5 % and a difference that is not
    smaller than what the sample could have shown. `corrected` uses Holm's p (for a metric that was
    not chosen beforehand as the one that counts).
    """
    p = comparison.p_holm if corrected and comparison.p_holm is not None else comparison.p
    excludes_zero = comparison.low > 0 or comparison.high < 0
    if not excludes_zero or p >= ALPHA or abs(comparison.value) < comparison.detectable:
        return "no_evidence"
    return "better" if comparison.gain > 0 else "worse"


def why_no_evidence(comparison: Comparison) -> Sentence:
    """The first reason why this difference is not taken as shown."""
    if comparison.documents < FEWEST_DOCUMENTS:
        return say(
            "{documents} documents are too few: below {fewest} no outcome could reach p < 0.05.",
            documents=comparison.documents,
            fewest=FEWEST_DOCUMENTS,
        )
    if comparison.low <= 0 <= comparison.high or comparison.p >= ALPHA:
        return say("A difference of this size also arises by chance.")
    return say("It points in one direction, but it is smaller than what so few documents can show.")


def interval_of(table_DK: Array, metric: Metric = ratio) -> tuple[float, float, float]:  # noqa: N803
    """One system's metric with its document-clustered 95 % interval: value, low, high."""
    table = _table(table_DK)
    alone = compare(table, np.zeros_like(table), lambda sums: metric(sums))
    return alone.value, alone.low, alone.high
