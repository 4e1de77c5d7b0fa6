"""The long fault campaign, and the page made from its result.

    python scripts/reliability.py run [--only F1,F2] [--no-mutations]   cause every fault; write RESULT and PAGE
    python scripts/reliability.py page                                  only make PAGE from RESULT
    python scripts/reliability.py check                                 is PAGE what RESULT gives?

`make test-faults` is `run`. RESULT: benchmarks/results/faults.json, PAGE: docs/reliability.md. Exit 1 if a promise
was broken or a mutation survived. The faults stand in tests/train/campaign.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
BROKEN_SHOWN = 10


def run(only: list[str], mutations: bool) -> dict[str, Any]:
    """Cause every fault of the table; what was tried and kept."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("LANGUAGE", "en")
    from tests.train.campaign.lab import Lab, may_mount
    from tests.train.campaign.mutations import MUTATIONS, first_failure
    from tests.train.campaign.table import FAULTS

    from hauslm.base import egress

    egress.shut("loopback", kernel=False)
    result: dict[str, Any] = {"faults": {}, "mutations": []}
    if only and RESULT.is_file():
        result = json.loads(RESULT.read_text(encoding="utf-8"))
    result["machine"] = _machine()
    mounts = may_mount()
    for name, fault in FAULTS.items():
        if only and name not in only:
            continue
        entry: dict[str, Any] = {
            "fault": fault.fault,
            "promise": fault.promise,
            "limits": fault.limits,
        }
        started = time.monotonic()
        tried = kept = 0
        broken: list[str] = []
        if fault.mounts and not mounts:
            entry["limits"] = "not tried: this machine forbids user namespaces"
        elif fault.cause is not None:
            with tempfile.TemporaryDirectory() as folder:
                for trial in fault.cause(Lab(Path(folder)), True):
                    tried, kept = tried + 1, kept + trial.kept
                    if not trial.kept:
                        broken.append(trial.what)
                        print(f"{name}: BROKEN: {trial.what}", file=sys.stderr)
        seconds = round(time.monotonic() - started, 1)
        entry |= {"tried": tried, "kept": kept, "seconds": seconds, "broken": broken[:BROKEN_SHOWN]}
        result["faults"][name] = entry
        print(f"{name}: {kept} of {tried} kept ({seconds} s)", flush=True)
    if mutations:
        result["mutations"] = []
        for mutation in MUTATIONS:
            failed = first_failure(mutation)
            result["mutations"].append(
                {"what": mutation.what, "file": mutation.file, "test": failed}
            )
            print(f"without {mutation.what}: {failed or 'NOTHING FAILS'}", flush=True)
    return result


def _machine() -> dict[str, str]:
    from importlib import metadata

    packages = ("torch", "transformers", "peft", "accelerate")
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in packages)
    return {
        "date": datetime.date.today().isoformat(),
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors, no GPU",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def page(result: dict[str, Any]) -> str:
    """docs/reliability.md."""
    faults, machine = result["faults"], result["machine"]
    tried = sum(f["tried"] for f in faults.values())
    kept = sum(f["kept"] for f in faults.values())
    minutes = sum(f["seconds"] for f in faults.values()) / 60
    lines = [
        "# Training that survives: what was tried",
        "",
        "Made by `make test-faults` (scripts/reliability.py) from benchmarks/results/faults.json; do not edit.",
        "",
        f"{tried:,} faults were caused on {machine['date']} in {minutes:.0f} minutes; the promise was kept {kept:,} times.",
        f"{machine['system']}; {machine['versions']}. A tiny model with LoRA and dropout, six steps, a checkpoint every",
        'second step. "The same adapter" means that its sha256 equals that of the uninterrupted run.',
        "",
        "| # | fault | promise | tried | kept |",
        "|---|---|---|---:|---:|",
    ]
    for name, f in faults.items():
        counts = f"{f['tried']:,} | {f['kept']:,}" if f["tried"] else "– | –"
        lines.append(f"| {name} | {f['fault']} | {f['promise']} | {counts} |")
    lines += ["", "What these trials do not show:", ""]
    lines += [f"- {n}: {f['limits']}." for n, f in faults.items() if f["limits"]]
    lines += [
        "- Everything ran on a CPU. On a GPU kernels may add in any order: the record then says `statistical`,",
        "  and a resumed adapter is as good as, but not bit for bit, the uninterrupted one.",
    ]
    broken = [(n, b) for n, f in faults.items() for b in f["broken"]]
    if broken:
        lines += ["", "Broken promises:", "", *(f"- {n}: {b}" for n, b in broken)]
    lines += [
        "",
        "## Would the tests notice?",
        "",
        "Each line that keeps a promise was taken out of a copy of the code; this is the first test that failed.",
        "",
        "| taken out | of | first test that fails |",
        "|---|---|---|",
    ]
    for m in result["mutations"]:
        test = f"`{m['test']}`" if m["test"] else "**none: nothing notices**"
        lines.append(f"| {m['what']} | {m['file']} | {test} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "page", "check"))
    parser.add_argument("--only", default="", help="F1,F2: the others keep their last result")
    parser.add_argument("--no-mutations", action="store_true")
    options = parser.parse_args()
    if options.action == "run":
        only = [n for n in options.only.split(",") if n]
        result = run(only, not options.no_mutations)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    if options.action == "check":
        return int(PAGE.read_text(encoding="utf-8") != page(result))
    PAGE.write_text(page(result), encoding="utf-8")
    whole = all(f["tried"] == f["kept"] for f in result["faults"].values())
    return int(not (whole and all(m["test"] for m in result["mutations"])))


if __name__ == "__main__":
    sys.exit(main())
