"""What does one optimizer step eat? A pure function of (examples, settings, step).

One item of the data set is one whole optimizer step: the list of its sequences. So the order needs no
state: to resume at step k is to ask for step k. `Row` is one forward pass: documents one after the
other, without padding, with their positions and the labels that count.

Shapes: T tokens of a row, N of them with a label that counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hauslm.data.pack import pack, unpacked
from hauslm.data.store import ExampleStore
from hauslm.train.attention import Documents

if TYPE_CHECKING:
    from hauslm.train.settings import Settings


def label_counts(store: ExampleStore) -> NDArray[np.int64]:
    """Labels that count, per example; the first token of a document is nobody's label."""
    return np.array(
        [int(np.count_nonzero(store[i].trained[1:])) for i in range(len(store))], dtype=np.int64
    )


def stream_seed(seed: int, *place: int) -> int:
    """The seed of the dropout stream at a place (step, row): no two places share one by accident."""
    text = ",".join(str(part) for part in (seed, *place)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class Schedule:
    """Which sequences belong to which optimizer step, over all epochs.

    `usable` are the indices of the examples that have a label at all. Sequences of an epoch are spread
    evenly over its steps, so that no last step is a crumb.
    """

    def __init__(self, store: ExampleStore, settings: Settings, usable: Sequence[int]) -> None:
        self.usable = list(usable)
        lengths = store.lengths()
        self.lengths = [int(lengths[i]) for i in self.usable]
        self.settings = settings
        self._starts: list[int] = [0]  # first step of each epoch, and the end
        self._share: list[float] = []
        self._lay_out()

    def _lay_out(self) -> None:
        left, limit = self.settings.epochs, self.settings.max_steps
        epoch = 0
        while limit is not None or left > 1e-9:
            share = 1.0 if limit is not None else min(1.0, left)
            steps = self._steps_in(epoch, share)
            if limit is not None:
                steps = min(steps, limit - self._starts[-1])
            self._share.append(share)
            self._starts.append(self._starts[-1] + steps)
            left, epoch = left - share, epoch + 1
            if limit is not None and self._starts[-1] >= limit:
                break

    def _steps_in(self, epoch: int, share: float) -> int:
        bins = max(1, round(len(self._bins(epoch)) * share))
        return max(1, -(-bins // self.settings.batch_bins))

    @lru_cache(maxsize=2)  # noqa: B019 - one schedule lives as long as the run
    def _bins(self, epoch: int) -> list[list[int]]:
        seed = self.settings.seed
        if self.settings.curriculum == "length" and epoch == 0:
            return short_first(self.lengths, self.settings.seq_len, self.settings.packing)
        if self.settings.packing:
            return pack(self.lengths, self.settings.seq_len, seed, epoch)
        return unpacked(self.lengths, seed, epoch)

    @property
    def steps(self) -> int:
        return self._starts[-1]

    def epoch_of(self, step: int) -> int:
        return int(np.searchsorted(self._starts, step, side="right")) - 1

    def epochs_done(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        if step >= self.steps:
            step, last = self.steps, len(self._share) - 1
        else:
            last = self.epoch_of(step)
        whole = self._steps_in(last, self._share[last])
        return sum(self._share[:last]) + self._share[last] * (step - self._starts[last]) / whole

    def bins(self, step: int) -> list[list[int]]:
        """The sequences of a step: lists of example indices of the store."""
        epoch = self.epoch_of(step)
        whole = self._steps_in(epoch, self._share[epoch])
        all_bins = self._bins(epoch)
        count = max(1, round(len(all_bins) * self._share[epoch]))
        place = step - self._starts[epoch]
        start, end = place * count // whole, (place + 1) * count // whole
        return [[self.usable[i] for i in one] for one in all_bins[start:end]]


def short_first(lengths: Sequence[int], seq_len: int, packing: bool) -> list[list[int]]:
    """Sequences in which no example comes before a shorter one; with packing filled in that order."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    if not packing:
        return [[i] for i in order]
    bins: list[list[int]] = []
    room = 0
    for i in order:
        if lengths[i] > room:
            bins.append([])
            room = seq_len
        bins[-1].append(i)
        room -= lengths[i]
    return bins


class Steps(Dataset[dict[str, Any]]):
    """The data set that transformers' Trainer sees: item i is optimizer step `start + i`."""

    def __init__(self, schedule: Schedule, start: int = 0) -> None:
        self.schedule = schedule
        self.start = start

    def __len__(self) -> int:
        return self.schedule.steps - self.start

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        step = self.start + index
        return {"step": step, "bins": self.schedule.bins(step)}


def only(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Collator: a batch is one item."""
    return items[0]


@dataclass(frozen=True)
class Row:
    """One forward pass."""

    ids_1T: torch.Tensor  # noqa: N815 - shape suffixes, see the legend
    positions_1T: torch.Tensor  # noqa: N815
    documents: Documents
    places_N: torch.Tensor  # noqa: N815 - where in the row a label is predicted
    labels_N: torch.Tensor  # noqa: N815 - what it is

    @property
    def tokens(self) -> int:
        return int(self.ids_1T.shape[1])

    @property
    def labels(self) -> int:
        return int(self.labels_N.shape[0])


def make_row(store: ExampleStore, examples: Sequence[int], device: torch.device | str) -> Row:
    """The documents one after the other; nobody's first token is anybody's label."""
    ids, positions, places, labels, lengths = [], [], [], [], []
    offset = 0
    for index in examples:
        example = store[index]
        tokens = example.tokens.astype(np.int64)
        counted = np.flatnonzero(example.trained[1:])
        ids.append(tokens)
        positions.append(np.arange(len(tokens)))
        places.append(counted + offset)
        labels.append(tokens[1:][counted])
        lengths.append(len(tokens))
        offset += len(tokens)

    def joined(parts: list[NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device, non_blocking=True)

    return Row(
        joined(ids).unsqueeze(0),
        joined(positions).unsqueeze(0),
        Documents.of(lengths, device),
        joined(places),
        joined(labels),
    )


def split_examples(
    bins: Sequence[Sequence[int]], micro_batch: float, packing: bool
) -> list[list[int]]:
    """The forward passes of a step, as lists of examples.

    `micro_batch` sequences share one pass; below 1 (after an out-of-memory) a sequence is cut between
    its documents into 1/micro_batch parts. Without packing each document has its own pass.
    """
    if not packing:
        return [[i] for one in bins for i in one]
    if micro_batch >= 1:
        size = int(micro_batch)
        return [
            [i for one in bins[start : start + size] for i in one]
            for start in range(0, len(bins), size)
        ]
    parts = round(1 / micro_batch)
    rows = []
    for one in bins:
        size = max(1, -(-len(one) // parts))
        rows += [list(one[start : start + size]) for start in range(0, len(one), size)]
    return rows
