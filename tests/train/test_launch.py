"""The run as a process of its own: started, followed, interrupted, killed, and without its terminal."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hauslm import flow
from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.files import ProjectFolder, read_json
from hauslm.base.progress import Silent
from hauslm.records import Run
from hauslm.train import launch, process

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "LANGUAGE": "en"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project, small, up to its examples."""
    from hauslm.start import write_demo

    root = tmp_path_factory.mktemp("launch") / "p"
    write_demo(root, "en")
    for path in sorted((root / "documents").iterdir())[6:]:
        path.unlink()
    file = root / "hauslm.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace(
            "training:\n",
            "training:\n  max_steps: 40\n  seq_len: 128\n  micro_batch_size: 1\n  gradient_accumulation_steps: 1\n",
        ),
        encoding="utf-8",
    )
    flow.run(root, until="prepare")
    return root


@pytest.fixture
def ready(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProjectFolder]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    folder = ProjectFolder(shutil.copytree(prepared, tmp_path / "p"))
    yield folder
    left = launch.status(folder)
    if left.state == "running":
        os.kill(left.pid, signal.SIGKILL)


def until(condition: Callable[[], Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.05)


def steps_done(folder: ProjectFolder) -> int:
    path = folder.work / "train" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def over(folder: ProjectFolder) -> bool:
    return launch.status(folder).state != "running"


def command(folder: ProjectFolder, *options: str) -> list[str]:
    return [sys.executable, "-m", "hauslm", "train", "-C", str(folder.root), *options]


def test_started_paused_interrupted_and_finished(ready: ProjectFolder) -> None:
    assert launch.status(ready).state == "none"
    with pytest.raises(MissingError):
        launch.result(ready)
    pid = launch.start(ready)
    with pytest.raises(RefusedError) as caught:
        launch.start(ready)
    assert caught.value.code == "H652"
    until(lambda: steps_done(ready) > 2)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: launch.status(ready).stopped)
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGTERM)
    until(lambda: over(ready))
    found = launch.status(ready)
    assert (found.state, found.exit_code) == ("interrupted", 75)
    assert "--resume" in found.message
    os.waitpid(pid, 0)

    # Another process finishes it and is followed; the record is filed by the one that ran.
    launch.start(ready)
    progress = Silent()
    ended, record = flow.train_followed(flow.Project.load(ready.root, progress))
    assert ended.state == "done"
    assert record is not None and record.steps == 40 and len(record.resumed_from) == 1
    assert record.inputs, "the record in records/, not the room's own"
    assert flow.state(flow.Project.load(ready.root), flow.STAGES["train"]) == "current"


def test_what_fails_before_the_first_step_is_told_to_the_follower(ready: ProjectFolder) -> None:
    text = ready.file.read_text(encoding="utf-8")
    ready.file.write_text(text.replace("max_steps", "max_stepz"), encoding="utf-8")
    pid = launch.start(ready)
    until(lambda: over(ready))
    found = launch.status(ready)
    assert (found.state, found.exit_code, found.code) == ("failed", 2, "H201")
    os.waitpid(pid, 0)


def test_a_process_that_is_gone_was_killed(ready: ProjectFolder) -> None:
    pid = launch.start(ready)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert launch.status(ready).state == "killed"
    # A number that the system gave to another process since is not taken for the run.
    process.claim(ready, os.getpid())
    assert launch.status(ready).state == "running"
    value = read_json(ready.work / "train" / process.PROCESS)
    process.write_json(
        ready.work / "train" / process.PROCESS, value | {"ticks": value["ticks"] - 1}
    )
    assert launch.status(ready).state == "killed"


@pytest.mark.slow
def test_the_terminal_closes_and_the_run_goes_on(ready: ProjectFolder) -> None:
    """A foreground run on a terminal that is hung up finishes and files its record."""
    master, slave = pty.openpty()

    def own_terminal() -> None:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        command(ready), stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal
    )
    os.close(slave)
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(master, 65536):
                shown.extend(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: steps_done(ready) > 2)
    until(lambda: b"tokens/s" in shown and b"GiB" in shown and b"left" in shown)
    os.kill(child.pid, signal.SIGHUP)  # what the kernel sends when the terminal goes
    until(lambda: Path(f"/proc/{child.pid}/fd/2").readlink().name == "train.log")
    os.close(master)
    assert child.wait(timeout=120) == 0
    assert launch.status(ready).state == "done"
    assert Run.load(ready.record("run")).steps == 40


@pytest.mark.slow
def test_ctrl_c_ends_the_following_not_the_run(ready: ProjectFolder) -> None:
    pid = launch.start(ready)
    until(lambda: steps_done(ready) > 2)
    follower = subprocess.Popen(
        command(ready, "--attach"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert follower.stderr is not None
    for line in follower.stderr:
        lines.append(line)
        if "Training" in line:
            follower.send_signal(signal.SIGINT)
            break
    rest = follower.communicate(timeout=60)[1]
    assert "the training goes on" in rest
    assert follower.returncode == 0
    assert launch.status(ready).state in ("running", "done")
    os.kill(pid, signal.SIGTERM)
    until(lambda: over(ready))
