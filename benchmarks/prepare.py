"""How fast is preparing against the tokenizer library alone, and how much memory does it take?

Generated articles (deterministic; words of a Zipf-like vocabulary, so no text of anybody) are written as
JSONL of about `--megabytes`. Then, alternating round by round so that a busy machine hits both alike:

1. the tokenizer library's `encode_batch_fast` over all texts, all cores, in batches of 2 MB;
2. the step of `hauslm prepare` that tokenizes: spool to sealed examples by shard, all cores (by kitoken,
   whose trial is over before, and is part of 3);
3. with `--whole`, all of `hauslm prepare` on a project, in processes of its own whose memory is watched;
   and after the rounds once more, killed at 70 % of that time and started again.

The ratios are 1 / 2 and 1 / 3 (time of the library over time of ours). The whole preparation also reads,
hashes words, looks for near-duplicates and personal data, splits and writes the corpus. Beside the wall
times stand processor seconds, which another load on the machine disturbs less. Results go to benchmarks/results/prepare.json.

    python benchmarks/prepare.py --megabytes 500 --rounds 3

`--articles FILE` does the same once more with real texts (the page's figure is from 2,290 open-access articles).
"""

from __future__ import annotations

import argparse
import importlib.metadata
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from hauslm import embedded
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.data import workers
from hauslm.data.build import BATCH_OF_ONE_CORE, Job, examples_of_shard
from hauslm.data.gather import gather
from hauslm.data.spool import read_shard
from hauslm.data.store import ExampleStore
from hauslm.data.tokens import Tokenizer
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


def size_of(corpus: Path) -> tuple[int, int]:
    with corpus.open(encoding="utf-8") as stream:
        sizes = [len(json.loads(line)["text"].encode()) for line in stream]
    return len(sizes), sum(sizes)


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


def library_seconds(spool: Path, shards: list[Any]) -> tuple[float, float]:
    """The library's own batch speed, all cores, nothing kept: wall and processor seconds.

    In a process of its own each time, as ours has: in one that had tokenized before, four rounds took 20.6,
    24.1, 23.5 and 27.5 s for the same 100 MB, which would have flattered ours.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_library, spool, shards).result()


def _library(spool: Path, shards: list[Any]) -> tuple[float, float]:
    texts = batches(spool, shards)
    tokenizer = RustTokenizer.from_file(str(embedded.MODEL / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    wall, processor = time.monotonic(), processor_s(resource.RUSAGE_SELF)
    for batch in texts:
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return time.monotonic() - wall, processor_s(resource.RUSAGE_SELF) - processor


def kitoken_passes() -> bool:
    tokenizer = Tokenizer(embedded.MODEL)
    trial = tokenizer.trial()
    return trial is not None and tokenizer.passed(trial)


def step_seconds(folder: Path, spool: Path, shards: list[Any], quick: bool) -> float:
    """What `prepare` does to tokenize, with its team of processes already running."""
    job = Job(spool=spool, folder=folder, base=embedded.MODEL, seq_len=512, use_text=True,
              quick=quick)  # fmt: skip
    with workers.team(sum(s.end - s.start for s in shards)) as team:
        if team.grow(0):
            job = replace(job, batch_characters=BATCH_OF_ONE_CORE)
        arguments = [(job, s) for s in shards]
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
    """`hauslm prepare` with its processes: wall and processor seconds, and the peak of their memory.

    `peak_mib` is what all its processes hold together that is not a file (Pss_Anon of the kernel, looked
    at every second); `largest_rss_mib` is the kernel's own peak of the largest process, mapped files
    (which can be dropped at any time) included.
    """
    code = "import sys\nfrom hauslm import flow\nflow.prepare(sys.argv[1])\n"
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.DEVNULL,
                             start_new_session=True)  # fmt: skip
    peak = 0
    ended = False
    while not ended:
        if kill_after_s is not None and time.monotonic() - started > kill_after_s:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return {"killed_after_s": round(time.monotonic() - started, 1)}
        peak = max(peak, anonymous_kib(child.pid))
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=1)
            ended = True
    seconds = time.monotonic() - started
    if child.returncode:
        raise SystemExit(f"hauslm prepare ended with {child.returncode}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 2),
        "peak_mib": peak // 1024,
        "largest_rss_mib": used.ru_maxrss // 1024,
    }


def anonymous_kib(group: int) -> int:
    """What the processes of a process group hold together, shared pages counted once."""
    total = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):  # a process that has just ended
            if os.getpgid(int(process.name)) == group:
                for line in (process / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss_Anon:"):
                        total += int(line.split()[1])
    return total


def processor_s(of: int) -> float:
    used = resource.getrusage(of)
    return used.ru_utime + used.ru_stime


def disk_mib(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) >> 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument(
        "--articles",
        type=Path,
        default=None,
        help="JSONL with a field 'text': once more with these",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--whole", action="store_true", help="also all of hauslm prepare, and resumed"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files go (default: temporary)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = measure(Path(name) / "generated", options, None)
        if options.articles:
            result["articles"] = measure(Path(name) / "articles", options, options.articles)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(folder: Path, options: argparse.Namespace, given: Path | None) -> dict[str, Any]:
    folder.mkdir()
    if given:
        corpus = given.resolve()
        documents, size = size_of(corpus)
    else:
        corpus = folder / "corpus.jsonl"
        documents, size = write_corpus(corpus, options.megabytes)
    project(folder / "project", corpus)
    scenario = parse((folder / "project" / "hauslm.yaml").read_text())
    building = ProjectFolder(folder / "project").work / "bench"
    gathered = gather(scenario, folder / "project", building, Silent())
    spool = building / "spool.jsonl"
    passed = kitoken_passes()
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        one, one_processor = library_seconds(spool, gathered.shards)
        parts = folder / f"parts-{number}"
        parts.mkdir()
        other = step_seconds(parts, spool, gathered.shards, passed)
        tokens = sum(
            ExampleStore.open(p.with_name(p.name.removesuffix(".offsets.bin"))).tokens
            for p in parts.glob("*.offsets.bin")
        )
        shutil.rmtree(parts)
        row = {
            "library_s": round(one, 2),
            "library_processor_s": round(one_processor, 2),
            "prepare_s": round(other, 2),
            "ratio": round(one / other, 3),
        }
        if options.whole:
            began = processor_s(resource.RUSAGE_CHILDREN)
            row["whole"] = all_of_it = whole(folder / "project")
            all_of_it["processor_s"] = round(processor_s(resource.RUSAGE_CHILDREN) - began, 1)
            all_of_it["ratio"] = round(one / all_of_it["seconds"], 3)
            all_of_it["processor_ratio"] = round(one_processor / all_of_it["processor_s"], 3)
            if number < options.rounds - 1:
                shutil.rmtree(folder / "project" / "work" / "prepared")
        rounds.append(row)
    shutil.rmtree(building)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine(),
                    "load_at_end": [round(x, 1) for x in os.getloadavg()]},
        "corpus": {"documents": documents, "bytes": size, "kind": "real" if given else "generated", "tokens": tokens},
        "rounds": rounds,
        "ratio_median": statistics.median(r["ratio"] for r in rounds),
        "kitoken": importlib.metadata.version("kitoken") if passed else None,
        "library_mb_per_s": round(size / 1e6 / statistics.median(r["library_s"] for r in rounds), 2),
        "prepare_mb_per_s": round(size / 1e6 / statistics.median(r["prepare_s"] for r in rounds), 2),
        "this_process_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip
    if options.whole:
        each = [r["whole"] for r in rounds]
        result["whole"] = {
            "ratio_median": statistics.median(w["ratio"] for w in each),
            "processor_ratio_median": statistics.median(w["processor_ratio"] for w in each),
            "seconds_median": statistics.median(w["seconds"] for w in each),
            "mb_per_s": round(size / 1e6 / statistics.median(w["seconds"] for w in each), 2),
            "peak_mib": max(w["peak_mib"] for w in each),
            "prepared_mib": disk_mib(folder / "project"),
        }
        shutil.rmtree(folder / "project" / "work" / "prepared")
        stopped = whole(folder / "project", kill_after_s=0.7 * each[-1]["seconds"])
        result["resumed"] = stopped | whole(folder / "project")
    return result


if __name__ == "__main__":
    main()
