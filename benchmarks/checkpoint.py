"""What does saving cost? The same training without checkpoints, with them beside it, and with them in its way.

    python benchmarks/checkpoint.py [--steps 40] [--every 5] [--repeat 3] [--out benchmarks/results/checkpoint.json]

The embedded model on the demo's documents. Three ways, taken in turns so that what else the machine does hits all
alike: `none` (the last step alone is sealed), `beside` (a checkpoint every few steps, written by the thread) and
`in_its_way` (the same, waited for: how saving works without the thread). Reported per way: seconds and CPU seconds
of the run's loop (the fastest of the repeats); and, which needs no comparison of runs and so no quiet machine, the
share of the time that the steps stood still for saving and the share of the processor time that the writing took. Every few seconds is far more often than training saves by itself (every 30 s at most).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

WAYS = ("none", "beside", "in_its_way")


def one(root: Path, way: str, steps: int, every: int) -> dict[str, float]:
    """Train once; the figures of its loop."""
    from hauslm import flow
    from hauslm.base.progress import Silent
    from hauslm.train import loop
    from hauslm.train.leg import Leg
    from hauslm.train.writer import Writer

    project = flow.Project.load(root)
    training = project.scenario.training.model_copy(
        update={
            "max_steps": steps,
            "checkpoint_every_steps": steps if way == "none" else every,
            "validate_every_steps": steps,
            "early_stopping_patience": None,
        }
    )
    scenario = project.scenario.model_copy(update={"training": training})
    figures: dict[str, float] = {}
    real_submit, real_learn, real_write = Writer.submit, Leg.learn, Writer._write
    figures["writer_cpu_seconds"] = 0.0

    def submit(self: Writer, snapshot: Any) -> None:
        real_submit(self, snapshot)
        if way == "in_its_way":
            self.wait()

    def write(self: Writer, snapshot: Any) -> None:
        started = time.thread_time()
        real_write(self, snapshot)
        figures["writer_cpu_seconds"] += time.thread_time() - started

    def learn(self: Leg) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        real_learn(self)
        figures["seconds"] = time.perf_counter() - started
        figures["cpu_seconds"] = time.process_time() - cpu
        figures["held_seconds"] = self.writer.held_seconds
        figures["write_seconds"] = self.writer.write_seconds
        figures["checkpoints"] = self.writer.written
        figures["step_seconds"] = self.meter.leg_seconds / steps
        figures["checkpoint_bytes"] = sum(
            p.stat().st_size for p in self.checkpoints.all()[-1].iterdir()
        )

    with (
        mock.patch.multiple(Writer, submit=submit, _write=write),
        mock.patch.object(Leg, "learn", learn),
    ):
        loop.train(
            scenario,
            project.folder,
            plan=flow.load_record(project, "plan"),
            corpus=flow.load_record(project, "corpus"),
            resume=False,
            progress=Silent(),
        )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/checkpoint.json"))
    options = parser.parse_args()
    from hauslm import flow
    from hauslm.base import egress
    from hauslm.start import write_demo

    egress.shut("strict", kernel=False)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "p", "en")
        flow.run(root, until="prepare")
        one(root, "none", 3, 3)  # loads the libraries, fills the caches
        for number in range(options.repeat):
            for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                runs[way].append(one(root, way, options.steps, options.every))
                print(way, {k: round(v, 3) for k, v in runs[way][-1].items()}, file=sys.stderr)
    best = {way: min(rows, key=lambda r: r["seconds"]) for way, rows in runs.items()}
    held = {
        way: sorted(r["held_seconds"] / r["seconds"] for r in rows)[len(rows) // 2]
        for way, rows in runs.items()
    }
    result = {
        "steps": options.steps,
        "every": options.every,
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
        "fastest": best,
        "seconds_ratio": {w: round(best[w]["seconds"] / best["none"]["seconds"], 4) for w in WAYS},
        "cpu_ratio": {
            w: round(
                min(r["cpu_seconds"] for r in runs[w])
                / min(r["cpu_seconds"] for r in runs["none"]),
                4,
            )
            for w in WAYS
        },
        "writer_cpu_share_median": {
            way: round(
                sorted(r["writer_cpu_seconds"] / r["cpu_seconds"] for r in rows)[len(rows) // 2], 5
            )
            for way, rows in runs.items()
        },
        "held_share_median": {w: round(h, 5) for w, h in held.items()},
        "all": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "all"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
