"""How do new tokens look back over old ones, quickly, on a CPU? As plain products, block by block.

torch's fused attention is made for long queries without a mask. For one new token per row it first copies
keys and values for every query head of a group and then works row by row: 2.8 ms per layer for 8 rows over
900 slots on one core, where two batched products over the groups take 0.4 ms. With a mask, as rows need
that go on from a shared beginning, it computes what nobody may see as well. Here a block of queries meets
the slots up to its own last position and no further. GPUs stay with the fused kernels. Same arithmetic,
other order of summing: float32 rounding.

And what need not be computed at all (`only`): of a prompt only the last position is asked for the next
token, so in the last layer only that one needs attention and MLP; the others leave their keys and values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

NAME = "hauslm_slots"
MOST_QUERIES = 8  # new tokens per row that are one block
BLOCK = 64  # queries of one block; 64 and 128 measured alike, 256 slower by a third


class _Now(threading.local):
    """What the forward pass of this thread is about."""

    wanted: torch.Tensor | None = None  # positions of the new tokens whose output is asked for
    last_layer = -1


_now = _Now()


@contextmanager
def only(wanted: Sequence[int], width: int, last_layer: int, device: Any) -> Iterator[torch.Tensor]:
    """In this thread's forward pass over `width` new tokens a row, ask the last layer for `wanted` alone."""
    index = torch.tensor(list(wanted), device=device)
    # Picking out costs something too: not for a few tokens of which most are wanted.
    few = 2 * len(wanted) <= width
    _now.wanted, _now.last_layer = (index if few else None), last_layer
    try:
        yield index
    finally:
        _now.wanted = None


def trim_last_mlp(model: Any) -> int:
    """Make the last layer's MLP leave out what `only` says; its number, or -1 if the model has no such
    layer. The outputs left out are zeros, which nobody reads."""
    layers = getattr(model.get_decoder(), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    if layers is None or mlp is None:
        return -1
    whole = mlp.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        wanted = _now.wanted
        if wanted is None or args or kwargs or hidden.dim() != 3:
            return whole(hidden, *args, **kwargs)
        part = whole(hidden[:, wanted])
        if not isinstance(part, torch.Tensor):  # experts report their routing as well
            return whole(hidden)
        out = hidden.new_zeros((*hidden.shape[:2], part.shape[2]))
        out[:, wanted] = part
        return out

    mlp.forward = forward
    return len(layers) - 1


def register() -> str:
    """Make it known to transformers under `NAME`; masks are those of sdpa."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def see_up_to(mask: torch.Tensor, starts: Sequence[int]) -> None:
    """Note on a mask that query i of a row sees every slot up to `start + i` and none after it;
    `starts`: of the rows. transformers hands a finished mask on as it is, with this note."""
    mask.hauslm_starts = (min(starts), max(starts))  # type: ignore[attr-defined]


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention seam: query [B, Q, K, D], key and value [B, H, S, D] -> [B, K, Q, D]."""
    plain = query.device.type == "cpu" and not dropout and not (set(kwargs) & _CHANGES)
    new = query.shape[2]
    starts = getattr(attention_mask, "hauslm_starts", None)
    if attention_mask is None and new > 1 and new == key.shape[2] and is_causal is not False:
        starts = (0, 0)  # rows that begin here: the causal mask that nobody wrote down
    if plain and starts is not None:
        wanted = _now.wanted if getattr(module, "layer_idx", None) == _now.last_layer else None
        if wanted is not None:
            return _at(query, key, value, attention_mask, scaling, wanted), None
        if new > MOST_QUERIES:
            return _blocks(query, key, value, attention_mask, scaling, starts), None
    if plain and attention_mask is not None and new <= MOST_QUERIES:
        return _grouped(query, key, value, attention_mask, scaling), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask,
        dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs,
    )  # fmt: skip
    return result


# What some architectures pass that alters the scores: left to the kernel that knows it, or refuses.
_CHANGES = frozenset(("softcap", "s_aux", "position_bias"))


def _at(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    wanted: torch.Tensor,
) -> torch.Tensor:
    """Attention of the queries `wanted` alone; zeros for the others. [B, K, Q, D]"""
    if mask is None:
        mask = (torch.arange(key.shape[2]) <= wanted[:, None])[None, None]
    else:
        mask = mask[:, :, wanted]
    rows, heads, new, _ = query.shape
    out = query.new_zeros((rows, new, heads, value.shape[3]))
    out[:, wanted] = _grouped(query[:, :, wanted], key, value, mask, scaling)
    return out


def _blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    starts: tuple[int, int],
) -> torch.Tensor:
    """All queries, `BLOCK` at a time, each block over the slots that its last query may see."""
    rows, heads, new, width = query.shape
    stored = key.shape[1]
    group = heads // stored
    query = query * (width**-0.5 if scaling is None else scaling)
    out = query.new_empty((rows, new, heads, value.shape[3]))
    even = starts[0] == starts[1]
    corner = torch.ones((BLOCK, BLOCK), dtype=torch.bool).triu(1)
    for first in range(0, new, BLOCK):
        last = min(first + BLOCK, new)
        size, seen = last - first, min(starts[1] + last, key.shape[2])
        for head in range(stored):
            mine = slice(head * group, (head + 1) * group)
            block = query[:, mine, first:last].reshape(rows, group * size, width)
            scores = torch.bmm(block, key[:, head, :seen].transpose(1, 2))
            scores = scores.view(rows, group, size, seen)
            if even:  # all rows begin at the same slot: only the corner is not seen by all
                scores[..., seen - size :].masked_fill_(corner[:size, :size], float("-inf"))
            elif mask is not None:
                part = mask[:, :, first:last, :seen]
                if mask.dtype == torch.bool:
                    scores.masked_fill_(~part, float("-inf"))
                else:
                    scores += part
            weights = torch.softmax(scores, dim=-1).view(rows, group * size, seen)
            found = torch.bmm(weights, value[:, head, :seen]).view(rows, group, size, -1)
            out[:, first:last, mine] = found.transpose(1, 2)
    return out


def _grouped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    rows, heads, new, width = query.shape
    stored = key.shape[1]
    group = heads // stored
    scale = width**-0.5 if scaling is None else scaling
    grouped = (query * scale).reshape(rows, stored, group * new, width)
    scores = (grouped @ key.transpose(2, 3)).view(rows, stored, group, new, key.shape[2])
    mask = mask[:, :, None, :, : key.shape[2]]  # [B, 1, 1, K, S]
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    out = weights.reshape(rows, stored, group * new, -1) @ value
    return out.view(rows, heads, new, value.shape[3]).transpose(1, 2).contiguous()
