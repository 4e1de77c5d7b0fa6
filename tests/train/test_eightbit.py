"""The frozen base in 8 bit: both products right, nothing silent, plain PEFT afterwards, the gate shut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import nn

from hauslm.base.errors import HauslmError, Interrupted, RefusedError, UsageError
from hauslm.estimate.setup import eight_bit_format
from hauslm.train import adapters, eightbit, gate
from tests.train.conftest import Project, corpus_of
from tests.train.test_variants import Kept, reloaded

KINDS = ("int8", "fp8")
ROUNDING = {"int8": 0.02, "fp8": 0.06}  # relative error of a product of Gaussian matrices
VARIANTS = [n for n, v in adapters.variants().items() if getattr(v.module, "EIGHT_BIT", False)]


def relative(ours: torch.Tensor, right: torch.Tensor) -> float:
    ours, right = ours.detach().float(), right.detach().float()
    return float((ours - right).norm() / right.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(rows=strategies.integers(1, 40), seed=strategies.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_both_products(kind: str, dtype: torch.dtype, rows: int, seed: int) -> None:
    """Rows of W of very different size: a scale on the wrong axis would be off by far."""
    torch.manual_seed(seed)
    linear = nn.Linear(64, 48, bias=True)
    linear.weight.data.mul_(torch.logspace(-3, 3, 48).unsqueeze(1))
    linear.requires_grad_(False)
    layer = eightbit.EightBitLinear(linear, kind, "cpu")
    linear, layer = linear.to(dtype), layer
    layer.bias = linear.bias
    x = torch.randn(2, rows, 64, dtype=dtype)
    ours, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    outer = torch.randn(2, rows, 48, dtype=dtype)
    (a := layer(ours)).backward(outer)
    (b := linear(right)).backward(outer)
    assert a.dtype == dtype and ours.grad is not None and right.grad is not None
    for column in (0, 24, 47):  # each output by itself
        assert relative(a[..., column], b[..., column]) < 3 * ROUNDING[kind]
    assert relative(ours.grad, right.grad) < 2 * ROUNDING[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(kind: str, bad: float) -> None:
    layer = eightbit.EightBitLinear(nn.Linear(32, 16, bias=False), kind, "cpu")
    x = torch.ones(3, 32)
    x[1, 5] = bad
    y = layer(x)
    assert not y[1].isfinite().all()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_zeros_stays_zero(kind: str) -> None:
    layer = eightbit.EightBitLinear(nn.Linear(32, 16, bias=False), kind, "cpu")
    assert not layer(torch.zeros(2, 32)).any()


def test_a_token_does_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    layer = eightbit.EightBitLinear(nn.Linear(32, 16), "int8", "cpu")
    x = torch.randn(5, 32)
    x[4] *= 1000
    torch.testing.assert_close(layer(x)[:4], layer(x[:4]), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_what_the_unrounded_one_learns(
    make_project: Callable[..., Project], kind: str
) -> None:
    steps = {"max_steps": 20, "early_stopping_patience": None}
    plain = make_project().run(steps)
    rounded = make_project().run(steps | {"base_precision": kind})
    assert plain.loss.first - plain.loss.last > 1
    assert rounded.loss.last == pytest.approx(plain.loss.last, abs=0.15)
    assert rounded.settings["base_precision"] == kind
    figures = rounded.settings["gate"]
    assert 0 < abs(figures["loss_difference"]) <= gate.LOSS_TOLERANCE
    assert figures["layers"] == 14 and figures["layers_left"] == 0
    assert plain.settings["gate"] is None
    assert rounded.base["sha256"] == plain.base["sha256"]  # the base is the unrounded one


@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_peft_loads_the_adapter(
    project: Project, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """On the unrounded base: what differs is the rounding of the base, and no more."""
    kept = Kept(monkeypatch)
    project.run({"base_precision": "int8"}, {"variant": variant})
    assert relative(reloaded(project, "none"), kept.logits) < 0.06


@pytest.mark.parametrize("variant", ["dora", "loftq", "pissa", "olora"])
def test_a_variant_that_reads_the_weights_is_refused(project: Project, variant: str) -> None:
    with pytest.raises(HauslmError) as caught:
        project.run({"base_precision": "int8"}, {"variant": variant})
    assert caught.value.code in ("H616", "H606")


@pytest.mark.parametrize(
    ("training", "model"),
    [({"method": "full"}, {}), ({"method": "qlora"}, {}), ({}, {"quantisation": "int8"})],
)
def test_what_excludes_8_bit_is_said(
    project: Project, training: dict[str, Any], model: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as caught:
        project.run(training | {"base_precision": "int8"}, model=model)
    assert caught.value.code == "H616"
    run = project.run(training | {"base_precision": "auto", "max_steps": 1}, model=model)
    assert run.settings["base_precision"] == "full"


def plant_outliers(folder: Path) -> None:
    """Two inputs of down_proj become huge and cancel each other: exact in float32, not in 8 bit."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    for layer in range(2):
        gate_, up, down = (
            tensors[f"model.layers.{layer}.mlp.{n}.weight"]
            for n in ("gate_proj", "up_proj", "down_proj")
        )
        gate_[1], up[1] = gate_[0], up[0] * 3300
        up[0] *= 3000
        down[:, 1] = -down[:, 0] / 1.1
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_with_outliers_is_refused(project: Project, kind: str) -> None:
    plant_outliers(project.folder.root / "base")
    with pytest.raises(RefusedError) as caught:
        project.run({"base_precision": kind})
    assert caught.value.code == "H618"
    assert not project.folder.adapter.exists()
    project.run({"base_precision": "full", "max_steps": 1})  # the way out that the message names


def test_a_gradient_that_points_elsewhere_is_refused() -> None:
    a = gate.Measured(3.0, torch.tensor([1.0, 0.0]), 10)
    with pytest.raises(RefusedError) as caught:
        gate.compare(a, gate.Measured(3.0, torch.tensor([0.1, 1.0]), 10), "int8", 1, 0)
    assert caught.value.code == "H618"
    with pytest.raises(RefusedError):
        gate.compare(a, gate.Measured(float("nan"), a.gradient, 10), "int8", 1, 0)
    assert gate.compare(a, a, "int8", 1, 0).gradient_cosine == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_gives_the_same_bits(make_project: Callable[..., Project], kind: str) -> None:
    import signal

    from hauslm.train.loop import train
    from tests.train.test_seal import SignalAt

    steps = {"base_precision": kind}
    whole, parts = make_project(), make_project()
    first = whole.run(steps)
    with pytest.raises(Interrupted):
        train(
            parts.scenario(steps, {}),
            parts.folder,
            plan=None,
            corpus=corpus_of(parts.folder),
            progress=SignalAt(2, signal.SIGTERM),
        )
    second = parts.run(steps, resume=True)
    assert second.settings["gate"] == first.settings["gate"]
    assert second.adapter.sha256 == first.adapter.sha256


def test_layers_of_other_sizes_are_left_and_counted(make_project: Callable[..., Project]) -> None:
    run = make_project(intermediate_size=40).run({"base_precision": "int8", "max_steps": 1})
    assert run.settings["gate"]["layers"] == 8 and run.settings["gate"]["layers_left"] == 6
    with pytest.raises(RefusedError) as caught:
        odd = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3,
               "num_key_value_heads": 3, "head_dim": 8}  # fmt: skip
        make_project(**odd).run({"base_precision": "int8"})
    assert caught.value.code == "H617"


def test_a_frozen_8_bit_weight_that_changes_is_noticed(project: Project) -> None:
    from hauslm.train import watch

    layer = eightbit.EightBitLinear(nn.Linear(32, 16), "fp8", "cpu")
    before = watch.frozen_sums(layer)
    layer.weight.data[0, 0] = -layer.weight.data[0, 0].float() + 1
    with pytest.raises(RefusedError):
        watch.frozen_unchanged(before, watch.frozen_sums(layer))


def test_the_format_follows_the_device() -> None:
    assert [eight_bit_format(c) for c in [(9, 0), (8, 9), (8, 6), (8, 0), (7, 5), None]] == [
        "fp8", "fp8", "int8", "int8", "full", "int8",
    ]  # fmt: skip


def test_8_bit_holds_a_byte_for_a_weight() -> None:
    layer = eightbit.EightBitLinear(nn.Linear(256, 128, bias=False), "int8", "cpu")
    held = sum(p.numel() * p.element_size() for p in layer.parameters())
    assert held == 256 * 128 + 4 * 128
