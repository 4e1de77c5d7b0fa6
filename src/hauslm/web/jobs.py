"""How does a stage run while its page may be closed? As a process of its own that writes a log.

The page only starts it and reads the log; closing or reloading the page changes nothing. One job at a
time and project (the stage lock of `flow` would refuse a second one anyway).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Job:
    """A running or finished stage: what was asked for, its log, and how it ended."""

    stage: str
    log: Path
    process: subprocess.Popen[bytes]
    started: float

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def lines(self, start: int = 0) -> list[str]:
        """The log's whole lines from number `start` on."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        whole = text.split("\n") if self.exit_code is not None else text.split("\n")[:-1]
        return [line for line in whole[start:] if line or self.exit_code is None]


class Jobs:
    """Starts and stops the job of one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current: Job | None = None

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.exit_code is None

    def start(self, stage: str, language: str) -> bool:
        """Start `hauslm STAGE` in the project; False if one is running."""
        if self.running:
            return False
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"web-{time.strftime('%Y%m%d-%H%M%S')}-{stage}.log"
        # A list of arguments, no shell; the stage's name comes from the table of stages.
        command: Sequence[str] = (
            sys.executable, "-m", "hauslm", stage, "-C", str(self.folder), "--language", language,
        )  # fmt: skip
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self.current = Job(stage, log, process, time.time())
        return True

    def stop(self) -> None:
        """Ask the job to save and end (SIGTERM: training seals a checkpoint and exits with 75)."""
        if self.current is not None and self.running:
            os.kill(self.current.process.pid, signal.SIGTERM)
