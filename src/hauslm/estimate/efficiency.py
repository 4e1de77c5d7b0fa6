"""Which share of a card's rates does real work reach? Calibrated figures with range and source.

Every value here was fitted to published runs (docs/accuracy.md lists them with the error that is
left) or is marked as assumed. A probe on the real device replaces them (`probe.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from hauslm.base.quantity import Quantity, assumed, derived
from hauslm.catalog.schema import Gpu

_FMS = "foundation-model-stack/fms-acceleration, scripts/benchmarks/refs (A100-80, 2025)"
_NEMO = "NVIDIA NeMo AutoModel, docs/performance-summary.mdx (H100, 2025-10-02)"
_PEFT = "huggingface/peft, method_comparison/MetaMathQA/results (L40S, 2026-07-15)"
_MODEL = "no published LoRA run with full settings; GEMM efficiency assumed"
_TRTLLM = "NVIDIA/TensorRT-LLM perf-overview v1.0 (H100/H200, Llama-3.1-8B FP8)"
_IOG = "IOG-Foundation/llm-inference-benchmarks (RTX 4090, H100 PCIe, vLLM 0.8.5, 2025)"


@dataclass(frozen=True)
class Efficiency:
    """Shares of the catalog rates. `gemm`: of the dense bf16 peak in training matrices; `prefill`:
    of the peak in prompt processing; `bandwidth`: of the memory bandwidth when weights are read."""

    gemm: Quantity
    prefill: Quantity
    bandwidth: Quantity


def _share(value: float, spread: float, source: str, known: bool = True) -> Quantity:
    low, high = value * (1 - spread), min(0.98, value * (1 + spread))
    if known:
        return derived(value, "1", f"fitted to {source}", low, high)
    return assumed(value, "1", low, high, source)


# Consumer and workstation cards hold their boost clock in GEMMs; passively cooled 72-150 W cards
# do not. Rows by what the catalog calls the architecture, then by id where a card differs.
_GEMM: dict[str, tuple[float, float, str, bool]] = {
    "hopper": (0.75, 0.15, _NEMO, True),
    "h100-pcie": (0.62, 0.2, "the 350 W limit; prefill and decoding fitted to " + _IOG, True),
    "a100": (0.72, 0.15, _FMS, True),
    "l40s": (0.60, 0.20, _PEFT, True),
    "l4": (0.55, 0.25, _MODEL, False),
    "a10": (0.70, 0.20, _MODEL, False),
    "ampere": (0.80, 0.20, _MODEL, False),
    "ada": (0.80, 0.20, _MODEL, False),
    "blackwell": (0.65, 0.30, _MODEL, False),
    "bw": (0.65, 0.30, _MODEL, False),
    "cdna3": (0.45, 0.35, _MODEL, False),
}
_DEFAULT_GEMM = (0.5, 0.5, _MODEL, False)


def _row(gpu: Gpu) -> tuple[float, float, str, bool]:
    for key in (gpu.id, gpu.id.split("-")[0], gpu.architecture):
        if key in _GEMM:
            return _GEMM[key]
    return _DEFAULT_GEMM


def of(gpu: Gpu) -> Efficiency:
    """The shares that this card is credited with."""
    value, spread, source, known = _row(gpu)
    hopper = gpu.architecture == "hopper" and gpu.id != "h100-pcie"
    prefill = _share(
        0.58 if hopper else min(0.62, value * 0.8), 0.25, _TRTLLM if hopper else _IOG, hopper
    )
    return Efficiency(
        gemm=_share(value, spread, source, known),
        prefill=prefill,
        bandwidth=_share(0.80, 0.12, f"{_IOG}; {_TRTLLM}"),
    )


# LoRA computed beside the base in a server, per adapter kernel: vLLM pull requests 11267 (-34 %),
# 11613 (-4 %), 15655 (-8 to -24 %); 1.0 once the adapter is merged.
LORA_SERVING = derived(0.85, "1", "vLLM pull requests 11267, 11613, 15655; issue 10062", 0.5, 0.96)

# Eager PyTorch issues the kernels one by one; about 7 microseconds each (5-10 on current hosts),
# 137 per layer and micro-step for lean attention adapters, 260 for PEFT's path on all matrices.
KERNEL_LAUNCH_S = assumed(7e-6, "s", 5e-6, 1e-5, "measured launches of eager PyTorch, 6-10 us")
KERNELS_PER_LAYER = {"lean": 170.0, "autocast": 260.0, "mixed": 260.0}

# LLM.int8 sorts out outlier columns in every product and multiplies them in 16 bit (Dettmers et al.,
# arXiv 2208.07339, table 5: 15-23 per cent slower at 7-13 billion parameters); nf4 does not.
INT8_SLOWDOWN = 1.25

# What 8-bit products reach of their higher peak, rounding of the operands counted separately: assumed.
# Published: fp8 with frozen weights 1.30 times bf16 (meta-pytorch/torchtune pull request 2833), int8 1.7
# times on an RTX 4090 (torchao, prototype README).
EIGHT_BIT_SHARE = 0.8
# On a CPU, per CPU second of a product and its gradient, rounding included, against the same in fp32 and
# in bf16: int8 2.7 to 3.4 and 1.1 to 1.5 times (AMD Zen 4 with VNNI, widths 512 to 1024, torch 2.13); fp8
# is emulated there.
CPU_EIGHT_BIT = {
    "int8_mm": {"fp32": 2.7, "bf16": 1.2},
    "fp8": {"fp32": 0.3, "bf16": 0.1},
}

# A CPU core in dense products (AVX-512): fp32 88, bf16 with AVX512-BF16 or AMX 220 GFLOP/s, of
# which training reaches about 60 and 35 per cent; about 10 GB/s of memory traffic per core.
# Measured here on two AMD Zen 4 cores, torch 2.13+cpu.
CPU_GFLOPS_PER_CORE = {"fp32": 88.0, "bf16": 220.0}
CPU_EFFICIENCY = {"fp32": 0.62, "bf16": 0.35}
CPU_BANDWIDTH_GB_S_PER_CORE = 10.0
CPU_CALL_S = 1e-5  # one small operator, dispatch and wake-up of the threads
CPU_SPREAD = (0.6, 1.5)
