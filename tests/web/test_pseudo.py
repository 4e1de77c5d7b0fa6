"""No text is hard-coded: in a language whose every sentence stands in ⟦brackets⟧, nothing stands outside.

The pseudo-language is a catalogue like any other (one folder below `locale/`), made here from the
sentences that `scripts/words.py` collects: so this also shows that a third language is one catalogue.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import polib
import pytest
from starlette.testclient import TestClient

from hauslm import flow
from hauslm.base import words
from hauslm.base.quantity import UNITS
from hauslm.catalog import load
from hauslm.report.build import blocks_of
from hauslm.report.markdown import render
from hauslm.views import chapters
from hauslm.web.room import NAVIGATION

PSEUDO = "eo"  # babel knows its numbers; hauslm has no catalogue for it
SPOKEN = {"aria-label", "alt", "title", "placeholder", "data-tip", "data-waiting", "aria-valuetext"}
SILENT = {"script", "style", "code", "pre"}
ROOT = Path(__file__).resolve().parents[2]
# What is no sentence: names, the answers and field names of the project file, identities, units.
NAMES = {
    "hauslm", "hauslm.yaml", "Deutsch", "English", "HTML", "PDF", "Markdown", "JSON", "EUR", "GiB", "GB",
    "web0", "own-rtx", "embedded", "cpu", "lora", "qlora", "BACKGROUND", "None", "True", "False", "all-linear",
}  # fmt: skip
# Where a figure comes from is cited as it is written there, in whatever language that is.
CITED = re.compile("⟦(?:source|computed|measured|assumed|given by you)⟧: .*", re.DOTALL)
ALLOWED = re.compile(
    r"^(?:records/\w+\.json|[\w.-]*[_/:\d][\w./:-]*|H\d{3}|[A-Z]\d+(?:, [A-Z]\d+)*|\W+|[a-z]|sha256)$"
)


@pytest.fixture(scope="module")
def pseudo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    spec = importlib.util.spec_from_file_location("words_script", ROOT / "scripts" / "words.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    for template in {*script.sentences(), *UNITS} - {"1"}:
        catalogue.append(polib.POEntry(msgid=template, msgstr=f"⟦{template}⟧"))
    place = tmp_path_factory.mktemp("locale")
    (place / PSEUDO / "LC_MESSAGES").mkdir(parents=True)
    catalogue.save_as_mofile(str(place / PSEUDO / "LC_MESSAGES" / "hauslm.mo"))
    before = words.LOCALE_FOLDER
    words.LOCALE_FOLDER = place
    words._catalogue.cache_clear()
    yield
    words.LOCALE_FOLDER = before
    words._catalogue.cache_clear()


class Spoken(HTMLParser):
    """What a person reads or hears of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in SILENT
        self.parts += [f"\n{CITED.sub('', v)}\n" for k, v in attrs if k in SPOKEN and v]
        self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in SILENT

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(CITED.sub("", data))


def outside(text: str) -> list[str]:
    """The words that stand outside of all brackets."""
    depth, word = 0, ""
    for letter in text + "\n":
        depth += letter == "⟦"
        if depth == 0 and letter not in "⟦⟧":
            word += letter
        elif word:
            word += "\n"
        depth -= letter == "⟧"
    pieces = re.split(r"[\s(),;|+=−–…→✔⚠%✓✗○↻*>#]+", word)
    return [p for p in pieces if p.strip("-.·:\"'") and not _is_name(p.strip("-.·:\"'"))]


def _is_name(word: str) -> bool:
    return word in NAMES or not re.search(r"[^\W\d_]{2}", word) or bool(ALLOWED.match(word))


@pytest.mark.usefixtures("pseudo")
@pytest.mark.parametrize(
    "path", ["/", "/job", "/plan/fits", "/nothing", "/stage/bundle", *(e.path for e in NAVIGATION)]
)
def test_every_page_speaks_through_the_catalogue(
    project: Path, client_of: Callable[[Path], TestClient], path: str
) -> None:
    client = client_of(project)
    client.cookies.set("hauslm_language", PSEUDO)
    text = client.get(path, params={"all": "1"} if path == "/decision" else {}).text
    assert "⟦" in text
    for name in _data(project):
        text = text.replace(name, "")
    found = outside("".join(Spoken(text).parts))
    assert not found, " ".join(found)


@pytest.mark.usefixtures("pseudo")
def test_the_report_speaks_through_the_catalogue(project: Path) -> None:
    loaded = flow.Project.load(project)
    records = chapters.sound_records(loaded)
    text = render(blocks_of(loaded.scenario, records, "full", PSEUDO).blocks, {})
    text = text.split("⟦Sources of the figures⟧")[0]  # citations, as they are written there
    for name in _data(project):
        text = text.replace(name, "")
    found = outside(text)
    assert not found, " ".join(found)


def test_the_check_finds_what_is_hard_coded() -> None:
    assert outside("⟦Save {⟦x⟧}⟧ Speichern bitte") == ["Speichern", "bitte"]


def _data(project: Path) -> list[str]:
    """What the tests' own records, the catalog and the folder put onto the pages, as it is written there."""
    names = [g.name for g in load.gpus()] + [m.name for m in load.models()]
    names += [m.id for m in load.models()] + [g.id for g in load.gpus()]
    evil = "<script>alert(1)</script> | **x** ${y}"
    names += [evil, escape(evil), evil.replace("|", "\\|")]
    names += ["The adapter is better.", "tokens/s", str(project), project.name]
    names += ["Question", "majority", "adapter", "base", "a" * 16, "b" * 16, ">empty<", "| empty |"]
    loaded = flow.Project.load(project)
    settings = flow.load_record(loaded, "plan").settings.items()  # fields of the project file
    names += [n for k, s in settings for n in (f">{k}<", f">{s.value}<", f"| {k} | {s.value} |")]
    # Rules carry their own text per language in the catalog; a citation is a citation.
    gates = [g for o in flow.load_record(loaded, "decision").options for g in o.gates]
    names += [n for g in gates for n in (f">{g.rule}<", f"| {g.rule} |")]
    names += [f"hauslm {c}" for c in ("bundle", "analyse", "prove-privacy")]
    texts = {t for g in gates for t in (g.why.say(PSEUDO), g.source) if len(t) > 3}
    names += [n for t in texts for n in (t, escape(t), t.replace("|", "\\|"))]
    return sorted(names, key=len, reverse=True)
