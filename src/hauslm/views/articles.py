"""One article: drop it, see its rows, and where in the text each quote stands.

An article that is dropped on the page lives in `work/web/articles/<sha256>/`: the file, and what the
analysis of this one file left there. The project's own analysis is not touched. The room that analyses
is the same, with the same template, adapter, canary check and rules.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from hauslm import flow
from hauslm.base.errors import DataError, UsageError
from hauslm.base.files import ProjectFolder, read_json, sha256_bytes, write_json, write_sealed
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.records import Analysis

MOST_BYTES = 64 << 20
_ID = re.compile(r"[0-9a-f]{16}\Z")
_NAME = re.compile(r"[^\w.()\[\] +,-]+")


@dataclass(frozen=True)
class Row:
    """One row of the analysis: the answer's fields, its quote, and the place of the quote in the text."""

    level: str
    section: str
    question: str
    fields: tuple[tuple[str, str], ...]
    quote: str
    found: bool
    mark: int  # number of the mark in the text; 0 if there is none
    status: str
    reason: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Article:
    """A dropped article with what came out of it."""

    id: str
    name: str
    title: str = ""
    language: str = ""
    rows: tuple[Row, ...] = ()
    text: str = ""  # HTML, quotes marked
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    analysed: bool = False
    facts: tuple[tuple[str, str], ...] = field(default=())


def shelf(folder: ProjectFolder) -> Path:
    return folder.work / "web" / "articles"


def place_of(folder: ProjectFolder, identity: str) -> Path:
    """The folder of an article; H348 for one that is not there."""
    path = shelf(folder) / identity
    if not _ID.match(identity) or not path.is_dir():
        raise UsageError(
            "H348",
            say("There is no such article here."),
            next_step=say("Drop the file on the page again."),
        )
    return path


def formats() -> tuple[str, ...]:
    from hauslm.data.readers import suffixes

    return suffixes()


def add(folder: ProjectFolder, name: str, data: bytes) -> str:
    """Keep a dropped file; returns its id. H346 empty or of a format that is not read."""
    clean = _NAME.sub("_", Path(name.replace("\\", "/")).name).strip(". ")[-120:] or "article"
    if not data:
        raise _unusable(say("The file is empty."))
    if not any(clean.lower().endswith(s) for s in formats()):
        raise _unusable(say("{name} is of a format that is not read.", name=clean))
    identity = sha256_bytes(data)[:16]
    place = shelf(folder) / identity
    write_sealed(place / "file" / clean, data)
    for other in (place / "file").iterdir():  # the same bytes under an older name
        if other.name != clean:
            other.unlink()
    write_json(place / "article.json", {"name": clean})
    return identity


def _unusable(what: Sentence) -> DataError:
    return DataError(
        "H346", what, next_step=say("These can be read: {formats}.", formats=", ".join(formats()))
    )


def remove(folder: ProjectFolder, identity: str) -> None:
    shutil.rmtree(place_of(folder, identity))


def known(folder: ProjectFolder) -> list[Article]:
    """The articles that were dropped, newest first, without their texts."""
    if not shelf(folder).is_dir():
        return []
    places = sorted(
        (p for p in shelf(folder).iterdir() if (p / "article.json").is_file()),
        key=lambda p: p.stat().st_mtime, reverse=True,
    )  # fmt: skip
    return [
        Article(p.name, read_json(p / "article.json")["name"], analysed=_record(p) is not None)
        for p in places
    ]


# ---------------------------------------------------------------- analysing one


def analyse_one(project: flow.Project, identity: str, progress: Progress) -> Analysis:
    """Rows for this one article, in its own folder. Errors as `hauslm analyse`."""
    from hauslm.analyse.run import analyse

    folder = project.folder
    place = place_of(folder, identity)
    run = flow.load_record(project, "run")
    if run is not None:
        adapter = str((folder.root / run.adapter.path).resolve())
        run = run.model_copy(update={"adapter": run.adapter.model_copy(update={"path": adapter})})
    section = project.scenario.analysis.model_copy(
        update={"paths": [str(place / "file")], "max_documents": None}
    )
    model = project.scenario.model
    if model.path is not None:
        path = str((folder.root / Path(model.path).expanduser()).resolve())
        model = model.model_copy(update={"path": path})
    elif (folder.root / model.base).is_dir():
        model = model.model_copy(update={"base": str((folder.root / model.base).resolve())})
    scenario = project.scenario.model_copy(update={"analysis": section, "model": model})
    canary = folder.adapter / "canary.json"
    if canary.is_file():  # it is checked here as in the project
        write_sealed(place / "adapter" / "canary.json", canary.read_bytes())
    record = analyse(scenario, ProjectFolder(place), run=run, corpus=None, progress=progress)
    record.save(place / "records")
    return record


def _record(place: Path) -> Analysis | None:
    path = place / "records" / "analysis.json"
    return Analysis.load(path) if path.is_file() else None


# ---------------------------------------------------------------- showing one


def shown(project: flow.Project, identity: str, language: str) -> Article:
    """The article as it is read, with the rows of its analysis if there is one."""
    from hauslm.data.reading import read_documents

    place = place_of(project.folder, identity)
    name = read_json(place / "article.json")["name"]
    found, rejected = read_documents(
        [str(place / "file")], place, text_field=project.scenario.documents.text_field
    )
    documents = list(found)
    problems = tuple(r.reason.say(language) for r in rejected)
    if not documents:
        return Article(identity, name, problems=problems)
    record = _record(place)
    raw = _rows(place, record)
    pieces: list[str] = []
    rows: list[Row] = []
    for document in documents:
        own = [r for r in raw if r.get("article") == document.id]
        text, marks = _marked(document.text, own, len(rows))
        pieces.append(text)
        rows += [_row(r, m) for r, m in zip(own, marks, strict=True)]
    notices = tuple(n.say(language) for n in record.notices) if record else ()
    first = documents[0]
    return Article(
        identity,
        name,
        first.title or name,
        first.language,
        tuple(rows),
        "".join(pieces),
        problems,
        notices,
        record is not None,
        _facts(record, documents, language),
    )


def _facts(
    record: Analysis | None, documents: Sequence[Any], language: str
) -> tuple[tuple[str, str], ...]:
    from hauslm.base.words import number

    letters = sum(len(d.text) for d in documents)
    found = [(say("Characters read").text(language), number(letters, ",", language))]
    if record is not None:
        found += [
            (say("Sections asked").text(language), number(record.sections, ",", language)),
            (say("Quotes found in the text").text(language), number(record.quotes_verified, ",", language)),
            (say("Quotes not found").text(language), number(record.quotes_missing, ",", language)),
            (say("Truncated").text(language), number(record.truncated, ",", language)),
        ]  # fmt: skip
    return tuple(found)


def _rows(place: Path, record: Analysis | None) -> list[dict[str, Any]]:
    if record is None:
        return []
    path = Path(record.output.path)
    path = path if path.is_absolute() else place / path
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    order = {"article": 0, "merge": 1, "section": 2}
    return sorted(rows, key=lambda r: (order.get(str(r.get("level")), 3), r.get("start") or 0))


def _row(raw: dict[str, Any], mark: int) -> Row:
    answer = raw.get("answer")
    if isinstance(answer, str):
        try:
            answer = json.loads(answer)
        except ValueError:
            answer = {"": answer}
    fields = tuple(
        (str(k), v if isinstance(v, str) else json.dumps(v, ensure_ascii=False))
        for k, v in (answer or {}).items()
    )
    return Row(
        str(raw.get("level", "")),
        str(raw.get("section") or ""),
        str(raw.get("question") or ""),
        fields,
        str(raw.get("quote") or ""),
        bool(raw.get("quote_found")),
        mark,
        str(raw.get("status", "")),
        str(raw.get("reason") or ""),
        tuple(raw.get("untrusted") or ()),
    )


def _marked(text: str, rows: Sequence[dict[str, Any]], before: int) -> tuple[str, list[int]]:
    """The text as HTML with every found quote as a numbered mark, and each row's mark (0: none).

    Quotes that overlap one already marked share its mark.
    """
    spans: list[tuple[int, int]] = []
    for row in rows:
        start, end = row.get("quote_start"), row.get("quote_end")
        if row.get("quote_found") and isinstance(start, int) and isinstance(end, int):
            spans.append((start, end))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(set(spans)):
        if not 0 <= start < end <= len(text):
            continue
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    marks = []
    for row in rows:
        start = row.get("quote_start")
        hit = 0
        if row.get("quote_found") and isinstance(start, int):
            hit = next((i for i, (a, b) in enumerate(merged, 1) if a <= start < b), 0)
        marks.append(hit + before if hit else 0)
    pieces, at = [], 0
    for index, (start, end) in enumerate(merged, 1):
        pieces.append(escape(text[at:start]))
        number = index + before
        pieces.append(f'<mark id="quote-{number}" tabindex="-1">{escape(text[start:end])}</mark>')
        at = end
    pieces.append(escape(text[at:]))
    return "".join(pieces), marks
