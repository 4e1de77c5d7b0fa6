"""How much device memory does it take? Closed formulas on an architecture; no torch, microseconds.

Two questions: `training_memory(TrainingSetup)` for one micro-step of full fine-tuning, LoRA or
QLoRA, `inference_memory(InferenceSetup)` for serving. Each adds up what is resident (weights,
adapter, optimizer) and what lives for a while (activations, logits, gradients, KV cache) at the
moment of a step when the sum is largest. Three moments can be it:

* **loss**: everything saved for the backward pass, plus the logits in several copies;
* **layers**: the backward pass inside one layer, recomputed if it is checkpointed;
* **optimizer**: weights, gradients and states together, nothing else.

Byte counts per token were derived operator by operator and agree with `trace` (a test compares).
The peak is what torch's allocator holds plus `overhead`; the range of the overhead says what the
card must have beyond it (CUDA context, library workspaces, fragmentation). Not modelled: the
transient while a quantised model is being loaded, and pinned host memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hauslm.base.errors import UsageError
from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import say
from hauslm.catalog.schema import Architecture
from hauslm.estimate import shape
from hauslm.estimate.shape import Targets
from hauslm.records import Memory, MemoryParts

GIB = float(1 << 30)

DTYPE_BYTES: dict[Dtype, float] = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0}

# Bytes per weight. nf4: half a byte plus one fp32 scale per 64 weights; double quantisation stores
# the scales in 8 bit with one fp32 per 256 of them (Dettmers et al., QLoRA, arXiv 2305.14314, 3).
# int8 (LLM.int8) and fp8 keep one fp32 scale per output row, which is added separately.
WEIGHT_BYTES: dict[Quantisation, float] = {
    "nf4": 0.5 + 4 / 64,
    "nf4_dq": 0.5 + 1 / 64 + 4 / (64 * 256),
    "int8": 1.0,
    "fp8": 1.0,
}

# Copies of the logits at the worst moment, in bytes per entry (fp32 copies count 4, bf16 2).
# naive: transformers since labels are shifted instead of logits (4.50): bf16 logits are gone when
# backward holds log-softmax, its incoming and its outgoing gradient. naive_shifted: 4.46-4.49, the
# forward pass holds bf16, fp32, shifted fp32, log-softmax. naive_upcast: before 4.46, logits are
# replaced by their fp32 copy first. All three confirmed against published peaks (docs/accuracy.md).
LOGIT_BYTES: dict[Loss, float] = {"naive": 12, "naive_shifted": 14, "naive_upcast": 12}

# The fused loss works on chunks of this many logits (train/loss.py: 2**24): bf16, fp32, bf16 again.
FUSED_CHUNK_ELEMENTS = 1 << 24
FUSED_CHUNK_BYTES = 8.0

# Device memory beyond the allocator's peak. CUDA context and cuBLAS/cuDNN workspaces: 0.3-0.8 GiB
# on current drivers; fragmentation with expandable segments up to 5 %. Published measurements of
# cards that had room show more (median 1.20 x the allocator's peak over 81 runs of
# foundation-model-stack/fms-acceleration), because the allocator does not give back what it may keep.
CONTEXT_GIB = (0.3, 0.55, 0.8)
FRAGMENTATION = 0.05
# Resident set of a Python process that has imported torch, transformers and peft, before a model is
# built (measured here with torch 2.13+cpu, transformers 5.23, peft 0.21).
CPU_RUNTIME_GIB = (0.35, 0.45, 0.65)


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak by part in bytes, at the moment that decides it, and the same as a record."""

    moment: Literal["loss", "layers", "optimizer", "serving"]
    bytes: Mapping[str, float]
    memory: Memory

    @property
    def allocated_gib(self) -> float:
        """What torch's allocator (or the process, on a CPU) holds: comparable with published peaks."""
        return sum(v for k, v in self.bytes.items() if k != "overhead") / GIB

    @property
    def peak(self) -> Quantity:
        return self.memory.peak_gib


# ---------------------------------------------------------------- weights


def weight_bytes(
    architecture: Architecture,
    base_dtype: Dtype,
    quantisation: Quantisation,
    kbit_upcast: bool = False,
) -> float:
    """Bytes of the base weights. Embedding, output head and norms stay in `base_dtype`."""
    count = shape.counts(architecture)
    full = DTYPE_BYTES[base_dtype]
    kept = count.embedding + count.head + count.rest
    if quantisation == "none":
        return full * count.total
    kept_bytes = 4.0 if kbit_upcast else full
    rows = architecture.n_layers * sum(x.n_out * x.copies for x in shape.linears(architecture))
    scales = 4.0 * rows if quantisation in ("int8", "fp8") else 0.0
    return WEIGHT_BYTES[quantisation] * count.linear + scales + kept_bytes * kept


def trainable_parameters(s: TrainingSetup) -> int:
    if s.method == "full":
        return shape.counts(s.architecture).total
    return shape.adapter_parameters(s.architecture, s.targets, s.rank, s.dora)


def _trainable_bytes(s: TrainingSetup) -> float:
    return DTYPE_BYTES[s.base_dtype if s.method == "full" else s.adapter_dtype]


def optimizer_bytes(s: TrainingSetup) -> float:
    """AdamW's two moments: in the parameter's own format, or 8 bit with one fp32 scale per 256."""
    per_parameter = 2 * _trainable_bytes(s)
    if s.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        per_parameter = 2 * (1 + 4 / 256)
    return per_parameter * trainable_parameters(s)


