"""The share of the limit: work counted by hand, peak measured, memory against the plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from hauslm.train import limit
from tests.train.conftest import VOCABULARY, Project


def test_the_work_of_the_small_llama_by_hand(project: Project, monkeypatch: Any) -> None:
    """Hidden 32, 4 heads of 8, 2 key heads, 64 inside, 2 layers."""
    kept: list[limit.Limit] = []
    real = limit.of
    monkeypatch.setattr(limit, "of", lambda *a: kept.append(real(*a)) or kept[-1])
    run = project.run({"base_precision": "int8"})
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    assert kept[0].matrix == 4 * 2 * layer
    assert kept[0].head == 4 * 32 * VOCABULARY
    assert kept[0].attention == 12 * 4 * 8 * 2
    found = run.settings["limit"]
    assert 0 < found["share"] < 1 and found["number_format"] == "float32"
    full = [
        limit.Limit(1, 2, 3, 10, "x").work(10, 5, 100),
        limit.Limit(1, 2, 3, 10, "x").share(10, 5, 100, 17),
    ]
    assert full == [10 + 10 + 150, pytest.approx(1.0)]


def test_full_fine_tuning_counts_six(project: Project, monkeypatch: Any) -> None:
    kept: list[limit.Limit] = []
    real = limit.of
    monkeypatch.setattr(limit, "of", lambda *a: kept.append(real(*a)) or kept[-1])
    project.run({"method": "full", "max_steps": 1})
    assert kept[0].matrix == 6 * 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64)
    assert kept[0].head == 6 * 32 * VOCABULARY


def test_the_peak_is_that_of_products() -> None:
    peak = limit.peak_flops("cpu", "float32")
    a = torch.randn(256, 256)
    assert torch.mm(a, a).shape == (256, 256)
    assert 1e8 < peak < 1e13


def test_each_row_tells_share_and_planned_memory(project: Project, monkeypatch: Any) -> None:
    from hauslm.train import inputs
    from hauslm.train.meter import figures_of

    monkeypatch.setattr(inputs, "_planned_gib", lambda plan, device: 1.25)
    project.run({"max_steps": 2})
    text = (project.folder.work / "train" / "metrics.jsonl").read_text(encoding="utf-8")
    row = json.loads(text.splitlines()[-1])
    assert 0 < row["limit_share"] < 1 and row["planned_gib"] == 1.25
    assert figures_of(row, None)["memory_gib"] == (row["memory_gib"], 1.25)
