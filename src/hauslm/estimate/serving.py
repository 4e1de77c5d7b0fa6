"""How many documents per hour does a card analyse? Prefill, batched decoding, KV memory.

GPU time of a document = the prefill of its prompt plus its share of the decoding steps, each of which
reads all weights and the caches of everything that is decoded at once. How many that are, the memory
decides. Agrees with the published like-for-like runs (docs/accuracy.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import say
from hauslm.catalog.schema import Architecture, Gpu
from hauslm.estimate import efficiency, shape
from hauslm.estimate.memory import GIB, inference_memory, kv_cache_bytes, weight_bytes
from hauslm.estimate.setup import Dtype, InferenceSetup, Quantisation
from hauslm.estimate.work import attention_flops, card_rate, matrix_parameters

Engine = Literal["vllm", "tensorrt_llm", "transformers"]


@dataclass(frozen=True)
class AnalysisThroughput:
    """Steady-state speed of a batch analysis on one machine, and what limits it."""

    documents_per_hour: Quantity
    tokens_per_second: Quantity  # prompt and answer together
    output_tokens_per_second: Quantity
    prefill_s: float  # GPU time of one document's prompt
    decode_s: float  # GPU time of one document's answer, its share of the batch
    step_s: float  # one decoding step of the whole batch
    sequences: int  # how many are decoded at once
    limited_by: Literal["kv_cache", "max_sequences", "given"]


# vLLM's default upper limit of sequences that are decoded at once on a data-centre card; memory
# decides below that.
MAX_SEQUENCES = 256
# Share of the device memory that a server plans with (vLLM's gpu_memory_utilization default).
SERVER_SHARE = 0.92
# Scheduling, sampling and detokenising between two steps: fixed and per sequence. The transformers
# engine launches every kernel from Python instead of replaying a CUDA graph.
_STEP_S: dict[Engine, tuple[float, float]] = {
    "vllm": (1.5e-3, 5e-5),
    "tensorrt_llm": (1e-3, 1e-5),
    "transformers": (2e-3, 4e-5),
}


def concurrent_sequences(
    architecture: Architecture,
    gpu: Gpu,
    context: int,
    *,
    quantisation: Quantisation = "none",
    base_dtype: Dtype = "bf16",
    kv_bytes: float = 2.0,
    adapters: int = 0,
    gpus: int = 1,
    share: float = SERVER_SHARE,
) -> int:
    """How many sequences of `context` tokens the memory holds; 0 if not even the weights fit."""
    one = inference_memory(
        InferenceSetup(
            architecture,
            context,
            1,
            base_dtype,
            quantisation,
            kv_bytes,
            adapters=adapters,
            ranks=gpus,
        )
    )
    per_sequence = kv_cache_bytes(architecture, context, kv_bytes) / gpus
    room = gpu.memory_gib.value * share * GIB - (sum(one.bytes.values()) - one.bytes["kv_cache"])
    return max(0, int(room / per_sequence))


def analysis_throughput(
    architecture: Architecture,
    gpu: Gpu,
    *,
    tokens_in: float,
    tokens_out: float,
    quantisation: Quantisation = "none",
    base_dtype: Dtype = "bf16",
    kv_bytes: float = 2.0,
    adapter: Literal["none", "merged", "separate"] = "none",
    engine: Engine = "vllm",
    concurrency: int | None = None,
    gpus: int = 1,
    correction: float = 1.0,
    even_if_too_large: bool = False,
) -> AnalysisThroughput:
    """Documents per hour for prompts of `tokens_in` and answers of `tokens_out` tokens.

    GPU time of a document = its prefill (matrix products and attention of the prompt) plus its share
    of decoding: `tokens_out` steps, each reading all weights and the caches of the batch. Weights
    quantised to 4 bit are read as such and multiplied in 16 bit; fp8 and int8 also multiply faster
    where the card can. Raises RefusedError H430 if the model does not fit the card, unless
    `even_if_too_large` asks how fast it would be with more memory.
    """
    shape.require_understood(architecture)
    if tokens_in < 0 or tokens_out < 0 or tokens_in + tokens_out < 1:
        raise UsageError(
            "H153",
            say("A document needs at least one token."),
            next_step=say("Give the tokens of prompt and answer per document."),
        )
    context = math.ceil(tokens_in + tokens_out)
    room = concurrent_sequences(
        architecture,
        gpu,
        context,
        quantisation=quantisation,
        base_dtype=base_dtype,
        kv_bytes=kv_bytes,
        adapters=int(adapter == "separate"),
        gpus=gpus,
    )
    if even_if_too_large:
        room = max(room, concurrency or 1)
    if room < 1:
        raise RefusedError(
            "H430",
            say(
                "The model and a document of {tokens:,} tokens do not fit {gpu}.",
                tokens=context,
                gpu=gpu.name,
            ),
            next_step=say(
                "Choose a smaller or quantised model, shorter sections, or a larger card."
            ),
        )
    wanted = concurrency or MAX_SEQUENCES
    batch = min(room, wanted)
    limited: Literal["kv_cache", "max_sequences", "given"] = "kv_cache"
    if batch < room:
        limited = "given" if concurrency else "max_sequences"
    share = efficiency.of(gpu)
    slow, middle, fast = (
        _document_seconds(
            architecture,
            gpu,
            tokens_in,
            tokens_out,
            quantisation,
            base_dtype,
            kv_bytes,
            engine,
            batch,
            gpus,
            prefill,
            bandwidth,
        )
        for prefill, bandwidth in (
            (share.prefill.lowest, share.bandwidth.lowest),
            (share.prefill.value, share.bandwidth.value),
            (share.prefill.highest, share.bandwidth.highest),
        )
    )
    lora = efficiency.LORA_SERVING if adapter == "separate" else None
    factors = (lora.lowest, lora.value, lora.highest) if lora else (1.0, 1.0, 1.0)
    rates = [
        correction * factor / seconds[0]
        for factor, seconds in zip(factors, (slow, middle, fast), strict=True)
    ]
    source = f"{gpu.name} x {gpus}, {engine}, {batch} sequences at once"

    def quantity(per_document: float, unit: str) -> Quantity:
        low, value, high = (r * per_document for r in rates)
        return derived(value, unit, source, low, high)

    return AnalysisThroughput(
        documents_per_hour=quantity(3600, "documents/h"),
        tokens_per_second=quantity(tokens_in + tokens_out, "tokens/s"),
        output_tokens_per_second=quantity(tokens_out, "tokens/s"),
        prefill_s=middle[1],
        decode_s=middle[2],
        step_s=middle[3],
        sequences=batch,
        limited_by=limited,
    )


def _document_seconds(
    a: Architecture,
    gpu: Gpu,
    tokens_in: float,
    tokens_out: float,
    quantisation: Quantisation,
    base_dtype: Dtype,
    kv_bytes: float,
    engine: Engine,
    batch: int,
    gpus: int,
    prefill_share: float,
    bandwidth_share: float,
) -> tuple[float, float, float, float]:
    """(document, prefill, decode, one step) in seconds."""
    compute = _inference_flops(gpu, quantisation) * prefill_share * gpus
    bandwidth = gpu.memory_bandwidth_gb_s.value * 1e9 * bandwidth_share * gpus
    n, blocks = matrix_parameters(a)
    prefill = tokens_in * (2 * blocks + attention_flops(a, max(tokens_in, 1))) / compute
    weights = _weights_read(a, base_dtype, quantisation, batch)
    cache = batch * kv_cache_bytes(a, math.ceil(tokens_in + tokens_out / 2), kv_bytes)
    fixed, per_sequence = _STEP_S[engine]
    step = (weights + cache) / bandwidth + batch * 2 * n / compute + fixed + per_sequence * batch
    if engine == "transformers":
        step = max(step, a.n_layers * 45 * efficiency.KERNEL_LAUNCH_S.value + fixed)
    if gpus > 1:
        step += a.n_layers * 2 * 2e-5  # two all-reduces per layer
    decode = tokens_out * step / batch
    return prefill + decode, prefill, decode, step


def _inference_flops(gpu: Gpu, quantisation: Quantisation) -> float:
    """FLOP/s of the products: 8-bit rates where weights and card allow them."""
    if quantisation == "fp8" and gpu.tflops_fp8 is not None:
        return gpu.tflops_fp8.value * 1e12
    if quantisation == "int8" and gpu.tops_int8 is not None:
        return gpu.tops_int8.value * 1e12
    return card_rate(gpu).value * 1e12


def _weights_read(
    a: Architecture, base_dtype: Dtype, quantisation: Quantisation, batch: int
) -> float:
    """Bytes of weights that one decoding step reads: of a mixture, the experts that are met."""
    total = weight_bytes(a, base_dtype, quantisation)
    if not a.n_experts:
        return total
    expert = sum(x.parameters for x in shape.linears(a) if x.expert)
    share_experts = a.n_layers * expert / shape.counts(a).linear
    met = 1 - (1 - (a.experts_per_token or 1) / a.n_experts) ** batch
    return total * (1 - share_experts + share_experts * met)
