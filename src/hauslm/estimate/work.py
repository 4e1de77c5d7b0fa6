"""How much work is a token? Floating-point operations and bytes of memory traffic.

A frozen base costs 4N operations per token (forward, and the gradient of its inputs), full
fine-tuning 6N, recomputing 2N more; attention comes on top. The traffic outside the matrix products
was counted by tracing every operator of a training step. Seconds are for `speed` and `serving`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hauslm.base.quantity import Quantity
from hauslm.catalog.schema import Architecture, Gpu
from hauslm.estimate import shape
from hauslm.estimate.setup import EIGHT_BIT_PRODUCTS, TrainingSetup

# Bytes of non-matmul traffic per token, counted for 16-bit Llama blocks (forward and backward):
# 62 MB for Mistral-7B without adapters, i.e. 250h + 37f + 75(q + 2kv) per layer; each adapted
# matrix adds per input and output feature 11 bytes lean, 43 on PEFT's path.
_TRAFFIC_H, _TRAFFIC_F, _TRAFFIC_Q = 250.0, 37.0, 75.0
_TRAFFIC_ADAPTER = {"lean": 11.0, "autocast": 43.0, "mixed": 43.0}
_TRAFFIC_LOSS = 40.0  # per vocabulary entry, unfused
_RECOMPUTE_TRAFFIC = 0.35  # the forward share of the traffic
DEQUANTISE_BYTES = 2.5  # per parameter and pass: read 4 bit, write and read bf16


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one token."""

    forward: float
    backward: float
    recompute: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute


def attention_flops(architecture: Architecture, length: float) -> float:
    """Scores and values of one token, forward: 4 x (attended tokens) x query size, per layer."""
    query = shape.query_size(architecture)
    window = architecture.sliding_window or math.inf
    total = 0.0
    for layer in range(architecture.n_layers):
        seen = length / 2
        if not architecture.is_global(layer) and window < length:
            seen = window - window * window / (2 * length)
        total += 4.0 * seen * query
    return total


def matrix_parameters(architecture: Architecture) -> tuple[float, float]:
    """(all matrices that a token meets, those inside the blocks)."""
    blocks = shape.active_linear_parameters(architecture)
    return blocks + architecture.vocab_size * architecture.hidden_size, blocks


def training_work(s: TrainingSetup) -> Work:
    """FLOP per token: forward 2N + attention, backward 2N (4N in full) + twice the attention."""
    a = s.architecture
    n, blocks = matrix_parameters(a)
    attention = attention_flops(a, s.seq_len)
    own = 0.0
    if s.method != "full":
        own = 6.0 * shape.adapter_parameters(a, s.targets, s.rank, s.dora)
    backward = (4.0 if s.method == "full" else 2.0) * n + 2 * attention
    share = s.checkpointed_layers / a.n_layers
    return Work(
        2 * n + attention + own / 3, backward + own * 2 / 3, share * (2 * blocks + attention)
    )


def rounded_work(s: TrainingSetup) -> float:
    """FLOP per token of the products that run in 8 bit: those of the blocks' frozen matrices."""
    if s.quantisation not in EIGHT_BIT_PRODUCTS.values():
        return 0.0
    _, blocks = matrix_parameters(s.architecture)
    return (4.0 + 2.0 * s.checkpointed_layers / s.architecture.n_layers) * blocks


def rounding_traffic(s: TrainingSetup) -> float:
    """Bytes per token for rounding the operands of 8-bit products (read, largest value, write), and for
    int8's sums (int32 written and read, result written); by hand count of train/eightbit.py."""
    if s.quantisation not in EIGHT_BIT_PRODUCTS.values():
        return 0.0
    sums = 10.0 if s.quantisation == "int8_mm" else 0.0
    again = s.checkpointed_layers / s.architecture.n_layers
    per_layer = sum(
        ((5.0 * x.n_in + sums * x.n_out) * (1 + again) + 5.0 * x.n_out + sums * x.n_in) * x.active
        for x in shape.linears(s.architecture)
    )
    return per_layer * s.architecture.n_layers


def eight_bit_gain(s: TrainingSetup, gpu: Gpu) -> float:
    """How much higher the card's 8-bit rate is than its bf16 rate; 1 where the catalog has none."""
    rate = gpu.tflops_fp8 if s.quantisation == "fp8" else gpu.tops_int8
    if rate is None or gpu.tflops_bf16 is None:
        return 1.0
    return rate.value / gpu.tflops_bf16.value


def training_traffic(s: TrainingSetup) -> float:
    """Bytes of memory traffic per token outside the matrix products."""
    a = s.architecture
    width = 2.0 if s.base_dtype == "fp32" else 1.4 if s.kbit_upcast else 1.0
    size = a.intermediate_size
    if a.n_experts:
        size = (a.moe_intermediate_size or size) * (a.experts_per_token or 1) + 2 * a.hidden_size
    per_layer = (
        _TRAFFIC_H * a.hidden_size
        + _TRAFFIC_F * size
        + _TRAFFIC_Q * (shape.query_size(a) + 2 * shape.key_value_size(a))
    )
    if s.method != "full":
        factor = _TRAFFIC_ADAPTER[s.arithmetic] * (1.0 if not s.dropout else 1.15)
        per_layer += sum(
            factor * (x.n_in + x.n_out) * x.active for x in shape.adapted(a, s.targets)
        )
    share = s.checkpointed_layers / a.n_layers
    total = per_layer * a.n_layers * width * (1 + _RECOMPUTE_TRAFFIC * share)
    return total + (_TRAFFIC_LOSS * a.vocab_size if s.loss != "fused" else 10.0 * a.vocab_size)


def card_rate(gpu: Gpu) -> Quantity:
    """Dense bf16 rate, FLOP/s in TFLOP/s; assumed from the bandwidth where the catalog has none."""
    if gpu.tflops_bf16 is not None:
        return gpu.tflops_bf16
    guess = gpu.memory_bandwidth_gb_s.value * 0.12
    return Quantity(
        guess,
        "TFLOP/s",
        "assumed",
        guess / 3,
        guess * 2,
        "the catalog has no rate for this card; 120 FLOP per byte of bandwidth assumed",
    )
