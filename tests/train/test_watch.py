"""Silent failures made loud: NaN, dead adapters, spikes, out of memory, advice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hauslm.base.errors import RefusedError
from hauslm.train import presets, trainer, watch
from tests.train.conftest import Project


def poison(monkeypatch: pytest.MonkeyPatch, call: int, value: float) -> None:
    """The n-th training loss is multiplied by `value`."""
    real, seen = trainer.Compute.loss, [0]

    def loss(self: Any, row: Any) -> torch.Tensor:
        result: torch.Tensor = real(self, row)
        if torch.is_grad_enabled():
            seen[0] += 1
            if seen[0] == call:
                return result * value
        return result

    monkeypatch.setattr(trainer.Compute, "loss", loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_the_last_good_adapter_is_sealed(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from safetensors.torch import load_file

    with monkeypatch.context() as patch:
        poison(patch, 5, value)  # two forward passes a step: the third step
        with pytest.raises(RefusedError) as caught:
            project.run()
    assert caught.value.code == "H630"
    assert "step 3" in str(caught.value)
    assert not project.folder.adapter.exists()
    assert [p.name for p in project.checkpoints] == ["step-000002"]
    kept = load_file(project.checkpoints[0] / "trainable.safetensors")
    assert all(bool(t.isfinite().all()) for t in kept.values())
    assert project.run(resume=True).steps == 4  # without the poison it goes on


def test_a_gradient_that_is_not_finite_stops(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 1, 1e38)
    with pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H630"


def test_an_adapter_without_gradient_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.Compute.hidden

    def cut_off(self: Any, row: Any) -> torch.Tensor:
        hidden: torch.Tensor = real(self, row)
        return hidden.detach().requires_grad_(torch.is_grad_enabled())

    monkeypatch.setattr(trainer.Compute, "hidden", cut_off)
    with pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H632"


def test_a_frozen_parameter_that_changes_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.Compute.loss

    def drifting(self: Any, row: Any) -> torch.Tensor:
        with torch.no_grad():  # one value of one parameter
            self.causal.get_input_embeddings().weight[17, 3].add_(0.001)
        result: torch.Tensor = real(self, row)
        return result

    monkeypatch.setattr(trainer.Compute, "loss", drifting)
    with pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H633"


def test_out_of_memory_halves_the_micro_batch_at_the_same_batch(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of more than 40 tokens do not fit: the update stays that of the whole batch."""
    from safetensors.torch import load_file

    free, tight = make_project(), make_project()
    training = {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 2}
    free.run(training)
    real = trainer.Compute.loss

    def limited(self: Any, row: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and row.tokens > 40:
            raise torch.OutOfMemoryError("out of memory (test)")
        result: torch.Tensor = real(self, row)
        return result

    monkeypatch.setattr(trainer.Compute, "loss", limited)
    run = tight.run(training)
    assert run.determinism == "statistical"
    assert any("Out of memory" in n.text for n in run.notices)
    ours = load_file(tight.folder.adapter / "adapter_model.safetensors")
    theirs = load_file(free.folder.adapter / "adapter_model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=2e-5)


def test_a_document_that_does_not_fit_alone_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Any, row: Any) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(project, "prepare", project.prepare)
        project.prepare(_examples(), [])
        patch.setattr(trainer.Compute, "loss", never)
        with pytest.raises(RefusedError) as caught:
            project.run()
    assert caught.value.code == "H640"
    assert "plan" in str(caught.value)


def _examples() -> list[Any]:
    from tests.train.conftest import make_examples

    return make_examples(8)


def test_real_out_of_memory_messages_are_recognised() -> None:
    assert watch.is_out_of_memory(MemoryError())
    assert watch.is_out_of_memory(
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
    )
    assert not watch.is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert watch.is_out_of_memory(caught.value)


def test_a_spike_is_told_a_few_times_only() -> None:
    watcher = watch.Watcher()
    said = [watcher.loss(i, 2.0 + 0.01 * (i % 3)) for i in range(40)]
    assert not any(said)
    told = 0
    for i in range(40, 90):
        told += watcher.loss(i, 9.0 if i % 10 == 0 else 2.0) is not None
    assert told == watch.SPIKES_TOLD
    again = watch.Watcher(watcher.state())
    assert again.state() == watcher.state()


# ---------------------------------------------------------------- presets


def advice(**changes: Any) -> list[str]:
    values: dict[str, Any] = {
        "method": "lora",
        "target_modules": "all-linear",
        "dropout": 0.0,
        "learning_rate_given": 3e-4,
        "learning_rate_advised": 3e-4,
        "examples_per_step": 16,
        "trainable": 40_000_000,
        "tokens": 3_000_000,
    }
    return [str(s) for s in presets.advice(**(values | changes))]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, "attention"),
        ({"dropout": 0.05}, "dropout"),
        ({"learning_rate_given": 3e-3}, "diverged"),
        ({"learning_rate_given": 1e-6}, "far from"),
        ({"examples_per_step": 128}, "large batches"),
        ({"tokens": 100_000_000}, "rank"),
    ],
)
def test_advice_when_the_values_depart(changes: dict[str, Any], word: str) -> None:
    (said,) = advice(**changes)
    assert word in said


def test_no_advice_when_all_is_well() -> None:
    assert advice() == []


def test_the_published_learning_rates_come_out() -> None:
    """LoRA Without Regret: Llama-3.1-8B 2.9e-4, Llama-3.2-3B 3.6e-4 (tinker-cookbook); QLoRA 2e-4."""
    assert presets.learning_rate("llama", 4096, 8e9, "lora").value == pytest.approx(
        2.86e-4, rel=0.02
    )
    assert presets.learning_rate("llama", 3072, 3e9, "lora").value == pytest.approx(
        3.6e-4, rel=0.02
    )
    assert presets.learning_rate("qwen3", 4096, 8e9, "lora").value == pytest.approx(
        4.7e-4, rel=0.02
    )
    assert presets.learning_rate("mistral", 4096, 7e9, "qlora").value == 2e-4
    assert presets.learning_rate("llama", 8192, 70e9, "qlora").value == 1e-4
    assert presets.learning_rate("llama", 4096, 8e9, "full").value == pytest.approx(
        2.86e-5, rel=0.02
    )
    assert presets.learning_rate("unheard-of", 4096, 8e9, "lora").value == 2e-4
    assert presets.learning_rate("llama", 256, 6e6, "lora").value == 2e-3


def test_validation_costs_at_most_a_fifth_unless_asked() -> None:
    assert presets.validation_interval(100, 1_000_000, 10_000).value == 20
    assert presets.validation_interval(100, 1_000_000, 200_000).value == 50
    assert presets.validation_interval(100, 1_000_000, 10_000_000).value == 100


def test_threads_sleep_while_they_wait_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    from hauslm.train import threads

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert threads.settle() is False  # torch is loaded in this process
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.settle()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
