"""How does a stage run while its page may be closed? As a process of its own that writes a log.

The page only starts it and reads the log; closing or reloading the page, or ending the web server,
changes nothing: a keeper process (`keeper.py`) notes the exit code, and a new web server finds the job
again by `logs/web-job.json`. One job at a time and project (the stage lock of `flow` would refuse a
second one anyway).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hauslm.base.files import write_json

STATE = "web-job.json"
KILLED = 137  # the keeper itself is gone without a word
TAIL_BYTES = 256 << 10


@dataclass(frozen=True)
class Job:
    """A running or finished process: what was asked for, its log, the keeper's process, when."""

    stage: str
    log: Path
    exit_file: Path
    pid: int
    born: float  # the keeper's creation time, so that a reused pid is not mistaken for it
    started: float

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.exit_file.read_text(encoding="ascii"))
        if self._alive():
            return None
        with contextlib.suppress(OSError, ValueError):  # it ended between the two looks
            return int(self.exit_file.read_text(encoding="ascii"))
        return KILLED

    def _alive(self) -> bool:
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < 1.0
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    @property
    def seconds(self) -> float:
        with contextlib.suppress(OSError):
            return self.exit_file.stat().st_mtime - self.started
        return time.time() - self.started

    def lines(self, start: int = 0) -> list[str]:
        """The log's whole lines from number `start` on."""
        try:
            text = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
        except OSError:
            return []
        ended = self.exit_code is not None
        whole = text.split("\n") if ended else text.split("\n")[:-1]
        return [line for line in whole[start:] if line or not ended]


class Jobs:
    """Starts and stops the job of one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._keeper: subprocess.Popen[bytes] | None = None
        self.current: Job | None = self._found_again()

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.exit_code is None

    def runs(self, stage: str) -> bool:
        """Whether this stage (alone or as part of the whole way) is running."""
        return self.running and self.current is not None and self.current.stage in (stage, "run")

    def start(self, stage: str, language: str, options: Sequence[str] = ()) -> bool:
        """Start `hauslm STAGE` in the project; False if one is running."""
        # A list of arguments, no shell; the stage's name comes from the table of stages.
        command = (
            sys.executable, "-m", "hauslm", stage, "-C", str(self.folder), "--language", language, *options,
        )  # fmt: skip
        return self.start_command(stage, command)

    def start_command(self, name: str, command: Sequence[str]) -> bool:
        with self._lock:
            if self.running:
                return False
            if self._keeper is not None:
                self._keeper.wait()  # reaps the one before, which has ended
            logs = self.folder / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            stem = f"web-{time.strftime('%Y%m%d-%H%M%S')}-{name}"
            log, exit_file = logs / f"{stem}.log", logs / f"{stem}.exit"
            exit_file.unlink(missing_ok=True)
            self._keeper = spawn(command, log, exit_file)
            self.current = Job(
                name, log, exit_file, self._keeper.pid, _born(self._keeper.pid), time.time()
            )
            state = asdict(self.current) | {"log": log.name, "exit_file": exit_file.name}
            write_json(logs / STATE, state)
            return True

    def stop(self) -> None:
        """Ask the job to save and end (SIGTERM: training seals a checkpoint and exits with 75)."""
        if self.current is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.current.pid, signal.SIGTERM)

    def _found_again(self) -> Job | None:
        """The job of an earlier web server in this folder."""
        logs = self.folder / "logs"
        try:
            raw = json.loads((logs / STATE).read_text(encoding="utf-8"))
            names = {k: logs / Path(str(raw.pop(k))).name for k in ("log", "exit_file")}
            return Job(
                stage=str(raw["stage"]), pid=int(raw["pid"]), born=float(raw["born"]),
                started=float(raw["started"]), **names,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return None


def spawn(
    command: Sequence[str], log: Path, exit_file: Path, *, with_parent: bool = False,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """The command under a keeper, in a session of its own, writing to `log`."""
    flag = ("--with-parent",) if with_parent else ()
    with log.open("wb") as stream:
        return subprocess.Popen(
            (sys.executable, "-m", "hauslm.web.keeper", *flag, str(exit_file), *command),
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {}),
        )  # fmt: skip


def _born(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
