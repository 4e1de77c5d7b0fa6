"""The table of docs/server.md from benchmarks/results/serve.json.

python scripts/server_page.py          write it
python scripts/server_page.py check    is it what the results give? exit 1 otherwise
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "serve.json"
PAGE = ROOT / "docs" / "server.md"
START, END = "<!-- serve.json -->\n", "<!-- end of serve.json -->\n"


def table() -> str:
    """One row for each model: the engine, and what HTTP adds to its processor time."""
    rows = [
        "| model, batch | engine, ms of processor time a token | whole answers add | of the same round | streams add | of the same round |",
        "|---|---|---|---|---|---|",
    ]
    for found in json.loads(RESULT.read_text(encoding="utf-8")).values():
        added = []
        for way in ("http", "stream"):
            for kind in ("overhead_cpu", "overhead_within"):
                ratio = found[way].get(kind)
                if ratio is None:
                    added.append("not measured")
                    continue
                added.append(
                    f"{ratio['median']:+.1%} ({ratio['low']:+.1%} to {ratio['high']:+.1%})"
                )
        engine = found["engine"]["cpu_ms_per_token"]
        rows.append(f"| {found['model']}, {found['batch']} | {engine:.2f} | {' | '.join(added)} |")
    last = (
        f"\nProcessor time of the server's process, median of the rounds in turn (lowest to highest), "
        "of the same round: all of it over what was spent inside the engine, which other work on the machine "
        f"moves less; {found['machine']}; torch {found['versions']['torch']}, uvicorn {found['versions']['uvicorn']}.\n"
    )
    return "\n".join(rows) + "\n" + last


def page() -> str:
    """The page with the table put in."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[-1] if END in rest else rest
    return before + START + table() + END + after


if __name__ == "__main__":
    made = page()
    if sys.argv[1:] == ["check"]:
        sys.exit(made != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(made, encoding="utf-8")
