"""Liger and compile: refused on a CPU, chosen by duration on CUDA, refused where Liger is missing.

What the kernels compute is for a GPU, which these tests do not have.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hauslm.base.errors import HauslmError, MissingError, UsageError
from hauslm.train import kernels
from tests.train.conftest import Project


@pytest.mark.parametrize("training", [{"liger": True}, {"compile": "on"}])
def test_on_a_processor_both_are_refused(project: Project, training: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        project.run(training)
    assert caught.value.code == "H642" and str(caught.value.where).endswith(*training)


def test_auto_is_off_on_a_processor(project: Project) -> None:
    run = project.run({"compile": "auto", "max_steps": 1})
    assert run.settings["compile"] is False and run.settings["liger"] is False


def test_compile_is_chosen_by_duration() -> None:
    assert kernels.wanted(True, "auto", "cuda", 0.5) == (True, False)
    assert kernels.wanted(False, "auto", "cuda", 1.5) == (False, True)
    assert kernels.wanted(False, "auto", "cuda", None) == (False, False)
    assert kernels.wanted(False, "on", "cuda", None) == (False, True)
    assert kernels.wanted(False, "off", "cuda", 99) == (False, False)


def test_without_the_package_it_is_said() -> None:
    pytest.importorskip("torch")
    base = SimpleNamespace(config=SimpleNamespace(model_type="no_such_model"))
    with pytest.raises(HauslmError) as caught:
        kernels.use_liger(base)
    missing = isinstance(caught.value, MissingError)
    assert caught.value.code == ("H643" if missing else "H644")


def test_layers_are_compiled_one_by_one_under_their_names(monkeypatch: Any) -> None:
    layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Linear, "compile", lambda self, **k: told.append(k))
    names = [n for n, _ in layers.named_parameters()]
    assert kernels.compile_layers(SimpleNamespace(layers=layers)) == 3
    assert told == [{"dynamic": True}] * 3
    assert [n for n, _ in layers.named_parameters()] == names
