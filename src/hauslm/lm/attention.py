"""How do a few new tokens look back over many old ones, quickly, on a CPU? As plain products.

torch's fused attention is made for long queries. For one new token per row it first copies keys and
values for every query head of a group and then works row by row: 2.8 ms per layer for 8 rows over 900
slots on one core, where two batched products over the groups take 0.4 ms. Everything else (reading
prompts, GPUs) stays with the fused kernels. Same arithmetic, other order of summing: float32 rounding.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "hauslm_slots"
MOST_QUERIES = 8  # new tokens per row; above that the fused kernel is faster


def register() -> str:
    """Make it known to transformers under `NAME`; masks are those of sdpa."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


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
    few = query.shape[2] <= MOST_QUERIES and query.device.type == "cpu"
    plain = attention_mask is not None and not dropout and not (set(kwargs) & _CHANGES)
    if few and plain and attention_mask is not None:
        return _grouped(query, key, value, attention_mask, scaling), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask,
        dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs,
    )  # fmt: skip
    return result


# What some architectures pass that alters the scores: left to the kernel that knows it, or refuses.
_CHANGES = frozenset(("softcap", "s_aux", "position_bias"))


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
