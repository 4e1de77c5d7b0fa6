"""How long does a verdict take? As a command from cold, as a call, and the cost of 10,000 options.

    python benchmarks/decide.py [--rounds 7] [--save]

`cold` starts `hauslm decide` on a new project each time (wall and processor seconds of the whole
process); `warm` calls it again in one process, as the pages do; `cost_of_10000_options` is the cost
formula alone; `combinations_per_decide` says how many a verdict looks at. Prints one JSON object; --save writes it to benchmarks/results/decide.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hauslm.decide.cost import Bills, costs
from hauslm.decide.verdict import decide, situation
from hauslm.scenario import Scenario

RESULT = Path(__file__).parent / "results" / "decide.json"


def cold(rounds: int) -> dict[str, Any]:
    """Seconds of the command as a whole process, after one run that warms the file cache."""
    walls, cpus = [], []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "hauslm", "init", "--yes", "-C", folder],
            check=True, capture_output=True,
        )  # fmt: skip
        command = [sys.executable, "-m", "hauslm", "decide", "-q", "-C", folder]
        for number in range(rounds + 1):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            wall = time.perf_counter() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if number:
                walls.append(wall)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                cpus.append(used)
    return {"wall_seconds": spread(walls), "cpu_seconds": spread(cpus)}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
    }


def timed(work: Callable[[], Any], rounds: int) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return spread(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    scenario = Scenario.model_validate({})
    place = situation(scenario)
    rows = place.context.judged.contenders.bills.rows
    many = Bills([rows[k % len(rows)] for k in range(10_000)])
    settings = place.context.judged.settings
    considered = place.collected.considered
    result = {
        "cold": cold(options.rounds),
        "warm_decide_seconds": timed(lambda: decide(scenario), options.rounds),
        "combinations_per_decide": considered,
        "options_with_a_cost": len(rows),
        "cost_of_10000_options_seconds": timed(lambda: costs(many, settings), options.rounds),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_1_minute": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
