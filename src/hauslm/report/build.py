"""Which chapters, which formats? The records of a folder -> `report/`.

The full report puts the verdict first and the appendix last; the template `lab` writes the lab sheet's
three answers. Formats: html (one file, no script), md (with the drawings beside it), json (the records
and what the report says), pdf (typst), terminal (plain text).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.files import ProjectFolder, write_json, write_sealed
from hauslm.base.version import __version__
from hauslm.base.words import N_, say, translate
from hauslm.records import Record
from hauslm.report import html, lab, markdown, pdf, terminal
from hauslm.report.blocks import Figure, Writer
from hauslm.report.chapters import CHAPTERS
from hauslm.report.script import lab_script
from hauslm.scenario import Scenario

CHAPTER_NAMES = {
    "decision": N_("Decision"),
    "comparison": N_("Comparison"),
    "plan": N_("Plan"),
    "corpus": N_("Preparation"),
    "run": N_("Training"),
    "evaluation": N_("Evaluation"),
    "bundle": N_("Bundle"),
    "analysis": N_("Analysis"),
    "privacy": N_("Privacy proof"),
}
NEXT_COMMAND = {
    "decision": "hauslm decide",
    "comparison": "hauslm compare",
    "plan": "hauslm plan",
    "corpus": "hauslm prepare",
    "run": "hauslm train",
    "evaluation": "hauslm evaluate",
    "bundle": "hauslm bundle",
    "analysis": "hauslm analyse",
    "privacy": "hauslm prove-privacy",
}


def blocks_of(
    scenario: Scenario,
    records: dict[str, Record],
    template: str,
    language: str,
    *,
    linked: bool = False,
) -> Writer:
    """The report as a tree of blocks in `language`; `linked`: figures link to a list that the page adds."""
    w = Writer(language, linked=linked)
    if template == "lab":
        lab.write(w, scenario, records)
    else:
        if scenario.model.base == "embedded":
            w.callout("note", say("The embedded model is tiny: it shows the way, not quality."))
        for name, chapter in CHAPTERS.items():
            if name in records:
                chapter(w, records[name])
        missing = [n for n in NEXT_COMMAND if n not in records]
        if missing:
            w.heading(say("Not done yet"))
            w.bullets([f"{w.t(CHAPTER_NAMES[n])}: {NEXT_COMMAND[n]}" for n in missing])
        _appendix(w, records)
    if not linked:
        w.source_list()
    return w


def _appendix(w: Writer, records: dict[str, Record]) -> None:
    w.heading(say("Appendix: records"))
    w.table(
        [say("Record"), say("Made on"), say("hauslm"), say("Made from")],
        [
            (
                f"records/{name}.json",
                record.created,
                record.hauslm_version,
                ", ".join(f"{k} {v[:8]}" for k, v in record.inputs.items()),
            )
            for name, record in records.items()
        ],
    )


def build(
    scenario: Scenario,
    folder: ProjectFolder,
    records: dict[str, Record],
    *,
    template: str = "full",
    formats: tuple[str, ...] = ("html", "md", "json"),
    language: str = "en",
) -> dict[str, Path]:
    """Write the formats asked for; returns format -> path."""
    stem = "report" if template == "full" else "lab"
    w = blocks_of(scenario, records, template, language)
    title, lead = _title(scenario, records, template, language)
    made: dict[str, Path] = {}
    for kind in formats:
        path = folder.report / f"{stem}.{'txt' if kind == 'terminal' else kind}"
        if kind == "html":
            write_sealed(path, _html(w, title, lead, language))
        elif kind == "md":
            figures: dict[str, str] = {}
            text = f"# {title}\n\n{lead}\n\n" + markdown.render(w.blocks, figures)
            for name, svg in figures.items():
                write_sealed(folder.report / f"{stem}-{name}", svg)
                text = text.replace(f"]({name})", f"]({stem}-{name})")
            write_sealed(path, text)
        elif kind == "json":
            data: dict[str, Any] = {
                n: r.model_dump(mode="json", by_alias=True) for n, r in records.items()
            }
            write_json(path, {"title": title, "language": language, "records": data})
        elif kind == "pdf":
            write_sealed(path, pdf.compile_pdf(w.blocks, title=title, lead=lead, language=language))
        elif kind == "terminal":
            write_sealed(path, _plain(w))
        made[kind] = path
    if template == "lab":
        made["script"] = folder.report / "lora_training.py"
        write_sealed(made["script"], lab_script(scenario))
    return made


def _title(
    scenario: Scenario, records: dict[str, Record], template: str, language: str
) -> tuple[str, str]:
    if template == "lab":
        title = say("Lab 2: understanding infrastructure, {name}", name=scenario.name).text(
            language
        )
    else:
        title = say("A language model in-house: {name}", name=scenario.name).text(language)
    newest = max((r.created for r in records.values()), default="")
    lead = say(
        "Written by hauslm {version} from {count} records, the newest of {date:date}.",
        version=__version__, count=len(records), date=newest,
    ).text(language)  # fmt: skip
    return title, lead


def words_of(language: str) -> dict[str, str]:
    return {
        "contents": translate(N_("Contents"), language),
        "data": translate(N_("The data as a table"), language),
    }


def _html(w: Writer, title: str, lead: str, language: str) -> str:
    footer = say(
        "No warranty; every figure says how it is known. Nothing in this file contacts a server."
    ).text(language)
    return html.page(
        w.blocks, title=title, lead=lead, language=language, footer=footer, words=words_of(language)
    )


def _plain(w: Writer) -> str:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=110, highlight=False).print(terminal.renderable(w.blocks))
    return stream.getvalue()


def fragment(record: Record, language: str) -> str:
    """One record's chapter as HTML without a page around it, with its sources."""
    w = Writer(language)
    CHAPTERS[record.name](w, record)
    w.source_list()
    return html.fragment(w.blocks, words_of(language))


@dataclass(frozen=True)
class Chapter:
    """One record told to a person: Markdown without its drawings, and the drawings. A notebook shows both."""

    markdown: str
    figures: tuple[Figure, ...]

    def _repr_markdown_(self) -> str:
        return self.markdown


def chapter(record: Record, language: str, *, brief: bool = True) -> Chapter:
    """The record's chapter; `brief` as on the terminal. The drawings are always all of them."""
    from hauslm.report import markdown

    short, full = Writer(language, brief=brief), Writer(language)
    for writer in (short, full):
        CHAPTERS[record.name](writer, record)
    drawn = tuple(b for b in full.blocks if isinstance(b, Figure))
    told = [b.table if isinstance(b, Figure) else b for b in short.blocks]
    return Chapter(markdown.render(told), drawn)
