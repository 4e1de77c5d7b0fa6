"""Does the plan know how long a training run on the crop corpus takes on this computer?

    python benchmarks/train_time.py [--data FOLDER] [--steps 8] [--all] [--lock FILE] [--json FILE]

The commands of a user: prepare the corpus (355 articles; its training file), plan, train the embedded model.
By default only some of the steps are trained (every step takes the same number of tokens, give or take a
row), and the hours of the whole run follow from their speed; `--all` trains all of them. The plan speaks of
cores that do nothing else, so the measured speed is given by the clock and, for machines that are busy,
per second of processor time times the cores; the error that is stated is that of the second, and says so.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import train_cpu

WARM_UP_STEPS = 1
PROJECT = """name: crops
language: en
scenario:
  hardware: {{gpu: none}}
documents:
  paths: [{documents}]
  validation_share: 0.0
  test_share: 0.0
model: {{base: embedded}}
training: {{validate_every_steps: 1000000{steps}}}
"""


def command(project: Path, *words: str) -> None:
    """A command of hauslm in that project."""
    done = subprocess.run(
        [sys.executable, "-m", "hauslm", "-C", str(project), "--quiet", *words],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr.decode()[-3000:])


def corpus_file(data: Path) -> Path:
    """The training file of the crop corpus."""
    return data / "corpus_crops" / "train.jsonl"


def run(data: Path, steps: int | None, lock: Path | None) -> dict[str, Any]:
    """Prepare, plan, train; what was said and what it took."""
    documents = corpus_file(data)
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary)
        some = f", max_steps: {steps}" if steps else ""
        (project / "hauslm.yaml").write_text(PROJECT.format(documents=documents, steps=some))
        command(project, "prepare")
        command(project, "plan")
        with lock.open("a") if lock else nullcontext() as held:
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_EX)
            load_before = os.getloadavg()[0]
            command(project, "train")
        records = project / "records"
        plan = json.loads((records / "plan.json").read_text(encoding="utf-8"))
        corpus = json.loads((records / "corpus.json").read_text(encoding="utf-8"))
        metrics = next(project.rglob("metrics.jsonl")).read_text(encoding="utf-8").splitlines()
    rows = [r for r in map(json.loads, metrics) if "cpu_seconds" in r]
    return result(rows, plan, corpus["tokens"]["train"], load_before, whole=steps is None)


def result(
    rows: list[dict[str, Any]],
    plan: dict[str, Any],
    tokens: int,
    load_before: float,
    whole: bool = False,
) -> dict[str, Any]:
    """Speeds of the steps after the first, beside the plan's, and the error of the plan's time."""
    counted = rows[WARM_UP_STEPS:]
    read = counted[-1]["tokens"] - rows[WARM_UP_STEPS - 1]["tokens"]
    seconds = sum(
        (r["tokens"] - before["tokens"]) / r["tokens_per_second"]
        for before, r in zip(rows[WARM_UP_STEPS - 1 :], counted, strict=False)
    )
    cores = os.cpu_count() or 1
    wall = read / seconds
    processor = read / sum(r["cpu_seconds"] for r in counted) * cores
    planned = plan["throughput"]["tokens_per_second"]["value"]
    machine = train_cpu.machine(cores) | {"load_before": load_before}

    def row(what: str, speed: float) -> dict[str, Any]:
        return {"what": what, "tokens_per_second": speed, "hours": tokens / speed / 3600}

    return {
        "machine": machine,
        # Templates with their figures apart: the page says them in two languages.
        "what": "The crop corpus ({tokens:,} training tokens of the embedded model) once; "
        "{steps:,} of its steps were trained, {read:,} tokens counted after the first.",
        "values": {
            "tokens": tokens,
            "steps": len(rows),
            "read": read,
            "cores": cores,
            "load": load_before,
            "clock": wall / planned - 1,
        },
        "whole": whole,
        "rows": [
            row("the plan, for cores that do nothing else", planned),
            row("measured, per processor second times {cores} cores", processor),
            row("measured, by the clock, load {load:.1f} before the run", wall),
        ],
        "error": processor / planned - 1,  # the plan's time over the measured one
        "error_by_the_clock": wall / planned - 1,
        "note": "This compares with processor seconds, which other work beside it disturbs least; by the clock of this "
        "machine the plan's time is {clock:+.0%}, and the run itself says the remaining time by its own pace.",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=train_cpu.SHARED)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--all", action="store_true", help="train every step of the run")
    parser.add_argument("--lock", type=Path, help="file that is locked while the run is measured")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not corpus_file(asked.data).is_file():
        print("Not measured, and the earlier result kept: the crop corpus is not there.")
        return
    found = run(asked.data, None if asked.all else asked.steps, asked.lock)
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
