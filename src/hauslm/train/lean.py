"""How does a LoRA layer compute without needless casts and copies?

PEFT's layers keep the parameters, names and files; only the arithmetic of the plain variant is
replaced: `base(x) + dropout(x) A' (B s)'` with the update accumulated inside the last product, in the
base's number format, while the adapter itself stays in float32 (gradients and Adam need it). PEFT's
own path casts the input to float32, multiplies there, scales, adds and casts back: two to three more
passes over tensors of the size of the activations per adapted layer.

Variants with arithmetic of their own (DoRA) keep PEFT's path.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout, linear

ADAPTER = "default"


def make_lean(model: nn.Module) -> int:
    """Use the lean arithmetic in every plain LoRA layer below `model`; returns how many."""
    from peft.tuners.lora.layer import Linear as LoraLinear
    from peft.tuners.lora.layer import LoraLayer

    count = 0
    for module in model.modules():
        if not isinstance(module, LoraLayer) or ADAPTER not in module.lora_A:
            continue
        quantised = type(module).__name__ in ("Linear4bit", "Linear8bitLt")
        plain = (isinstance(module, LoraLinear) or quantised) and not module.lora_variant
        if (
            plain
            and not module.lora_bias.get(ADAPTER)
            and not getattr(module, "fan_in_fan_out", False)
        ):
            module.forward = types.MethodType(_forward, module)
            count += 1
    return count


def make_plain(model: nn.Module) -> None:
    """Give every layer PEFT's own arithmetic back."""
    for module in model.modules():
        if getattr(module.__dict__.get("forward"), "__func__", None) is _forward:
            del module.forward


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or args or kwargs or self.active_adapters != [ADAPTER]:
        result: torch.Tensor = type(self).forward(self, x, *args, **kwargs)
        return result
    base = self.base_layer(x)
    rate = getattr(self.lora_dropout[ADAPTER], "p", 0.0)
    inner = dropout(x, rate, self.training) if rate else x
    low = linear(inner, self.lora_A[ADAPTER].weight.to(x.dtype))
    up = (self.lora_B[ADAPTER].weight * self.scaling[ADAPTER]).to(x.dtype)
    rows = base.reshape(-1, base.shape[-1])
    return torch.addmm(rows, low.reshape(-1, low.shape[-1]), up.T).view(base.shape)
