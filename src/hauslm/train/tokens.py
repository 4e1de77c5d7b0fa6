"""Which rows of the embeddings learn, and how? Those of `model.added_tokens`, beside the adapter.

The base is the longer one of `catalog/added.py`; PEFT's `trainable_token_indices` trains its new rows
alone (in both matrices where embeddings and output head are two, in the one where they are tied) and
saves them with the adapter. The rows are kept in float32: an update of 1e-5 is lost in bfloat16.
How they compute stands in `rows.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import say
from hauslm.train import rows

if TYPE_CHECKING:
    from hauslm.train.settings import Settings

KEY = "trainable_token_indices"
EMBEDDINGS, HEAD = "embed_tokens", "lm_head"


def learning(settings: Settings, ids: Sequence[int], config: Mapping[str, Any]) -> Settings:
    """The settings with the rows that learn; in full training all do. RefusedError H605 if they already
    learn another way."""
    if not ids or settings.method == "full":
        return settings
    whole = {*(settings.adapter.get("modules_to_save") or ())}
    targets = settings.adapter.get("target_modules")
    named = whole | set(targets if isinstance(targets, list) else ())
    if named & {EMBEDDINGS, HEAD}:
        raise RefusedError(
            "H605",
            say(
                "The rows of model.added_tokens learn by themselves; embed_tokens and lm_head cannot learn a second way."
            ),
            where="adapter",
            next_step=say("Leave lm_head and embed_tokens out of the adapter, or add no tokens."),
        )
    learnt: Any = list(ids)
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) else config
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    if not tied:
        learnt = {EMBEDDINGS: list(ids), HEAD: list(ids)}
    return replace(settings, adapter=settings.adapter | {KEY: learnt})


def in_float32(model: Any) -> int:
    """Keep the rows that learn in float32; returns in how many matrices."""
    count = 0
    for layer in rows.layers(model):
        delta = layer.trainable_tokens_delta
        if layer.tied_adapter is None and rows.ADAPTER in delta:
            delta[rows.ADAPTER].data = delta[rows.ADAPTER].data.float()
            count += 1
    return count
