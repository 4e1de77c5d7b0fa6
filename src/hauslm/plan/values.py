"""Which values belong to the method rather than to the machine? Learning rate, batch, length.

Sources: Thinking Machines, "LoRA Without Regret" (2025-09-29) and tinker-cookbook
`hyperparam_utils.py` for rate and batch; Dettmers et al., QLoRA (arXiv 2305.14314) for the quantised
base. Chosen values come with the reason that the report prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.catalog.schema import Architecture
from hauslm.estimate import rate, shape

SEQUENCES_PER_STEP = 16  # QLoRA's value; LoRA loses above 32
FEWEST_SEQUENCES_PER_STEP = 4
WANTED_STEPS = 40  # fewer updates cannot follow warm-up and decay

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 2048, 8192
# Longer sequences keep more of an article together; that may cost this share of the speed.
LENGTH_PRICE = 0.25
CPU_SEQUENCE = 512
CPU_TOKENS_PER_MICRO_STEP = 2048  # larger products gain nothing on a few cores (measured)


@dataclass(frozen=True)
class Chosen:
    """A value and the reason for it."""

    value: Any
    reason: Sentence


def given(value: Any) -> Chosen:
    return Chosen(value, say("Given by you."))


def learning_rate(architecture: Architecture, method: str) -> Chosen:
    """Peak learning rate by method, family and hidden size."""
    size = shape.counts(architecture).total
    value, reason = rate.learning_rate(architecture.family, architecture.hidden_size, size, method)
    return Chosen(float(f"{value:.3g}"), reason)


def sequences_per_step(sequences: float, epochs: float) -> Chosen:
    """Sequences of one update: 16, fewer where the run would have too few updates."""
    wanted = SEQUENCES_PER_STEP
    while wanted > FEWEST_SEQUENCES_PER_STEP and sequences * epochs / wanted < WANTED_STEPS:
        wanted //= 2
    if wanted == SEQUENCES_PER_STEP:
        return Chosen(
            wanted,
            say("{count} sequences per update: LoRA loses with batches above 32, QLoRA used 16.",
                count=wanted),
        )  # fmt: skip
    return Chosen(
        wanted,
        say("{count} sequences per update, so that this small corpus still gives enough updates.",
            count=wanted),
    )  # fmt: skip


def sequence_lengths(
    architecture: Architecture, median_tokens: float | None, on_cpu: bool
) -> tuple[int, ...]:
    """Lengths worth considering, longest first: up to the median document and the model's context."""
    context = architecture.max_context
    if on_cpu:
        return (min(CPU_SEQUENCE, context),)
    longest = SHORTEST_SEQUENCE
    while longest < LONGEST_SEQUENCE and longest < (median_tokens or SHORTEST_SEQUENCE):
        longest *= 2
    lengths = {min(longest // divisor, context) for divisor in (1, 2, 4)}
    return tuple(sorted((n for n in lengths if n >= min(SHORTEST_SEQUENCE, context)), reverse=True))


def length_reason(
    chosen: int, architecture: Architecture, median_tokens: float | None, on_cpu: bool
) -> Sentence:
    if on_cpu:
        return say(
            "Short sequences keep training on a processor quick; longer documents are split."
        )
    if chosen == architecture.max_context:
        return say("All the model can read; longer documents are split.")
    if median_tokens is None:
        return say("A usual length; your documents have not been counted yet.")
    return say(
        "The median of your documents is about {median:,} tokens; longer sequences than this cost more "
        "than a quarter of the speed on this machine or bring nothing. Longer documents are split.",
        median=median_tokens,
    )


def classes(histogram: Mapping[str, int]) -> list[tuple[float, float, int]]:
    """A corpus' token histogram ({"128-255": 10, "16384-": 2}) as (low, high, documents)."""
    found = []
    for name, count in histogram.items():
        low, _, high = name.partition("-")
        if low.strip().isdecimal():
            bottom = float(low)
            found.append((bottom, float(high) if high.strip().isdecimal() else 2 * bottom, count))
    return sorted(found)


def median_tokens(histogram: Mapping[str, int]) -> float | None:
    """Median document length, interpolated inside its class; None for an empty histogram."""
    half = sum(count for _, _, count in classes(histogram)) / 2
    seen = 0.0
    for low, high, count in classes(histogram):
        if count and seen + count >= half:
            return low + (high - low) * (half - seen) / count
        seen += count
    return None


def share_longer_than(histogram: Mapping[str, int], tokens: float) -> float:
    """Share of documents with more than `tokens` tokens, interpolated inside the class."""
    total = sum(count for _, _, count in classes(histogram))
    if not total:
        return 0.0
    longer = 0.0
    for low, high, count in classes(histogram):
        if low >= tokens:
            longer += count
        elif high > tokens:
            longer += count * (high - tokens) / (high - low)
    return longer / total
