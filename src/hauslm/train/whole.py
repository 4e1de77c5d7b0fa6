"""Which modules are trained whole, beside the adapter, and how? `adapter.modules_to_save`.

PEFT keeps a copy of each and saves it with the adapter. The copy is kept in float32: an update of 1e-5
is lost in bfloat16. Use it for the output head or the embeddings when the documents speak another
language than the base; it costs 16 bytes for each of their parameters (value, gradient, Adam's two).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hauslm.base.errors import RefusedError, did_you_mean
from hauslm.base.words import say

if TYPE_CHECKING:
    from hauslm.train.settings import Settings

TIED = {"lm_head", "embed_tokens"}


def check(model: Any, settings: Settings) -> None:
    """RefusedError H607 for a module that the base does not have, H619 for half of a tied pair."""
    names = settings.adapter.get("modules_to_save") or []
    ends = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name}
    for name in names:
        if name not in ends:
            raise RefusedError(
                "H607",
                say("The base has no module '{name}' to adapt.", name=name),
                where="adapter.modules_to_save",
                next_step=did_you_mean(name, ends),
            )
    config = model.config.get_text_config()
    if TIED & set(names) and getattr(config, "tie_word_embeddings", False):
        raise RefusedError(
            "H619",
            say(
                "This base has one matrix for embeddings and output head; trained whole it would become two, which other tools do not load."
            ),
            where="adapter.modules_to_save",
            next_step=say("Leave lm_head and embed_tokens out of adapter.modules_to_save."),
        )


def in_layers(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The adapter's values, for `layers_to_transform` with the linear layers by name: PEFT does not take
    all-linear there. RefusedError H607 for a layer that the base does not have."""
    layers = values.get("layers_to_transform")
    if not layers:
        return values
    count = int(model.config.get_text_config().num_hidden_layers)
    beyond = next((i for i in layers if not 0 <= i < count), None)
    if beyond is not None:
        raise RefusedError(
            "H607",
            say("The base has {count} layers, numbered from 0; there is no {number}.",
                count=count, number=beyond),
            where="adapter.layers_to_transform",
            next_step=say("Give numbers from 0 to {last}.", last=count - 1),
        )  # fmt: skip
    if values["target_modules"] != "all-linear":
        return values
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.get_decoder().named_modules()
        if module.__class__.__name__.startswith("Linear")
    }
    return values | {"target_modules": sorted(names)}


def in_float32(model: nn.Module) -> int:
    """Keep the trained copies in float32 and cast what goes in and out; returns how many."""
    from peft.utils.other import ModulesToSaveWrapper

    count = 0
    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        original = next(module.original_module.parameters()).dtype
        for copy in module.modules_to_save.values():
            count += 1
            if original == torch.float32:
                continue
            copy.float()
            copy.register_forward_pre_hook(_to_float32)
            copy.register_forward_hook(_back(original))
    return count


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def _back(dtype: torch.dtype) -> Any:
    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(dtype)

    return hook
