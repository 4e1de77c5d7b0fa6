"""Which models fit my card, and which card does a model need? By formula, for the whole catalog.

Each pair is planned as hauslm would train it: the finest base format that fits with margin, as few
recomputed layers as possible, one sequence per pass. Models whose shape the catalog does not have cannot
be judged; the answer counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.base.words import Sentence, number, say
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
    method: str  # lora, qlora, or "" if neither fits with margin
    tight: bool = False  # without margin it would
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
    return _over_gpus(subjects.subject(model, root or Path.cwd()), seq_len)


def _over_gpus(base: Subject, seq_len: int) -> tuple[Fit, ...]:
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
        tight=not way and point.fits,
        peak_gib=round(point.memory.peak.value, 2),
        memory_gib=machine.memory_gib,
        checkpointed_layers=point.setup.checkpointed_layers,
        tokens_per_second=round(point.tokens_per_second, 1) if way else 0.0,
    )


def unjudged_models() -> tuple[str, ...]:
    """Open models of the catalog without a shape that the formula knows."""
    return tuple(
        m.id
        for m in load.models()
        if m.hf_id and (m.architecture is None or m.architecture.family not in UNDERSTOOD_FAMILIES)
    )


# How many lines of each table a plan record holds.
SHOWN_MODELS, SHOWN_GPUS = 12, 12


def for_plan(
    base: Subject, machine: Machine, seq_len: int
) -> dict[str, tuple[dict[str, Any], ...]]:
    """Both tables around one plan: the largest models that fit its card, the cards that hold its model."""
    if base.approximate:
        return {}
    tables = {}
    if machine.gpu is not None:
        models = [f for f in fitting_models(machine.id, seq_len) if f.method]
        tables["models"] = tuple(f.model_dump() for f in models[:SHOWN_MODELS])
    gpus = [f for f in _over_gpus(base, seq_len) if f.method]
    tables["gpus"] = tuple(f.model_dump() for f in _smallest_first(gpus)[:SHOWN_GPUS])
    return tables


def _smallest_first(found: Sequence[Fit]) -> list[Fit]:
    return sorted(found, key=lambda f: (f.memory_gib, -f.tokens_per_second))


def answer(
    kind: str, *, gpu: str | None, model: str | None, seq_len: int, root: Path | None = None
) -> dict[str, Any]:
    """`plan --table models|gpus` as headers, rows and notices for a reader and `fits` for a program.

    Raises UsageError H173 if the card (for models) or the model (for gpus) is not named.
    """
    notices: list[Sentence] = []
    if kind == "models":
        if gpu is None:
            raise UsageError(
                "H173",
                say("Which models fit: name the card with --gpu."),
                next_step=say("hauslm catalog gpus lists them."),
            )
        found: Sequence[Fit] = fitting_models(gpu, seq_len)
        subject_of = say("Model")
        left_out = unjudged_models()
        if left_out:
            notices.append(
                say("{count} open models of the catalog are left out, as their shape is not known: {names}.",
                    count=len(left_out), names=", ".join(left_out))
            )  # fmt: skip
    else:
        if model is None:
            raise UsageError(
                "H173",
                say("Which cards fit: name the model with --model."),
                next_step=say("hauslm catalog models lists the ids."),
            )
        found = fitting_gpus(model, seq_len, root)
        subject_of = say("GPU")
    notices.append(
        say("Sequences of {tokens:,} tokens, one per pass, trained as hauslm train does; peak and speed by formula.",
            tokens=seq_len)
    )  # fmt: skip
    headers = [
        subject_of, say("Method"), say("Peak, GiB"), say("Memory, GiB"), say("Recomputed layers"),
        say("tokens/s"),
    ]  # fmt: skip
    return {
        "table": kind,
        "seq_len": seq_len,
        "gpu": gpu,
        "model": model,
        "headers": [h.text() for h in headers],
        "rows": [_row(f, kind) for f in found],
        "fits": [f.model_dump() for f in found],
        "notices": [n.text() for n in notices],
    }


def _row(f: Fit, kind: str) -> list[str]:
    name = f.model if kind == "models" else f.gpu
    shown = f.method or (say("only tightly") if f.tight else say("does not fit")).text()
    return [
        name, shown, number(f.peak_gib, ".1f"), number(f.memory_gib, ".0f"),
        number(f.checkpointed_layers, ",") if f.method else "–",
        number(f.tokens_per_second, ",.0f") if f.method else "–",
    ]  # fmt: skip


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
