"""In which language is the page of figures, and where do its figures come from? Used by performance.py."""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GERMAN = ROOT / "scripts" / "performance.de.json"  # {English template: German template}


class Words(string.Formatter):
    """The templates in one language; German has a comma in its decimals. A missing template is an error."""

    def __init__(self, language: str) -> None:
        self.language = language
        german = json.loads(GERMAN.read_text(encoding="utf-8"))
        self.table: dict[str, str] | None = german if language == "de" else None
        self.used: set[str] = set()

    def __call__(self, template: str, **values: Any) -> str:
        self.used.add(template)
        text = template
        if self.table is not None:
            if template not in self.table:
                sys.exit(f"{GERMAN.name} lacks: {template!r}")
            text = self.table[template]
        return self.vformat(text, (), values) if values else text

    def format_field(self, value: Any, format_spec: str) -> Any:
        shown = format(value, format_spec)
        if self.table is not None and isinstance(value, (int, float)):
            shown = shown.translate(str.maketrans(",.", ".,"))
            shown = shown.replace("%", " %") if format_spec.endswith("%") else shown
        return shown


_words = Words("en")


def speak(language: str) -> None:
    """Which language the page is in from here on."""
    global _words
    _words = Words(language)


def _(template: str, **values: Any) -> str:
    """The template in the page's language, filled."""
    return _words(template, **values)


def read(name: str) -> dict[str, Any] | None:
    """A result, or nothing if it was never measured."""
    path = RESULTS / name
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def machine(m: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    units = ", ".join(m.get("matrix_units", []))
    return _(
        "{processor}, {threads} threads ({units}), load before {load:.1f}; {versions}; commit {commit}, {date}.",
        processor=m["processor"],
        threads=str(m["threads"]),
        units=units,
        load=m["load_before"],
        versions=versions,
        commit=m["commit"],
        date=m["date"],
    )
