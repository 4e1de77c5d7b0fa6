"""How does a run tell others how it stands? Files in work/train that any process may read.

process.json   who runs it, since when, and how it ended
notices.jsonl  the sentences for the reader
metrics.jsonl  the figures of each step (meter.py)
run.json       the record, when it is done

`Told` writes them around a run; `status` reads them, also after the terminal or page was closed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hauslm.base.errors import HauslmError
from hauslm.base.files import Journal, ProjectFolder, read_json, write_json
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, as_text, say
from hauslm.records import Run, Said, now
from hauslm.train.meter import METRICS

PROCESS = "process.json"
NOTICES = "notices.jsonl"
RECORD = "run.json"


@dataclass(frozen=True)
class Status:
    """How a run stands. `state`: none, running, done, interrupted, failed, killed."""

    state: str
    pid: int = 0
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    message: str = ""
    code: str = ""
    ticks: int = 0  # when the kernel started the process: a number that is given anew is another
    silent_seconds: float = 0.0  # since the run last wrote a figure
    stopped: bool = False  # somebody paused the process (SIGSTOP)


def status(folder: ProjectFolder) -> Status:
    """How the newest run stands; a process that is gone without a word was killed."""
    path = _work(folder) / PROCESS
    if not path.is_file():
        return Status("none")
    found = Status(**read_json(path))
    if found.state != "running":
        return found
    state, ticks = _process(found.pid)
    if state in ("", "Z") or (found.ticks and ticks != found.ticks):
        return Status("killed", found.pid, found.started)
    metrics = _work(folder) / METRICS
    newest = max(p.stat().st_mtime for p in (path, metrics) if p.exists())
    return Status(
        "running",
        found.pid,
        found.started,
        ticks=found.ticks,
        silent_seconds=max(0.0, time.time() - newest),
        stopped=state in ("T", "t"),
    )


def _process(pid: int) -> tuple[str, int]:
    """(state letter, start time in clock ticks) by the kernel; ('', 0): there is none of ours."""
    try:
        os.kill(pid, 0)
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = text.rsplit(")", 1)[-1].split()
        return fields[0], int(fields[19])
    except PermissionError:  # somebody else's process: the number was given anew
        return "", 0
    except (OSError, IndexError, ValueError):
        return "", 0


def _work(folder: ProjectFolder) -> Path:
    path = folder.work / "train"
    path.mkdir(parents=True, exist_ok=True)
    return path


def claim(folder: ProjectFolder, pid: int) -> None:
    """Write that process `pid` runs the training from now on."""
    value = {"state": "running", "pid": pid, "started": now(), "ticks": _process(pid)[1]}
    write_json(_work(folder) / PROCESS, value)


def failed(folder: ProjectFolder, error: HauslmError) -> None:
    """Write how this process ended, if it had claimed the run and has not said so already."""
    path = _work(folder) / PROCESS
    if not path.is_file():
        return
    found = read_json(path)
    if found.get("pid") != os.getpid() or found.get("state") != "running":
        return
    state = "interrupted" if error.exit_code == 75 else "failed"
    ended = {"state": state, "ended": now(), "exit_code": error.exit_code, "code": error.code}
    write_json(path, {**found, **ended, "message": error.text()})


class Told:
    """Around a run: says who runs it and, once the run's lock is free again, how it ended.

    It is a `Progress` too: it passes on to the reader's and keeps the sentences for whoever comes later.
    """

    def __init__(self, folder: ProjectFolder, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._journal: Journal | None = None
        self._run: Run | None = None

    def begin(self) -> None:
        """The lock is held: what lies here of an earlier run is replaced."""
        work = _work(self._folder)
        (work / NOTICES).unlink(missing_ok=True)
        (work / RECORD).unlink(missing_ok=True)
        claim(self._folder, os.getpid())
        self._journal = Journal(work / NOTICES)

    def done(self, run: Run) -> Run:
        run.save(_work(self._folder))
        self._run = run
        return run

    def __enter__(self) -> Told:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._journal is None:
            return
        with suppress(HauslmError, OSError):  # a full disk has been told already
            self._journal.close()
            if isinstance(error, HauslmError):
                failed(self._folder, error)
                return
            path = _work(self._folder) / PROCESS
            value: dict[str, Any] = {**read_json(path), "ended": now()}
            if self._run is not None:
                value |= {"state": "done", "exit_code": 0}
            else:
                what = say("An unforeseen error: {reason}.", reason=str(error)[:500])
                value |= {"state": "failed", "exit_code": 70, "code": "H900"}
                value |= {"message": as_text(what)}
            write_json(path, value)

    # ------------------------------------------------------------ as a Progress

    def say(self, sentence: Sentence | str) -> None:
        if self._journal is not None:
            self._journal.append(Said.of(sentence).model_dump(mode="json"))
        self._progress.say(sentence)

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        self._progress.step(title, done, total, **figures)
