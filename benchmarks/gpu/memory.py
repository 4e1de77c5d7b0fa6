"""Measured against predicted: random-weight training steps over a grid of lengths and batches.

    python benchmarks/gpu/memory.py [--model mistral-7b-v0.3] [--cap-gib 24] [--out results.csv]

For each base format, length, micro-batch and checkpointing: the planner's prediction, then real steps
of the real model (transformers, PEFT, bitsandbytes; random weights) under a cap on the card's memory.
A row holds both, and whether the verdict was right; out of memory is a result, not a failure. Needs a
CUDA device; with `--layers 2` it is a matter of seconds per row.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hauslm.catalog import load
from hauslm.estimate import probe
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import GIB, training_memory
from hauslm.estimate.setup import TrainingSetup

COLUMNS = (
    "model", "method", "quantisation", "seq_len", "micro_batch_size", "checkpointed_layers", "loss",
    "predicted_gib", "measured_gib", "error", "tokens_per_second", "predicted_fits", "fits",
)  # fmt: skip
LENGTHS, BATCHES = (512, 2048, 4096, 8192), (1, 4)
FORMATS = (("lora", "none"), ("qlora", "nf4_dq"), ("qlora", "int8"))


def setups(model: str, layers: int | None) -> Iterator[TrainingSetup]:
    """The grid, smallest first."""
    shape = load.model(model).architecture
    if shape is None:
        raise SystemExit(f"the catalog does not know the shape of {model}")
    shape = replace(shape, n_layers=layers or shape.n_layers)
    grid = itertools.product(FORMATS, LENGTHS, BATCHES, (shape.n_layers, 0), ("fused", "naive"))
    for (method, stored), length, batch, checkpointed, loss in grid:
        yield TrainingSetup(
            shape, method, length, batch, quantisation=stored, checkpointed_layers=checkpointed,
            loss=loss,
        )  # fmt: skip


def measure(s: TrainingSetup, cap_gib: float) -> dict[str, Any]:
    """One row. The steps run here: the allocator is emptied before each."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * GIB / total))
    estimate = training_memory(s)
    row: dict[str, Any] = {
        "method": s.method, "quantisation": s.quantisation, "seq_len": s.seq_len,
        "micro_batch_size": s.micro_batch_size, "checkpointed_layers": s.checkpointed_layers,
        "loss": s.loss, "predicted_gib": round(estimate.allocated_gib, 3),
        "predicted_fits": estimate.allocated_gib <= cap_gib,
    }  # fmt: skip
    try:
        answer = probe.measure(config_of(s.architecture), s, "cuda")
    except torch.OutOfMemoryError:
        return row | {"measured_gib": "", "error": "", "tokens_per_second": "", "fits": False}
    peak = (answer["at_rest_bytes"] + answer["transient_bytes"]) / GIB
    return row | {
        "measured_gib": round(peak, 3),
        "error": round(estimate.allocated_gib / peak - 1, 4),
        "tokens_per_second": round(s.tokens / answer["step_s"]),
        "fits": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="mistral-7b-v0.3")
    parser.add_argument("--cap-gib", type=float, default=24.0)
    parser.add_argument("--layers", type=int, help="train this many layers instead of all")
    parser.add_argument("--out", help="CSV file; default: standard output")
    asked = parser.parse_args()
    if not _cuda():
        raise SystemExit("There is no CUDA device here.")
    stream = open(asked.out, "w", newline="", encoding="utf-8") if asked.out else sys.stdout  # noqa: PTH123, SIM115
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    for s in setups(asked.model, asked.layers):
        writer.writerow({"model": asked.model} | measure(s, asked.cap_gib))
        stream.flush()


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    main()
