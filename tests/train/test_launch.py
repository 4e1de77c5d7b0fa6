"""The run as a process of its own: status, record, interruption, failure."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hauslm.base.errors import MissingError
from hauslm.train import launch
from tests.train.conftest import Project, corpus_of


@pytest.fixture
def ready(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with its file and corpus record."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write(project, max_steps=400)
    corpus_of(project.folder).save(project.folder.records)
    return project


def write(project: Project, **training: int) -> None:
    text = project.scenario(training, {}).model_dump_json(exclude_none=True)
    project.folder.file.write_text(text, encoding="utf-8")


def wait_for(project: Project, state: str) -> launch.Status:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        found = launch.status(project.folder)
        if found.state != "running":
            break
        time.sleep(0.05)
    assert found.state == state, found
    return found


def test_start_interrupt_and_finish(ready: Project) -> None:
    assert launch.status(ready.folder).state == "none"
    with pytest.raises(MissingError):
        launch.result(ready.folder)
    pid = launch.start(ready.folder)
    metrics = ready.folder.work / "train" / "metrics.jsonl"
    while launch.status(ready.folder).state == "running" and lines(metrics) < 3:
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    found = wait_for(ready, "interrupted")
    assert found.exit_code == 75
    assert "--resume" in found.message
    assert launch.main([str(ready.folder.root), "--language", "en"]) == 0
    assert launch.status(ready.folder).state == "done"
    run = launch.result(ready.folder)
    assert run.steps == 400
    assert len(run.resumed_from) == 1


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_failure_is_told(ready: Project) -> None:
    ready.folder.file.write_text("training: {seq_lenn: 3}\n", encoding="utf-8")
    assert launch.main([str(ready.folder.root)]) == 2
    found = launch.status(ready.folder)
    assert (found.state, found.exit_code, found.code) == ("failed", 2, "H201")


def test_a_process_that_is_gone_was_killed(ready: Project) -> None:
    pid = launch.start(ready.folder)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert launch.status(ready.folder).state == "killed"
