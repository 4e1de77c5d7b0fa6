"""What is the loss of a packed row, without ever holding its logits?

Cross-entropy over the labels that count only, in chunks: of T x V logits never more than a chunk
exists. Where the output head is a frozen matrix its gradient with respect to the hidden states is
computed in the same pass (the head itself needs none), so nothing is computed twice; where the head is
trained, each chunk is recomputed in the backward pass.

Shapes: N tokens whose label counts, C hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

# float32 logits of one chunk: 64 MiB, small beside any model and large enough for full GEMM speed.
CHUNK_ELEMENTS = 1 << 24
SMALLEST_CHUNK = 64


def chunk_rows(vocabulary: int) -> int:
    """Rows of a chunk so that rows x vocabulary stays below `CHUNK_ELEMENTS`."""
    return max(SMALLEST_CHUNK, CHUNK_ELEMENTS // max(1, vocabulary))


def summed_loss(
    hidden_NC: torch.Tensor,  # noqa: N803 - shape suffixes, see the legend
    head: nn.Module,
    labels_N: torch.Tensor,  # noqa: N803
    rows: int | None = None,
) -> torch.Tensor:
    """Sum over N of -log p(label), in nats, float32. Divide by the tokens of the whole batch.

    The same as `cross_entropy(head(hidden).float(), labels, reduction="sum")`.
    """
    rows = rows or chunk_rows(getattr(head, "out_features", 0) or 32_000)
    if type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad:
        loss: torch.Tensor = _FrozenHead.apply(hidden_NC, head.weight, labels_N, rows)
        return loss
    total = hidden_NC.new_zeros((), dtype=torch.float32)
    for start in range(0, hidden_NC.shape[0], rows):
        part, labels = hidden_NC[start : start + rows], labels_N[start : start + rows]
        if torch.is_grad_enabled():
            total = total + checkpoint(_plain, part, head, labels, use_reentrant=False)
        else:
            total = total + _plain(part, head, labels)
    return total


def _plain(hidden: torch.Tensor, head: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), labels, reduction="sum")


class _FrozenHead(torch.autograd.Function):
    """Loss and its gradient for the hidden states in one pass over the chunks."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, rows: int
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = (hidden[part] @ weight.T).float()
            chosen = labels[part].unsqueeze(-1)
            highest = logits.amax(dim=-1, keepdim=True)
            picked = logits.gather(-1, chosen) - highest
            # In place and one exponential for both: the softmax's numerator and its sum.
            weights = logits.sub_(highest).exp_()
            total_weight = weights.sum(dim=-1, keepdim=True)
            total += (total_weight.log() - picked).sum()
            if gradient is not None:
                probability = weights.div_(total_weight)
                probability.scatter_add_(
                    -1, chosen, torch.full_like(chosen, -1, dtype=torch.float32)
                )
                gradient[part] = probability.to(weight.dtype) @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].to(gradient.dtype), None, None, None
