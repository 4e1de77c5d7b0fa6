"""Do journal and scheduler of `hauslm analyse` hold ten million articles? Bounded memory, linear time.

    python benchmarks/journal_scale.py [--articles 100000 1000000] [--minutes 10] [--save]

The real parts without a model: shards of 64 articles are handed to four workers and come back in another
order (the scheduler of `cluster.py`), each article gives one row of the usual size, new rows go to the
journal with an fsync for each group (`journal.py`), all rows are written in order to JSONL and Parquet
(`output.py`). One worker in 500 shards "dies" after half of its rows. Then the journal is opened
again, as after a kill, and every fourth of a thousand shards is looked up. Each size runs in a process of
its own; memory is its peak (VmHWM) above that before the first article. Ten million are extrapolated from
the largest size that ran, and labelled so. One JSON object; --save: benchmarks/results/journal_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "journal_scale.json"
TARGET = 10_000_000
WORKERS = 4
SHARD = 64
GROUP = 32
DIES_EVERY = 500  # shards
MIB = 1 << 20


def row_of(number: int) -> dict[str, Any]:
    """A row as `analyse` makes it, about 1.2 kB."""
    name = f"PMC{number:08d}"
    digest = sha256(name.encode()).hexdigest()
    return {
        "key": sha256(f"{name}/key".encode()).hexdigest(), "article": name, "article_sha256": digest,
        "title": f"On the shrinkage of leather in organ bellows, part {number}", "language": "en",
        "model": "m", "model_sha256": digest, "adapter": "adapter", "adapter_sha256": digest,
        "engine": '{"name":"transformers","version":"5"}', "template": "classification",
        "template_version": 1, "template_sha256": digest, "level": "section", "section": "Results",
        "start": 0, "end": 5000, "overlap": 0, "question": "", "untrusted": [],
        "prompt_sha256": digest, "attempts": 1, "prompt_tokens": 1400, "completion_tokens": 60,
        "seconds": 0.5, "status": "valid", "reason": "", "schema_valid": True,
        "finish_reason": "stop", "answer": {"label": "results", "reason": "It tells what was found."},
        "quote": "The old leather shrank at 41 degrees on average.", "quote_found": True,
        "quote_start": 10, "quote_end": 58,
        "raw": '{"quote":"The old leather shrank at 41 degrees on average.","label":"results"}',
    }  # fmt: skip


def memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


class Simulated:
    """The articles of a shard, answered by nobody."""

    def __init__(self, journal: Any, todo: Any, results: Any) -> None:
        self.journal, self.todo, self.results = journal, todo, results
        self.lost = 0
        self.appended = 0
        self.lock = threading.Lock()

    def work(self) -> None:
        try:
            while (taken := self.todo.take()) is not None:
                self._one(*taken)
        except BaseException as error:
            self.results.put(error)
        self.results.put(None)

    def _one(self, number: int, shard: list[Any], deaths: int) -> None:
        known = self.journal.known(p.identity for p in shard)
        rows = [known.get(r["key"], r) for r in (row_of(p.number) for p in shard)]
        dies = number % DIES_EVERY == 1 and not deaths
        for start in range(0, len(rows) // 2 if dies else len(rows), GROUP):
            added = self.journal.append(rows[start : start + GROUP])
            with self.lock:
                self.appended += added
        if dies:
            with self.lock:
                self.lost += 1
            self.todo.back(number, shard, 1)
            return
        self.todo.done()
        self.results.put((number, shard, rows))


def shards(count: int) -> Iterator[list[Any]]:
    from hauslm.analyse.sources import Placed
    from hauslm.data.document import Document

    for start in range(0, count, SHARD):
        names = [f"PMC{n:08d}" for n in range(start, min(count, start + SHARD))]
        yield [
            Placed(Document(x, x, "", sha256=sha256(x.encode()).hexdigest()), x, start + i)
            for i, x in enumerate(names)
        ]


def simulate(count: int) -> dict[str, Any]:
    from hauslm.analyse.cluster import AHEAD, Spread, _Shards
    from hauslm.analyse.journal import RowJournal
    from hauslm.analyse.output import RowWriter

    folder = Path(tempfile.mkdtemp(prefix="journal-scale-", dir=os.environ.get("TMPDIR")))
    schema = {"properties": {"label": {"type": "string"}, "reason": {"type": "string"}}}
    try:
        before, started, cpu = memory("VmRSS"), time.monotonic(), time.process_time()
        window = threading.Semaphore(AHEAD * WORKERS)
        todo = _Shards(shards(count), window)
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        half: dict[str, float] = {}
        written = 0
        with RowJournal(folder / "journal.jsonl") as journal, RowWriter(folder, schema) as writer:
            crew = Simulated(journal, todo, results)
            for _ in range(WORKERS):
                threading.Thread(target=crew.work, daemon=True).start()
            # The order and the window are those of the Ray engine itself.
            ordered = Spread._in_order(object.__new__(Spread), results, WORKERS, window, todo)
            for shard, rows in ordered:
                assert [r["article"] for r in rows] == [p.document.id for p in shard]
                writer.write(rows)
                written += len(rows)
                if written >= count // 2 and not half:
                    half = {"seconds": time.monotonic() - started, "peak": memory("VmHWM")}
            writer.close()
            assert written == crew.appended == journal.rows == count, "lost or double"
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        peak = memory("VmHWM")
        size = (folder / "journal.jsonl").stat().st_size
        opened = time.monotonic()
        with RowJournal(folder / "journal.jsonl") as journal:
            opening = time.monotonic() - opened
            assert journal.rows == count
            looked, at = 0, time.monotonic()
            step = max(1, count // SHARD // 250)
            for number, shard in enumerate(shards(count)):
                if number % step == 0:
                    looked += 1
                    assert len(journal.known(p.identity for p in shard)) == len(shard)
            looking = time.monotonic() - at
        return {
            "articles": count,
            "seconds": round(seconds, 1),
            "processor_seconds": round(cpu, 1),
            "microseconds_per_article": round(1e6 * seconds / count, 1),
            "second_half_over_first": round((seconds - half["seconds"]) / half["seconds"], 2),
            "peak_memory_mib": round((peak - before) / MIB, 1),
            "peak_memory_mib_at_half": round((half["peak"] - before) / MIB, 1),
            "journal_mib": round(size / MIB, 1),
            "reopening_seconds": round(opening, 1),
            "reopened_peak_memory_mib": round((memory("VmHWM") - before) / MIB, 1),
            "milliseconds_per_shard_looked_up": round(1000 * looking / looked, 2),
            "workers_lost": crew.lost,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--minutes", type=float, default=10.0, help="for a third, larger size")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(simulate(options.one)))
        return
    runs = [_run(n) for n in options.articles]
    last = runs[-1]
    spent = sum(r["seconds"] + r["reopening_seconds"] for r in runs)
    left = options.minutes * 60 - spent
    per = (last["seconds"] + last["reopening_seconds"]) / last["articles"]
    largest = int(0.85 * left / per) // 100_000 * 100_000
    if largest >= 2 * last["articles"]:
        runs.append(_run(min(largest, TARGET)))
    last = runs[-1]
    times = TARGET / last["articles"]
    result = {
        "what": "journal, scheduler and output of hauslm analyse, without a model",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "rows_per_article": 1,
        "runs": runs,
        "extrapolated": {
            "how": f"proportional from {last['articles']:,} articles; not measured",
            "articles": TARGET,
            "hours": round(times * last["seconds"] / 3600, 2),
            "reopening_minutes": round(times * last["reopening_seconds"] / 60, 1),
            "journal_gib": round(times * last["journal_mib"] / 1024, 1),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.save:
        RESULT.write_text(text + "\n", encoding="utf-8")


def _run(count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(count)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    parsed: dict[str, Any] = json.loads(found.stdout)
    print(json.dumps(parsed), file=sys.stderr)
    return parsed


if __name__ == "__main__":
    main()
