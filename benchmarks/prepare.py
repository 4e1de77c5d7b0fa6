"""How fast is preparing against the tokenizer library alone, and how much memory does it take?

Generated articles (deterministic; words of a Zipf-like vocabulary, so no text of anybody) are written as
JSONL of about `--megabytes`. Then, alternating round by round so that a busy machine hits both alike:

1. the tokenizer library's `encode_batch_fast` over all texts, all cores, in batches of 2 MB;
2. the step of `hauslm prepare` that tokenizes: spool to sealed, memory-mapped examples, all cores;
3. once, the whole `hauslm prepare` of a project, in a process of its own whose peak resident memory (of
   it and of its largest child) is what the kernel counted; and once more after being killed half-way.

The ratio asked for is 1 / 2 (time of the library over time of the step). The whole preparation also reads,
hashes words, looks for near-duplicates and personal data, splits and writes the corpus: its ratio stands
beside it. Results go to benchmarks/results/prepare.json.

    python benchmarks/prepare.py --megabytes 500 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from hauslm import embedded
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.data import workers
from hauslm.data.build import Job, examples_of_shard
from hauslm.data.gather import gather
from hauslm.data.split import TRAIN
from hauslm.data.spool import read_shard
from hauslm.data.store import ExampleStore
from hauslm.scenario import parse

RESULTS = Path(__file__).parent / "results" / "prepare.json"
BATCH_CHARACTERS = 2_000_000
LETTERS = "aaaeeeeiiioouutttnnssrrldhcmpfgbvwky"


def vocabulary(generator: random.Random, size: int = 40_000) -> list[str]:
    return ["".join(generator.choices(LETTERS, k=generator.randint(2, 11))) for _ in range(size)]


def articles(megabytes: float, seed: int = 7) -> Iterator[str]:
    """Articles of 8 to 60 kB: sentences and paragraphs, numbers, a few umlauts."""
    generator = random.Random(seed)
    words = vocabulary(generator)
    weights = [1 / (n + 3) for n in range(len(words))]
    pool = generator.choices(words, weights, k=2_000_000)  # drawing in bulk is 20 times faster
    written, number = 0, 0
    while written < megabytes * 1e6:
        start, size = generator.randrange(len(pool) - 12_000), generator.randint(1200, 9000)
        chosen = pool[start : start + size]
        lines = []
        for i in range(0, size, 18):
            sentence = " ".join(chosen[i : i + 18])
            lines.append(f"{sentence.capitalize()}, {generator.random() * 90:.2f} µm größer.")
            if i % 126 == 108:
                lines.append("\n\n")
        text = " ".join(lines)
        written += len(text.encode())
        number += 1
        yield text


def write_corpus(path: Path, megabytes: float) -> tuple[int, int]:
    """Returns documents and bytes of text."""
    count = size = 0
    with path.open("w", encoding="utf-8") as stream:
        for text in articles(megabytes):
            count += 1
            size += len(text.encode())
            row = {"id": f"a{count}", "title": f"Article {count}", "text": text}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count, size


def library_seconds(texts: list[list[str]]) -> float:
    """The library's own batch speed: all cores, nothing kept."""
    tokenizer = RustTokenizer.from_file(str(embedded.MODEL / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    started = time.monotonic()
    for batch in texts:
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return time.monotonic() - started


def batches(spool: Path, shards: list[Any]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    size = 0
    for shard in shards:
        for document in read_shard(spool, shard):
            found[-1].append(document.text)
            size += len(document.text)
            if size >= BATCH_CHARACTERS:
                found.append([])
                size = 0
    return [b for b in found if b]


def step_seconds(folder: Path, spool: Path, shards: list[Any], ids: list[dict[str, str]]) -> float:
    """What `prepare` does to tokenize, with its team of processes already running."""
    job = Job(spool=spool, folder=folder, base=embedded.MODEL, seq_len=512, use_text=True)
    arguments = [(job, s, i) for s, i in zip(shards, ids, strict=True)]
    with workers.team(sum(s.end - s.start for s in shards)) as team:
        list(team.each(os.getpid, [()] * 8, Silent(), "start"))
        started = time.monotonic()
        list(team.each(examples_of_shard, arguments, Silent(), "tokenize"))
        return time.monotonic() - started


def project(folder: Path, corpus: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "hauslm.yaml").write_text(
        f"name: bench\ndocuments: {{paths: [{corpus}]}}\ntraining: {{seq_len: 512}}\n"
    )


def whole(folder: Path, kill_after_s: float | None = None) -> dict[str, Any]:
    """`hauslm prepare`, its wall time and the kernel's peak of it and of its largest child."""
    code = (
        "import resource,sys,json\nfrom hauslm import flow\nflow.prepare(sys.argv[1])\n"
        "r=[resource.getrusage(w).ru_maxrss/1024 for w in (resource.RUSAGE_SELF,resource.RUSAGE_CHILDREN)]\n"
        "print(json.dumps(r))"
    )
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE,
                             start_new_session=True)  # fmt: skip
    try:
        out, _ = child.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return {"killed_after_s": round(time.monotonic() - started, 1)}
    seconds = time.monotonic() - started
    own, largest = json.loads(out.splitlines()[-1])
    return {
        "seconds": round(seconds, 1),
        "peak_rss_mib": round(own),
        "largest_child_mib": round(largest),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--whole", action="store_true", help="also the whole preparation, and resumed"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files go (default: temporary)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = measure(Path(name), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    corpus = folder / "corpus.jsonl"
    documents, size = write_corpus(corpus, options.megabytes)
    project(folder / "project", corpus)
    scenario = parse((folder / "project" / "hauslm.yaml").read_text())
    building = ProjectFolder(folder / "project").work / "bench"
    gathered = gather(scenario, folder / "project", building, Silent())
    spool = building / "spool.jsonl"
    ids = [{d.id: TRAIN for d in read_shard(spool, s)} for s in gathered.shards]
    rounds = []
    for number in range(options.rounds):
        texts = batches(spool, gathered.shards)
        one = library_seconds(texts)
        del texts
        parts = folder / f"parts-{number}"
        parts.mkdir()
        other = step_seconds(parts, spool, gathered.shards, ids)
        tokens = sum(
            ExampleStore.open(p.with_name(p.name.removesuffix(".offsets.bin"))).tokens
            for p in parts.glob("*.train.offsets.bin")
        )
        shutil.rmtree(parts)
        rounds.append(
            {
                "library_s": round(one, 2),
                "prepare_s": round(other, 2),
                "ratio": round(one / other, 3),
            }
        )
    shutil.rmtree(building)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine(),
                    "load_at_end": [round(x, 1) for x in os.getloadavg()]},
        "corpus": {"documents": documents, "bytes": size, "kind": "generated", "tokens": tokens},
        "rounds": rounds,
        "ratio_median": statistics.median(r["ratio"] for r in rounds),
        "library_mb_per_s": round(size / 1e6 / statistics.median(r["library_s"] for r in rounds), 2),
        "prepare_mb_per_s": round(size / 1e6 / statistics.median(r["prepare_s"] for r in rounds), 2),
        "this_process_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip
    if options.whole:
        result["whole"] = whole(folder / "project")
        result["whole"]["ratio"] = round(
            statistics.median(r["library_s"] for r in rounds) / result["whole"]["seconds"], 3
        )
        shutil.rmtree(folder / "project" / "work")
        stopped = whole(folder / "project", kill_after_s=0.7 * result["whole"]["seconds"])
        result["resumed"] = stopped | whole(folder / "project")
    return result


if __name__ == "__main__":
    main()
