"""What does the run tell while it runs? metrics.jsonl, tokens per second, peak memory, energy.

A tokens-per-second here counts tokens that the model really read while learning, padding does not
exist, and the time of the optimizer steps alone (validation and saving are in the run's seconds). Memory
is the process's resident peak above what it held before the base was loaded (CPU), or the allocator's
peak (GPU). Energy is the machine's own counter; without one there is none, and none is guessed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hauslm.base.energy import Counter
from hauslm.base.files import Journal, canonical_json, write_sealed
from hauslm.base.quantity import Quantity, measured
from hauslm.base.words import say

METRICS = "metrics.jsonl"
SYNC_EVERY_S = 0.5  # whoever watches sees a row at most this late; a crash loses no more
GIB = 1 << 30


class Meter:
    """Counts tokens and time of the steps; writes a row of metrics.jsonl after each."""

    def __init__(self, folder: Path, step: int, state: dict[str, Any]) -> None:
        self.path = folder / METRICS
        rows = _rows_up_to(self.path, step) if step else []
        write_sealed(self.path, b"".join(canonical_json(r) + b"\n" for r in rows))
        self.rows: list[dict[str, Any]] = rows
        self._journal = Journal(self.path, fsync_every=1 << 30)  # by time, see `write`
        self._synced = 0.0
        self.tokens = int(state.get("tokens", 0))
        self.labels = int(state.get("labels", 0))
        self.squares = float(state.get("squares", 0.0))  # of the documents' lengths
        self.step_seconds = float(state.get("step_seconds", 0.0))
        self._earlier_seconds = float(state.get("seconds", 0.0))
        self.leg_seconds = 0.0  # of the steps of this process
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its legs."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.step_seconds if self.step_seconds else 0.0

    def state(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "labels": self.labels,
            "squares": self.squares,
            "step_seconds": self.step_seconds,
            "seconds": self.seconds,
        }

    def step(self, tokens: int, labels: int, seconds: float, squares: float = 0.0) -> None:
        self.tokens += tokens
        self.labels += labels
        self.squares += squares
        self.step_seconds += seconds
        self.leg_seconds += seconds

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._journal.append(row)
        if time.monotonic() - self._synced > SYNC_EVERY_S:
            self._journal.sync()
            self._synced = time.monotonic()

    def close(self) -> None:
        self._journal.close()


def _rows_up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of the steps that the checkpoint holds; later ones are done again."""
    if not path.exists():
        return []
    with Journal(path) as journal:
        return [row for row in journal.rows if row.get("step", 0) <= step]


def figures_of(row: dict[str, Any], validation: float | None) -> dict[str, Any]:
    """What is shown beside the bar: from a row of metrics.jsonl, and the newest validation loss."""
    keys = ("tokens_per_second", "limit_share", "memory_gib", "remaining_seconds", "cost_eur")
    shown = {"loss": row.get("loss"), "validation": validation} | {k: row.get(k) for k in keys}
    if row.get("planned_gib") is not None:
        shown["memory_gib"] = (row["memory_gib"], row["planned_gib"])
    return {k: v for k, v in shown.items() if v is not None}


def thinned(rows: list[dict[str, Any]], limit: int = 400) -> tuple[dict[str, float], ...]:
    """At most about `limit` rows for the record (every validation is kept); the file has them all."""
    every = max(1, -(-len(rows) // limit))
    keys = ("step", "loss", "learning_rate", "validation")
    return tuple(
        {k: row[k] for k in keys if row.get(k) is not None}
        for i, row in enumerate(rows)
        if i % every == 0 or i == len(rows) - 1 or row.get("validation") is not None
    )


class PeakMemory:
    """The highest memory between `start` and `quantity`."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = 0
        self._since_reset = False

    def start(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError):  # lets the kernel's high-water mark start from now
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._since_reset = True
        self.before = _status("VmRSS")

    def now_gib(self) -> float:
        """Memory that is held now, GiB: resident (CPU) or allocated (GPU)."""
        if self.device == "cuda":
            import torch

            return torch.cuda.memory_allocated() / GIB
        return _status("VmRSS") / GIB

    def quantity(self, date: str) -> Quantity:
        if self.device == "cuda":
            import torch

            peak = torch.cuda.max_memory_allocated()
            return measured(peak / GIB, "GiB", date, say("GPU memory allocated, peak").text())
        peak = max(0, _status("VmHWM") - self.before)
        source = (
            say("resident memory above that before the base was loaded, peak")
            if self._since_reset
            else say(
                "resident memory above that before the base was loaded, peak of the whole process"
            )
        )
        return measured(peak / GIB, "GiB", date, source.text())


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


class Energy:
    """What the run used by the machine's own counter (`base/energy.py`), where it offers one."""

    def __init__(self, device: str) -> None:
        self._counter = Counter(device)
        self._start = self._counter.read()

    def quantity(self, date: str) -> Quantity | None:
        joules = self._counter.joules(self._start)
        if joules is None or self._counter.source is None:
            return None
        return measured(joules / 3.6e6, "kWh", date, self._counter.source.text())
