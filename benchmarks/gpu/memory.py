"""Measured against predicted: random-weight training steps over a grid of lengths and batches.

    python benchmarks/gpu/memory.py [--model mistral-7b-v0.3] [--cap-gib 24] [--out results.csv]
    python benchmarks/gpu/memory.py --dry-run

For each base format, length, micro-batch and checkpointing: the planner's prediction, then real steps
of the real model (transformers, PEFT, bitsandbytes; random weights) under a cap on the card's memory.
A row holds both, and whether the verdict was right; out of memory is a result, not a failure. Needs a
CUDA device; with `--layers 2` it is a matter of seconds per row.

`--dry-run` goes the same way on this computer's processor with a model of a few million parameters, two
lengths and the formats that run there: it tests the script, not the planner (a process is measured instead
of an allocator). On a GPU it has not been run yet: none was there.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from hauslm.catalog import load
from hauslm.catalog.schema import Architecture
from hauslm.estimate import probe
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import GIB, training_memory
from hauslm.estimate.setup import TrainingSetup

COLUMNS = (
    "model", "device", "method", "quantisation", "seq_len", "micro_batch_size", "checkpointed_layers", "loss",
    "predicted_gib", "measured_gib", "error", "tokens_per_second", "predicted_fits", "fits",
)  # fmt: skip
LENGTHS, BATCHES = (512, 2048, 4096, 8192), (1, 4)
FORMATS = (("lora", "none"), ("qlora", "nf4_dq"), ("qlora", "int8"))


# A Llama of 4 million parameters, for the dry run.
TINY = Architecture(2, 256, 4, 2, 64, 688, 8000, False, 4096, None, "llama")


@dataclass(frozen=True)
class Plan:
    """What is run where."""

    name: str
    shape: Architecture
    device: Literal["cuda", "cpu"]
    formats: tuple[tuple[str, str], ...] = FORMATS
    lengths: tuple[int, ...] = LENGTHS
    batches: tuple[int, ...] = BATCHES

    def setups(self) -> Iterator[TrainingSetup]:
        """The grid, smallest first."""
        layers = self.shape.n_layers
        grid = itertools.product(
            self.lengths, self.batches, self.formats, (layers, 0), ("fused", "naive")
        )
        for length, batch, (method, stored), checkpointed, loss in grid:
            yield TrainingSetup(
                self.shape, method, length, batch, quantisation=stored,
                checkpointed_layers=checkpointed, loss=loss, device=self.device,
            )  # fmt: skip


def of_catalog(model: str, layers: int | None) -> Plan:
    shape = load.model(model).architecture
    if shape is None:
        raise SystemExit(f"the catalog does not know the shape of {model}")
    return Plan(model, replace(shape, n_layers=layers or shape.n_layers), "cuda")


DRY = Plan("tiny-llama", TINY, "cpu", (("lora", "none"),), (128, 512), (1,))


def measure(s: TrainingSetup, cap_gib: float) -> dict[str, Any]:
    """One row: predicted, measured, and whether the verdict was right."""
    estimate = training_memory(s)
    # On a card the allocator is measured, on a processor the whole process.
    predicted = estimate.peak.value if s.device == "cpu" else estimate.allocated_gib
    row: dict[str, Any] = {
        "device": s.device, "method": s.method, "quantisation": s.quantisation,
        "seq_len": s.seq_len, "micro_batch_size": s.micro_batch_size,
        "checkpointed_layers": s.checkpointed_layers, "loss": s.loss,
        "predicted_gib": round(predicted, 3), "predicted_fits": predicted <= cap_gib,
    }  # fmt: skip
    answer = _on_cpu(s) if s.device == "cpu" else _on_gpu(s, cap_gib)
    if answer is None:
        return row | {"measured_gib": "", "error": "", "tokens_per_second": "", "fits": False}
    peak = (answer["at_rest_bytes"] + answer["transient_bytes"]) / GIB
    return row | {
        "measured_gib": round(peak, 3),
        "error": round(predicted / peak - 1, 4),
        "tokens_per_second": round(s.tokens / answer["step_s"]),
        "fits": peak <= cap_gib,
    }


def _on_gpu(s: TrainingSetup, cap_gib: float) -> dict[str, float] | None:
    """The steps run here; the allocator is emptied before, and capped. None: out of memory."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * GIB / total))
    try:
        return probe.measure(config_of(s.architecture), s, "cuda")
    except torch.OutOfMemoryError:
        return None


def _on_cpu(s: TrainingSetup) -> dict[str, float]:
    """The steps run in a process of their own, whose resident peak is the answer."""
    return probe.in_child(config_of(s.architecture), s, "cpu")


def run(plan: Plan, cap_gib: float, stream: TextIO) -> list[dict[str, Any]]:
    """Every row of the plan, written as soon as it is known."""
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    rows = []
    for s in plan.setups():
        rows.append({"model": plan.name} | measure(s, cap_gib))
        writer.writerow(rows[-1])
        stream.flush()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="mistral-7b-v0.3")
    parser.add_argument("--cap-gib", type=float, default=24.0)
    parser.add_argument("--layers", type=int, help="train this many layers instead of all")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the processor")
    parser.add_argument("--out", type=Path, help="CSV file; default: standard output")
    asked = parser.parse_args()
    plan = DRY if asked.dry_run else of_catalog(asked.model, asked.layers)
    if plan.device == "cuda" and not _cuda():
        raise SystemExit("There is no CUDA device here; --dry-run tests the script without one.")
    with (
        asked.out.open("w", newline="", encoding="utf-8")
        if asked.out
        else nullcontext(sys.stdout) as stream
    ):
        rows = run(plan, asked.cap_gib, stream)
    wrong = [r for r in rows if r["predicted_fits"] != r["fits"]]
    errors = sorted(abs(r["error"]) for r in rows if r["error"] != "")
    print(
        f"{len(rows)} rows, {len(wrong)} wrong verdicts, median error {errors[len(errors) // 2]:.1%}, "
        f"largest {errors[-1]:.1%}"
        if errors
        else f"{len(rows)} rows, all out of memory",
        file=sys.stderr,
    )


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    main()
