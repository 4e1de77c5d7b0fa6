"""The security campaign: measured once in a while, written down, shown in docs/security.md.

    python scripts/security.py parsers [--cases N] [--engine mutation|atheris]   each parser, N inputs
    python scripts/security.py api [--cases N]      each operation of server and pages, N requests in all
    python scripts/security.py table                packets by way out and layer, counted in the trap
    python scripts/security.py docs                 docs/security.md from benchmarks/security/measured.json

Each part replaces its own figures in measured.json with those of this run, defects included. The tests
run the same code with few cases, and check that the page shows the file's figures and no defects.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED, PAGE = ROOT / "benchmarks" / "security" / "measured.json", ROOT / "docs" / "security.md"
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.security import parsers, ways_out  # noqa: E402


def _keep(part: str, figures: dict[str, Any]) -> None:
    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    known[part] = {
        "date": datetime.date.today().isoformat(), "python": platform.python_version(), "kernel": kernel, **figures,
    }  # fmt: skip
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    MEASURED.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{part}: {len(figures.get('defects', []))} defects")


# ---------------------------------------------------------------- parsers


def mutation(cases: int, only: list[str]) -> None:
    """Mutated sound inputs, hand-made pieces and noise (tests/security/parsers.py).

    With `only`, these parsers alone are run again and the others keep their figures.
    """
    before = json.loads(MEASURED.read_text(encoding="utf-8"))["parsers"] if only else {}
    rows: dict[str, Any] = dict(before.get("rows", {}))
    defects = [d for d in before.get("defects", []) if d.split(":")[0] not in only]
    for name, target in parsers.TARGETS.items():
        if only and name not in only:
            continue
        count, worst, began = max(20, int(cases * target.share)), 0.0, time.monotonic()
        for data in itertools.islice(parsers.inputs(target, 20261124), count):
            start = time.monotonic()
            try:
                target.feed(data)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                defects.append(
                    f"{name}: {type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {data!r:.200}"
                )
            worst = max(worst, time.monotonic() - start)
        rows[name] = {
            "cases": count,
            "seconds": round(time.monotonic() - began, 1),
            "slowest_s": round(worst, 2),
        }
        print(f"  {name}: {count} inputs in {rows[name]['seconds']} s", flush=True)
        # After each parser: an interrupted campaign keeps what it has, and `--only` goes on.
        _keep("parsers", {"engine": "seeded mutation", "rows": rows, "defects": defects[:50]})


def coverage_guided(cases: int) -> None:
    """The same targets under atheris (libFuzzer), one process each, starting from the sound inputs."""
    rows: dict[str, Any] = {}
    defects: list[str] = []
    for name, target in parsers.TARGETS.items():
        if name == "PDF":
            continue  # the parser is a process of its own, which coverage does not reach
        runs = max(20, int(cases * target.share))
        with tempfile.TemporaryDirectory(prefix="hauslm-atheris-") as folder:
            for number, data in enumerate(target.seeds()):
                (Path(folder) / f"seed{number}").write_bytes(data)
            argv = [sys.executable, __file__, "_one", name, str(runs), folder]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder,
                                  env=os.environ | {"PYTHONHASHSEED": "0"})  # fmt: skip
        made = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        rows[name] = {
            "cases": int(made[-1]) if made else 0,
            "edges": int(covered[-1]) if covered else 0,
        }
        if done.returncode != 0:
            lines = [
                x
                for x in done.stdout.splitlines() + done.stderr.splitlines()
                if "Error" in x or "Exception" in x
            ]
            defects.append(f"{name}: exit {done.returncode}: {' | '.join(lines[:3])[:300]}")
        print(f"  {name}: {rows[name]}, {len(defects)} defects so far", flush=True)
    _keep(
        "atheris",
        {"engine": f"atheris {metadata.version('atheris')}", "rows": rows, "defects": defects},
    )


def _one(name: str, runs: int, corpus: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["hauslm"]):
        import hauslm.base.trap
        import hauslm.catalog.config
        import hauslm.data.glossary
        import hauslm.data.readers as readers
        import hauslm.lm.checks
        import hauslm.lm.remote
        import hauslm.records
        import hauslm.scenario
        import hauslm.serve.wire
        import hauslm.share.verify  # noqa: F401

        readers.readers()
    feed = parsers.TARGETS[name].feed
    atheris.Setup(
        [sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048",
         "-print_final_stats=1", "-max_total_time=25", corpus],
        feed,
    )  # fmt: skip
    atheris.Fuzz()


# ---------------------------------------------------------------- operations, ways out


def operations(cases: int) -> None:
    from tests.security import api

    from hauslm import flow

    rows: dict[str, Any] = {}
    defects: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hauslm-api-", ignore_cleanup_errors=True) as folder:
        project = flow.init(Path(folder), {"language": "en"}).parent
        for name, run in (
            ("server", lambda: api.server(int(cases * 0.85), 7)),
            ("pages", lambda: api.pages(project, int(cases * 0.16), 7)),
        ):
            began = time.monotonic()
            figures = run()
            defects += figures.defects
            rows[name] = {
                "cases": figures.cases, "seconds": round(time.monotonic() - began, 1),
                "slowest_s": round(figures.slowest_s, 2),
                "statuses": {k: dict(v) for k, v in figures.statuses.items()},
            }  # fmt: skip
            print(f"  {name}: {figures.cases} requests, {len(defects)} defects so far", flush=True)
    engine = f"schemathesis {metadata.version('schemathesis')}"
    _keep("api", {"engine": engine, "rows": rows, "defects": defects[:50]})


def table() -> None:
    counted = ways_out.count()
    if isinstance(counted, str):
        raise SystemExit(f"no private network here: {counted}")
    defects = [
        f"{path} under {layer}: {counted[f'{path} under {layer}']} packets"
        for path in ways_out.PATHS for layer in ways_out.usable_layers()
        if ways_out.leaves(path, layer) != (counted[f"{path} under {layer}"] > 0)
    ]  # fmt: skip
    _keep("table", {"layers": ways_out.usable_layers(), "rows": counted, "defects": defects})


# ---------------------------------------------------------------- the page


def page(known: dict[str, Any]) -> str:
    lines = [
        "# What was tried against hauslm, with figures", "",
        "Generated by `python scripts/security.py docs` from benchmarks/security/measured.json; what is promised and what is",
        "not stands in [SECURITY.md](../SECURITY.md). The tests run the same code with fewer cases on every change.", "",
    ]  # fmt: skip
    if "table" in known:
        lines += _table_part(known["table"])
    if "api" in known:
        lines += _api_part(known["api"])
    if "parsers" in known:
        lines += _parser_part(known["parsers"], known.get("atheris"))
    lines += [
        "## Dependencies", "",
        "The lock names every package with the hashes of its files, and pip installs nothing else. Licences:",
        "[licences.md](licences.md). `make sbom` writes the bill of materials of the release (CycloneDX 1.6).",
        "`python scripts/dependencies.py audit` asks PyPI for known weaknesses of each locked version; it needs the network",
        "and was **not run here**: the package index of the machine where this page was made has no such service.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _made(part: dict[str, Any]) -> str:
    return f"{part['date']}, Python {part['python']}, {part['kernel']}"


def _defects(part: dict[str, Any]) -> str:
    return f"**{len(part['defects'])}** defects."


def _table_part(part: dict[str, Any]) -> list[str]:
    heads = [layer for layer in ways_out.LAYERS if layer in part["layers"]]
    lines = [
        "## Ways out and layers: packets counted", "",
        f"Each cell is one process in a private network that counts packets; 0 means stopped ({_made(part)}).",
        "The hook sees Python of its own process and nothing else; the filter of the kernel sees everything.",
        "In mode `cloud` there is the hook alone: what it does not see is \"not proven\", and `hauslm check` says so.",
        f"Cells that were not as expected: {_defects(part)}", "",
        "| way out | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads),
    ]  # fmt: skip
    for path in ways_out.PATHS:
        cells = [str(part["rows"].get(f"{path} under {layer}", "not proven")) for layer in heads]
        lines.append(f"| {path} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _api_part(part: dict[str, Any]) -> list[str]:
    total = sum(row["cases"] for row in part["rows"].values())
    lines = [
        "## Operations of server and pages", "",
        f"{total:,} requests by {part['engine']} over real HTTP on loopback, half of them against the rules of the OpenAPI",
        f"document ({_made(part)}). A defect is a 5xx, an undocumented status or content type, an answer that does not fit its",
        f"schema, or none within 20 seconds. {_defects(part)}", "",
        "| operation | requests | answers |", "|---|---:|---|",
    ]  # fmt: skip
    for name, row in part["rows"].items():
        for operation, statuses in row["statuses"].items():
            answers = ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items()))
            lines.append(f"| {name}: {operation} | {sum(statuses.values()):,} | {answers} |")
    lines += ["", "The server answered with the stand-in model and without a folder for adapters, so that loading one is always refused here;",
              "what a real model adds is in tests/serve."]  # fmt: skip
    return [*lines, ""]


# What the first runs of the campaign found; each is fixed and has its case in tests/security/test_parsers.py.
_FOUND = (
    "a record with a number of more than 4,300 digits, or nested too deeply, ended without a typed error",
    "a journal with bytes that are no UTF-8, or with a line that is no object, did so too",
    "an endpoint's answer with malformed log-probabilities, and a Retry-After that is no number",
    "a JSON schema with half a surrogate pair",
    "an unknown key with '-' or '[' at the top of a project file",
    "XML that says it is UTF-16 and is not; a DOCX whose directory holds a name that is no UTF-8",
    "aliases in a fact file of the catalog were followed",
)


def _parser_part(part: dict[str, Any], guided: dict[str, Any] | None) -> list[str]:
    lines = [
        "## Parsers of foreign bytes", "",
        "A parser may answer with a document or with an error of the family; anything else is a defect. First the sound inputs",
        f"mutated by seed ({_made(part)}): {_defects(part)}",
    ]  # fmt: skip
    if guided is not None:
        lines.append(
            f"Then guided by coverage, {guided['engine']} ({_made(guided)}): {_defects(guided)}"
        )
    lines += ["", "| parser | mutated | slowest (s) | guided by coverage |", "|---|---:|---:|---:|"]
    for name, row in part["rows"].items():
        more = guided["rows"].get(name) if guided is not None else None
        shown = f"{more['cases']:,}" if more else "-"
        lines.append(f"| {name} | {row['cases']:,} | {row['slowest_s']:.2f} | {shown} |")
    lines += ["", "Coverage guides Python code only, and each parser had at most 25 seconds of it; PDFs are read by a native library in",
              "a process of its own. Found on the way to these figures, and fixed:", ""]  # fmt: skip
    return [*lines, *(f"- {found}" for found in _FOUND), ""]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("parsers", "api"):
        commands.add_parser(name).add_argument("--cases", type=int, default=10_000)
    commands.choices["parsers"].add_argument(
        "--engine", choices=["mutation", "atheris"], default="mutation"
    )
    commands.choices["parsers"].add_argument("--only", nargs="*", default=[], metavar="PARSER")
    commands.add_parser("table")
    commands.add_parser("docs")
    one = commands.add_parser("_one")
    for name in ("target", "runs", "corpus"):
        one.add_argument(name)
    given = parser.parse_args()
    match given.command:
        case "parsers":
            if given.engine == "atheris":
                coverage_guided(given.cases)
            else:
                mutation(given.cases, given.only)
        case "api":
            operations(given.cases)
        case "table":
            table()
        case "_one":
            _one(given.target, int(given.runs), given.corpus)
        case "docs":
            PAGE.write_text(
                page(json.loads(MEASURED.read_text(encoding="utf-8"))), encoding="utf-8"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
