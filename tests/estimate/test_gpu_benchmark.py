"""The GPU benchmark's script runs: on the processor, one row of its dry run (the GPU rows need a GPU)."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "memory.py"


def _script():
    spec = importlib.util.spec_from_file_location("gpu_memory", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_memory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_dry_run_measures_and_predicts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = _script()
    one = replace(script.DRY, lengths=(512,))
    monkeypatch.setattr(
        script.Plan, "setups", lambda self, of=script.Plan.setups: list(of(self))[:1]
    )
    stream = io.StringIO()
    rows = script.run(one, 24.0, stream)
    written = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert len(rows) == len(written) == 1 and set(written[0]) == set(script.COLUMNS)
    assert rows[0]["predicted_fits"] and rows[0]["fits"]
    assert abs(rows[0]["error"]) < 0.15
    assert not script.measure(next(iter(one.setups())), 0.1)["fits"]


def test_the_whole_grid_is_what_the_page_says():
    script = _script()
    plan = script.of_catalog("mistral-7b-v0.3", None)
    setups = list(plan.setups())
    assert len(setups) == 4 * 2 * 3 * 2 * 2
    assert all(s.device == "cuda" for s in setups)
    for s in setups:
        s.check()
