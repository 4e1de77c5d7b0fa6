"""OLoRA: start from the orthonormal factors of a QR decomposition (Büyükakyüz 2024, arXiv:2406.01775).

Saved as plain LoRA of twice the rank, so that it loads on the untouched base.
"""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import _residual, plain_config

NAME = "olora"
WHEN = N_("Like pissa, with a cheaper start (QR instead of SVD); the saved rank doubles.")
BASES = ("none",)
MOVES_BASE = True

prepare = _residual.remember
finish = _residual.convert


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values) | {"init_lora_weights": "olora"}


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
