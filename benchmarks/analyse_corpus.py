"""Does a whole real corpus go through `hauslm analyse`, and does being killed change nothing?

    python benchmarks/analyse_corpus.py --data DIR --work DIR [--abstracts 2000] [--articles N] [--kills 6] [--save]

Every article below `articles_jats` and `articles_pdf` of DIR and 2,000 abstracts, with the embedded model,
twice: once in one go, once killed with SIGKILL at random moments and started again each time. The rows of
both must be the same but for the seconds, each exactly once, every one valid against the schema when it is
looked at again here, and none cut off. Quotes that do not stand in their article are listed.

The benchmark may itself be stopped and started again with the same --work: what is finished is not done
again, and an analysis that was under way goes on from its journal (its articles/h then counts the last stretch
only, and the result says so). Exit code 1 if anything is not as it must be. One JSON object; --save writes it
to benchmarks/results/analyse_corpus.json. On two cores of an AMD EPYC: about twenty minutes for each of the
two, if nothing else runs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hauslm.analyse import templates
from hauslm.analyse.output import read_rows
from hauslm.analyse.runner import essence
from hauslm.embedded import MODEL
from hauslm.lm.schema import invalid

RESULT = Path(__file__).parent / "results" / "analyse_corpus.json"
LABELS = ["methods", "results", "background"]
ABSTRACTS = (
    *(f"task_roles_structured_abstracts/{part}.jsonl" for part in ("test", "dev", "train")),
    *(f"task_roles_csabstruct/{part}.jsonl" for part in ("test", "dev", "train")),
)
# Counted from the first row that it adds: a process killed before would only show that nothing was there.
SHORTEST_S, LONGEST_S = 0.2, 120.0
MOST_LISTED = 20


def abstracts(data: Path, count: int) -> Iterator[dict[str, str]]:
    """`count` abstracts as plain texts; fewer there is an error."""
    number = 0
    for name in ABSTRACTS:
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            if number == count:
                return
            row = json.loads(line)
            number += 1
            identity = str(row.get("id") or f"{name.split('/')[1]}-{number}")
            yield {
                "id": identity,
                "title": row.get("title", ""),
                "text": " ".join(row["sentences"]),
            }
    if number < count:
        raise SystemExit(f"only {number} abstracts below {data}")


def articles(data: Path, most: int | None) -> list[Path]:
    """The article files, smallest first if only some are wanted."""
    found = [
        p
        for folder in ("articles_jats", "articles_pdf")
        for p in sorted((data / folder).iterdir())
        if p.suffix in (".xml", ".nxml", ".pdf")
    ]
    return found if most is None else sorted(found, key=lambda p: p.stat().st_size)[:most]


def project(folder: Path, data: Path, options: argparse.Namespace) -> Path:
    """A project folder for one of the two runs; left alone if it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "abstracts.jsonl"
    lines = [json.dumps(a, ensure_ascii=False) for a in abstracts(data, options.abstracts)]
    text = "".join(line + "\n" for line in lines)
    paths = [str(p) for p in articles(data, options.articles)]
    asked = {
        "model": {"base": "embedded", "path": str(MODEL)},
        "analysis": {
            "paths": [*paths, listed.name], "template": "classification", "labels": LABELS,
            "batch_size": 8,
        },
    }  # fmt: skip
    for path, content in ((listed, text), (folder / "hauslm.yaml", json.dumps(asked))):
        if path.is_file() and path.read_text(encoding="utf-8") != content:
            raise SystemExit(f"{folder} is of another run: give another --work")
        path.write_text(content, encoding="utf-8")
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "hauslm", "analyse", "-C", str(folder), "--json"],
        stdout=(folder / "out.json").open("wb"), stderr=log,
    )  # fmt: skip


def finish(folder: Path) -> None:
    if start(folder).wait() != 0:
        raise SystemExit(f"hauslm analyse failed; see {folder / 'log.txt'}")


def journal_bytes(folder: Path) -> int:
    path = folder / "work" / "analysis" / "journal.jsonl"
    return path.stat().st_size if path.is_file() else 0


def whole(folder: Path) -> None:
    """In one go; `state.json` says that it is done and whether it was."""
    state = folder / "state.json"
    if state.is_file():
        return
    begun = journal_bytes(folder) > 0
    began = time.time()
    finish(folder)
    state.write_text(json.dumps({"seconds": time.time() - began, "in_one_go": not begun}))


def killed(folder: Path, kills: int, seed: int, longest_s: float) -> None:
    """Killed `kills` times while it works, `longest_s` at the most into each start, then left to end."""
    state = folder / "state.json"
    found: dict[str, Any] = json.loads(state.read_text()) if state.is_file() else {"killed": []}
    while not found.get("done") and len(found["killed"]) < kills:
        seconds = random.Random(f"{seed} {len(found['killed'])}").uniform(SHORTEST_S, longest_s)
        before = journal_bytes(folder)
        child = start(folder)
        while child.poll() is None and journal_bytes(folder) <= before:
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=seconds)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
            row = {"after_s": round(seconds, 1), "journal_grew_by": journal_bytes(folder) - before}
            found["killed"].append(row)
            state.write_text(json.dumps(found))
        elif child.returncode == 0:
            found["done"] = True  # too short a corpus for so many kills: said in the result
        else:
            raise SystemExit(f"hauslm analyse failed; see {folder / 'log.txt'}")
    if not found.get("done"):
        finish(folder)
        found["done"] = True
    state.write_text(json.dumps(found))


def digest(rows: list[dict[str, Any]]) -> str:
    lines = (json.dumps(essence(r), sort_keys=True, ensure_ascii=False) for r in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def looked_at(folder: Path) -> dict[str, Any]:
    """The rows of a finished run, checked here once more."""
    rows = list(read_rows(folder / "analysis" / "rows.jsonl"))
    schema = templates.load("classification", "en", LABELS).row_schema((), bind_quote=False)
    sections = [r for r in rows if r["level"] == "section"]
    wrong = [
        f"{r['article']} {r['start']}: {reason}"
        for r in sections
        if (reason := r["reason"] or invalid(json.loads(r["raw"]), schema))
    ]
    lost = [
        {"article": r["article"], "start": r["start"], "quote": r["quote"]}
        for r in sections
        if r["quote"] and not r["quote_found"]
    ]
    keys = Counter((r["article_sha256"], r["article"], r["level"], r["key"]) for r in rows)
    return {
        "rows": len(rows),
        "articles": len({(r["article"], r["article_sha256"]) for r in rows}),
        "sections": len(sections),
        "not_valid": len(wrong), "not_valid_first": wrong[:MOST_LISTED],
        "cut_off": sum(r["finish_reason"] == "length" for r in sections),
        "twice": sum(n - 1 for n in keys.values()),
        "quotes_found": sum(bool(r["quote"]) and r["quote_found"] for r in sections),
        "quotes_empty": sum(not r["quote"] for r in sections),
        "quotes_not_found": len(lost), "quotes_not_found_first": lost[:MOST_LISTED],
        "sha256_without_seconds": digest(rows),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the two projects")
    parser.add_argument("--abstracts", type=int, default=2000)
    parser.add_argument("--articles", type=int, help="only the N smallest files")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    data = options.data.resolve()
    one = project(options.work / "whole", data, options)
    two = project(options.work / "killed", data, options)
    whole(one)
    needed_s = json.loads((one / "state.json").read_text())["seconds"]
    killed(two, options.kills, options.seed, min(LONGEST_S, needed_s / max(1, options.kills)))
    first, second = looked_at(one), looked_at(two)
    record = json.loads((one / "out.json").read_text(encoding="utf-8"))
    times = json.loads((two / "state.json").read_text())["killed"]
    same = first["sha256_without_seconds"] == second["sha256_without_seconds"]
    result = {
        "files": len(articles(data, options.articles)),
        "abstracts": options.abstracts,
        "whole": first | json.loads((one / "state.json").read_text()),
        "killed": times,
        "rows_identical": same,
        "articles_per_hour": record["documents_per_hour"]["value"],
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent,
            capture_output=True, text=True, check=False,
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if options.save:
        RESULT.write_text(text + "\n", encoding="utf-8")
    sound = same and not (first["not_valid"] or first["cut_off"] or first["twice"])
    sys.exit(0 if sound and len(times) == options.kills else 1)


if __name__ == "__main__":
    main()
