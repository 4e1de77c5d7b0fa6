"""Fractional checkpointing: k of L layers recompute, exactly those of the plan, gradients unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hauslm.base.words import say
from hauslm.records import Said, Setting
from hauslm.train import model as models
from hauslm.train.settings import Facts, resolve
from tests.train.conftest import FAMILIES, Project, make_base

LAYERS = 4


def adapted(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(base, config).train()


def gradients(model: Any) -> tuple[dict[str, torch.Tensor], int]:
    """(gradient of each trained parameter, forward passes of decoder layers' MLPs)."""
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    hooks = [
        m.register_forward_pre_hook(count) for n, m in model.named_modules() if n.endswith("mlp")
    ]
    model(input_ids=torch.arange(3, 40).unsqueeze(0), use_cache=False).logits.pow(
        2
    ).mean().backward()
    for hook in hooks:
        hook.remove()
    return {n: p.grad.clone() for n, p in models.trainable(model).items()}, passes


@pytest.mark.parametrize("family", FAMILIES)
def test_any_number_of_layers_gives_the_same_gradient(tmp_path: Path, family: str) -> None:
    base = make_base(tmp_path / "base", family, num_hidden_layers=LAYERS)
    plain, passes = gradients(adapted(base))
    assert passes == LAYERS
    for k in (1, 2, 3, LAYERS, -1):
        model = adapted(base)
        models.checkpoint_layers(model, k)
        again, passes = gradients(model)
        assert passes == LAYERS + (LAYERS if k < 0 else k)  # exactly these ran twice
        for name, gradient in plain.items():
            torch.testing.assert_close(again[name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["full", "int8"])
def test_a_run_with_the_planned_layers(project: Project, precision: str) -> None:
    """Through settings, with the base in full precision and in 8 bit: the same adapter for any k."""
    runs = []
    for given in ("off", "on"):
        training = {"activation_checkpointing": given, "base_precision": precision}
        runs.append(project.run(training))
    assert [r.settings["checkpointed_layers"] for r in runs] == [0, -1]
    assert runs[0].adapter.sha256 == runs[1].adapter.sha256


def test_the_plans_number_is_used_and_says_why(project: Project) -> None:
    from hauslm.records import Plan

    facts = Facts("llama", 32, LAYERS, 1e4, 256, 30, 40, 600, "cpu", False)
    reason = Said.of(say("Only as many layers as needed are recomputed: {count} of {layers}.",
                         count=3, layers=LAYERS))  # fmt: skip
    plan = Plan.model_construct(settings={"checkpointed_layers": Setting(value=3, reason=reason)})
    settings = resolve(project.scenario({}, {}), plan, facts)
    assert settings.checkpointed_layers == 3
    assert "3 of 4" in str(settings.reasons["checkpointed_layers"])
    assert json.dumps(settings.identity())  # and a changed number is another run
