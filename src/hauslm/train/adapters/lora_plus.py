"""LoRA+: B learns faster than A (Hayou et al. 2024, arXiv:2402.12354, section 4: ratio about 2^4).

The given learning rate is the geometric middle: A a quarter of it, B four times, so that it keeps its
meaning when the variant is switched on.
"""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import plain_config

NAME = "lora_plus"
WHEN = N_("When a run learns too slowly: B takes steps 16 times as large as A.")
BASES = ("none", "nf4", "int8")
EIGHT_BIT = True
RATIO = 16.0


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values)


def parameter_groups(model: Any, learning_rate: float) -> list[dict[str, Any]]:
    """Two groups for the optimizer: B, and everything else that learns."""
    fast: list[Any] = []
    slow: list[Any] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (fast if ".lora_B." in name else slow).append(parameter)
    spread = RATIO**0.5
    return [
        {"params": slow, "lr": learning_rate / spread},
        {"params": fast, "lr": learning_rate * spread},
    ]


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
