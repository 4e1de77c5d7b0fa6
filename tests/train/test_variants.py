"""Every variant trains, saves, and gives the same logits when plain PEFT loads it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hauslm.base.words import as_text, say
from hauslm.lm.checks import check_adapter
from hauslm.train import adapters, leg
from tests.train.conftest import Project

BASES = [(name, base) for name, v in adapters.variants().items() for base in v.BASES]


class Kept:
    """The model of the run, with its logits on fixed tokens, before it is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits = torch.zeros(0)
        real = leg.Leg.write_adapter
        kept = self

        def finish(self: Any) -> Any:
            digest = real(self)
            kept.logits = logits_of(self.model, stock=self.compute)
            return digest

        monkeypatch.setattr(leg.Leg, "write_adapter", finish)


IDS = torch.arange(3, 40).unsqueeze(0)


def logits_of(model: Any, stock: Any = None) -> torch.Tensor:
    model.eval()
    if stock is not None:
        stock._stock()
    with torch.no_grad():
        return model(IDS, use_cache=False).logits.float()


def reloaded(project: Project, stored: str) -> torch.Tensor:
    """Plain transformers and PEFT, nothing of ours."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantisation: dict[str, Any] = {
        "none": {},
        "nf4": {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float32,
            )
        },
        "int8": {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
    }[stored]
    base = AutoModelForCausalLM.from_pretrained(
        project.folder.root / "base", dtype=torch.float32, **quantisation
    )
    model = PeftModel.from_pretrained(base, project.folder.adapter)
    if stored == "nf4":  # bitsandbytes' CPU inference kernel multiplies in bfloat16
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return logits_of(model)


@pytest.mark.parametrize(("variant", "stored"), BASES)
def test_round_trip(
    project: Project, monkeypatch: pytest.MonkeyPatch, variant: str, stored: str
) -> None:
    kept = Kept(monkeypatch)
    method = "qlora" if stored == "nf4" else "lora"
    run = project.run({"method": method}, {"variant": variant}, model={"quantisation": stored})
    assert run.method == method
    assert run.loss.last != run.loss.first
    check_adapter(project.folder.adapter)  # our own strict reader takes it, too
    again = reloaded(project, stored)
    scale = float(kept.logits.abs().max())
    torch.testing.assert_close(again, kept.logits, rtol=1e-3, atol=2e-4 * scale)


def test_the_adapter_does_something(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    kept = Kept(monkeypatch)
    project.run()
    base = AutoModelForCausalLM.from_pretrained(project.folder.root / "base", dtype=torch.float32)
    assert (logits_of(base) - kept.logits).abs().max() > 1e-2


@pytest.mark.parametrize("variant", ["pissa", "olora", "eva"])
def test_the_saved_config_starts_no_method_again(project: Project, variant: str) -> None:
    import json

    project.run(adapter={"variant": variant, "r": 4, "lora_alpha": 8})
    config = json.loads((project.folder.adapter / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True
    assert config["lora_alpha"] / config["r"] == 2
    assert config["r"] == (4 if variant == "eva" else 8)


def test_loftq_starts_closer_to_the_base_than_plain_qlora(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any step, the model with LoftQ's adapter is nearer to the unquantised base."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(project.folder.root / "base", dtype=torch.float32)
    target = logits_of(base)
    errors = {}
    real = leg.Leg.learn

    def learn(leg: Any) -> None:
        errors[leg.settings.adapter["variant"]] = float(
            (logits_of(leg.model) - target).pow(2).mean() if not leg.compute._stock() else 0
        )
        leg.compute._fast()
        real(leg)

    monkeypatch.setattr(leg.Leg, "learn", learn)
    for variant in ("lora", "loftq"):
        project.run({"method": "qlora", "max_steps": 1}, {"variant": variant, "r": 16})
    assert errors["loftq"] < 0.8 * errors["lora"]


def test_each_variant_says_when_to_use_it() -> None:
    for name, variant in adapters.variants().items():
        assert name == variant.NAME
        assert as_text(say(variant.WHEN)).endswith(".")
        assert variant.extra_parameters(64, 128, 8) == (128 if name == "dora" else 0)
