"""Where did the time of a few steps go? torch's profiler, sorted into parts that somebody can act on.

Writes `trace.json` (for any viewer of Chrome traces) and `profile.json` (the sums, from which the report
makes a page) under work/train/profile. Each operator's own time goes to one part: by the operator it is,
by the sizes it works on (rank of the adapter, vocabulary), by the range it runs in (optimizer, rows).
What is left of the wall time is Python and waiting. Profiling itself costs time: shares are of the
profiled steps, speeds are not those of the run.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError, UsageError
from hauslm.base.files import ProjectFolder, write_json
from hauslm.base.words import N_, say

FOLDER = "profile"
STEPS = 3
SKIPPED = 1  # the first step also compiles kernels and fills caches
OPERATORS_TOLD = 15

# Key in profile.json -> its name for the reader.
PARTS = {
    "base": N_("Products of the frozen base"),
    "lora": N_("Products of the adapter"),
    "attention": N_("Attention"),
    "loss": N_("Head and loss"),
    "optimizer": N_("Optimizer"),
    "rounding": N_("Rounding to 8 bit"),
    "rest": N_("Norms, activations, copies"),
    "data": N_("Making rows of documents"),
    "python": N_("Python and waiting"),
}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_int_mm", "aten::_scaled_mm",
            "aten::mkldnn_linear", "mkldnn::_linear_pointwise")  # fmt: skip
ROWS_RANGE = "hauslm: rows"


def refuse() -> None:
    """UsageError H641: other processes cannot be profiled from here."""
    raise UsageError(
        "H641",
        say("--profile goes with a training in this process only."),
        next_step=say("Leave out --attach, --detach and --nproc."),
    )


def read(folder: ProjectFolder) -> dict[str, Any]:
    """What the last run measured. MissingError H659 if it measured nothing."""
    source = folder.work / "train" / FOLDER / "profile.json"
    if not source.is_file():
        raise MissingError(
            "H659",
            say("No step was profiled: the run had ended, or was too short."),
            where=str(source),
            next_step=say(
                "hauslm train --fresh --profile trains anew and profiles its first steps."
            ),
        )
    found: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return found


class Profile:
    """Profiles steps `SKIPPED` to `SKIPPED + STEPS` of this process; `after_step` is called after each."""

    def __init__(self, folder: Path, device: str, rank: int, vocabulary: int) -> None:
        self.folder = folder / FOLDER
        self.device, self.rank, self.vocabulary = device, rank, vocabulary
        self._profiler: Any = None
        self._started = 0.0
        self._seen = self.steps = self.tokens = 0
        self.work = 0.0
        self.written = False

    def begin(self) -> None:
        """Forget what an earlier run left."""
        (self.folder / "profile.json").unlink(missing_ok=True)

    def _start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        kinds = [ProfilerActivity.CPU]
        if self.device == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=kinds, record_shapes=True)
        self._profiler.start()
        self._started = time.perf_counter()

    def after_step(self, tokens: int, work: float, limit: Any, last: bool) -> None:
        """One more step is done; `work` are its operations by limit.py."""
        if self.written:
            return
        if self._profiler is not None:
            self.steps, self.tokens, self.work = (
                self.steps + 1,
                self.tokens + tokens,
                self.work + work,
            )
            if self.steps >= STEPS or last:
                self._finish(limit)
        self._seen += 1
        if self._profiler is None and self._seen >= SKIPPED and not last:
            self._start()

    def _finish(self, limit: Any) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        wall = time.perf_counter() - self._started
        self._profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._profiler.export_chrome_trace(str(self.folder / "trace.json"))
        events = list(self._profiler.events())
        parts, operators = self._sums(events)
        parts["python"] = max(0.0, wall - sum(parts.values()))
        write_json(
            self.folder / "profile.json",
            {
                "device": self.device,
                "steps": self.steps,
                "tokens": self.tokens,
                "wall_seconds": wall,
                "parts": {name: parts.get(name, 0.0) for name in PARTS},
                "operators": operators,
                "limit": None
                if limit is None
                else {
                    "share": self.work / wall / limit.peak,
                    "peak_gflops": limit.peak / 1e9,
                    "number_format": limit.number_format,
                },
            },
        )
        self._profiler, self.written = None, True

    def _sums(self, events: Iterable[Any]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Seconds of each part, and the operators that took most."""
        parts: dict[str, float] = defaultdict(float)
        operators: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for event in events:
            seconds = self._seconds(event)
            if seconds <= 0:
                continue
            parts[self.part_of(event)] += seconds
            operators[event.name][0] += seconds
            operators[event.name][1] += 1
        most = sorted(operators.items(), key=lambda i: -i[1][0])[:OPERATORS_TOLD]
        return parts, [{"name": n, "seconds": s, "calls": int(c)} for n, (s, c) in most]

    def _seconds(self, event: Any) -> float:
        """The event's own time: of the device where there is one, otherwise of the processor."""
        if event.name.startswith("ProfilerStep"):
            return 0.0
        if self.device == "cuda":
            return float(event.self_device_time_total) / 1e6
        return float(event.self_cpu_time_total) / 1e6

    def part_of(self, event: Any) -> str:
        """The part that an event belongs to."""
        names, above = [event.name], event.cpu_parent
        while above is not None:
            names.append(above.name)
            above = above.cpu_parent
        if any(n.startswith("Optimizer.") for n in names):
            return "optimizer"
        if ROWS_RANGE in names:
            return "data"
        if any("attention" in n or "flash" in n or "varlen" in n for n in names):
            return "attention"
        if any("_FrozenHead" in n for n in names):
            return "loss"
        shapes = [s for s in (event.input_shapes or []) if isinstance(s, (list, tuple)) and s]
        sizes = {size for shape in shapes for size in shape if isinstance(size, int)}
        if self.vocabulary in sizes:
            return "loss"
        if event.name in PRODUCTS:
            return "lora" if self.rank and self.rank in sizes else "base"
        if any("_FrozenProduct" in n for n in names):
            return "rounding"
        return "rest"
