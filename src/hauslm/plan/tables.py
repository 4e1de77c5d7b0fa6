"""Which models fit my card, and which card does a model need? By formula, for the whole catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hauslm.catalog import load
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.shape import UNDERSTOOD_FAMILIES, counts
from hauslm.plan import subject as subjects
from hauslm.plan.choose import Point, evaluate, fewest_checkpointed
from hauslm.plan.subject import Machine, Subject
from hauslm.records import Value

USUAL = {"seq_len": 4096, "micro_batch_size": 1}


class Fit(Value):
    """One line of a table: how a model goes onto a card, and how fast it then trains."""

    model: str
    gpu: str
    parameters: int
    method: str  # lora, qlora, or "" if neither fits
    peak_gib: float
    memory_gib: float
    checkpointed_layers: int
    tokens_per_second: float


@dataclass(frozen=True)
class _Way:
    method: str
    quantisation: str


WAYS = (_Way("lora", "none"), _Way("qlora", "nf4_dq"))


def fitting_models(gpu: str, seq_len: int = 4096) -> tuple[Fit, ...]:
    """Every open model of the catalog on one card, largest first, as hauslm would train it."""
    machine = subjects.card(gpu)
    found = [
        _fit(Subject(m.id, m.architecture), machine, seq_len)
        for m in load.models()
        if m.architecture is not None and m.architecture.family in UNDERSTOOD_FAMILIES
    ]
    return tuple(sorted(found, key=lambda f: (f.method == "", -f.parameters)))


def fitting_gpus(model: str, seq_len: int = 4096, root: Path | None = None) -> tuple[Fit, ...]:
    """One model on every card of the catalog, fastest first; `root`: where a folder is looked for."""
    base = subjects.subject(model, root or Path.cwd())
    found = [_fit(base, subjects.of_gpu(g), seq_len) for g in load.gpus()]
    return tuple(sorted(found, key=lambda f: (f.method == "", -f.tokens_per_second)))


def _fit(base: Subject, machine: Machine, seq_len: int) -> Fit:
    """The finest way that fits with margin; the peak of the smallest way where none does."""
    length = min(seq_len, base.architecture.max_context)
    point: Point | None = None
    way = ""
    for candidate in WAYS:
        setup = TrainingSetup(
            base.architecture, candidate.method, length, quantisation=candidate.quantisation,  # type: ignore[arg-type]
            attention="documents",
        )  # fmt: skip
        point = fewest_checkpointed(setup, machine)
        if point.fits_with_margin:
            way = candidate.method
            break
    assert point is not None  # noqa: S101 - there are ways
    return Fit(
        model=base.id,
        gpu=machine.id,
        parameters=counts(base.architecture).total,
        method=way,
        peak_gib=round(point.memory.peak.value, 2),
        memory_gib=machine.memory_gib,
        checkpointed_layers=point.setup.checkpointed_layers,
        tokens_per_second=round(point.tokens_per_second, 1) if way else 0.0,
    )


def lab_as_it_stands(gpu: str = "rtx-4090", model: str = "mistral-7b-v0.1") -> Point:
    """The lab sheet's code run as printed: bf16, r 8 on q/k/v/o, dropout 0.05, nothing recomputed,
    one sequence of 2,048 tokens, transformers' loss, PEFT's fp32 adapters without autocast."""
    architecture = load.model(model).architecture
    assert architecture is not None  # noqa: S101 - the catalog's Mistral has one
    setup = TrainingSetup(
        architecture, "lora", 2048, rank=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"),
        dropout=0.05, arithmetic="mixed", loss="naive",
    )  # fmt: skip
    return evaluate(replace(setup), subjects.card(gpu))
