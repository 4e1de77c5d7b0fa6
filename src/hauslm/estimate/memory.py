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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hauslm.base.quantity import Quantity, derived
from hauslm.catalog.schema import Architecture
from hauslm.estimate import activations, shape
from hauslm.estimate.setup import (
    Dtype,
    InferenceSetup,
    Loss,
    Method,
    Optimizer,
    Quantisation,
    TrainingSetup,
)
from hauslm.records import Memory, MemoryParts

__all__ = [
    "GIB",
    "InferenceSetup",
    "MemoryEstimate",
    "Method",
    "Optimizer",
    "TrainingSetup",
    "inference_memory",
    "kv_cache_bytes",
    "training_memory",
    "weight_bytes",
]

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
    "int8_mm": 1.0,
    # OCP Microscaling Formats (MX) 1.0: E2M1 values, one shared 8-bit exponent per block of 32.
    "mxfp4": 0.5 + 1 / 32,
}

# Copies of the logits at the worst moment, in bytes per entry (fp32 copies count 4, bf16 2).
# naive: transformers since labels are shifted instead of logits (4.50): bf16 logits are gone when
# backward holds log-softmax, its incoming and its outgoing gradient. naive_shifted: 4.46-4.49, the
# forward pass holds bf16, fp32, shifted fp32, log-softmax. naive_upcast: before 4.46, logits are
# replaced by their fp32 copy first; naive_kept: the same, and the output is kept (LLaMA-Factory 2024).
# kernel: a fused cross-entropy kernel on full logits (Liger, Unsloth, fms-acceleration), bf16 and
# fp32 logits with the gradient written over them. Confirmed by published peaks (docs/accuracy.md).
LOGIT_BYTES: dict[Loss, float] = {
    "naive": 12,
    "naive_shifted": 14,
    "naive_upcast": 12,
    "naive_kept": 16,
    "kernel": 8,
}

# Under FSDP the fp32 output of the model is kept through the backward pass: 16 bytes with every loss of
# transformers. Read off published FSDP runs of Mistral, Mixtral and Qwen (without it up to 8 per cent too
# little, 18 with a quantised base); runs of Granite, which divides its logits by a factor, do not show it.
FSDP_LOGIT_BYTES = 16.0

# The fused loss works on chunks of this many logits (train/loss.py: 2**24): bf16, fp32, bf16 again.
FUSED_CHUNK_ELEMENTS = 1 << 24
FUSED_CHUNK_BYTES = 8.0

# Device memory beyond the allocator's peak. CUDA context and cuBLAS/cuDNN workspaces: 0.3-0.8 GiB
# on current drivers; fragmentation with expandable segments up to 5 %. Published measurements of
# cards that had room show more (median 1.20 x the allocator's peak over 81 runs of
# foundation-model-stack/fms-acceleration), because the allocator does not give back what it may keep.
CONTEXT_GIB = (0.3, 0.55, 0.8)
FRAGMENTATION = 0.05
# On a CPU the process is measured, not an allocator. Resident set of a Python process that has
# imported torch, transformers and peft: 0.45 GiB. glibc's heap then holds about 1.4 times the
# activations that are alive, for tensors below 32 MiB: 1.37 to 1.49 over eight runs with 6 and 200
# million parameters, 1.01 to 1.02 with MALLOC_MMAP_THRESHOLD_=65536 (measured here, torch 2.13+cpu).
CPU_RUNTIME_GIB = (0.40, 0.45, 0.65)
CPU_HEAP_SHARE = (0.0, 0.41, 0.5)


Moment = Literal["loss", "layers", "optimizer", "serving"]


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak by part in bytes, at the moment that decides it, and the same as a record."""

    moment: Moment
    bytes: Mapping[str, float]
    memory: Memory
    device: str = "cuda"

    @property
    def allocated_gib(self) -> float:
        """What torch's allocator (or the process, on a CPU) holds: comparable with published peaks."""
        return sum(v for k, v in self.bytes.items() if k != "overhead") / GIB

    @property
    def peak(self) -> Quantity:
        return self.memory.peak_gib

    def scaled(self, factor: float, source: str) -> MemoryEstimate:
        """Recalibrated by a measurement: what lives for a while scales, what is stored does not."""
        moving = ("activations", "logits")
        parts = {k: v * (factor if k in moving else 1.0) for k, v in self.bytes.items()}
        return as_estimate(self.moment, parts, self.device, source)


# ---------------------------------------------------------------- weights


def weight_bytes(
    architecture: Architecture,
    base_dtype: Dtype,
    quantisation: Quantisation,
    kbit_upcast: bool = False,
    quantise_experts: bool = True,
) -> float:
    """Bytes of the base weights. Embedding, output head and norms stay in `base_dtype`; so do the
    experts of a mixture without `quantise_experts`."""
    count = shape.counts(architecture)
    full = DTYPE_BYTES[base_dtype]
    if quantisation == "none":
        return full * count.total
    if quantisation == "mxfp4":  # gpt-oss ships its experts in it, and only those
        shrunk = [x for x in shape.linears(architecture) if x.expert]
    else:
        shrunk = [x for x in shape.linears(architecture) if quantise_experts or not x.expert]
    packed = architecture.n_layers * sum(x.parameters for x in shrunk)
    rows = architecture.n_layers * sum(x.n_out * x.copies for x in shrunk)
    scales = 4.0 * rows if quantisation in ("int8", "int8_mm", "fp8") else 0.0
    kept = count.total - packed
    return WEIGHT_BYTES[quantisation] * packed + scales + (4.0 if kbit_upcast else full) * kept


def trainable_parameters(s: TrainingSetup) -> int:
    if s.method == "full":
        return shape.counts(s.architecture).total
    return shape.adapter_parameters(s.architecture, s.targets, s.rank, s.dora) + s.trained_whole


def _trainable_bytes(s: TrainingSetup) -> float:
    return DTYPE_BYTES[s.base_dtype if s.method == "full" else s.adapter_dtype]


def optimizer_bytes(s: TrainingSetup) -> float:
    """AdamW's two moments: in the parameter's own format, or 8 bit with one fp32 scale per 256."""
    per_parameter = 2 * _trainable_bytes(s)
    if s.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        per_parameter = 2 * (1 + 4 / 256)
    return per_parameter * trainable_parameters(s)


# ---------------------------------------------------------------- the three moments of a step


def _resident(s: TrainingSetup, autocast_copies: bool = False) -> dict[str, float]:
    """What is there at every moment: weights, adapter, optimizer states (per rank); while forward and
    backward run also autocast's 16-bit copies of fp32 matrices."""
    weights = weight_bytes(
        s.architecture, s.base_dtype, s.quantisation, s.kbit_upcast, s.quantise_experts
    )
    trainable = _trainable_bytes(s) * trainable_parameters(s)
    share = s.ranks if s.sharding == "fsdp" else 1
    gathered = _gathered_bytes(s) if share > 1 else 0.0
    if autocast_copies:
        gathered += _autocast_copies(s)
    return {
        "weights": weights / share + gathered,
        "adapter": 0.0 if s.method == "full" else trainable / share,
        "gradients": trainable if s.sharding == "ddp" and s.ranks > 1 else 0.0,  # DDP's buckets
        "optimizer": optimizer_bytes(s) / share,
        "activations": 0.0,
        "logits": 0.0,
        "kv_cache": 0.0,
        "overhead": 0.0,
    }


def _autocast_copies(s: TrainingSetup) -> float:
    """Autocast multiplies with 16-bit copies of fp32 matrices and keeps them for the backward pass: of
    every trained matrix, and of the frozen output head that k-bit preparation left in fp32."""
    if s.arithmetic != "autocast":
        return 0.0
    count, a = shape.counts(s.architecture), s.architecture
    head = 2.0 * a.vocab_size * a.hidden_size
    if s.method == "full":
        return 2.0 * count.linear + head if s.base_dtype == "fp32" else 0.0
    return head if (s.kbit_upcast or s.base_dtype == "fp32") and s.loss != "fused" else 0.0


def _gathered_bytes(s: TrainingSetup) -> float:
    """FSDP holds the layer in use, the next one, and the output head in full."""
    a = s.architecture
    width = DTYPE_BYTES[s.base_dtype] if s.quantisation == "none" else WEIGHT_BYTES[s.quantisation]
    block = sum(x.parameters for x in shape.linears(a))
    return 2 * width * block + DTYPE_BYTES[s.base_dtype] * a.vocab_size * a.hidden_size


def _gradient_bytes(s: TrainingSetup) -> float:
    share = s.ranks if s.sharding == "fsdp" else 1
    return _trainable_bytes(s) * trainable_parameters(s) / share


def _saved_bytes(s: TrainingSetup) -> float:
    """Kept per token by all layers when the forward pass is through."""
    k, layers = s.checkpointed_layers, s.architecture.n_layers
    saved = k * activations.checkpoint_bytes(s) + (layers - k) * activations.layer_bytes(s)
    if k == 0 and s.method != "full":
        # The first norm's input needs no gradient, so nothing of it is kept.
        saved -= 4.0 * s.architecture.hidden_size
    return saved


# Copies of one layer's experts while its backward pass runs: the sum of base and update, and its gradient.
_EXPERT_COPIES_IN_BACKWARD = 2.0


def _merged_experts(s: TrainingSetup, in_backward: bool = False) -> float:
    layers = float(s.architecture.n_layers - s.checkpointed_layers)
    if in_backward:
        layers = max(layers - 1, 0) + _EXPERT_COPIES_IN_BACKWARD
    return layers * activations.merged_expert_bytes(s)


def _logit_bytes(s: TrainingSetup) -> float:
    kept = s.loss.startswith("naive") and s.architecture.family != "granite"
    if kept and s.sharding == "fsdp" and s.ranks > 1:
        return FSDP_LOGIT_BYTES
    return LOGIT_BYTES[s.loss]


def _at_loss(s: TrainingSetup) -> dict[str, float]:
    """The end of the forward pass and the start of the backward pass: the loss itself."""
    hidden, act = s.architecture.hidden_size, activations.activation_bytes(s)
    vocabulary = s.architecture.vocab_size
    parts = _resident(s, autocast_copies=True)
    if s.loss == "fused":
        # hidden states, their gradient, the final norm's input
        around = (4.0 + 2 * act) * hidden
        chunk = min(s.tokens * vocabulary, max(FUSED_CHUNK_ELEMENTS, 64 * vocabulary))
        parts["logits"] = FUSED_CHUNK_BYTES * chunk
    else:
        around = (4.0 + (0 if s.loss == "naive" else act)) * hidden
        capped = act if s.architecture.family == "gemma2" else 0.0  # tanh(logits) is kept too
        parts["logits"] = (_logit_bytes(s) + capped) * vocabulary * s.tokens
    parts["activations"] = s.tokens * (_saved_bytes(s) + around) + _merged_experts(s)
    if s.method != "full" or s.gradient_accumulation_steps > 1:
        parts["gradients"] += _gradient_bytes(s)
    return parts


def _in_layers(s: TrainingSetup) -> dict[str, float]:
    """Backward inside a layer: the last one right after the loss, or a recomputed one."""
    k = s.checkpointed_layers
    flight = activations.in_flight_bytes(s)
    start = _saved_bytes(s) + flight
    if k:
        recomputed = k * activations.checkpoint_bytes(s) + activations.layer_bytes(s) + flight
        start = max(start if k < s.architecture.n_layers else 0.0, recomputed)
    parts = _resident(s, autocast_copies=True)
    parts["activations"] = s.tokens * start + activations.transient_bytes(s)
    # DoRA's norms are computed in the forward pass, when no gradient is in flight yet.
    forward = s.tokens * (start - flight) + activations.dora_transient_bytes(s)
    parts["activations"] = max(parts["activations"], forward)
    parts["activations"] += _merged_experts(s, in_backward=True)
    if s.method != "full" or s.gradient_accumulation_steps > 1:
        parts["gradients"] += _gradient_bytes(s)
    else:
        # Only the head and one block have their gradients yet.
        block = sum(x.parameters for x in shape.linears(s.architecture))
        head = s.architecture.vocab_size * s.architecture.hidden_size
        parts["gradients"] += _trainable_bytes(s) * (block + head)
    return parts


def _at_optimizer(s: TrainingSetup) -> dict[str, float]:
    """The update: all gradients, no activations; foreach AdamW adds one temporary per parameter."""
    parts = _resident(s)
    parts["gradients"] += _gradient_bytes(s)
    if s.optimizer == "adamw_foreach":
        parts["optimizer"] += _gradient_bytes(s)
    return parts


def training_memory(s: TrainingSetup) -> MemoryEstimate:
    """Peak memory of one training step on one device. Raises UsageError for impossible setups."""
    s.check()
    moments: dict[Moment, dict[str, float]] = {
        "loss": _at_loss(s),
        "layers": _in_layers(s),
        "optimizer": _at_optimizer(s),
    }
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    return as_estimate(moment, moments[moment], s.device, "formula, estimate.memory")


def covering(estimate: MemoryEstimate, others: Iterable[MemoryEstimate]) -> MemoryEstimate:
    """The same estimate with its range widened to what else the question may have meant."""
    lows, highs = [estimate.peak.lowest], [estimate.peak.highest]
    for other in others:
        lows.append(other.peak.lowest)
        highs.append(other.peak.highest)
    moving = estimate.memory.parts.activations
    down = max(0.0, min(moving.lowest, moving.lowest - (lows[0] - min(lows))))
    up = moving.highest + (max(highs) - highs[0])
    parts = estimate.memory.parts.model_copy(
        update={"activations": derived(moving.value, "GiB", moving.source, down, up)}
    )
    peak = derived(estimate.peak.value, "GiB", estimate.peak.source, min(lows), max(highs))
    return replace(estimate, memory=Memory(peak_gib=peak, parts=parts))


# ---------------------------------------------------------------- serving


def kv_cache_bytes(architecture: Architecture, context: int, kv_bytes: float = 2.0) -> float:
    """Key/value cache of one sequence: per layer 2 x kv heads x head size x min(context, window)."""
    per_token = 2.0 * shape.key_value_size(architecture) * kv_bytes
    window = architecture.sliding_window or context
    held = sum(
        context if architecture.is_global(layer) else min(context, window)
        for layer in range(architecture.n_layers)
    )
    return per_token * held


def inference_memory(s: InferenceSetup) -> MemoryEstimate:
    """Memory while serving `sequences` at once, weights split over `ranks` (tensor parallel)."""
    shape.require_understood(s.architecture)
    a = s.architecture
    act = DTYPE_BYTES[s.base_dtype]
    chunk = min(s.prefill_tokens, s.context * s.sequences)
    size = a.intermediate_size
    if a.n_experts:
        size = (a.moe_intermediate_size or size) * (a.experts_per_token or 1)
    adapter = shape.adapter_parameters(a, s.targets, s.rank) if s.adapters else 0
    parts = {
        "weights": weight_bytes(a, s.base_dtype, s.quantisation) / s.ranks,
        "adapter": act * s.adapters * adapter / s.ranks,
        "gradients": 0.0,
        "optimizer": 0.0,
        "activations": chunk * act * (2 * a.hidden_size + 3 * size / s.ranks),
        "logits": 8.0 * a.vocab_size * s.sequences,  # fp32 and one copy for sampling
        "kv_cache": s.sequences * kv_cache_bytes(a, s.context, s.kv_bytes) / s.ranks,
        "overhead": 0.0,
    }
    return as_estimate("serving", parts, s.device, "formula, estimate.memory")


# ---------------------------------------------------------------- as a record

# How far each part can be off, as factors; from the comparison in docs/accuracy.md. What a name
# below does not list is exact but for rounding to allocator blocks.
_SPREAD: dict[str, tuple[float, float]] = {
    "weights": (0.995, 1.01),
    "activations": (0.95, 1.08),
    "logits": (0.97, 1.05),
}


def _overhead_bytes(parts: Mapping[str, float], device: str) -> tuple[float, float, float]:
    """Lowest, middle and highest of what is needed beside the parts."""
    if device == "cpu":
        moving = parts["activations"] + parts["logits"]
        ends = zip(CPU_RUNTIME_GIB, CPU_HEAP_SHARE, strict=True)
        low, middle, high = (gib * GIB + share * moving for gib, share in ends)
        return low, middle, high
    allocated = sum(v for k, v in parts.items() if k != "overhead")
    low, middle, high = (gib * GIB for gib in CONTEXT_GIB)
    return low, middle, high + FRAGMENTATION * allocated


def as_estimate(
    moment: Moment, parts: Mapping[str, float], device: str, source: str
) -> MemoryEstimate:
    """Bytes by part as an estimate; the overhead and every range are put in here."""
    low, middle, high = _overhead_bytes(parts, device)
    parts = {**parts, "overhead": middle}
    quantities = {}
    for name, size in parts.items():
        down, up = _SPREAD.get(name, (1.0, 1.0))
        ends = (low, high) if name == "overhead" else (size * down, size * up)
        quantities[name] = derived(size / GIB, "GiB", source, ends[0] / GIB, ends[1] / GIB)
    peak = derived(
        sum(q.value for q in quantities.values()),
        "GiB",
        source,
        sum(q.lowest for q in quantities.values()),
        sum(q.highest for q in quantities.values()),
    )
    memory = Memory(peak_gib=peak, parts=MemoryParts(**quantities))
    return MemoryEstimate(moment, parts, memory, device)
