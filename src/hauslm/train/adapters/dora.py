"""DoRA: direction by LoRA, magnitude by a vector of its own (Liu et al. 2024, arXiv:2402.09353)."""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import plain_config

NAME = "dora"
WHEN = N_("For very small ranks, if about a quarter more time and more memory are acceptable.")
BASES = ("none", "nf4")  # PEFT 0.21 cannot read the norm of an int8 weight on a CPU


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values) | {"use_dora": True}


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    """One magnitude for each output."""
    return outputs
