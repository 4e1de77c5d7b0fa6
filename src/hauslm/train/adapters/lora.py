"""LoRA as published: W x + (alpha / r) B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import plain_config

NAME = "lora"
WHEN = N_("The default: the best known, the fastest, and every tool reads it.")
BASES = ("none", "nf4", "int8")
EIGHT_BIT = True


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values)


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
