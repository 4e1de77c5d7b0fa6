"""PiSSA: start from the principal singular vectors of W (Meng et al. 2024, arXiv:2404.02948, section 3).

The fast SVD of the paper with 16 subspace iterations. Saved as plain LoRA of twice the rank.
"""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import _residual, plain_config

NAME = "pissa"
WHEN = N_(
    "For short runs on an unquantised base: it learns faster at the start; the saved rank doubles."
)
BASES = ("none",)
MOVES_BASE = True

prepare = _residual.remember
finish = _residual.convert


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values) | {"init_lora_weights": "pissa_niter_16"}


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
