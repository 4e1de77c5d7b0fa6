"""How do embeddings compute of which a few rows learn? Without a copy of the matrix.

PEFT's layer (`trainable_token_indices`) writes a copy of the whole matrix at every pass and takes a
gradient of its size; for a vocabulary of 128,000 that is a gigabyte for a few rows. Here the frozen
matrix is read as it is and only the new rows are put in their places: the same function (the proof
before the first step compares), a copy less. Parameters, names and files stay PEFT's.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding, linear

ADAPTER = "default"


def layers(model: nn.Module) -> list[Any]:
    """The layers with rows that learn."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    return [m for m in model.modules() if isinstance(m, TrainableTokensLayer)]


def make_lean(model: nn.Module) -> int:
    """Read the frozen matrix in place in every layer with rows that learn; returns in how many."""
    count = 0
    for layer in layers(model):
        ids = layer.token_indices.get(ADAPTER) or []
        in_a_row = ids == list(range(ids[0], ids[0] + len(ids))) if ids else False
        base = layer.get_base_layer()
        plain = isinstance(base, nn.Embedding) and layer._get_embed_scale() is None
        head = isinstance(base, nn.Linear) and base.bias is None
        if in_a_row and (plain or head):
            layer.forward = types.MethodType(_looked_up if plain else _multiplied, layer)
            count += 1
    return count


def make_plain(model: nn.Module) -> None:
    """PEFT's own arithmetic back."""
    for layer in layers(model):
        layer.__dict__.pop("forward", None)


def _usable(layer: Any) -> bool:
    return not layer.disable_adapters and not layer.merged and layer.active_adapters == [ADAPTER]


def _looked_up(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if not _usable(self) or args or kwargs:
        usual: torch.Tensor = type(self).forward(self, x, *args, **kwargs)
        return usual
    delta, ids = self.trainable_tokens_delta[ADAPTER], self.token_indices[ADAPTER]
    states = self.base_layer(x)
    place = x - ids[0]
    new = (place >= 0) & (place < len(ids))
    rows = embedding(place.clamp(0, len(ids) - 1), delta).to(states.dtype)
    return torch.where(new.unsqueeze(-1), rows, states)


def _multiplied(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if not _usable(self) or args or kwargs:
        usual: torch.Tensor = type(self).forward(self, x, *args, **kwargs)
        return usual
    delta, ids = self.trainable_tokens_delta[ADAPTER], self.token_indices[ADAPTER]
    logits = linear(x, self.base_layer.weight)
    new = linear(x, delta.to(x.dtype))
    parts = (logits[..., : ids[0]], new, logits[..., ids[0] + len(ids) :])
    return torch.cat(parts, dim=-1)
