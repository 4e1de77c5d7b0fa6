"""Modules trained whole and selected layers: saved by plain PEFT's rules, read by plain PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hauslm.base.errors import RefusedError
from hauslm.lm.checks import check_adapter
from hauslm.train import adapters
from tests.train.conftest import Project
from tests.train.test_eightbit import relative
from tests.train.test_run import adapter_config, weights
from tests.train.test_variants import Kept, reloaded


@pytest.mark.parametrize("modules", [["lm_head"], ["lm_head", "embed_tokens"], ["down_proj"]])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_trained_whole_is_saved_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch, modules: list[str], precision: str
) -> None:
    kept = Kept(monkeypatch)
    adapter = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": modules}
    run = project.run({"precision": precision, "max_steps": 6}, adapter)
    assert run.loss.last < run.loss.first
    saved = weights(project)
    for module in modules:
        tensor = next(t for n, t in saved.items() if module in n)
        assert tensor.dtype == torch.float32
    assert sum(t.numel() for t in saved.values()) == run.adapter.parameters
    assert adapter_config(project)["modules_to_save"] == modules
    check_adapter(project.folder.adapter)
    assert relative(reloaded(project, "none"), kept.logits) < (
        1e-4 if precision == "float32" else 0.03
    )


def test_with_a_base_in_8_bit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    adapter = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "down_proj"]}
    run = project.run({"base_precision": "int8"}, adapter)
    assert run.settings["gate"]["layers"] == 12  # the two down_proj are trained, not rounded
    assert relative(reloaded(project, "none"), kept.logits) < 0.06


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "up_proj"]])
def test_selected_layers(project: Project, monkeypatch: pytest.MonkeyPatch, targets: Any) -> None:
    kept = Kept(monkeypatch)
    project.run({}, {"target_modules": targets, "layers_to_transform": [1]})
    assert all(".layers.1." in name for name in weights(project))
    assert relative(reloaded(project, "none"), kept.logits) < 1e-4


def test_refusals(make_project: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        make_project().run({}, {"layers_to_transform": [2]})
    assert caught.value.code == "H607"
    project = make_project(tie_word_embeddings=True)
    with pytest.raises(RefusedError) as caught:
        project.run({}, {"modules_to_save": ["lm_head"]})
    assert caught.value.code == "H619"
    with pytest.raises(RefusedError) as caught:
        project.run({}, {"modules_to_save": ["lm_haed"]})
    assert caught.value.code == "H607" and "lm_head" in str(caught.value.next_step)


def test_every_variant_takes_the_values() -> None:
    values = {"r": 4, "modules_to_save": ["lm_head"], "layers_to_transform": [0], "variant": "x"}
    for variant in adapters.variants().values():
        assert {"modules_to_save", "layers_to_transform"} <= set(variant.config(dict(values)))
