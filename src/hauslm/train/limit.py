"""How much of what this machine could do at best does the run reach? Work over time over a measured peak.

Work of a step, by the formulas of estimate/work.py but counted on the model and the documents that are
really there: each frozen matrix costs 4 operations per weight and token (forward, and the gradient of its
input), a trained one 6; the head only for labels that count; attention 6 per query feature and attended
token. Adapters, norms and recomputing count as nothing: they are cost, not use. The peak is a square
product in the number format of the run, measured on this device as the run starts; with a base in 8 bit
the share can exceed 1, the peak is still that of the format named.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SIDE = {"cpu": 1024, "cuda": 8192}  # of the square product: large enough for full speed
MEASURE_S = 0.4
FEWEST = 3


@dataclass(frozen=True)
class Limit:
    """Operations: `matrix` per token, `head` per label, `attention` per attended token; peak in FLOP/s."""

    matrix: float
    head: float
    attention: float
    peak: float
    number_format: str

    def work(self, tokens: float, labels: float, squares: float) -> float:
        """Operations of that many tokens, labels, and documents with that sum of squared lengths."""
        return self.matrix * tokens + self.head * labels + self.attention * squares / 2

    def share(self, tokens: float, labels: float, squares: float, seconds: float) -> float:
        return self.work(tokens, labels, squares) / seconds / self.peak


def peak_flops(device: str, number_format: str) -> float:
    """The fastest of some square products, FLOP/s."""
    side = SIDE["cuda" if device.startswith("cuda") else "cpu"]
    dtype = getattr(torch, number_format)
    a = torch.randn(side, side, device=device).to(dtype)
    best, spent, done = float("inf"), 0.0, 0
    with torch.no_grad():
        while done < FEWEST or spent < MEASURE_S:
            _wait(device)
            started = time.perf_counter()
            torch.mm(a, a)
            _wait(device)
            seconds = time.perf_counter() - started
            spent, done = spent + seconds, done + 1
            if done > 1:  # the first one also compiles the kernel
                best = min(best, seconds)
    return 2.0 * side**3 / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def of(compute: Any, ranks: int = 1) -> Limit | None:
    """The limit for this model on this device; None where the model has matrices that are no linear
    layers (fused experts): its work would be counted wrongly."""
    config = compute.causal.config.get_text_config()
    if any(p.dim() > 2 for p in compute.decoder.parameters()):
        return None
    matrix = 0.0
    for name, module in compute.decoder.named_modules():
        sizes = getattr(module, "in_features", 0), getattr(module, "out_features", 0)
        if (
            not all(sizes)
            or ".lora_" in name
            or hasattr(module, "base_layer")
            or ".original_module" in name
        ):
            continue  # an adapted layer is counted by the layer inside it
        trained = any(p.requires_grad for p in module.parameters(recurse=False))
        matrix += (6.0 if trained else 4.0) * sizes[0] * sizes[1]
    head = compute.head
    heads = getattr(config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    trained_head = any(p.requires_grad for p in head.parameters())
    shape = (
        head.weight.shape
        if isinstance(head, nn.Linear)
        else (config.vocab_size, config.hidden_size)
    )
    settings = compute.settings
    return Limit(
        matrix=matrix,
        head=(6.0 if trained_head else 4.0) * shape[0] * shape[1],
        attention=12.0 * heads * size * config.num_hidden_layers,
        peak=ranks * peak_flops(compute.device, settings.precision),
        number_format=settings.precision,
    )
