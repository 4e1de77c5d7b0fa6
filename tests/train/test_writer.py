"""Checkpoints beside the run: copied at the step, one at a time, failures told, a dead disk not waited for."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hauslm.base.errors import MissingError
from hauslm.train import seal, watch, writer
from tests.train.campaign.trials import checkpoints, snapshot
from tests.train.conftest import Project


class Slow:
    """Checkpoints whose disk waits for `go`."""

    def __init__(self, folder: Path) -> None:
        self.real = checkpoints(folder)
        self.folder = folder
        self.go = threading.Event()
        self.running = self.most = 0

    def save(self, one: seal.Snapshot) -> Path:
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.go.wait(30)
        self.running -= 1
        return self.real.save(one)


def test_the_run_goes_on_and_what_is_sealed_is_the_step(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "c")
    beside = writer.Writer(slow)  # type: ignore[arg-type]
    values = snapshot(7)
    beside.submit(values)
    assert beside.busy
    for tensor in values.tensors["trainable"].values():
        tensor.zero_()  # the next steps change the values
    values.state["step"] = 8
    slow.go.set()
    assert beside.wait() == tmp_path / "c" / "step-000007"
    found = checkpoints(tmp_path / "c").newest_sound()
    assert found is not None
    assert float(found.snapshot.tensors["trainable"]["a"][0]) == 7.0
    assert found.snapshot.state == {"step": 7}


def test_at_most_one_is_in_flight(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "c")
    beside = writer.Writer(slow)  # type: ignore[arg-type]
    beside.submit(snapshot(1))
    threading.Timer(0.1, slow.go.set).start()
    started = time.monotonic()
    beside.submit(snapshot(2))
    assert time.monotonic() - started > 0.05
    beside.wait()
    assert slow.most == 1
    assert beside.written == 2
    assert [p.name for p in slow.real.all()] == ["step-000001", "step-000002"]


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE_S", 0.05)
    slow = Slow(tmp_path / "c")
    beside = writer.Writer(slow)  # type: ignore[arg-type]
    beside.submit(snapshot(1))
    with pytest.raises(MissingError) as caught:
        beside.submit(snapshot(2))
    assert caught.value.code == "H511"
    slow.go.set()


def test_values_that_are_not_finite_are_never_sealed(tmp_path: Path) -> None:
    beside = writer.Writer(checkpoints(tmp_path / "c"))
    bad = snapshot(1)
    bad.tensors["optimizer"]["b"].fill_(float("nan"))
    beside.submit(bad)
    with pytest.raises(watch.NotFinite):
        beside.wait()
    assert checkpoints(tmp_path / "c").all() == []
    beside.submit(snapshot(2))  # and the writer goes on
    assert beside.wait() == tmp_path / "c" / "step-000002"


def test_a_sealed_step_is_not_taken_away_to_be_written_again(tmp_path: Path) -> None:
    path = checkpoints(tmp_path / "c").save(snapshot(1))
    before = (path / seal.MANIFEST).stat()
    assert checkpoints(tmp_path / "c").save(snapshot(1)) == path
    after = (path / seal.MANIFEST).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_failed_write_ends_the_run_at_the_next_step(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at the first checkpoint: the run does not learn on for hours without one."""
    real = seal.write_synced

    def full(path: Path, data: bytes) -> None:
        if "step-000001" in str(path):
            raise OSError(28, os.strerror(28))
        real(path, data)

    monkeypatch.setattr(seal, "write_synced", full)
    with pytest.raises(MissingError) as caught:
        project.run({"max_steps": 400, "checkpoint_every_steps": 1})
    assert caught.value.code == "H510"
    rows = (project.folder.work / "train" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) < 20


def test_a_last_checkpoint_that_fails_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose last step is not sealed is not done."""
    real = seal.write_synced

    def full(path: Path, data: bytes) -> None:
        if "step-000004" in str(path):
            time.sleep(0.2)  # the steps are over before
            raise OSError(28, os.strerror(28))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(seal, "write_synced", full)
        with pytest.raises(MissingError) as caught:
            project.run({"max_steps": 4, "checkpoint_every_steps": 2})
    assert caught.value.code == "H510"
    assert not project.folder.adapter.exists()
    assert [p.name for p in project.checkpoints] == ["step-000002"]
    assert project.run({"max_steps": 4, "checkpoint_every_steps": 2}, resume=True).steps == 4


def test_a_signal_while_one_is_written_seals_the_step(project: Project) -> None:
    """SIGTERM while the thread writes: that one is waited for, and the step of the signal is sealed too."""
    from hauslm.base.errors import Interrupted

    real = seal.Checkpoints.save

    def slow(self: seal.Checkpoints, one: seal.Snapshot) -> Path:
        if one.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        return real(self, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal.Checkpoints, "save", slow)
        with pytest.raises(Interrupted):
            project.run({"max_steps": 40, "checkpoint_every_steps": 2})
    names = [p.name for p in project.checkpoints]
    assert names[0] == "step-000002" and len(names) == 2


def test_saving_says_what_it_cost(project: Project) -> None:
    run = project.run({"max_steps": 6, "checkpoint_every_steps": 2})
    assert run.saving["checkpoints"] == 3
    assert run.saving["held_seconds"] > 0 and run.saving["held_share"] > 0


def test_buffers_are_used_again(tmp_path: Path) -> None:
    beside: Any = writer.Writer(checkpoints(tmp_path / "c"))
    beside.submit(snapshot(1))
    beside.wait()
    first = {k: t.data_ptr() for k, t in beside._buffers.items()}
    beside.submit(snapshot(2))
    beside.wait()
    assert first == {k: t.data_ptr() for k, t in beside._buffers.items()}
    assert torch.equal(beside._buffers[("trainable", "a")], snapshot(2).tensors["trainable"]["a"])
