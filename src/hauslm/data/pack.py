"""Which examples share a row? Packing as a pure function of (lengths, capacity, seed, epoch).

Best-fit-decreasing with an order that the seed and the epoch decide among equals and among rows: every
example stands in exactly one row, none is cut, none is dropped. An example longer than the capacity is an
error of whoever prepared it, not something to shorten. How attention is kept apart inside a row is the
trainer's business (position ids).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

import numpy as np

from hauslm.base.errors import DataError
from hauslm.base.words import say

WINDOW = 20_000  # examples packed together: bounded time and memory on large corpora


def pack(lengths: Sequence[int], capacity: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows of example indices; the lengths in a row add up to at most `capacity` tokens.

    Examples are shuffled, taken in windows of 20,000 and packed best-fit-decreasing in each window; rows
    are shuffled again, so that long examples do not come first. Raises H331 for an example that is too
    long. Best-fit-decreasing needs at most 11/9 of the optimal number of rows, plus one (Johnson et al.,
    SIAM Journal on Computing 3(4), 1974, p. 299).
    """
    _refuse_too_long(lengths, capacity)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    rows: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        rows += _best_fit(order[start : start + WINDOW].tolist(), lengths, capacity)
    return [rows[i] for i in generator.permutation(len(rows))]


def _refuse_too_long(lengths: Sequence[int], capacity: int) -> None:
    longest = max((int(n) for n in lengths), default=0)
    if longest > capacity:
        raise DataError(
            "H331",
            say(
                "An example has {tokens:,} tokens, but a row holds {capacity:,}.",
                tokens=longest,
                capacity=capacity,
            ),
            next_step=say("Run hauslm prepare again, so that the examples fit training.seq_len."),
        )


def _best_fit(indices: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Longest first, each into the fullest row that still has room for it."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(
        indices, key=lambda i: -int(lengths[i])
    ):  # stable: ties keep shuffled order
        length = int(lengths[index])
        place = bisect_left(room, (length, -1))
        if place == len(room):
            rows.append([index])
            free, row = capacity - length, len(rows) - 1
        else:
            free, row = room.pop(place)
            rows[row].append(index)
            free -= length
        if free > 0:
            insort(room, (free, row))
    return rows


def unpacked(lengths: Sequence[int], seed: int, epoch: int) -> list[list[int]]:
    """One example per row, shuffled: what `pack` is without packing."""
    return [[int(i)] for i in np.random.default_rng([seed, epoch]).permutation(len(lengths))]


def fill(rows: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Share of the row tokens that hold something (1.0 = no padding)."""
    return (
        sum(int(lengths[i]) for row in rows for i in row) / (len(rows) * capacity) if rows else 0.0
    )


def batches_in_order(
    rows: Sequence[Sequence[int]], batch_size: int, start_batch: int = 0
) -> Iterator[list[list[int]]]:
    """Consecutive batches of rows from `start_batch` on (resuming is a start number, no state)."""
    for start in range(start_batch * batch_size, len(rows), batch_size):
        yield [list(row) for row in rows[start : start + batch_size]]
