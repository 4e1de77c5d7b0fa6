"""How is the running training doing? Loss, validation, speed, memory, remaining time, drawn anew each second.

Everything is read from `work/train/metrics.jsonl`, which the trainer writes a row to after each step, and
from the process table: whoever looks neither slows the training down nor can disturb it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.files import ProjectFolder
from hauslm.base.words import number, say
from hauslm.report import html, plots
from hauslm.report.blocks import Writer
from hauslm.report.build import words_of
from hauslm.views.chapters import Tile, duration

POINTS = 300  # of a curve on the page; the file has them all
SMOOTH = 5  # steps over which the speed is averaged
MEAN_OVER = 10  # drawn points
RECENT = 20  # steps from which the remaining time is extrapolated
GIB = 1 << 30


@dataclass(frozen=True)
class Live:
    """The training as it stands: `step` of `total`, tiles, drawings, and a line in words."""

    step: int
    total: int
    tiles: tuple[Tile, ...]
    drawings: str
    line: str

    @property
    def share(self) -> float:
        return self.step / self.total if self.total else 0.0


def metrics_file(folder: ProjectFolder) -> Path:
    return folder.work / "train" / "metrics.jsonl"


def rows_of(folder: ProjectFolder) -> list[dict[str, Any]]:
    """The whole rows so far; a line that is being written is left for the next look."""
    rows = []
    with suppress(OSError):
        for line in metrics_file(folder).read_bytes().split(b"\n")[:-1]:
            with suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def live(
    folder: ProjectFolder, language: str, *, running: bool, memory_gib: float | None = None,
    since: float = 0.0,
) -> Live | None:  # fmt: skip
    """The state from the file; None before the first step of this run. `since`: rows of a file that
    was last written before this time (seconds) belong to an earlier run."""
    rows = rows_of(folder)
    with suppress(OSError):
        if running and metrics_file(folder).stat().st_mtime < since:
            return None
    steps = [r for r in rows if "loss" in r]
    if not steps:
        return None
    checks = [r for r in rows if r.get("validation") is not None]
    last = steps[-1]
    total = int(last.get("of", last["step"]))
    w = Writer(language)
    left = _seconds_left(steps, total) if running else None
    return Live(
        int(last["step"]),
        total,
        tuple(_tiles(w, steps, checks, memory_gib, left)),
        _drawings(w, steps, checks),
        _line(last, total, left, language),
    )


def _seconds_left(steps: Sequence[dict[str, Any]], total: int) -> float | None:
    recent = steps[-RECENT:]
    if len(recent) < 2:
        return None
    each = (recent[-1]["seconds"] - recent[0]["seconds"]) / (recent[-1]["step"] - recent[0]["step"])
    return max(0.0, float(each) * (total - int(recent[-1]["step"])))


def _line(last: dict[str, Any], total: int, left: float | None, language: str) -> str:
    if left is None:
        return say("Step {step:,} of {total:,}", step=int(last["step"]), total=total).text(language)
    return say(
        "Step {step:,} of {total:,}, about {left} to go",
        step=int(last["step"]), total=total, left=duration(left, language),
    ).text(language)  # fmt: skip


def _tiles(
    w: Writer,
    steps: Sequence[dict[str, Any]],
    checks: Sequence[dict[str, Any]],
    memory_gib: float | None,
    left: float | None,
) -> list[Tile]:
    last = steps[-1]
    file = w.t(say("measured by the trainer, work/train/metrics.jsonl"))
    found = [
        Tile(w.t(say("Loss")), w.number(last["loss"], ".3f"), file),
        Tile(
            w.t(say("Validation loss")),
            w.number(checks[-1]["validation"], ".3f") if checks else "–",
            w.t(say("in step {step:,}", step=int(checks[-1]["step"]))) if checks else "",
        ),
        Tile(w.t(say("Tokens per second")), w.number(_speed(steps[-SMOOTH:]), ",.0f"), file),
    ]
    if memory_gib is not None:
        note = w.t(say("resident memory of the process, measured now"))
        found.append(Tile(w.t(say("Memory")), f"{w.number(memory_gib, '.2f')} GiB", note))
    if left is not None:
        note = w.t(say("extrapolated from the last {count} steps", count=min(RECENT, len(steps))))
        found.append(Tile(w.t(say("Remaining")), duration(left, w.language), note))
    return found


def _speed(steps: Sequence[dict[str, Any]]) -> float:
    rates = [float(s["tokens_per_second"]) for s in steps if "tokens_per_second" in s]
    return sum(rates) / len(rates) if rates else 0.0


def _mean(values: Sequence[float]) -> list[float]:
    """Mean of the last `MEAN_OVER` values at each place (of fewer at the start)."""
    parts = [values[max(0, i - MEAN_OVER + 1) : i + 1] for i in range(len(values))]
    return [sum(p) / len(p) for p in parts]


def _thin(rows: Sequence[Any]) -> list[Any]:
    every = max(1, -(-len(rows) // POINTS))
    return [r for i, r in enumerate(rows) if i % every == 0 or i == len(rows) - 1]


def _drawings(w: Writer, steps: Sequence[dict[str, Any]], checks: Sequence[dict[str, Any]]) -> str:
    shown = _thin(steps)
    table = shown[:: max(1, len(shown) // 15)]
    by_step = {int(c["step"]): float(c["validation"]) for c in checks}
    every = [s["step"] for s in shown]
    series = [(w.t(say("Training")), every, [s["loss"] for s in shown])]
    if len(shown) > MEAN_OVER:
        name = say("Training, mean of {count} steps", count=MEAN_OVER)
        series.append((w.t(name), every, _mean([float(s["loss"]) for s in shown])))
    if checks:
        series.append(
            (w.t(say("Validation")), [c["step"] for c in checks], [c["validation"] for c in checks])
        )
    if len(shown) > 1:
        w.figure(
            plots.curves(
                series, w.t(say("Loss during the training")), w.t(say("Step")),
                w.t(say("Loss (nats per token)")), language=w.language,
            ),
            say("Loss during the training"),
            say("Lower is better; validation is measured on works that were held out."),
            w.make_table(
                [say("Step"), say("Loss"), say("Validation")],
                [
                    (
                        w.number(s["step"], ","),
                        w.number(s["loss"], ".3f"),
                        w.number(by_step[s["step"]], ".3f") if s["step"] in by_step else "–",
                    )
                    for s in table
                ],
                align="rrr",
            ),
        )  # fmt: skip
        speeds = [(s["step"], s["tokens_per_second"]) for s in shown if "tokens_per_second" in s]
        w.figure(
            plots.curves(
                [(w.t(say("Tokens per second")), [s for s, _ in speeds], [v for _, v in speeds])],
                w.t(say("Speed during the training")), w.t(say("Step")),
                w.t(say("Tokens per second")), language=w.language, from_zero=True,
            ),
            say("Speed during the training"),
            say("Tokens that the model read while learning, per second of the steps."),
            w.make_table(
                [say("Step"), say("Tokens per second")],
                [(w.number(s, ","), w.number(v, ",.0f")) for s, v in speeds[:: max(1, len(speeds) // 15)]],
                align="rr",
            ),
        )  # fmt: skip
    return html.fragment(w.blocks, words_of(w.language))


def resident_gib(pid: int) -> float | None:
    """Resident memory of a process and its children, GiB; None if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0
    for member in family:
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total / GIB


__all__ = ["Live", "live", "number", "resident_gib"]
