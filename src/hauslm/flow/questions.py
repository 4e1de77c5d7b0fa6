"""Questions that need no stage: the catalog, a plan without a project, what a record says, the form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.flow.stages import Project, Stage, as_project, load_record, section

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import Decision, Plan, Privacy, Record


def plan_free(**question: Any) -> Plan:
    """`hauslm plan --model M --method ... --gpu G`: does it fit, without a project."""
    from hauslm.plan.search import plan_free as room

    return room(**question)


def plan_table(kind: str, **question: Any) -> dict[str, Any]:
    """`hauslm plan --table models|gpus`: which models fit a card, which cards hold a model."""
    from hauslm.plan.search import table as room

    return room(kind, **question)


def catalog(kind: str, identifier: str | None = None) -> dict[str, Any]:
    """The facts with sources and dates, as a listing or one entry in full."""
    from hauslm.catalog import show

    return show.answer(kind, identifier)


def schema(language: str | None = None) -> dict[str, Any]:
    from hauslm.scenario import json_schema

    return json_schema(language)


def summary(record: Record | dict[str, Any], language: str | None = None) -> Any:
    """The record for a person at a terminal: a `rich` renderable."""
    from hauslm.report.terminal import render

    return render(record, language)


def chapter(record: Record, language: str | None = None, *, brief: bool = True) -> Any:
    """The record told to a person, for notebooks: `.markdown` and `.figures` (SVG), both displayable."""
    from hauslm.base.words import language as current_language
    from hauslm.report.build import chapter

    return chapter(record, language or current_language(), brief=brief)


def why_option(project: Project | Path | str, option: str) -> list[Sentence]:
    """Why an option was cut, refused, or ranks where it does. H120 for an unknown one."""
    from hauslm.decide.why import why

    project = as_project(project)
    return list(why(load_record(project, "decision"), option))


def decision_diff(old: Path, new: Decision) -> list[Sentence]:
    """What changed against an older decision, and why."""
    from hauslm.decide.diff import diff
    from hauslm.records import Decision as DecisionRecord

    return [said.sentence() for said in diff(DecisionRecord.load(old), new)]


def decision_note(decision: Decision, language: str | None = None) -> str:
    """The decision as a Markdown note in MADR form, with revisit date and triggers."""
    from hauslm.decide.note import note

    return note(decision, language)


def questions() -> Any:
    """The questions of `hauslm init`, each with default, choices and why it is asked."""
    from hauslm.start import QUESTIONS

    return QUESTIONS


def init(root: Path | str, answers: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write a commented hauslm.yaml from the answers (what is not answered takes the lab's default)."""
    from hauslm.start import write_project_file

    return write_project_file(Path(root), answers, overwrite=overwrite)


def scenario_form(
    project: Project, answers: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The questions of `init` with the project's values (or what was just typed), for a form."""
    from hauslm.start import QUESTIONS

    rows = []
    for question in QUESTIONS:
        value = (answers or {}).get(question.field, section(project.scenario, question.field))
        choices = question.choices or (("true", "false") if isinstance(value, bool) else ())
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, float) and value.is_integer():
            shown = str(int(value))
        rows.append(
            {
                "field": question.field,
                "prompt": question.prompt,
                "why": question.why,
                "value": shown,
                "choices": choices,
            }
        )
    return rows


def change_scenario(root: Path, answers: Mapping[str, str]) -> None:
    """Write changed answers into hauslm.yaml, keeping its comments. Faulty ones change nothing."""
    from hauslm.start import change_project_file

    change_project_file(root, answers)


def stage_html(project: Project, stage: Stage, language: str) -> str:
    """The record of a stage as a piece of HTML; '' if there is none."""
    from hauslm.report.build import fragment

    if not project.folder.record(stage.record).is_file():
        return ""
    return fragment(load_record(project, stage.record), language)


def prove_privacy(
    root: Path | str = ".", *, until: str | None = None, progress: Progress | None = None
) -> Privacy:
    """The stages (up to `until`) in a network trap; leaves `records/privacy.json`."""
    from hauslm.prove import DEFAULT, prove

    if until is not None and until not in DEFAULT:
        raise UsageError(
            "H101",
            say("There is no stage '{name}'.", name=until),
            next_step=did_you_mean(until, DEFAULT),
        )
    stages = DEFAULT if until is None else DEFAULT[: DEFAULT.index(until) + 1]
    return prove(Path(root), stages=stages, progress=progress)


def privacy_verdict(record: Privacy) -> None:
    """Nothing if the proof passed; else the error that says why not."""
    from hauslm.prove import verdict

    verdict(record)


def check(root: Path | str = ".") -> list[Any]:
    """Machine, GPU, packages, base model, network guard: rows with title, ok, detail, next command."""
    from hauslm.start import check as rows

    return rows(Path(root))
