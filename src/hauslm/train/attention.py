"""How does a packed sequence attend? Each document to itself, and nothing else is computed.

Several documents stand one after the other in one row; a token sees the earlier tokens of its own
document only. Registered with transformers' AttentionInterface under `NAME`: on CUDA through torch's
`varlen_attn`, elsewhere one SDPA call per document. No dense block mask, no padding, no kernel from a
hub. `train/proof.py` compares it with the stock path on the real model before every run.

Shapes: T tokens of the row, H query heads, K key/value heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "hauslm_documents"

# torch's bfloat16 attention on a CPU without AMX calls a small product for every few rows: forward and
# backward of a document of 32, 100, 250, 450, 1,024 tokens took 22, 19, 20, 27, 37 microseconds of
# processor time per token, and 9, 9, 16, 25, 39 in float32, the casts included (AMD Zen 4, torch 2.13, the best of
# four on a busy machine).
# So short documents attend in float32, which is also the more exact of the two.
FLOAT32_UP_TO = 512


@dataclass(frozen=True)
class Documents:
    """Where the documents of one packed row begin and end."""

    bounds: tuple[int, ...]  # 0, end of the first, ..., T
    bounds_tensor: torch.Tensor  # the same, int32, on the device of the row
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Documents:
        bounds = (0, *accumulate(lengths))
        tensor = torch.tensor(bounds, dtype=torch.int32, device=device)
        return cls(bounds, tensor, max(lengths, default=0))


class UnsupportedAttention(RuntimeError):
    """The architecture asks for something this attention does not do (never ignored)."""


def register() -> str:
    """Make the attention known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


def attend(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,  # noqa: N803 - shape suffixes, see the legend
    key_1KTD: torch.Tensor,  # noqa: N803
    value_1KTD: torch.Tensor,  # noqa: N803
    attention_mask: torch.Tensor | None,
    *,
    documents: Documents | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document. Returns (1, T, H, D) and no weights."""
    if documents is None or documents.bounds[-1] != query_1HTD.shape[2]:
        raise UnsupportedAttention("no document bounds for this row")
    for name in ("softcap", "s_aux", "position_bias", "cache"):
        if others.get(name) is not None:
            raise UnsupportedAttention(name)
    if attention_mask is not None:
        raise UnsupportedAttention("attention_mask")
    if query_1HTD.is_cuda and query_1HTD.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _varlen(query_1HTD, key_1KTD, value_1KTD, documents, scaling, sliding_window), None
    return (
        _each(query_1HTD, key_1KTD, value_1KTD, documents, scaling, dropout, sliding_window),
        None,
    )


def _each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """One SDPA call per document. Split, not sliced: the gradient of a slice is a row of zeros per document."""
    parts = []
    grouped = query.shape[1] != key.shape[1]
    lengths = [end - start for start, end in pairwise(documents.bounds)]
    split = (tensor.split_with_sizes(lengths, dim=2) for tensor in (query, key, value))
    for length, *piece in zip(lengths, *split, strict=True):
        band = _band(length, window, query.device)
        wide = length <= FLOAT32_UP_TO and query.device.type == "cpu"
        q, k, v = (tensor.to(torch.float32 if wide else tensor.dtype) for tensor in piece)
        out_1HLD = scaled_dot_product_attention(  # noqa: N806
            q,
            k,
            v,
            attn_mask=band,
            dropout_p=dropout,
            is_causal=band is None,
            scale=scaling,
            enable_gqa=grouped,
        )
        parts.append(out_1HLD.transpose(1, 2).to(query.dtype))
    return torch.cat(parts, dim=1)


def _band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """The mask of a sliding window, only where a document is longer than the window."""
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: Documents,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """All documents in one kernel (CUDA)."""
    from torch.nn.attention.varlen import varlen_attn

    out_THD: Any = varlen_attn(  # noqa: N806
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        documents.bounds_tensor,
        documents.bounds_tensor,
        documents.longest,
        documents.longest,
        scale=scaling,
        # transformers' window W: a token sees itself and W - 1 tokens before it.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    result: torch.Tensor = out_THD.unsqueeze(0)
    return result
