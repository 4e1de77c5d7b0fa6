"""Does training time grow in proportion to the corpus, and does memory stay where it was?

    python benchmarks/scaling.py [--data FOLDER] [--unit 12000] [--rounds 2] [--lock FILE] [--json FILE]

Real documents (those of train_cpu.py) in 1, 4 and 16 times the amount, and the same amount cut into
documents of at most 256, 1024 and 4096 tokens, through the whole of `hauslm.train` in a process of its own.
The base is a random model of two narrow layers on purpose: where the model is cheap, the cost of the loop,
the packing and the data shows. Reported are processor and wall seconds of the steps, peak memory above
that before the base was loaded, and the exponent of a straight line through log(tokens), log(seconds):
1.0 is linear. For the lengths, seconds per token grow with attention; the exponent is that growth's.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import train_cpu

TIMES = (1, 4, 16)
LENGTHS = (256, 1024, 4096)
LENGTH_TIMES = 4  # the amount at which lengths are compared
TINY = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}


def documents(folder: Path, tokens: int, longest: int) -> list[list[int]]:
    """Token ids of real documents, exactly `tokens` in all (the corpus again where it is too small)."""
    from transformers import AutoTokenizer

    from hauslm import embedded

    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    groups, _ = train_cpu.articles(folder, np.random.default_rng(0))
    found: list[list[int]] = []
    left = tokens
    while left > 8:
        for prompt, text in (pair for group in groups for pair in group):
            ids = [*tokenizer(prompt + text, verbose=False)["input_ids"], tokenizer.eos_token_id]
            for start in range(0, len(ids), longest):
                piece = ids[start : start + min(longest, left)]
                if len(piece) > 8 and left > 8:
                    found.append(piece)
                    left -= len(piece)
            if left <= 8:
                break
    return found


def one(order: dict[str, Any]) -> dict[str, float]:
    """Train once here; what it took."""
    from hauslm.train import threads

    threads.settle()
    import resource

    from hauslm.base.files import ProjectFolder
    from hauslm.base.progress import Silent
    from hauslm.data.store import Example, write_store
    from hauslm.records import Corpus, Documents, Split
    from hauslm.scenario import parse
    from hauslm.train import leg, trainer  # noqa: F401 - loaded before memory is read
    from hauslm.train.loop import train

    project = ProjectFolder(Path(order["folder"]))
    data = json.loads(Path(order["documents"]).read_text(encoding="utf-8"))
    for split, part in (("train", data), ("validation", data[:2])):
        examples = [
            Example(np.array(d, dtype=np.uint32), np.ones(len(d), dtype=bool), {"id": str(i)})
            for i, d in enumerate(part)
        ]
        write_store(project.work / "prepared" / split, examples)
        del examples
    del data
    settings = {
        "model": {"base": "tiny", "path": order["base"]},
        "adapter": train_cpu.LORA,
        "training": {
            "seq_len": order["seq_len"],
            "micro_batch_size": max(1, 2048 // order["seq_len"]),
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "validate_every_steps": 10**6,
        },
    }
    none = Split(train=0, validation=0, test=0)
    corpus = Corpus(
        documents=Documents(read=0), documents_split=none, examples=none, tokens=none,
        fingerprint="benchmark",
    )  # fmt: skip
    before = train_cpu.rss_gib()
    run = train(parse(json.dumps(settings)), project, plan=None, corpus=corpus, progress=Silent())
    lines = (project.work / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    return {
        "tokens": run.tokens,
        "steps": run.steps,
        "seconds": run.tokens / run.tokens_per_second.value,
        "cpu_seconds": sum(json.loads(line).get("cpu_seconds", 0.0) for line in lines),
        "working_gib": peak - before,
    }


def exponent(xs: list[float], ys: list[float]) -> float:
    """Slope of the least-squares line through (log x, log y)."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mx, my = statistics.fmean(lx), statistics.fmean(ly)
    over = sum((a - mx) * (b - my) for a, b in zip(lx, ly, strict=True))
    return over / sum((a - mx) ** 2 for a in lx)


def _point(base: Path, folder: Path, amount: int, longest: int, data: Path, rounds: int,
           lock: Path | None) -> dict[str, float]:  # fmt: skip
    """The fastest of `rounds` runs of one size (load only ever adds), the highest memory."""
    file = folder / "documents.json"
    file.write_text(json.dumps(documents(data, amount, longest)), encoding="utf-8")
    rows = []
    for number in range(rounds):
        order = {
            "folder": str(folder / f"run-{amount}-{longest}-{number}"),
            "documents": str(file), "base": str(base), "seq_len": longest,
        }  # fmt: skip
        command = [sys.executable, __file__, "--one", json.dumps(order)]
        with lock.open("a") if lock else nullcontext() as held:
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_EX)
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            sys.exit(done.stderr.decode()[-3000:])
        rows.append(json.loads(done.stdout.decode().splitlines()[-1]))
    best = min(rows, key=lambda r: r["cpu_seconds"])
    best["working_gib"] = max(r["working_gib"] for r in rows)
    best["longest"] = longest
    print(best, file=sys.stderr)
    return best


def run(data: Path, unit: int, rounds: int, lock: Path | None) -> dict[str, Any]:
    """All sizes and lengths."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = train_cpu.random_mistral(TINY, folder / "base", dtype="float32")
        sizes = [_point(base, folder, unit * n, 1024, data, rounds, lock) for n in TIMES]
        lengths = [
            _point(base, folder, unit * LENGTH_TIMES, n, data, rounds, lock) for n in LENGTHS
        ]
    tokens = [s["tokens"] for s in sizes]
    return {
        "machine": train_cpu.machine(os.cpu_count() or 1),
        "sizes": sizes,
        "lengths": lengths,
        "size_exponent_cpu": exponent(tokens, [s["cpu_seconds"] for s in sizes]),
        "size_exponent_wall": exponent(tokens, [s["seconds"] for s in sizes]),
        "memory_growth": sizes[-1]["working_gib"] / sizes[0]["working_gib"],
        "length_exponent_cpu": exponent(
            [float(n) for n in LENGTHS], [s["cpu_seconds"] / s["tokens"] for s in lengths]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=train_cpu.SHARED)
    parser.add_argument("--unit", type=int, default=12_000, help="tokens of the smallest size")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lock", type=Path, help="file that is locked while a run is measured")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(json.loads(asked.one))))
        return
    result = run(asked.data, asked.unit, asked.rounds, asked.lock)
    print(json.dumps({k: v for k, v in result.items() if k != "machine"}, indent=2))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
