"""How fast does it train, how long does that take, how much energy? And analysis, from `serving`.

Additive model of a step: matrix products at a share of the card's rate, everything else as memory
traffic at its bandwidth, and a floor of kernel launches. Every result is a quantity with a range;
the shares and their sources stand in `efficiency.py`, the work of a token in `work.py`.
"""

from __future__ import annotations

from hauslm.base.quantity import Quantity, derived
from hauslm.catalog.schema import Gpu
from hauslm.estimate import efficiency, shape
from hauslm.estimate.memory import weight_bytes
from hauslm.estimate.serving import (
    AnalysisThroughput,
    Engine,
    analysis_throughput,
    concurrent_sequences,
)
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.work import (
    DEQUANTISE_BYTES,
    card_rate,
    eight_bit_gain,
    rounded_work,
    rounding_traffic,
    training_traffic,
    training_work,
)

__all__ = [
    "AnalysisThroughput",
    "Engine",
    "analysis_throughput",
    "concurrent_sequences",
    "cpu_training_tokens_per_second",
    "energy_kwh",
    "training_hours",
    "training_tokens_per_second",
]


def _step_seconds(s: TrainingSetup, gpu: Gpu, gemm: float, rate: float) -> float:
    """Seconds of one micro-step on one card."""
    bandwidth = gpu.memory_bandwidth_gb_s.value * 1e9 * efficiency.of(gpu).bandwidth.value
    tokens = s.tokens
    slower = efficiency.INT8_SLOWDOWN if s.quantisation == "int8" else 1.0
    small = rounded_work(s)
    gain = max(1.0, efficiency.EIGHT_BIT_SHARE * eight_bit_gain(s, gpu))
    work = slower * (training_work(s).total - small) + small / gain
    seconds = tokens * work / (rate * 1e12 * gemm)
    seconds += tokens * (training_traffic(s) + rounding_traffic(s)) / bandwidth
    passes = 2 + s.checkpointed_layers / s.architecture.n_layers
    if s.quantisation == "fp8":  # turned over for the backward pass: read and written once
        seconds += 2.0 * shape.counts(s.architecture).linear / bandwidth
    elif s.quantisation not in ("none", "int8_mm"):
        blocks = shape.counts(s.architecture).linear
        seconds += passes * DEQUANTISE_BYTES * blocks / bandwidth
    if s.method == "full":
        total = shape.counts(s.architecture).total
        seconds += 16.0 * total / bandwidth / s.gradient_accumulation_steps
    if s.sharding == "fsdp" and s.ranks > 1:
        # each pass gathers the weights over the links; 50 GB/s assumed (PCIe 4/5, NVLink is faster)
        seconds += 0.5 * passes * weight_bytes(s.architecture, s.base_dtype, s.quantisation) / 5e10
    launches = efficiency.KERNELS_PER_LAYER[s.arithmetic] * s.architecture.n_layers
    launches *= 1 + 0.35 * s.checkpointed_layers / s.architecture.n_layers
    return max(seconds, launches * efficiency.KERNEL_LAUNCH_S.value)


def training_tokens_per_second(s: TrainingSetup, gpu: Gpu, correction: float = 1.0) -> Quantity:
    """Training tokens per second of all ranks together. `correction` comes from a probe."""
    s.check()
    share = efficiency.of(gpu)
    rate = card_rate(gpu)
    speeds = [
        s.ranks * s.tokens * correction / _step_seconds(s, gpu, gemm, tflops)
        for gemm, tflops in (
            (share.gemm.lowest, rate.lowest),
            (share.gemm.value, rate.value),
            (share.gemm.highest, rate.highest),
        )
    ]
    source = f"{gpu.name}: {rate.value:g} TFLOP/s x {share.gemm.value:.2f} ({share.gemm.source})"
    return derived(speeds[1], "tokens/s", source, 0.9 * speeds[0], 1.1 * speeds[2])


def cpu_training_tokens_per_second(
    s: TrainingSetup, cores: int, fast_bf16: bool, correction: float = 1.0
) -> Quantity:
    """Training tokens per second on `cores` CPU cores."""
    s.check()
    kind = "bf16" if s.base_dtype == "bf16" and fast_bf16 else "fp32"
    rate = efficiency.CPU_GFLOPS_PER_CORE[kind] * efficiency.CPU_EFFICIENCY[kind] * 1e9 * cores
    traffic = training_traffic(s) * (2.0 if kind == "fp32" and s.base_dtype != "fp32" else 1.0)
    small = rounded_work(s)
    gain = efficiency.CPU_EIGHT_BIT.get(s.quantisation, {}).get(kind, 1.0)
    per_token = (training_work(s).total - small + small / gain) / rate
    per_token += traffic / (efficiency.CPU_BANDWIDTH_GB_S_PER_CORE * 1e9 * cores)
    launches = efficiency.KERNELS_PER_LAYER[s.arithmetic] * s.architecture.n_layers
    per_token += launches * efficiency.CPU_CALL_S / s.tokens
    speed = correction / per_token
    low, high = efficiency.CPU_SPREAD
    source = f"{cores} otherwise idle CPU cores, {kind}, measured on AMD Zen 4, torch 2.13"
    return derived(speed, "tokens/s", source, low * speed, high * speed)


def training_hours(tokens: float | Quantity, tokens_per_second: Quantity) -> Quantity:
    """Hours for that many tokens (an exact number, or with a range and how it is known); the slow end
    of the speed is the high end of the time."""
    amount = derived(tokens, "tokens", "") if isinstance(tokens, (int, float)) else tokens
    known = f" ({amount.source})" if amount.source else ""
    return derived(
        amount.value / tokens_per_second.value / 3600,
        "h",
        f"{amount.value:,.0f} tokens{known} / ({tokens_per_second.source})",
        amount.lowest / tokens_per_second.highest / 3600,
        amount.highest / tokens_per_second.lowest / 3600,
    )


def energy_kwh(hours: Quantity, power_w: Quantity) -> Quantity:
    """Energy of a run; both ranges combined."""
    return derived(
        hours.value * power_w.value / 1000,
        "kWh",
        f"{hours.source} x {power_w.source}",
        hours.lowest * power_w.lowest / 1000,
        hours.highest * power_w.highest / 1000,
    )
