"""Is packing the same as not packing, on this very model? Shown before every run, not assumed.

A few documents go once through the fast path (one packed row, per-document attention, chunked loss) and
once through transformers' own path (each alone, stock attention, full logits). Log-probabilities of all
tokens must agree within rounding; leaking documents, a wrong loss or an architecture with arithmetic of
its own are off by far more and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import say

if TYPE_CHECKING:
    import torch

    from hauslm.data.store import ExampleStore

DOCUMENTS = 4
TOKENS_EACH = 96
# Root mean square of the difference over that of the logits: rounding stays 10 times below,
# documents that see each other are 10 times above (tests show both on small models).
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
# LLM.int8 rounds activations and picks outlier columns over all rows of a product together
# (Dettmers et al. 2022, arXiv:2208.07339, section 3): its rounding depends on the company.
TOLERANCE_INT8 = 5e-2
# In 8 bit (eightbit.py) a last bit of difference in an activation may round to the next value, 1/127
# or 1/8 of it away; a leak is still far above (tests show it).
TOLERANCE_8BIT = {"int8": 5e-2, "fp8": 1e-1}


@dataclass(frozen=True)
class Proof:
    """Relative differences of logits and loss between the fast and the stock path."""

    logits: float
    loss: float
    documents: int


def prove(compute: Any, store: ExampleStore, examples: Sequence[int]) -> Proof:
    """Compare on the first of `examples`; RefusedError H620 when the paths differ."""
    import torch

    pieces = _pieces(store, examples)
    with torch.no_grad():
        try:
            fast_logits, fast_loss = compute.packed_logits(pieces)
        except Exception as error:
            raise _refusal(
                str(error).splitlines()[0] if str(error) else type(error).__name__
            ) from error
        stock_logits, stock_loss = compute.stock_logits(pieces)
    proof = Proof(
        _relative(fast_logits, stock_logits),
        abs(fast_loss - stock_loss) / max(1e-9, abs(stock_loss)),
        len(pieces),
    )
    settings = compute.settings
    stored = settings.quantisation
    limit = TOLERANCE_INT8 if stored == "int8" else TOLERANCE[settings.precision]
    limit = TOLERANCE_8BIT.get(settings.base_precision, limit)
    if not (proof.logits <= limit and proof.loss <= limit):
        raise _refusal(f"{max(proof.logits, proof.loss):.2g} > {limit:.2g}")
    return proof


def _pieces(store: ExampleStore, examples: Sequence[int]) -> list[torch.Tensor]:
    import numpy as np
    import torch

    return [
        torch.from_numpy(store[i].tokens[:TOKENS_EACH].astype(np.int64))
        for i in list(examples)[:DOCUMENTS]
    ]


def _relative(ours: torch.Tensor, stock: torch.Tensor) -> float:
    difference = (ours - stock).float().pow(2).mean().sqrt()
    return float(difference / stock.float().pow(2).mean().sqrt().clamp_min(1e-9))


def _refusal(reason: str) -> RefusedError:
    return RefusedError(
        "H620",
        say(
            "Packed documents do not give this base the same logits as single ones ({reason}).",
            reason=reason,
        ),
        next_step=say(
            "Set training.packing to false: each document is then computed alone, slower but right."
        ),
    )
