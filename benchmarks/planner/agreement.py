"""Does the closed formula say what the traced model says? Every layout and setting, side by side.

    python benchmarks/planner/agreement.py [MODEL ...]

The trace runs the real transformers and PEFT model, so this finds what a formula forgot: it found DoRA's
norms, autocast's copies of an fp32 head and the capped scores of Gemma 2. Combinations that cannot exist
(H151, H152) or that the trace cannot run on a CPU (H161) are skipped and counted.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.catalog import load
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import training_memory
from hauslm.estimate.setup import TrainingSetup

MODELS = (
    "mistral-7b-v0.3", "llama-3.2-1b", "qwen2.5-7b", "qwen3-8b", "gemma-2-9b", "gemma-3-4b", "phi-4-14b",
    "olmo-2-7b", "gpt-oss-20b", "qwen3-30b-a3b",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "LoRA, dropout": {"dropout": 0.05},
    "LoRA, attention only": {"targets": "attention", "dropout": 0.05},
    "LoRA, MLP only": {"targets": "mlp"},
    "LoRA, autocast": {"arithmetic": "autocast"},
    "LoRA, lean, fused loss": {"arithmetic": "lean", "loss": "fused"},
    "LoRA, dense mask": {"attention": "masked"},
    "LoRA, eager": {"attention": "eager"},
    "LoRA, batch 4": {"micro_batch_size": 4},
    "DoRA": {"dora": True},
    "DoRA, autocast": {"dora": True, "arithmetic": "autocast"},
    "DoRA, nf4": {"dora": True, "method": "qlora", "quantisation": "nf4_dq"},
    "QLoRA, nf4": {"method": "qlora", "quantisation": "nf4_dq"},
    "QLoRA, int8": {"method": "qlora", "quantisation": "int8"},
    "QLoRA, fp8": {"method": "qlora", "quantisation": "fp8"},
    "QLoRA, k-bit upcast": {
        "method": "qlora", "quantisation": "nf4_dq", "kbit_upcast": True, "arithmetic": "autocast",
    },
    "full": {"method": "full", "arithmetic": "lean"},
    "full, fp32 with autocast": {"method": "full", "base_dtype": "fp32", "arithmetic": "autocast"},
    "full, 8-bit AdamW": {"method": "full", "optimizer": "adamw_8bit", "arithmetic": "lean"},
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One setting: allocator peak in GiB by formula and by trace."""

    model: str
    setting: str
    checkpointed: int
    formula: float
    traced: float

    @property
    def difference(self) -> float:
        return self.formula / self.traced - 1


def pairs(model: str, seq_len: int = 2048) -> Iterator[Pair | UsageError]:
    """Every setting of one model without and with checkpointing; the error where one cannot be run."""
    from hauslm.estimate.trace import trace_training_peak

    shape = load.model(model).architecture
    assert shape is not None
    plain = TrainingSetup(shape, "lora", seq_len, loss="naive", arithmetic="mixed")
    for name, changes in SETTINGS.items():
        for count in (0, shape.n_layers):
            s = replace(plain, **changes, checkpointed_layers=count)
            try:
                formula = training_memory(s).allocated_gib
                traced = trace_training_peak(config_of(shape), s).allocated_gib
            except UsageError as error:
                yield error
                continue
            yield Pair(model, name, count, formula, traced)


def summary(found: list[Pair]) -> str:
    sizes = sorted(abs(p.difference) for p in found)
    return f"{len(found)} settings, median {statistics.median(sizes):.1%}, largest {sizes[-1]:.1%}"


def main() -> None:
    everything: list[Pair] = []
    for model in sys.argv[1:] or MODELS:
        answers = list(pairs(model))
        found = [p for p in answers if isinstance(p, Pair)]
        everything += found
        print(f"{model}: {summary(found)}; {len(answers) - len(found)} not possible", flush=True)
        for p in sorted(found, key=lambda p: -abs(p.difference))[:3]:
            print(
                f"    {p.setting}, {p.checkpointed} checkpointed: formula {p.formula:.2f}, "
                f"trace {p.traced:.2f}, {p.difference:+.1%}"
            )
    print("all:", summary(everything))


if __name__ == "__main__":
    main()
