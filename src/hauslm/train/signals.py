"""What happens on SIGTERM and Ctrl-C? The step is finished, a checkpoint sealed, the process ends with 75.

The first signal asks, every further one is harmless. When the terminal closes (SIGHUP) the run goes on:
what it would have shown goes to the log, and `hauslm train --attach` shows it again. Handlers exist in the
main thread only (Python allows no others); elsewhere `Stop.now` asks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any


class Stop:
    """Has somebody asked to stop?"""

    def __init__(self) -> None:
        self.asked = False

    def now(self) -> None:
        self.asked = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _to_the_log(log: Path) -> None:
    """The terminal is gone: what pointed to it points to the log now."""
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(descriptor, number)
        os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


@contextmanager
def listening(log: Path) -> Iterator[Stop]:
    """Listen to SIGTERM, SIGINT and SIGHUP inside the block; the handlers before are put back."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before: dict[int, Any] = {n: signal.signal(n, stop.handle) for n in numbers}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: _to_the_log(log))
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
