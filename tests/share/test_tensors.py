"""What PEFT saves beside LoRA is known by name; what it does not save is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hauslm.embedded import MODEL
from hauslm.share import tensors


def _saved(target: Path, modules: list[str]) -> dict[str, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=modules)
    get_peft_model(base, config).save_pretrained(target)
    found: dict[str, Any] = json.loads((target / "adapter_config.json").read_text())
    return found


@pytest.mark.parametrize("module", ["norm", "input_layernorm", "mlp"])
def test_modules_saved_whole_are_those_that_peft_saves(tmp_path: Path, module: str) -> None:
    config = _saved(tmp_path, [module])
    base = json.loads((MODEL / "config.json").read_text())
    file = tmp_path / "adapter_model.safetensors"
    with file.open("rb") as stream:
        assert tensors.problem(stream, file.stat().st_size, config, base) is None
    with file.open("rb") as stream:
        found = tensors.problem(
            stream, file.stat().st_size, config | {"modules_to_save": ["q_norm"]}, base
        )
    assert found is not None and "does not belong" in found.text("en")
