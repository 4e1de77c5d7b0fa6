"""--profile: parts that add up to the wall time, each operator in its part, a page in both languages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hauslm.base.errors import MissingError, UsageError
from hauslm.base.progress import Silent
from hauslm.report.profile import write
from hauslm.train import profile
from hauslm.train.loop import train
from tests.train.conftest import VOCABULARY, Project, corpus_of


def profiled(project: Project, **training: Any) -> dict[str, Any]:
    train(
        project.scenario({"max_steps": 6} | training, {}),
        project.folder,
        plan=None,
        corpus=corpus_of(project.folder),
        progress=Silent(),
        profiled=True,
    )
    return profile.read(project.folder)


def test_the_parts_are_the_wall_time(project: Project) -> None:
    found = profiled(project, base_precision="int8")
    assert found["steps"] == profile.STEPS and found["tokens"] > 0
    assert list(found["parts"]) == list(profile.PARTS)
    assert sum(found["parts"].values()) == pytest.approx(found["wall_seconds"], rel=1e-6)
    for part in ("base", "lora", "attention", "loss", "optimizer", "rounding", "rest", "data"):
        assert found["parts"][part] > 0, part
    assert 0 < found["limit"]["share"] < 1
    trace = json.loads((project.folder.work / "train/profile/trace.json").read_text())
    assert len(trace["traceEvents"]) > 100


@pytest.mark.parametrize(("language", "word"), [("de", "Zeit nach Teilen"), ("en", "Time by part")])
def test_the_page(project: Project, language: str, word: str) -> None:
    page = write(project.folder, profiled(project), profile.PARTS, language)
    text = page.read_text(encoding="utf-8")
    assert word in text and "<script" not in text and "http" not in text.split("</style>")[1].replace(
        "http://www.w3.org/2000/svg", ""
    )  # fmt: skip


def test_an_operator_goes_where_it_belongs() -> None:
    def event(name: str, shapes: Any = (), *above: str) -> Any:
        parent = None
        for n in reversed(above):
            parent = SimpleNamespace(name=n, cpu_parent=parent)
        return SimpleNamespace(name=name, input_shapes=shapes, cpu_parent=parent)

    part = profile.Profile(Path("nowhere"), "cpu", 4, VOCABULARY).part_of
    assert part(event("aten::mm", [[10, 32], [32, 64]])) == "base"
    assert part(event("aten::mm", [[10, 32], [32, 4]])) == "lora"
    assert part(event("aten::mm", [[10, 32], [32, VOCABULARY]])) == "loss"
    assert part(event("aten::exp_", [[10, VOCABULARY]])) == "loss"
    assert part(event("aten::mul", [[10, 32]], "_FrozenProduct")) == "rounding"
    assert part(event("aten::mm", [[10, 32]], "Optimizer.step#AdamW.step")) == "optimizer"
    assert part(event("aten::cat", [], profile.ROWS_RANGE)) == "data"
    assert part(event("aten::copy_", [], "aten::scaled_dot_product_attention")) == "attention"
    assert part(event("aten::rsqrt", [[10, 32]])) == "rest"


def test_nothing_profiled_is_said(project: Project) -> None:
    project.run({"max_steps": 1})
    with pytest.raises(MissingError) as caught:
        profile.read(project.folder)
    assert caught.value.code == "H659"
    with pytest.raises(UsageError) as refused:
        profile.refuse()
    assert refused.value.code == "H641"
