"""Rank-stabilised LoRA: scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2)."""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import plain_config

NAME = "rslora"
WHEN = N_("For high ranks (64 and more), where plain scaling lets additional rank go to waste.")
BASES = ("none", "nf4", "int8")
EIGHT_BIT = True


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values) | {"use_rslora": True}


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
