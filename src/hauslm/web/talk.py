"""Who holds the model of the chat page? A process beside the web server, started when it is needed.

The pages talk to it by lines (`views/chat.py`); it is ended when nobody has asked for a while, or with
the web server. If it dies, whoever waits is told, and the next visit starts another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from hauslm.base.words import say

IDLE_S = 15 * 60
LOG = "web-chat.log"


class Talk:
    """The chat's model process of one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {"event": "off"}
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[
            int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[dict[str, Any]]]
        ] = {}
        self._asked = time.monotonic()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, language: str) -> None:
        """Start the process unless it runs."""
        with self._lock:
            self._asked = time.monotonic()
            if self.alive:
                return
            logs = self.folder / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            self.state = {"event": "loading", "text": ""}
            with (logs / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    (sys.executable, "-m", "hauslm.web.talker", str(self.folder), language),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    encoding="utf-8", env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )  # fmt: skip
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End the process; whoever waits is told."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.state = {"event": "off"}

    def stop_if_idle(self) -> None:
        if self.alive and not self._waiting and time.monotonic() - self._asked > IDLE_S:
            self.stop()

    async def ask(self, orders: Sequence[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """The events of some questions asked together, until each has ended."""
        identity = next(self._ids)
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting[identity] = (asyncio.get_running_loop(), inbox)
        open_sides = {str(o.get("side")) for o in orders}
        try:
            for order in orders:
                self._send({**order, "ask": identity})
            while open_sides:
                event = await inbox.get()
                yield event
                if event.get("done") or "error" in event:
                    open_sides.discard(str(event.get("side")))
                    if event.get("side") is None:
                        return
        finally:
            self._waiting.pop(identity, None)
            self._asked = time.monotonic()
            if open_sides:  # the reader went away: its answers need not be written
                self._send({"cancel": identity})

    def _send(self, order: dict[str, Any]) -> None:
        process = self._process
        try:
            if process is None or process.stdin is None:
                raise BrokenPipeError
            with self._lock:
                process.stdin.write(json.dumps(order, ensure_ascii=False) + "\n")
                process.stdin.flush()
        except (OSError, ValueError):
            self._tell_all(say("The model's process has ended; see logs/{file}.", file=LOG).text())

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if "event" in event:
                self.state = event
            else:
                self._deliver(event)
        process.wait()
        if self.state.get("event") not in ("failed", "off"):
            self.state = {
                "event": "failed",
                "text": say("The model's process has ended; see logs/{file}.", file=LOG).text(),
            }
        self._tell_all(str(self.state.get("text", "")))

    def _deliver(self, event: dict[str, Any]) -> None:
        found = self._waiting.get(int(event.get("id") or 0))
        if found is not None:
            loop, inbox = found
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(inbox.put_nowait, event)

    def _tell_all(self, text: str) -> None:
        for identity in list(self._waiting):
            self._deliver({"id": identity, "side": None, "error": text})
