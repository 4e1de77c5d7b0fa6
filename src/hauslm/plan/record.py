"""From a chosen setting to the record: figures, verdicts, reasons, money.

The last step of every plan, free-standing or over a project; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hauslm.base.quantity import Quantity, assumed, derived
from hauslm.base.words import Sentence, say
from hauslm.estimate import shape
from hauslm.estimate.memory import MemoryEstimate
from hauslm.estimate.money import energy_cost, rental_cost
from hauslm.estimate.speed import energy_kwh, training_hours
from hauslm.plan.advice import fits_table, margin
from hauslm.plan.choose import Point
from hauslm.plan.subject import Machine, Subject
from hauslm.plan.values import Chosen
from hauslm.records import (
    ContextCheck,
    Duration,
    Energy,
    Plan,
    PlannedDevice,
    Said,
    Setting,
    Throughput,
    sentences,
)

Evidence = Literal["formula", "trace", "probe"]

# A card draws most of its limit while it trains; the computer around it comes on top.
LOAD_SHARE = assumed(0.9, "1", 0.7, 1.0, "share of the card's power limit during training")
HOST_POWER = assumed(120, "W", 80, 200, "processor, memory, drives under load")
CPU_POWER = assumed(100, "W", 50, 200, "a computer whose processor is busy")

SHOWN_CANDIDATES = 12


@dataclass(frozen=True)
class Outcome:
    """Everything that a plan record says, before it is one."""

    subject: Subject
    machine: Machine
    method: str
    memory: MemoryEstimate
    speed: Quantity
    tokens: float | Quantity  # what `time` is for
    settings: Mapping[str, Chosen]
    price_per_kwh: Quantity
    evidence: Evidence = "formula"
    suggestions: tuple[Sentence, ...] = ()
    candidates: tuple[Point, ...] = ()
    notices: tuple[Sentence, ...] = ()
    host_power: Quantity | None = None
    rent: Quantity | None = None  # EUR/h for the whole machine
    context: ContextCheck | None = None
    tables: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)


def power(machine: Machine, host: Quantity | None) -> Quantity:
    """W of the whole machine under load."""
    if machine.gpu is None:
        return host or CPU_POWER
    around = host or HOST_POWER
    limit = machine.gpu.tdp_w
    if limit is None:
        limit = assumed(300, "W", 75, 700, "the catalog has no power limit for this card")
    cards = limit.value * machine.count
    return derived(
        LOAD_SHARE.value * cards + around.value, "W", f"{limit.source}; {around.source}",
        LOAD_SHARE.lowest * cards + around.lowest, LOAD_SHARE.highest * cards + around.highest,
    )  # fmt: skip


def record(o: Outcome) -> Plan:
    """The plan record of an outcome."""
    hours = training_hours(o.tokens, o.speed)
    energy = energy_kwh(hours, power(o.machine, o.host_power))
    # Rent includes the provider's electricity.
    cost = rental_cost(hours, o.rent) if o.rent else energy_cost(energy, o.price_per_kwh)
    notices = [*o.subject.notices, *o.notices]
    table = fits_table(o.memory.peak, o.machine)
    if not table[o.machine.id]:
        notices.append(say("Speed, time, energy and cost are those of a card with enough memory."))
    return Plan(
        model=o.subject.id,
        method=o.method,
        memory=o.memory.memory,
        fits=table,
        margin=Said.of(margin(o.memory.peak, o.machine)),
        settings={
            k: Setting(value=c.value, reason=Said.of(c.reason)) for k, c in o.settings.items()
        },
        throughput=Throughput(tokens_per_second=o.speed),
        time=Duration(hours=hours),
        energy=Energy(kwh=energy),
        cost=cost,
        evidence=o.evidence,
        suggestions=sentences(list(o.suggestions)),
        candidates=tuple(_candidate(p) for p in _shown(o.candidates)),
        notices=sentences(notices),
        device=PlannedDevice(
            id=o.machine.id,
            memory_gib=round(o.machine.memory_gib, 2),
            usable_gib=round(o.machine.usable_gib, 2),
            count=o.machine.count,
        ),
        context=o.context,
        tables=dict(o.tables),
    )


def _shown(found: Iterable[Point]) -> list[Point]:
    """Fitting ones first, fast ones first; the rest of the grid is left out."""
    order = sorted(found, key=lambda p: (not p.fits_with_margin, not p.fits, -p.tokens_per_second))
    return order[:SHOWN_CANDIDATES]


def _candidate(p: Point) -> dict[str, Any]:
    s = p.setup
    return {
        "method": s.method,
        "quantisation": stored_as(s.quantisation),
        "precision": "float32" if s.base_dtype == "fp32" else "bfloat16",
        "seq_len": s.seq_len,
        "micro_batch_size": s.micro_batch_size,
        "gradient_accumulation_steps": s.gradient_accumulation_steps,
        "checkpointed_layers": s.checkpointed_layers,
        "peak_gib": round(p.memory.peak.value, 3),
        "tokens_per_second": round(p.tokens_per_second, 1),
        "fits": p.fits,
        "fits_with_margin": p.fits_with_margin,
    }


def stored_as(quantisation: str) -> str:
    """The project file's word for a base format (nf4 there means double quantisation)."""
    return {"nf4_dq": "nf4", "nf4": "nf4_single"}.get(quantisation, quantisation)


def adapter_words(subject: Subject, targets: shape.Targets, rank: int) -> Sentence:
    count = shape.adapter_parameters(subject.architecture, targets, rank)
    share = count / shape.counts(subject.architecture).total
    return say("{count:,} trained parameters, {share:.2%} of the model.", count=count, share=share)
