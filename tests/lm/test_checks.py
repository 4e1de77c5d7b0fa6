"""Are hostile and broken model folders refused, whatever the loaders behind us would accept?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import HauslmError, MissingError, RefusedError
from hauslm.lm.checks import adapter_config_problem, check_adapter, check_base
from hauslm.lm.local import LocalModel


@pytest.fixture
def copied(tmp_path: Path, adapter_folders: dict[str, Path]) -> Path:
    return Path(shutil.copytree(adapter_folders["one"], tmp_path / "adapter"))


def change(folder: Path, **values: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def test_a_sound_adapter_passes(copied: Path) -> None:
    assert check_adapter(copied)["r"] == 8


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": "(a+)+$"},
        {"target_modules": ["(a+)+$"]},
        {"target_modules": []},
        {"exclude_modules": ["x|y"]},
        {"rank_pattern": {"(a+)+": 4}},
        {"rank_pattern": {"q_proj": 100_000}},
        {"r": 10_000_000},
        {"r": 0},
        {"r": True},
        {"r": "8"},
        {"lora_alpha": float("inf")},
        {"peft_type": "PROMPT_TUNING"},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"trainable_token_indices": [-1]},
        {"trainable_token_indices": [1, 1]},
        {"trainable_token_indices": {"../x": [1]}},
        {"trainable_token_indices": {"lm_head": "1"}},
        {"layer_replication": [[0, 2]]},
        {"layers_to_transform": [-1]},
        {"modules_to_save": ["../x"]},
        {"a_new_key": 1},
    ],
)
def test_hostile_adapter_configurations_are_refused(copied: Path, values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="H806"):
        check_adapter(change(copied, **values))


def test_adapter_files_that_are_not_there_or_not_safe(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="H809"):
        check_adapter(tmp_path / "nowhere")
    weights = copied / "adapter_model.safetensors"
    outside = tmp_path / "outside.safetensors"
    shutil.move(weights, outside)
    (copied / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(RefusedError, match="pickle"):
        check_adapter(copied)
    weights.symlink_to(outside)
    with pytest.raises(RefusedError, match="outside"):
        check_adapter(copied)
    for text in ("[]", "{", '{"a":' * 3000, "x" * (1 << 20 | 1)):
        weights.unlink(missing_ok=True)
        shutil.copy(outside, weights)
        (copied / "adapter_config.json").write_text(text)
        with pytest.raises(RefusedError, match="H806"):
            check_adapter(copied)


@pytest.fixture
def loaded(tiny_base: Path) -> LocalModel:
    return LocalModel.load(tiny_base)


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    return folder


def drop_one(tensors: dict[str, Any]) -> None:
    del tensors[min(tensors)]


def add_one(tensors: dict[str, Any]) -> None:
    tensors["base_model.model.lm_head.weight"] = tensors[min(tensors)].clone()


def poison(tensors: dict[str, Any]) -> None:
    tensors[min(tensors)][0, 0] = float("nan")


def reshape(tensors: dict[str, Any]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)][:, :-1].contiguous()


@pytest.mark.parametrize("edit", [drop_one, add_one, poison, reshape])
def test_broken_tensors_are_refused_and_leave_the_model_unchanged(
    loaded: LocalModel, copied: Path, adapter_folders: dict[str, Path], edit: Callable[..., None]
) -> None:
    from hauslm.lm.interface import Message, Request

    ask = Request((Message("user", "A cell."),), max_new_tokens=6)
    before = loaded.generate([ask])[0].text
    rewrite(copied, edit)
    for present in ((), ("two",)):
        for name in present:
            loaded.load_adapter(name, adapter_folders[name])
        with pytest.raises(RefusedError, match="H807"):
            loaded.load_adapter("broken", copied)
        assert loaded.adapters() == present
        assert loaded.generate([ask])[0].text == before


def test_damaged_and_unfitting_files_are_refused(loaded: LocalModel, copied: Path) -> None:
    change(copied, target_modules=["no_such_module"])
    with pytest.raises(RefusedError, match="H807"):
        loaded.load_adapter("a", copied)
    file = copied / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RefusedError, match="H807"):
        loaded.load_adapter("a", copied)


def test_base_folders_that_could_run_code_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    assert check_base(base)["model_type"] == "llama"
    config = json.loads((base / "config.json").read_text())
    for key in ("auto_map", "_attn_implementation_internal"):
        (base / "config.json").write_text(json.dumps(config | {"nested": {key: "x"}}))
        with pytest.raises(RefusedError, match="H805"):
            LocalModel.load(base)
    (base / "config.json").write_text(json.dumps(config))
    (base / "modeling_x.py").write_text("")
    with pytest.raises(RefusedError, match="H805"):
        LocalModel.load(base)
    (base / "modeling_x.py").unlink()
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(RefusedError, match="pickle"):
        LocalModel.load(base)
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(MissingError, match="H809"):
        LocalModel.load(base)
    with pytest.raises(MissingError, match="H809"):
        LocalModel.load(tmp_path / "nowhere")


def test_damaged_base_weights_are_told_as_a_sentence(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(HauslmError):
        LocalModel.load(base)


def test_names_of_peft_configurations_without_problem() -> None:
    plain = {"peft_type": "LORA", "target_modules": ["q_proj", "model.layers.0.mlp.up_proj"]}
    assert adapter_config_problem(plain) is None
    assert adapter_config_problem({**plain, "auto_mapping": {"parent_library": "os"}}) is None
