"""Which settings are fastest among those that fit with margin? A search over the whole grid.

Memory is linear in the number of checkpointed layers, so for every base format and micro-batch the
smallest number that fits is found directly; the grid is a few hundred points and takes milliseconds.
What the user fixed is never changed. Reasons are made where the choice is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hauslm.base.quantity import Quantity
from hauslm.estimate.memory import MemoryEstimate, training_memory
from hauslm.estimate.setup import Quantisation, TrainingSetup
from hauslm.estimate.speed import cpu_training_tokens_per_second, training_tokens_per_second
from hauslm.plan import values
from hauslm.plan.subject import Machine

# A format that changes the base less wins if it is at most this much slower than the fastest.
PRECISION_PRICE = 0.10
# Of settings equally fast within this share the one with the smaller peak wins.
TIE = 0.01
# How much the base is changed by its storage: rms error on Gaussian weights, none < int8 < nf4
# (measured: 0, 0.9, 9.2 per cent).
COARSENESS: dict[Quantisation, int] = {
    "none": 0,
    "int8": 1,
    "fp8": 1,
    "int8_mm": 1,
    "nf4_dq": 2,
    "nf4": 2,
    "mxfp4": 2,
}


@dataclass(frozen=True)
class Point:
    """One evaluated setting. `correction` holds what a probe measured (1.0: nothing)."""

    setup: TrainingSetup
    memory: MemoryEstimate
    speed: Quantity
    fits: bool  # the estimate itself
    fits_with_margin: bool  # the upper end of its range

    @property
    def tokens_per_second(self) -> float:
        return self.speed.value


@dataclass(frozen=True)
class Correction:
    """Measured over predicted, from a probe on this machine: factors for memory and speed."""

    memory: float = 1.0
    speed: float = 1.0
    source: str = ""


NOTHING_MEASURED = Correction()


def evaluate(
    setup: TrainingSetup, machine: Machine, correction: Correction = NOTHING_MEASURED
) -> Point:
    """Memory, speed and verdict of one setting on one machine."""
    memory = training_memory(setup)
    if machine.gpu is None:
        speed = cpu_training_tokens_per_second(
            setup, machine.cores, machine.fast_bf16, correction.speed
        )
    else:
        speed = training_tokens_per_second(setup, machine.gpu, correction.speed)
    if correction.source:
        memory = memory.scaled(correction.memory, correction.source)
    return judged(setup, memory, speed, machine)


def judged(
    setup: TrainingSetup, memory: MemoryEstimate, speed: Quantity, machine: Machine
) -> Point:
    return Point(
        setup,
        memory,
        speed,
        fits=memory.peak.value <= machine.usable_gib,
        fits_with_margin=memory.peak.highest <= machine.usable_gib,
    )


def fewest_checkpointed(
    setup: TrainingSetup, machine: Machine, correction: Correction = NOTHING_MEASURED
) -> Point:
    """The setting with the fewest checkpointed layers that fits with margin (all, if none does)."""
    low, high = 0, setup.architecture.n_layers
    best = evaluate(replace(setup, checkpointed_layers=high), machine, correction)
    if not best.fits_with_margin:
        return best
    while low < high:
        middle = (low + high) // 2
        point = evaluate(replace(setup, checkpointed_layers=middle), machine, correction)
        if point.fits_with_margin:
            best, high = point, middle
        else:
            low = middle + 1
    return best


@dataclass(frozen=True)
class Grid:
    """What may vary. `checkpointed` None: as many layers as needed; else that number."""

    bases: tuple[TrainingSetup, ...]  # one per method and base format
    micro_batch_sizes: tuple[int, ...]
    sequences_per_step: int
    checkpointed: int | None = None
    fixed_accumulation: int | None = None

    def setups(self) -> Iterator[TrainingSetup]:
        for base in self.bases:
            for micro in self.micro_batch_sizes:
                accumulation = self.fixed_accumulation or max(
                    1, round(self.sequences_per_step / micro)
                )
                yield replace(
                    base, micro_batch_size=micro, gradient_accumulation_steps=accumulation
                )


def points(grid: Grid, machine: Machine, correction: Correction = NOTHING_MEASURED) -> list[Point]:
    """Every point of the grid, with its checkpointing solved for."""
    found = []
    for setup in grid.setups():
        if grid.checkpointed is None:
            found.append(fewest_checkpointed(setup, machine, correction))
        else:
            fixed = replace(setup, checkpointed_layers=grid.checkpointed)
            found.append(evaluate(fixed, machine, correction))
    return found


def best(found: Iterable[Point]) -> Point:
    """Fastest with margin, the finer base format preferred at a small price; else the smallest.

    If nothing fits with margin the fastest that fits at all is taken, and if nothing fits the one
    with the smallest peak, so that the answer says how much is missing.
    """
    everything = list(found)
    fitting = [p for p in everything if p.fits_with_margin] or [p for p in everything if p.fits]
    if not fitting:
        return min(everything, key=lambda p: p.memory.peak.value)
    fastest = max(p.tokens_per_second for p in fitting)
    near = [p for p in fitting if p.tokens_per_second >= fastest * (1 - PRECISION_PRICE)]
    finest = min(COARSENESS[p.setup.quantisation] for p in near)
    same = [p for p in near if COARSENESS[p.setup.quantisation] == finest]
    quickest = max(p.tokens_per_second for p in same)
    tied = [p for p in same if p.tokens_per_second >= quickest * (1 - TIE)]
    return min(tied, key=lambda p: p.memory.peak.value)


def best_length(candidates: Iterable[Point]) -> Point:
    """Of the best points at several lengths (longest first) the longest that is not too slow."""
    everything = list(candidates)
    fitting = [p for p in everything if p.fits_with_margin] or [p for p in everything if p.fits]
    if not fitting:
        return min(everything, key=lambda p: p.memory.peak.value)
    fastest = max(p.tokens_per_second for p in fitting)
    return next(p for p in fitting if p.tokens_per_second >= fastest * (1 - values.LENGTH_PRICE))
