"""Where do the keys and values of a running batch stand? In slots: token p of row r in slot (r, p).

The position of a token is its slot, so rows of different length need no padding in front, sliding
windows count right, a shared prefix is copied once per row, and a row can be replaced while its
neighbours go on. `transformers` sees an ordinary `Cache`; writing is in place, so a decoding step
copies one token per row instead of the whole cache.

Shapes: B rows in the forward pass, K new tokens per row, H key/value heads, D head dimension,
S slots in use.
"""

# ruff: noqa: N803, N806 - tensor names carry their shape, see the legend
from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

_GROWTH = 64  # slots are added in multiples of this, and at least doubled


class SlotCache(Cache):
    """Keys and values for `rows` sequences, growing with the longest of them.

    Before each forward pass say with `aim` which rows it is about, at which positions its tokens
    stand, and how many slots the attention reads.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.keys: list[torch.Tensor] = []  # one [rows, H, capacity, D] per layer
        self.values: list[torch.Tensor] = []
        self._capacity = 0
        self._row_index = torch.zeros((0, 1), dtype=torch.long)
        self._positions_BK = torch.zeros((0, 1), dtype=torch.long)
        self._used = 0
        self._contiguous = 0
        self._fresh = True

    # ------------------------------------------------------------ before a forward pass

    def aim(
        self, rows: list[int], positions_BK: torch.Tensor, used: int, *, fresh: bool = False
    ) -> None:
        """The next forward pass writes `positions_BK` of `rows` and reads slots 0..`used`.

        `fresh`: the rows hold nothing yet and their positions start at 0, so the new keys are all
        there is to attend to and the model's own causal mask applies.
        """
        first = rows == list(range(len(rows)))
        self._contiguous = len(rows) if first else 0
        self._row_index = torch.tensor(rows, device=positions_BK.device)[:, None]
        self._positions_BK = positions_BK
        self._used, self._fresh = used, fresh
        self._grow(used)

    def _grow(self, used: int) -> None:
        if used <= self._capacity:
            return
        wanted = max(used, 2 * self._capacity)
        self._capacity = -(-wanted // _GROWTH) * _GROWTH
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                new = old.new_zeros((*old.shape[:2], self._capacity, old.shape[3]))
                new[:, :, : old.shape[2]] = old
                store[layer] = new

    # ------------------------------------------------------------ what transformers asks

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [B, H, K, D] of one layer; returns what its attention reads, [B, H, S, D]."""
        while len(self.keys) <= layer_idx:
            for store, states in ((self.keys, key_states), (self.values, value_states)):
                store.append(
                    states.new_zeros((self.rows, states.shape[1], self._capacity, states.shape[3]))
                )
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self._row_index, :, self._positions_BK] = key_states.transpose(1, 2)
        values[self._row_index, :, self._positions_BK] = value_states.transpose(1, 2)
        if self._fresh:
            return key_states, value_states
        if self._contiguous:
            n = self._contiguous
            return keys[:n, :, : self._used], values[:n, :, : self._used]
        index = self._row_index[:, 0]
        return keys[index, :, : self._used], values[index, :, : self._used]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self._fresh else self._used

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return (query_length if self._fresh else self._used), 0

    # ------------------------------------------------------------ moving rows

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes row `source` in its first `length` slots."""
        for store in (self.keys, self.values):
            for layer in store:
                layer[target, :, :length] = layer[source, :, :length]

    def take_prefix(self, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A copy of the first `length` slots of one row, per layer ([H, length, D] twice)."""
        return [
            (k[row, :, :length].clone(), v[row, :, :length].clone())
            for k, v in zip(self.keys, self.values, strict=True)
        ]

    def put_prefix(self, row: int, prefix: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Fill the first slots of a row with a prefix taken by `take_prefix`."""
        length = prefix[0][0].shape[1]
        self._grow(length)
        if not self.keys:
            for k, v in prefix:
                for store, states in ((self.keys, k), (self.values, v)):
                    shape = (self.rows, states.shape[0], self._capacity, states.shape[2])
                    store.append(states.new_zeros(shape))
        for layer, (k, v) in enumerate(prefix):
            self.keys[layer][row, :, :length] = k
            self.values[layer][row, :, :length] = v


def slot_mask(positions_BK: torch.Tensor, used: int, window: int | None = None) -> torch.Tensor:
    """[B, 1, K, S] bool: query at position p sees slots p - window < s <= p."""
    slots_S = torch.arange(used, device=positions_BK.device)
    mask_BKS = slots_S <= positions_BK[:, :, None]
    if window is not None:
        mask_BKS &= slots_S > positions_BK[:, :, None] - window
    return mask_BKS[:, None]
