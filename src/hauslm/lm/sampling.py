"""Which token comes next? Greedy or seeded sampling per row, whatever else is in the batch.

Log-probabilities that are reported are those of the model itself: before schema masks, temperature
and top-p. Shapes: N rows, V vocabulary.
"""

# ruff: noqa: N803, N806 - tensor names carry their shape, see the legend
from __future__ import annotations

from collections.abc import Sequence

import torch

from hauslm.lm.interface import Request


def fresh_generator(request: Request) -> torch.Generator | None:
    """The row's own random numbers; None for greedy rows. Without a seed: not repeatable."""
    if request.temperature <= 0:
        return None
    generator = torch.Generator(device="cpu")
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    return generator


def apply_bitmask(logits_NV: torch.Tensor, rows: Sequence[int], mask_words: torch.Tensor) -> None:
    """Forbid, in place, the tokens whose bit is not set. `mask_words`: int32 [len(rows), V/32 up].

    Tokens beyond the mask are forbidden. Written out here because llguidance's own torch helper
    calls torch.compile, which needs a C compiler on the user's machine.
    """
    vocabulary = logits_NV.shape[1]
    words = mask_words.to(logits_NV.device)
    bits = torch.arange(32, device=logits_NV.device, dtype=torch.int32)
    allowed = ((words[:, :, None] >> bits) & 1).bool().flatten(1)[:, :vocabulary]
    if allowed.shape[1] < vocabulary:
        pad = allowed.new_zeros((allowed.shape[0], vocabulary - allowed.shape[1]))
        allowed = torch.cat([allowed, pad], dim=1)
    index = torch.tensor(list(rows), device=logits_NV.device)
    logits_NV[index] = logits_NV[index].masked_fill(~allowed, float("-inf"))


def choose(
    logits_NV: torch.Tensor,
    requests: Sequence[Request],
    generators: Sequence[torch.Generator | None],
) -> list[int]:
    """One token id per row. Sampling: temperature, then nucleus (top-p; Holtzman et al. 2020,
    arXiv 1904.09751), drawn by inverting the cumulative distribution at the row's own number."""
    chosen = logits_NV.argmax(dim=1)
    sampled = [i for i, g in enumerate(generators) if g is not None]
    if sampled:
        index = torch.tensor(sampled, device=logits_NV.device)
        temperature = torch.tensor([requests[i].temperature for i in sampled])
        top_p = torch.tensor([requests[i].top_p for i in sampled], dtype=torch.float64)
        draws = torch.stack(
            [torch.rand(1, generator=g, dtype=torch.float64) for g in generators if g is not None]
        )
        chosen[index] = _draw(logits_NV[index], temperature, top_p, draws)
    ids: list[int] = chosen.tolist()
    return ids


def _draw(
    logits_NV: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, draws: torch.Tensor
) -> torch.Tensor:
    device = logits_NV.device
    scaled = logits_NV.double() / temperature.to(device).double()[:, None]
    # Ties keep the order of token ids, so that the draw depends on nothing but the logits.
    sorted_p, order = torch.softmax(scaled, dim=1).sort(dim=1, descending=True, stable=True)
    before = sorted_p.cumsum(dim=1) - sorted_p
    kept = torch.where(before < top_p.to(device)[:, None], sorted_p, torch.zeros_like(sorted_p))
    kept[:, 0] = sorted_p[:, 0]
    cumulative = kept.cumsum(dim=1)
    target = draws.to(device) * cumulative[:, -1:]
    position = torch.searchsorted(cumulative, target, right=True)
    last_kept = (kept > 0).sum(dim=1, keepdim=True) - 1
    return order.gather(1, torch.minimum(position, last_kept))[:, 0]


def log_probabilities(
    logits_NV: torch.Tensor, chosen: Sequence[int], top: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Per row: log-probability of the chosen token, and the `top` most likely (id, logprob)."""
    logp_NV = torch.log_softmax(logits_NV.float(), dim=1)
    picked = logp_NV.gather(1, torch.tensor(list(chosen), device=logp_NV.device)[:, None])[:, 0]
    if top:
        values, ids = logp_NV.topk(min(top, logp_NV.shape[1]), dim=1)
        pairs = [
            list(zip(i, v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)
        ]
    else:
        pairs = [[] for _ in chosen]
    return list(zip(picked.tolist(), pairs, strict=True))
