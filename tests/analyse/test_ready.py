"""What is known to be wrong is told before anything that the analysis builds on is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hauslm import flow
from hauslm.analyse.parts import Part
from hauslm.analyse.ready import ready
from hauslm.base.errors import HauslmError, UsageError
from hauslm.flow.order import run_stage
from hauslm.scenario import Scenario


def scenario(**analysis: Any) -> Scenario:
    return Scenario.model_validate({"analysis": analysis})


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ray" else found(name, *a)
    )


@pytest.mark.parametrize(
    ("analysis", "options", "code"),
    [
        ({"template": "sumary"}, {}, "H830"),
        ({"template": "questions"}, {}, "H830"),
        ({"json_schema": {"type": "string"}}, {}, "H831"),
        ({}, {"workers": 2}, "H844"),
        ({"max_documents": 3}, {"part": Part.parse("1/2")}, "H840"),
    ],
)
def test_what_cannot_end_well(
    analysis: dict[str, Any], options: Mapping[str, Any], code: str
) -> None:
    with pytest.raises(HauslmError) as caught:
        ready(scenario(**analysis), **options)
    assert caught.value.code == code and caught.value.next_step


def test_the_command_line_stands_above_the_project_file() -> None:
    assert ready(scenario(engine="vllm"), engine="transformers").analysis.engine == "transformers"


def test_it_is_told_before_the_stages_before(tmp_path: Path, no_ray: None) -> None:
    (tmp_path / "hauslm.yaml").write_text(
        "name: x\nmodel: embedded\nanalysis: {template: summari}\n"
    )
    project = flow.Project.load(tmp_path)
    with pytest.raises(UsageError) as caught:
        run_stage(project, "analyse")
    assert caught.value.code == "H830"
    (tmp_path / "hauslm.yaml").write_text("name: x\nmodel: embedded\n", encoding="utf-8")
    project = flow.Project.load(tmp_path)
    for needs_ray in (
        lambda: flow.sweep(project),
        lambda: run_stage(project, "analyse", options={"engine": "ray"}),
    ):
        with pytest.raises(HauslmError) as missing:
            needs_ray()
        assert missing.value.code == "H841" and missing.value.exit_code == 5
    assert not (tmp_path / "records").exists()
