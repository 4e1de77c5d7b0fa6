"""The real model of transformers and PEFT, built without weights, with stand-ins where needed.

Used by `trace` (on the `meta` device, then swapped for fake tensors) and `probe` (on a real device,
with random weights). What is put in place of the original, because a CPU wheel cannot run it or would
count it wrongly: attention by an operator that keeps what fused kernels keep (queries, keys, values,
output, log-sum-exp); dropout by the CUDA operator, whose mask takes one byte; quantised matrices by a
stand-in that holds the packed bytes and one 16-bit copy during each product. Tensors of the loss, of
lean LoRA and of old transformers versions are made as the originals make them.

This module imports torch; import it only where a trace or a probe is wanted.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hauslm.base.errors import UsageError
from hauslm.base.words import say
from hauslm.estimate import memory as formula
from hauslm.estimate import shape
from hauslm.estimate.setup import DTYPES, TrainingSetup

ATTENTION_NAME = "hauslm_trace"  # transformers takes names with "flash" for kernels to fetch


# ---------------------------------------------------------------- stand-ins


class _FusedAttention(torch.autograd.Function):
    """Keeps for the backward pass what FlashAttention and fused SDPA keep."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        log_sum = torch.empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, _, log_sum = ctx.saved_tensors
        torch.empty_like(log_sum)
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _attend(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: Any,
    *,
    repeat: bool = False,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    if repeat and q.shape[1] != k.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
    out = _FusedAttention.apply(q, k, v)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


class _PackedProduct(torch.autograd.Function):
    """x W' with W unpacked to 16 bit for the product, forward and backward (bitsandbytes)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, packed: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        ctx.shape = shape
        ctx.save_for_backward(packed)
        return functional.linear(x, torch.empty(shape, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = outer
        return gradient @ torch.empty(ctx.shape, dtype=gradient.dtype), None, None


def _packed_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    kind = (
        torch.bfloat16 if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu") else x.dtype
    )
    out: torch.Tensor = _PackedProduct.apply(  # type: ignore[no-untyped-call]
        x.to(kind), self.weight, (self.out_features, self.in_features)
    )
    return out if self.bias is None else out + self.bias


def _lean_forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """LoRA in the base's number format, the update added inside the product (train/lean.py)."""
    base = self.base_layer(x)
    inner = self.lora_dropout["default"](x)
    low = functional.linear(inner, self.lora_A["default"].weight.to(x.dtype))
    up = (self.lora_B["default"].weight * self.scaling["default"]).to(x.dtype)
    rows = base.reshape(-1, base.shape[-1])
    return torch.addmm(rows, low.reshape(-1, low.shape[-1]), up.T).view(base.shape)


def _dropout_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    kept: torch.Tensor = torch.native_dropout(x, self.p, True)[0]
    return kept


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradient of the hidden states chunk by chunk, frozen head (train/loss.py)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, rows: int) -> torch.Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = (hidden[part] @ weight.T).float()
            log_sum = logits.logsumexp(dim=-1, keepdim=True)
            total += log_sum.sum()
            probability = logits.sub_(log_sum).exp_()
            gradient[part] = probability.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].to(gradient.dtype), None, None


def _plain_chunk(hidden: torch.Tensor, head: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(hidden).float(), labels, reduction="sum")


def _chunked(hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor) -> torch.Tensor:
    from torch.utils.checkpoint import checkpoint

    rows = max(64, formula.FUSED_CHUNK_ELEMENTS // head.out_features)
    if not head.weight.requires_grad:
        loss: torch.Tensor = _ChunkedLoss.apply(hidden, head.weight, rows)  # type: ignore[no-untyped-call]
        return loss
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, target in zip(hidden.split(rows), labels.split(rows), strict=True):  # type: ignore[no-untyped-call]
        total = total + checkpoint(_plain_chunk, part, head, target, use_reentrant=False)
    return total


def _shifted_loss(
    logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **_: Any
) -> torch.Tensor:
    """The loss as transformers computed it before 4.50: logits are shifted, not labels."""
    full = logits.float()
    shifted = full[..., :-1, :].contiguous().view(-1, vocab_size)
    return functional.cross_entropy(shifted, labels[..., 1:].reshape(-1))


def _upcast_head_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Before 4.46 the 16-bit logits were replaced by their fp32 copy at once."""
    return functional.linear(x, self.weight).float()


# ---------------------------------------------------------------- building the model


def _transformers_config(config: dict[str, Any], layers: int) -> Any:
    from transformers import CONFIG_MAPPING

    text = config.get("text_config", config)
    kind = text.get("model_type", config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise UsageError(
            "H160",
            say("transformers does not know the architecture '{kind}'.", kind=str(kind)),
            next_step=say("Check model_type in the model's config.json."),
        )
    left_out = ("model_type", "architectures", "quantization_config", "dtype", "torch_dtype")
    made = CONFIG_MAPPING[kind](**{k: v for k, v in text.items() if k not in left_out})
    made.num_hidden_layers = layers
    if getattr(made, "layer_types", None):
        made.layer_types = list(made.layer_types)[:layers]
    made.use_cache = False
    return made


def meta_model(
    config: dict[str, Any], s: TrainingSetup, layers: int, checkpointed: int
) -> nn.Module:
    """The model with its adapter on `meta`, stand-ins in place."""
    from transformers import AttentionInterface, AutoModelForCausalLM

    implementation = "eager" if s.attention == "eager" else ATTENTION_NAME
    AttentionInterface.register(ATTENTION_NAME, partial(_attend, repeat=s.attention == "masked"))
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            _transformers_config(config, layers),
            dtype=getattr(torch, DTYPES[s.base_dtype]),
            attn_implementation=implementation,
        )
        _require_eager_where_asked(model, s)
        if s.quantisation != "none":
            _pack(model, s)
        if s.method != "full":
            model = _adapted(model, s)
    model.train()
    _set_checkpointing(model, s, checkpointed)
    _replace_forwards(model, s)
    if s.loss in ("naive_shifted", "naive_upcast"):
        _inner(model).loss_function = _shifted_loss
    if s.loss == "naive_upcast":
        head = _inner(model).get_output_embeddings()
        head.forward = types.MethodType(_upcast_head_forward, head)
    return model


def real_model(config: dict[str, Any], s: TrainingSetup, device: str) -> nn.Module:
    """The same model with random weights on a real device, with torch's own attention (`probe`)."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        _transformers_config(config, s.architecture.n_layers),
        dtype=getattr(torch, DTYPES[s.base_dtype]),
        attn_implementation="eager" if s.attention == "eager" else "sdpa",
    )
    if s.quantisation != "none":
        _quantise(model, s)
    model = model.to(device)
    if s.method != "full":
        model = _adapted(model, s).to(device)
    model.train()
    _set_checkpointing(model, s, s.checkpointed_layers)
    _replace_forwards(model, s)
    return model


def _quantise(model: nn.Module, s: TrainingSetup) -> None:
    """Linear layers of the blocks as bitsandbytes' own; they are quantised when moved."""
    import bitsandbytes

    head = model.get_output_embeddings()  # type: ignore[operator]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child is head:
                continue
            sizes = (child.in_features, child.out_features, child.bias is not None)
            made: Any
            if s.quantisation == "int8":
                made = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False)  # type: ignore[attr-defined]
            else:
                made = bitsandbytes.nn.Linear4bit(  # type: ignore[no-untyped-call, attr-defined]
                    *sizes, compute_dtype=child.weight.dtype, quant_type="nf4",
                    compress_statistics=s.quantisation == "nf4_dq",
                )  # fmt: skip
            made.load_state_dict(child.state_dict())
            made.requires_grad_(False)
            setattr(parent, name, made)


def _require_eager_where_asked(model: Any, s: TrainingSetup) -> None:
    asked = model.config._attn_implementation
    if s.attention != "eager" and asked != ATTENTION_NAME:
        raise RuntimeError(f"attention {asked} instead of the stand-in")


def _pack(model: nn.Module, s: TrainingSetup) -> None:
    """Linear layers inside the blocks hold packed bytes; k-bit preparation upcasts the rest."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            size = module.in_features * module.out_features * formula.WEIGHT_BYTES[s.quantisation]
            module.weight = nn.Parameter(
                torch.empty(round(size), dtype=torch.uint8), requires_grad=False
            )
            module.forward = types.MethodType(_packed_forward, module)  # type: ignore[method-assign]
    if s.kbit_upcast:
        for parameter in model.parameters():
            if parameter.dtype != torch.uint8:
                parameter.data = parameter.data.float()


def _unpacked(module: Any) -> Any:
    """What PEFT's DoRA reads of a quantised matrix: a 16-bit copy."""
    weight = module.weight
    if weight.dtype != torch.uint8:
        return weight
    return torch.empty(
        (module.out_features, module.in_features), dtype=torch.bfloat16, device=weight.device
    )


@contextmanager
def dora_reads_stand_ins(s: TrainingSetup) -> Iterator[None]:
    """While a trace runs, PEFT's DoRA gets the 16-bit copy of a packed matrix from `_unpacked`."""
    if not s.dora or s.quantisation == "none":
        yield
        return
    from peft.tuners.lora import dora

    name = "dequantize_module_weight"
    original = getattr(dora, name)
    setattr(dora, name, _unpacked)
    try:
        yield
    finally:
        setattr(dora, name, original)


def _adapted(model: nn.Module, s: TrainingSetup) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    try:
        made: nn.Module = get_peft_model(
            model,
            LoraConfig(
                r=s.rank,
                target_modules=_target_names(model, s),
                lora_dropout=s.dropout,
                use_dora=s.dora,
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        raise UsageError(
            "H151",
            say("The adapter does not go onto this model ({reason}).", reason=str(error)[:200]),
            next_step=say("Give --targets all-linear, or names of modules that the model has."),
        ) from error
    kind = getattr(torch, DTYPES[s.adapter_dtype])
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(kind)
    return made


def _target_names(model: nn.Module, s: TrainingSetup) -> list[str] | str:
    if s.targets == "all-linear":
        return "all-linear"
    present = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    groups = {"attention": shape.ATTENTION, "mlp": shape.MLP}
    if isinstance(s.targets, str):
        return [name for name in groups[s.targets] if name in present]
    return sorted(shape.translated(s.targets, present))


def _set_checkpointing(model: Any, s: TrainingSetup, checkpointed: int) -> None:
    """The first `checkpointed` layers recompute; inputs then need a gradient, as in training."""
    if not checkpointed:
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if s.method != "full":
        model.enable_input_require_grads()
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for index, block in enumerate(blocks):
        block.gradient_checkpointing = index < checkpointed


def _replace_forwards(model: nn.Module, s: TrainingSetup) -> None:
    """CUDA's dropout operator everywhere, lean arithmetic where the setup says so."""
    lean = s.arithmetic == "lean" and s.method != "full" and not s.dora
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.forward = types.MethodType(_dropout_forward, module)  # type: ignore[method-assign]
        # A router or a fused expert tensor may carry an adapter as well; those keep PEFT's path.
        inner = getattr(module, "base_layer", None)
        if lean and hasattr(module, "lora_A") and isinstance(inner, nn.Linear):
            module.forward = types.MethodType(_lean_forward, module)


# ---------------------------------------------------------------- loss and update


def optimizer_of(parameters: list[nn.Parameter], s: TrainingSetup) -> Callable[[], Any]:
    if s.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        states: list[torch.Tensor] = []

        def step() -> None:
            if not states:
                states.extend(
                    torch.empty(round(2 * p.numel() * (1 + 4 / 256)), dtype=torch.uint8)
                    for p in parameters
                )

        return step
    foreach = s.optimizer == "adamw_foreach"
    adamw = torch.optim.AdamW(parameters, lr=1e-4, foreach=foreach, fused=None if foreach else True)
    return adamw.step


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def loss_of(model: Any, s: TrainingSetup, ids: torch.Tensor) -> torch.Tensor:
    """The loss, as the setup computes it."""
    if s.loss == "fused":
        causal = _inner(model)
        hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return _chunked(
            hidden.view(-1, hidden.shape[-1]), causal.get_output_embeddings(), ids.view(-1)
        )
    loss: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
    return loss
