"""A run on a small model: the record, the adapter folder, and what it depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hauslm.base.errors import DataError, HauslmError, RefusedError
from hauslm.records import Run
from tests.train.conftest import Project, make_examples


def adapter_config(project: Project) -> dict[str, Any]:
    text = (project.folder.adapter / "adapter_config.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config


def weights(project: Project) -> dict[str, Any]:
    from safetensors.torch import load_file

    loaded: dict[str, Any] = load_file(project.folder.adapter / "adapter_model.safetensors")
    return loaded


def test_the_record_tells_what_happened(project: Project) -> None:
    run = project.run({"max_steps": 30, "learning_rate": 0.02, "early_stopping_patience": None})
    assert run.steps == 30
    assert run.loss.last < run.loss.first
    assert run.loss.validation is not None and run.loss.validation_first is not None
    assert run.determinism == "bitwise"
    assert run.tokens > 0 and run.tokens_per_second.value > 0
    assert run.tokens_per_second.known == "measured"
    assert run.peak_memory_gib.value >= 0  # a tiny model may fit into memory that was held before
    assert run.energy_kwh is None
    assert run.adapter.path == "adapter"
    assert len(run.adapter.sha256) == 64
    assert sum(t.numel() for t in weights(project).values()) == run.adapter.parameters
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_metrics_are_written_as_it_goes(project: Project) -> None:
    run = project.run()
    lines = (project.folder.work / "train" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["step"] for r in rows] == [0, 1, 2, 3, 4]
    assert {"loss", "learning_rate", "tokens", "tokens_per_second", "seconds"} <= set(rows[1])
    assert rows[0]["validation"] == run.loss.validation_first
    assert rows[-1]["tokens"] == run.tokens


def test_the_lab_preset_writes_the_labs_values(project: Project) -> None:
    project.run(adapter={"preset": "lab", "r": None})
    config = adapter_config(project)
    assert config["r"] == 8
    assert config["lora_alpha"] == 16
    assert config["lora_dropout"] == 0.05
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert config["bias"] == "none"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "tiny"
    assert "attention layers" in project.said  # the advice on the lab's choice of modules


def test_tokens_are_counted_without_padding(project: Project) -> None:
    run = project.run({"max_steps": None, "epochs": 1})
    assert run.tokens == sum(len(e.tokens) for e in make_examples(30))
    assert run.epochs == 1


def test_a_half_epoch_is_half(project: Project) -> None:
    run = project.run({"max_steps": None, "epochs": 1.5, "packing": False})
    assert run.epochs == 1.5


def test_the_same_seed_gives_the_same_bits(make_project: Callable[..., Project]) -> None:
    first, second, third = make_project(), make_project(), make_project()
    a = first.run(adapter={"lora_dropout": 0.1})
    b = second.run(adapter={"lora_dropout": 0.1})
    c = third.run({"seed": 1}, adapter={"lora_dropout": 0.1})
    assert a.adapter.sha256 == b.adapter.sha256
    assert a.adapter.sha256 != c.adapter.sha256


def test_accumulation_does_not_change_the_update(make_project: Callable[..., Project]) -> None:
    import torch

    results = []
    for micro, accumulation in ((4, 1), (2, 2), (1, 4)):
        one = make_project()
        one.run({"micro_batch_size": micro, "gradient_accumulation_steps": accumulation})
        results.append(weights(one))
    for other in results[1:]:
        for name, tensor in results[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=2e-5)


def test_packing_does_not_change_the_update(make_project: Callable[..., Project]) -> None:
    """One step over all examples: packed in few rows, or each document alone."""
    import torch

    results = []
    for packing in (True, False):
        one = make_project()
        one.run(
            {
                "packing": packing,
                "max_steps": 1,
                "micro_batch_size": 64,
                "gradient_accumulation_steps": 1,
                "warmup_ratio": 0,
            }
        )
        results.append(weights(one))
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-3, atol=2e-5)


def test_full_training_writes_a_whole_model(project: Project) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = project.run({"method": "full", "learning_rate": 0.001})
    assert run.method == "full"
    model = AutoModelForCausalLM.from_pretrained(project.folder.trained_model)
    base = AutoModelForCausalLM.from_pretrained(project.folder.root / "base")
    assert run.adapter.parameters == sum(p.numel() for p in model.parameters())
    assert not torch.equal(model.lm_head.weight, base.lm_head.weight)


def test_checkpointing_activations_changes_nothing(make_project: Callable[..., Project]) -> None:
    plain, recomputed = make_project(), make_project()
    a = plain.run({"activation_checkpointing": "off"})
    b = recomputed.run({"activation_checkpointing": "on"})
    assert a.adapter.sha256 == b.adapter.sha256


OVERFIT = {"max_steps": 60, "learning_rate": 0.05, "validate_every_steps": 5}


def test_the_best_adapter_is_kept(project: Project) -> None:
    """A learning rate that overfits: the validation loss rises and the best adapter is written."""
    project.prepare(make_examples(6), make_examples(12, seed=5))
    run = project.run(OVERFIT | {"early_stopping_patience": None})
    rows = [r for r in run.history if "validation" in r and r["step"] > 0]
    best = min(rows, key=lambda r: r["validation"])
    assert best["step"] < 60
    assert run.settings["kept_step"] == best["step"]
    assert run.loss.validation == pytest.approx(best["validation"])
    assert "validation loss rises" in project.said


@pytest.mark.parametrize(
    ("training", "adapter", "code"),
    [
        ({}, {"target_modules": ["q_porj"]}, "H607"),
        ({}, {"variant": "lorra"}, "H609"),
        ({"seq_len": 16}, {}, "H603"),
        ({"method": "qlora"}, {"variant": "pissa"}, "H606"),
    ],
)
def test_impossible_settings_are_refused(
    project: Project, training: dict[str, Any], adapter: dict[str, Any], code: str
) -> None:
    with pytest.raises(HauslmError) as caught:
        project.run(training, adapter)
    assert caught.value.code == code
    assert str(caught.value)


def test_full_training_of_a_quantised_base_is_refused(project: Project) -> None:
    with pytest.raises(RefusedError) as caught:
        project.run({"method": "full"}, model={"quantisation": "nf4"})
    assert caught.value.code == "H602"


def test_examples_without_a_label_are_refused(project: Project) -> None:
    for example in (examples := make_examples(4)):
        example.trained[:] = False
    project.prepare(examples, [])
    with pytest.raises(DataError) as caught:
        project.run()
    assert caught.value.code == "H631"


def test_an_untrained_end_token_is_told(project: Project) -> None:
    for example in (examples := make_examples(20)):
        example.trained[-1] = False
    project.prepare(examples, make_examples(4, seed=1))
    run = project.run()
    assert any("will not learn to stop" in n.text for n in run.notices)


# ---------------------------------------------------------------- early stopping


def test_a_rising_validation_loss_ends_the_run_early(project: Project) -> None:
    project.prepare(make_examples(6), make_examples(12, seed=5))
    run = project.run(OVERFIT | {"early_stopping_patience": 2})
    stopped = run.stopped_early
    assert stopped is not None
    assert run.steps == stopped.step < stopped.planned_steps == 60
    assert stopped.step == stopped.best_step + 2 * 5  # two validations later
    assert run.settings["kept_step"] == stopped.best_step
    assert "Stopped early" in project.said
    assert project.checkpoints[-1].name == f"step-{stopped.step:06d}"
    # The record comes again without training further, and a longer patience is another run.
    again = project.run(OVERFIT | {"early_stopping_patience": 2}, resume=True)
    assert again.steps == run.steps and again.adapter.sha256 == run.adapter.sha256
    assert again.stopped_early == stopped


def test_early_stopping_is_the_same_after_an_interruption(
    make_project: Callable[..., Project],
) -> None:
    import signal

    from hauslm.base.errors import Interrupted
    from hauslm.train.loop import train
    from tests.train.conftest import corpus_of
    from tests.train.test_seal import SignalAt

    settings = OVERFIT | {"early_stopping_patience": 2}
    whole, broken = make_project(), make_project()
    for one in (whole, broken):
        one.prepare(make_examples(6), make_examples(12, seed=5))
    first = whole.run(settings)
    assert first.stopped_early is not None
    with pytest.raises(Interrupted):
        train(
            broken.scenario(settings, {}),
            broken.folder,
            plan=None,
            corpus=corpus_of(broken.folder),
            progress=SignalAt(first.stopped_early.best_step + 6, signal.SIGTERM),
        )
    second = broken.run(settings, resume=True)
    assert second.resumed_from and second.stopped_early == first.stopped_early
    assert second.adapter.sha256 == first.adapter.sha256


def test_without_patience_or_validation_nothing_stops_early(project: Project) -> None:
    project.prepare(make_examples(6), [])
    assert project.run({"max_steps": 8}).stopped_early is None


@pytest.mark.parametrize(
    ("file", "word"), [("tokenizer.json", "tokenizer"), ("chat_template.jinja", "chat template")]
)
def test_examples_in_another_form_than_the_base_speaks_are_refused(
    project: Project, file: str, word: str
) -> None:
    """What training saw and what serving will write must be the same."""
    from hauslm.base.files import sha256_file
    from hauslm.data.tokens import template_sha256
    from hauslm.train import inputs

    base = project.folder.root / "base"
    (base / "tokenizer.json").write_text("{}", encoding="utf-8")
    corpus = inputs.Corpus.model_construct(
        tokenizer_sha256=sha256_file(base / "tokenizer.json"), template_sha256=template_sha256(base)
    )
    found = type("Base", (), {"path": base})
    inputs._check_template(found, corpus)  # type: ignore[arg-type]
    (base / file).write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        inputs._check_template(found, corpus)  # type: ignore[arg-type]
    assert caught.value.code == "H635"
    assert word in str(caught.value)
