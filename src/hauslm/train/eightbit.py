"""How can a frozen base be multiplied in 8 bit, forward and backward? Rounded once, then never again.

A frozen weight needs no gradient, so a linear layer has two products only, y = x W' and dx = g W, and
both can run in 8 bit: int8 through `torch._int_mm`, fp8 (e4m3) through `torch._scaled_mm`. Libraries that
keep 8-bit weights dequantise them for the backward pass, or for both.

Scales. Each output row of W has its own (N of them), found once. Each row of x has its own, found at
every pass, so a token's rounding does not depend on its company in a batch. In the backward product the
sum runs over N, along which W's scales lie; they cannot be taken out of that sum, so they are multiplied
into g before g itself is rounded row by row:

    y[m,n]  = s_x[m] s_w[n] sum_k x8[m,k] W8[n,k]
    dx[m,k] = s_h[m]        sum_n h8[m,n] W8[n,k]      with  h[m,n] = g[m,n] s_w[n]

So one copy of W8 with one set of scales serves both passes exactly; no second, transposed copy (another
byte per weight) and no coarser scales for whole blocks. fp8 kernels read their second operand along the
sum, so on CUDA the backward pass transposes W8 on the way (2 bytes of traffic per weight: about 4 % of
a 4096-token step on an RTX 4090 by bandwidth; not measured).

Memory: 1 byte per weight and 4 per output row instead of 2 (bfloat16) or 4 (float32) bytes per weight.
Whether a model bears it is for `gate.py`; LoRA's own arithmetic and files are not touched.

Shapes: M rows (tokens), K inputs, N outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import Sentence, say
from hauslm.estimate.setup import eight_bit_format

if TYPE_CHECKING:
    from hauslm.train.settings import Settings

LARGEST = {"int8": 127.0, "fp8": 448.0}  # of the format; e4m3 has no infinity
FORMATS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
SMALLEST_SCALE = 1e-30  # a row of zeros stays one
MULTIPLE = 16  # kernels on CUDA want K and N in such steps
FEWEST_ROWS = 17  # torch._int_mm on CUDA wants more than 16


def rounded(rows_MK: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
    """(values in 8 bit, scale of each row (M, 1) in float32). NaN and infinity stay visible in the scale."""
    scale = rows_MK.abs().amax(dim=1, keepdim=True).float()
    scale = scale.div_(LARGEST[kind]).clamp_min_(SMALLEST_SCALE)
    scaled = rows_MK / scale
    if kind == "int8":
        return scaled.round_().to(torch.int8), scale
    return scaled.clamp_(-LARGEST[kind], LARGEST[kind]).to(torch.float8_e4m3fn), scale


def product(
    left_MK: torch.Tensor,  # noqa: N803
    right_KN: torch.Tensor,  # noqa: N803
    left_scale: torch.Tensor,
    right_scale: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """(M, N) in `dtype`: 8-bit operands times the scales of the rows (M, 1) and columns (N,), if any."""
    if left_MK.dtype == torch.int8:
        missing = FEWEST_ROWS - len(left_MK) if left_MK.is_cuda else 0
        if missing > 0:
            left_MK = nn.functional.pad(left_MK, (0, 0, 0, missing))  # noqa: N806
        sums = torch._int_mm(left_MK, right_KN)
        if missing > 0:
            sums = sums[:-missing]
        result = sums * left_scale  # float32: a sum of K <= 133,000 products fits int32
        if right_scale is not None:
            result *= right_scale
        return result.to(dtype)
    columns = right_KN.shape[1]
    ones = torch.ones(columns, dtype=torch.float32, device=left_MK.device)
    result = torch._scaled_mm(
        left_MK,
        _along_the_sum(right_KN),
        scale_a=left_scale,
        scale_b=(ones if right_scale is None else right_scale).view(1, columns),
        out_dtype=torch.bfloat16 if left_MK.is_cuda else dtype,
    )
    return result.to(dtype)


def _along_the_sum(right_KN: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """fp8 on CUDA reads the second operand column by column."""
    if not right_KN.is_cuda or right_KN.stride(0) == 1:
        return right_KN
    turned = right_KN.view(torch.uint8).t().contiguous()
    return turned.view(right_KN.dtype).t()


class _FrozenProduct(torch.autograd.Function):
    """x W' and its gradient for x; W has none."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, kind: str
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.kind = kind
        rows, row_scale = rounded(x.reshape(-1, x.shape[-1]), kind)
        result = product(rows, weight.t(), row_scale, scale, x.dtype)
        return result.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        weight, scale = ctx.saved_tensors
        gradient = outer[0]
        rows = gradient.reshape(-1, gradient.shape[-1]) * scale
        small, row_scale = rounded(rows, ctx.kind)
        result = product(small, weight, row_scale, None, gradient.dtype)
        return result.view(*gradient.shape[:-1], weight.shape[1]), None, None, None


class EightBitLinear(nn.Module):
    """A frozen linear layer in 8 bit. Parameters, so that whoever checks frozen values sees them."""

    def __init__(self, linear: nn.Linear, kind: str, device: torch.device | str) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        with torch.no_grad():
            values, scale = rounded(linear.weight.to(device).float(), kind)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.scale = nn.Parameter(scale.view(-1), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apply: Any = _FrozenProduct.apply
        result: Any = apply(x, self.weight, self.scale, self.kind)
        if self.bias is not None:
            result = result + self.bias
        plain: torch.Tensor = result
        return plain

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kind}"


@dataclass(frozen=True)
class Rounded:
    """What was rounded: layers in 8 bit, and frozen linear layers that were left as they are."""

    layers: int
    left: int


def round_base(model: Any, kind: str, device: torch.device | str) -> Rounded:
    """Put an 8-bit layer in the place of every frozen linear layer of the decoder, then move the model.

    Layers one by one, so that on the device the whole never exists in more than 8 bit. The output head
    and layers whose sizes are no multiple of 16 stay. RefusedError H617 when nothing can be rounded.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = causal.get_output_embeddings()
    found = [
        (parent, name, child)
        for parent in causal.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
        and child is not head
        and child is not getattr(head, "original_module", None)  # a head with rows that learn
        and not child.weight.requires_grad
        and not hasattr(
            parent, "modules_to_save"
        )  # the untouched original of a module trained whole
    ]
    fitting = [f for f in found if not f[2].in_features % MULTIPLE | f[2].out_features % MULTIPLE]
    if not fitting:
        raise RefusedError(
            "H617",
            say("The base has no frozen linear layer that 8-bit products could be used for."),
            where="training.base_precision",
            next_step=say("Set training.base_precision to full."),
        )
    for parent, name, child in fitting:
        setattr(parent, name, EightBitLinear(child, kind, device))
    model.to(device)
    return Rounded(len(fitting), len(found) - len(fitting))


# ---------------------------------------------------------------- which format, and can it run


def choose(asked: str, device: str, method: str, quantisation: str, variant: str) -> str:
    """full, int8 or fp8 for this device. `asked`: full, auto, int8, fp8. H616: it cannot be had."""
    if asked == "full":
        return "full"
    why = _obstacle(method, quantisation, variant)
    if why is not None:
        if asked == "auto":
            return "full"
        raise UsageError(
            "H616",
            why,
            where="training.base_precision",
            next_step=say("Set training.base_precision to full."),
        )
    if asked != "auto":
        return asked
    return eight_bit_format(torch.cuda.get_device_capability() if device == "cuda" else None)


def _obstacle(method: str, quantisation: str, variant: str) -> Sentence | None:
    if method == "full":
        return say("Full fine-tuning changes the base: it cannot be frozen in 8 bit.")
    if quantisation != "none":
        return say(
            "The base is already stored as {stored}; it cannot be rounded to 8 bit as well.",
            stored=quantisation,
        )
    from hauslm.train import adapters

    if not getattr(adapters.find(variant).module, "EIGHT_BIT", False):
        return say(
            "The variant {variant} needs the base's own weights, not 8-bit ones.", variant=variant
        )
    return None


def try_out(settings: Settings, device: str) -> None:
    """One small product each way. RefusedError H617 where this device or torch cannot do it."""
    kind = settings.base_precision
    layer = EightBitLinear(nn.Linear(64, 32, bias=False, device=device), kind, device)
    x = torch.ones(2, 64, device=device, dtype=getattr(torch, settings.precision)).requires_grad_()
    try:
        layer(x).sum().backward()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise RefusedError(
            "H617",
            say(
                "This device cannot multiply in {kind}: {reason}.",
                kind=kind,
                reason=str(error).strip().splitlines()[0].rstrip("."),
            ),
            where="training.base_precision",
            next_step=say("Set training.base_precision to full."),
        ) from error
