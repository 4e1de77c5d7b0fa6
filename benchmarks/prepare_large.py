"""Does a corpus that does not fit into memory go through `hauslm prepare`, killed on the way?

    python benchmarks/prepare_large.py --folder DIR [--gigabytes 5] [--kill-after 600] [--save]

Generated articles (those of prepare.py) are written as one JSONL file of about `--gigabytes`, a project is
made, `hauslm prepare` is started, killed with SIGKILL (all its processes) after `--kill-after` seconds and
started again until it ends. Told are wall seconds, processor seconds, the peak of memory of all its
processes together (Pss_Anon, looked at twice a second: what is not a file), the most disk that its folder
held, and what stands in its record; and checked that every document is in it exactly once, that nothing
was cut, and that each document's tokens are those of the tokenizer library (a sample, drawn by number).
How the result compares with an uninterrupted run is a matter of tests, at a smaller size. --save writes
benchmarks/results/prepare_large.json. Needs about ten times the corpus in free disk space.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prepare import anonymous_kib, disk_mib, processor_s, project, write_corpus
from tokenizers import Tokenizer as RustTokenizer

from hauslm import embedded
from hauslm.data.split import SPLITS
from hauslm.data.store import ExampleStore

RESULT = Path(__file__).parent / "results" / "prepare_large.json"
CODE = "import sys\nfrom hauslm import flow\nflow.prepare(sys.argv[1])\n"
SAMPLE = 200
LOOK_S = 0.5
DISK_EVERY = 40  # looks


def attempt(folder: Path, kill_after_s: float | None) -> dict[str, Any]:
    """One start of `hauslm prepare`, until it ends or is killed."""
    began, started = processor_s(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "bench.log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-c", CODE, str(folder)], stdout=log, stderr=log,
                                 start_new_session=True)  # fmt: skip
    peak = disk = looks = 0
    killed = False
    while child.poll() is None:
        if kill_after_s is not None and time.monotonic() - started > kill_after_s:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            killed = True
            break
        peak = max(peak, anonymous_kib(child.pid))
        if looks % DISK_EVERY == 0:
            disk = max(disk, disk_mib(folder))
        looks += 1
        time.sleep(LOOK_S)
    if not killed and child.returncode:
        raise SystemExit(f"hauslm prepare ended with {child.returncode}: see {folder}/bench.log")
    return {
        "killed": killed,
        "seconds": round(time.monotonic() - started, 1),
        # Of processes that were killed together with their parent nobody counts the processor time.
        "processor_s": None if killed else round(processor_s(resource.RUSAGE_CHILDREN) - began, 1),
        "peak_mib": peak // 1024,
        "disk_mib": max(disk, disk_mib(folder)),
    }


def check(folder: Path, corpus: Path, documents: int) -> dict[str, Any]:
    """Every document once, nothing cut, the labels of a sample exactly the library's tokens and the end."""
    record = json.loads((folder / "records" / "corpus.json").read_text(encoding="utf-8"))
    prepared = folder / "work" / "prepared"
    seen = bytearray(documents + 1)
    split_of: dict[str, str] = {}
    texts: dict[str, str] = {}
    wanted = {f"a{n}" for n in random.Random(5).sample(range(1, documents + 1), min(SAMPLE, documents))}  # fmt: skip
    with (prepared / "documents.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            number = int(row["id"].removeprefix("a"))
            if seen[number]:
                raise SystemExit(f"{row['id']} is in documents.jsonl twice")
            seen[number] = 1
            if row["id"] in wanted:
                split_of[row["id"]], texts[row["id"]] = row["split"], row["text"]
    if sum(seen) != documents:
        raise SystemExit(f"{sum(seen)} documents of {documents} are in documents.jsonl")
    labels: dict[str, list[int]] = {}
    for split in set(split_of.values()):
        labels |= _labels(prepared / split, {i for i, own in split_of.items() if own == split})
    tokenizer = RustTokenizer.from_file(str(embedded.MODEL / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id("</s>")
    compared = 0
    with corpus.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["id"] not in wanted:
                continue
            text = texts[row["id"]]
            if text.split() != row["text"].split():  # blank lines and ends are made uniform
                raise SystemExit(f"{row['id']} has lost words")
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if labels.get(row["id"]) != [*ids, end]:
                raise SystemExit(f"the labels of {row['id']} are not its tokens")
            compared += 1
    return {
        "documents": documents,
        "rejected": len(record["documents"]["rejected"]),
        "truncated": record["truncated"],
        "examples": {s: len(ExampleStore.open(prepared / s)) for s in SPLITS},
        "tokens": sum(ExampleStore.open(prepared / s).tokens for s in SPLITS),
        "labels_compared_with_the_library_documents": compared,
    }


def _labels(prefix: Path, documents: set[str]) -> dict[str, list[int]]:
    """The tokens that count of the examples of some documents, one after the other."""
    store = ExampleStore.open(prefix)
    found: dict[str, list[int]] = {}
    with Path(f"{prefix}.meta.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            document = json.loads(line)["document"]
            if document in documents:
                example = store[number]
                found.setdefault(document, []).extend(example.tokens[example.trained].tolist())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="where everything goes")
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--kill-after", type=float, default=600.0, help="seconds; 0: not at all")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    corpus, folder = options.folder / "corpus.jsonl", options.folder / "project"
    documents, size = write_corpus(corpus, options.gigabytes * 1000)
    project(folder, corpus)
    load = os.getloadavg()[0]
    attempts = [attempt(folder, options.kill_after)] if options.kill_after else []
    if not attempts or attempts[0]["killed"]:
        attempts.append(attempt(folder, None))
    seconds = sum(a["seconds"] for a in attempts)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(),
                    "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)},
        "corpus": {"bytes": size, "documents": documents, "kind": "generated"},
        "attempts": attempts,
        "seconds": round(seconds, 1),
        "mb_per_s": round(size / 1e6 / seconds, 2),
        "peak_mib": max(a["peak_mib"] for a in attempts),
        "disk_mib": max(a["disk_mib"] for a in attempts),
        "prepared_mib": disk_mib(folder / "work" / "prepared"),
        "checked": check(folder, corpus, documents),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.save:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
