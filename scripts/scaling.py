"""Write the tables of docs/scaling.md and docs/scaling.de.md: ten million articles on 1 to 1,000 GPUs, by
the planner's formulas and the catalog's prices. `python scripts/scaling.py` writes, `--check` compares.

Time is articles over the speed of one card times the cards; energy the power the planner assumes of a
loaded card and its computer; cost the rent of the catalog's cheapest dated offer for that card.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hauslm.base.words import number
from hauslm.catalog import load
from hauslm.estimate.money import exchange_rate, rent_per_hour
from hauslm.estimate.serving import AnalysisThroughput, analysis_throughput
from hauslm.plan.record import HOST_POWER, LOAD_SHARE

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"en": ROOT / "docs" / "scaling.md", "de": ROOT / "docs" / "scaling.de.md"}
SIMULATION = ROOT / "benchmarks" / "results" / "journal_scale.json"
BEGIN, END = "<!-- scaling:{name} -->", "<!-- /scaling:{name} -->"
MODEL = "mistral-7b-v0.3"
CARDS = ("rtx-4090", "l40s", "h100-sxm")
COUNTS = (1, 8, 64, 256, 1000)
ARTICLES = 10_000_000
TOKENS_IN, TOKENS_OUT = 9_800, 500  # mean article for this tokenizer, and an answer
CARDS_PER_HOST = 8
HEADS = {
    "en": {
        "time": ("Card", "Cards", "Articles/h", "Time", "Energy", "Rent", "Limit"),
        "units": ("h", "days"), "prefill": "reading (prefill)", "decode": "answering (memory bandwidth)",
        "simulation": ("Articles", "Time", "µs/article", "Peak memory", "Opening again",
                       "Extrapolated"),
        "yes": "yes", "no": "no",
    },
    "de": {
        "time": ("Karte", "Karten", "Artikel/h", "Zeit", "Energie", "Miete", "Grenze"),
        "units": ("h", "Tage"), "prefill": "Lesen (Prefill)", "decode": "Antworten (Speicherbandbreite)",
        "simulation": ("Artikel", "Zeit", "µs/Artikel", "Speicherspitze", "Wieder öffnen",
                       "Hochgerechnet"),
        "yes": "ja", "no": "nein",
    },
}  # fmt: skip


def speed(card: str) -> AnalysisThroughput:
    architecture = load.model(MODEL).architecture
    assert architecture is not None
    return analysis_throughput(
        architecture, load.gpu(card), tokens_in=TOKENS_IN, tokens_out=TOKENS_OUT, adapter="merged"
    )


def watts(card: str) -> float:
    """One card under load with its share of a computer for eight."""
    limit = load.gpu(card).tdp_w
    assert limit is not None
    return LOAD_SHARE.value * limit.value + HOST_POWER.value / CARDS_PER_HOST


def rows(language: str) -> list[tuple[str, ...]]:
    words: dict[str, Any] = HEADS[language]
    rate = exchange_rate()
    assert rate is not None
    found = []
    for card in CARDS:
        one, rent = speed(card), rent_per_hour(card, rate)
        assert rent is not None, f"no rent for {card}"
        limit = words["prefill" if one.prefill_s >= one.decode_s else "decode"]
        for count in COUNTS:
            per_hour = one.documents_per_hour.value * count
            hours = ARTICLES / per_hour
            low = ARTICLES / (one.documents_per_hour.highest * count)
            high = ARTICLES / (one.documents_per_hour.lowest * count)
            found.append((
                load.gpu(card).name, number(count, ",", language), number(per_hour, ",.0f", language),
                _time(hours, low, high, words["units"], language),
                f"{number(hours * count * watts(card) / 1000, ',.0f', language)} kWh",
                f"{number(hours * count * rent.value, ',.0f', language)} EUR", limit,
            ))  # fmt: skip
    return found


def _time(value: float, low: float, high: float, units: Any, language: str) -> str:
    unit, scale = (units[1], 24.0) if value >= 48 else (units[0], 1.0)
    spec = ",.0f" if value / scale >= 10 else ".1f"
    shown = [number(v / scale, spec, language) for v in (value, low, high)]
    return f"{shown[0]} ({shown[1]}–{shown[2]}) {unit}"


def sources(language: str) -> list[str]:
    rate = exchange_rate()
    assert rate is not None
    said = []
    for card in CARDS:
        rent = rent_per_hour(card, rate)
        assert rent is not None
        one = speed(card)
        price = f"{number(rent.value, '.2f', language)} EUR/h"
        count = {"en": "sequences at once", "de": "Sequenzen zugleich"}[language]
        url, _, conversion = rent.source.partition("; ")
        if language == "de":
            conversion = conversion.replace("price list of", "umgerechnet nach der Preisliste von")
            conversion = conversion.replace("in both currencies", "in beiden Währungen")
        asked = max(o.usd_per_hour.date for o in load.offers() if o.gpu == card)
        said.append(f"- {load.gpu(card).name}: {price} ({url}, {asked}; {conversion}); "
                    f"{number(watts(card), ',.0f', language)} W; {one.sequences} {count}.")  # fmt: skip
    return said


def simulation(language: str) -> list[tuple[str, ...]]:
    words: dict[str, Any] = HEADS[language]
    found = json.loads(SIMULATION.read_text(encoding="utf-8"))
    table = [
        (
            number(r["articles"], ",", language), f"{number(r['seconds'], ',.0f', language)} s",
            number(r["microseconds_per_article"], ",.0f", language),
            f"{number(r['peak_memory_mib'], ',.0f', language)} MiB",
            f"{number(r['reopening_seconds'], ',.0f', language)} s", words["no"],
        )
        for r in found["runs"]
    ]  # fmt: skip
    last = found["extrapolated"]
    table.append((
        number(last["articles"], ",", language), f"{number(last['hours'], '.1f', language)} h", "–", "–",
        f"{number(last['reopening_minutes'], '.0f', language)} min", words["yes"],
    ))  # fmt: skip
    return table


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    shown = ["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *lines)]
    return "\n".join(shown)


def page(text: str, language: str) -> str:
    """The page with its generated parts as they are now."""
    words: dict[str, Any] = HEADS[language]
    parts = {
        "plan": _table(words["time"], rows(language)) + "\n\n" + "\n".join(sources(language)),
        "simulation": _table(words["simulation"], simulation(language)),
    }
    for name, body in parts.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{body}\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Tables of docs/scaling.md")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = []
    for language, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        fresh = page(text, language)
        if fresh != text:
            stale.append(path.name)
            if not options.check:
                path.write_text(fresh, encoding="utf-8")
    if options.check and stale:
        print(f"out of date: {', '.join(stale)}; run python scripts/scaling.py")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
