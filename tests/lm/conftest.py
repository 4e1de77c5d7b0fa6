"""Tiny random models with the embedded tokenizer, and adapters whose effect is large."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.embedded import MODEL
from hauslm.lm.local import LocalModel

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "vocab_size": 6144,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 5,
}


def save_model(folder: Path, config: Any, seed: int = 0) -> Path:
    """A randomly initialised model of any architecture, with our tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return folder


def save_adapter(base: Path, folder: Path, seed: int, **config: Any) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    peft = get_peft_model(model, LoraConfig(**(settings | config)))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    peft.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(name: str, config: Any, seed: int = 0) -> Path:
        return save_model(tmp_path_factory.mktemp(name), config, seed)

    return make


@pytest.fixture(scope="session")
def sizes() -> dict[str, Any]:
    return dict(SIZES)


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., Path]:
    """make_adapter(base, folder, seed, **LoraConfig values) -> folder"""
    return save_adapter


@pytest.fixture(scope="session")
def tiny_base(make_model: Callable[..., Path]) -> Path:
    from transformers import LlamaConfig

    return make_model("tiny", LlamaConfig(**SIZES))


@pytest.fixture(scope="session")
def adapter_folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: save_adapter(tiny_base, tmp_path_factory.mktemp(name), seed)
        for name, seed in (("one", 1), ("two", 2))
    }


@pytest.fixture(scope="session")
def tiny(tiny_base: Path, adapter_folders: dict[str, Path]) -> LocalModel:
    """Loaded once; tests must leave its adapters as they found them."""
    return LocalModel.load(tiny_base, adapter_folders)
