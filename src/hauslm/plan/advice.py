"""Does it fit, how tightly, and what would have to change? In words, smallest change first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say
from hauslm.estimate.setup import Quantisation, TrainingSetup
from hauslm.plan.choose import (
    Correction,
    Grid,
    Point,
    best,
    evaluate,
    fewest_checkpointed,
    points,
)
from hauslm.plan.subject import Machine, smaller_card

# Memory sizes of common cards, GB on the box.
USUAL_CARDS_GB = (8, 12, 16, 24, 32, 40, 48, 80)
LARGE_CARDS_GB = (96, 141, 180)  # suggested as the last way out
SHORTEST_SUGGESTED = 512


def margin(peak: Quantity, machine: Machine) -> Sentence:
    """How the peak compares with what the machine can give."""
    figures = {"peak": peak.value, "high": peak.highest, "memory": machine.memory_gib}
    if peak.highest <= 0.85 * machine.usable_gib:
        return say("Fits with room: {peak:.1f} of {memory:.0f} GiB, at most {high:.1f}.", **figures)
    if peak.highest <= machine.usable_gib:
        return say("Fits: {peak:.1f} of {memory:.0f} GiB, at most {high:.1f}.", **figures)
    if peak.value <= machine.usable_gib:
        return say(
            "Fits tightly: {peak:.1f} of {memory:.0f} GiB, but up to {high:.1f} are possible.",
            **figures,
        )
    if machine.gpu is None:
        return say(
            "Does not fit: {peak:.1f} GiB needed, {free:.1f} GiB of this computer's memory free for it.",
            peak=peak.value, free=machine.usable_gib,
        )  # fmt: skip
    return say("Does not fit: {peak:.1f} GiB needed, {memory:.0f} GiB there.", **figures)


def fits_table(peak: Quantity, machine: Machine) -> dict[str, bool]:
    """Verdict for the machine, then for cards of the usual sizes."""
    table = {machine.id: peak.value <= machine.usable_gib}
    for size in USUAL_CARDS_GB:
        table[f"{size} GB"] = peak.value <= smaller_card(machine, size).usable_gib
    return table


@dataclass(frozen=True)
class Change:
    """One thing that could be changed, and how to say it."""

    apply: Callable[[TrainingSetup], TrainingSetup | None]
    words: Callable[[TrainingSetup, TrainingSetup], Sentence]


def _checkpoint(s: TrainingSetup) -> TrainingSetup | None:
    layers = s.architecture.n_layers
    return replace(s, checkpointed_layers=layers) if s.checkpointed_layers < layers else None


def _fuse(s: TrainingSetup) -> TrainingSetup | None:
    return replace(s, loss="fused") if s.loss != "fused" else None


def _lean(s: TrainingSetup) -> TrainingSetup | None:
    changes = s.arithmetic != "lean" or s.dropout > 0
    return replace(s, arithmetic="lean", dropout=0.0) if changes and s.method != "full" else None


def _split(s: TrainingSetup) -> TrainingSetup | None:
    if s.micro_batch_size < 2:
        return None
    accumulation = s.gradient_accumulation_steps * s.micro_batch_size
    return replace(s, micro_batch_size=1, gradient_accumulation_steps=accumulation)


def _quantise(s: TrainingSetup) -> TrainingSetup | None:
    if s.method != "lora" or s.quantisation != "none":
        return None
    return replace(s, method="qlora", quantisation="nf4_dq")


def _shorten(s: TrainingSetup) -> TrainingSetup | None:
    return replace(s, seq_len=s.seq_len // 2) if s.seq_len >= 2 * SHORTEST_SUGGESTED else None


def _adapt(s: TrainingSetup) -> TrainingSetup | None:
    if s.method != "full":
        return None
    return replace(
        s,
        method="lora",
        base_dtype="bf16",
        adapter_dtype="fp32",
        arithmetic="lean",
        optimizer="adamw",
    )


# From what costs least (time only) to what changes the result most.
CHANGES = (
    Change(_fuse, lambda a, b: say("Loss in chunks (fused) instead of all logits at once")),
    Change(_lean, lambda a, b: say("LoRA computed in the format of the base, without dropout")),
    Change(_checkpoint, lambda a, b: say(
        "Activation checkpointing for {count} of {layers} layers",
        count=b.checkpointed_layers, layers=b.architecture.n_layers)),
    Change(_split, lambda a, b: say(
        "Micro-batch 1 with {steps} accumulation steps (same batch)",
        steps=b.gradient_accumulation_steps)),
    Change(_quantise, lambda a, b: say("QLoRA: the frozen base in nf4 with double quantisation")),
    Change(_adapt, lambda a, b: say("LoRA instead of full fine-tuning")),
    Change(_shorten, lambda a, b: say("Sequences of {tokens:,} tokens", tokens=b.seq_len)),
)  # fmt: skip


def suggestions(
    setup: TrainingSetup, machine: Machine, correction: Correction
) -> tuple[list[Sentence], Point | None]:
    """What makes it fit: single changes that suffice, else the shortest combination, then a card.

    What the user fixed may be suggested too: only the user can lift it. Also returns the first
    point that fits, None if nothing does.
    """
    said: list[Sentence] = []
    first: Point | None = None
    for change in CHANGES:
        point = _after(change, setup, machine, correction)
        if point is None or not point.fits_with_margin:
            continue
        said.append(_sentence([change.words(setup, point.setup)], point, machine))
        first = first or point
    if not said:
        found = _combination(setup, machine, correction)
        if found is not None:
            words, first = found
            said.append(_sentence(words, first, machine))
    said.extend(_larger_card(setup, machine, correction))
    return said, first


SIZES_TRIED = (1, 2, 4, 8, 16, 32)


def fastest_that_fits(setup: TrainingSetup, machine: Machine, correction: Correction) -> Sentence:
    """What a specialist would set instead: as hauslm train computes, over bases, batches and layers."""
    lean = replace(setup, loss="fused", attention="documents", dropout=0.0)
    if setup.method == "full":
        bases = [lean]
    else:
        path = setup.arithmetic if setup.dora else "lean"
        plain = replace(lean, arithmetic=path, kbit_upcast=False)
        bases = [replace(plain, method="lora", quantisation="none")]
        formats: tuple[Quantisation, ...] = ("nf4_dq",) if setup.dora else ("int8", "nf4_dq")
        bases += [replace(plain, method="qlora", quantisation=stored) for stored in formats]
    point = best(points(Grid(tuple(bases), SIZES_TRIED, max(SIZES_TRIED)), machine, correction))
    if not point.fits_with_margin:
        return say("No setting of this length fits with margin.")
    s = point.setup
    return say(
        "Fastest that fits with margin: {method}, base in {format}, {micro} x {tokens:,} tokens per pass, "
        "{count} of {layers} layers recomputed: {peak:.1f} of {memory:.0f} GiB, about {speed:,.0f} tokens/s.",
        method=s.method,
        format="bf16" if s.quantisation == "none" else s.quantisation.split("_")[0],
        micro=s.micro_batch_size, tokens=s.seq_len, count=s.checkpointed_layers,
        layers=s.architecture.n_layers, peak=point.memory.peak.value, memory=machine.memory_gib,
        speed=point.tokens_per_second,
    )  # fmt: skip


def _after(
    change: Change, setup: TrainingSetup, machine: Machine, correction: Correction
) -> Point | None:
    changed = change.apply(setup)
    if changed is None:
        return None
    if change.apply is _checkpoint:
        return fewest_checkpointed(changed, machine, correction)
    return evaluate(changed, machine, correction)


def _combination(
    setup: TrainingSetup, machine: Machine, correction: Correction
) -> tuple[list[Sentence], Point] | None:
    """Changes one after the other until it fits, then without those that were not needed."""
    steps = list(_until_it_fits(setup, machine, correction))
    if not steps:
        return None
    kept = list(steps)
    for step in steps:
        fewer = [s for s in kept if s is not step]
        if fewer and _applied(fewer, setup, machine, correction).fits_with_margin:
            kept = fewer
    point = _applied(kept, setup, machine, correction)
    return [change.words(setup, point.setup) for change in dict.fromkeys(kept)], point


def _until_it_fits(
    setup: TrainingSetup, machine: Machine, correction: Correction
) -> Iterator[Change]:
    taken: list[Change] = []
    for change in (*CHANGES, CHANGES[-1], CHANGES[-1]):
        taken.append(change)
        if _applied(taken, setup, machine, correction).fits_with_margin:
            yield from taken
            return


def _applied(
    changes: list[Change], setup: TrainingSetup, machine: Machine, correction: Correction
) -> Point:
    for change in changes:
        setup = change.apply(setup) or setup
    if any(c.apply is _checkpoint for c in changes):
        return fewest_checkpointed(setup, machine, correction)
    return evaluate(setup, machine, correction)


def _sentence(words: list[Sentence], point: Point, machine: Machine) -> Sentence:
    peak, speed = point.memory.peak.value, point.tokens_per_second
    change = words[0]
    for further in words[1:]:
        change = say("{first} + {then}", first=change, then=further)
    return say(
        "{change}: {peak:.1f} of {memory:.0f} GiB, about {speed:,.0f} tokens/s.",
        change=change, peak=peak, memory=machine.memory_gib, speed=speed,
    )  # fmt: skip


def _larger_card(setup: TrainingSetup, machine: Machine, correction: Correction) -> list[Sentence]:
    """The smallest usual card that takes the setting as it is."""
    if machine.gpu is None:
        return []
    for size in (*USUAL_CARDS_GB, *LARGE_CARDS_GB):
        if size <= machine.memory_gib:
            continue
        larger = smaller_card(machine, size)
        if evaluate(setup, larger, correction).fits_with_margin:
            return [say("As it is, it fits a card with {size} GB.", size=size)]
    return [say("As it is, it fits no single card of {size} GB.", size=LARGE_CARDS_GB[-1])]
