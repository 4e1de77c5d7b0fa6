"""What happens on SIGTERM and Ctrl-C? The step is finished, a checkpoint sealed, the process ends with 75.

The first signal asks, every further one is harmless. Handlers exist in the main thread only (Python
allows no others); elsewhere `Stop.now` asks.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Has somebody asked to stop?"""

    def __init__(self) -> None:
        self.asked = False

    def now(self) -> None:
        self.asked = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen to SIGTERM and SIGINT inside the block; the handlers before are put back."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
