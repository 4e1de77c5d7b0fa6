"""How does transformers spell this shape? An `Architecture` as a configuration mapping; no torch."""

from __future__ import annotations

from typing import Any

from hauslm.catalog.schema import Architecture

MODEL_TYPES = {"gemma3": "gemma3_text"}


def config_of(architecture: Architecture) -> dict[str, Any]:
    """A config.json's content for the shape, enough to build the model with random weights."""
    a = architecture
    config: dict[str, Any] = {
        "model_type": MODEL_TYPES.get(a.family, a.family),
        "num_hidden_layers": a.n_layers,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "vocab_size": a.vocab_size,
        "max_position_embeddings": a.max_context,
        "tie_word_embeddings": a.tied_embeddings,
        "sliding_window": a.sliding_window,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if a.family == "phi3":
        # Phi-3 reads no head_dim, and older checkpoints rotate all of it.
        del config["head_dim"]
    if a.n_experts:
        met = a.experts_per_token or 1
        config |= {"num_experts_per_tok": met, "num_local_experts": a.n_experts}
        if a.family == "qwen3_moe":
            config |= {
                "num_experts": a.n_experts,
                "moe_intermediate_size": a.moe_intermediate_size or a.intermediate_size,
            }
    return config
