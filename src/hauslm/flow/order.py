"""Which stage comes next? One stage with what it needs, or all that are missing or out of date."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base import files
from hauslm.base.errors import RefusedError
from hauslm.base.progress import Progress
from hauslm.base.version import __version__
from hauslm.base.words import say, speaking
from hauslm.flow.rooms import NO_BUNDLE, READY, ROOMS
from hauslm.flow.stages import (
    STAGES,
    Project,
    Stage,
    as_project,
    expected_inputs,
    load_record,
    needs_of,
    stage_named,
    state,
)

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import Record


def run_stage(
    project: Project,
    name: str,
    *,
    prerequisites: bool = True,
    options: Mapping[str, Any] | None = None,
    force: bool = True,
) -> Record:
    """Run one stage (and, first, whatever it needs that is missing or out of date); save its record."""
    stage = stage_named(name)
    if prerequisites:
        if force and (check := READY.get(stage.name)):
            with speaking(project.scenario.language):
                check(project, dict(options or {}))
        for name_needed in needs_of(project, stage):
            needed = next(s for s in STAGES.values() if s.record == name_needed)
            if state(project, needed) != "current":
                run_needed(project, needed, stage)
    if not force and state(project, stage) == "current":
        record: Record = load_record(project, stage.record)
        return record
    return _execute(project, stage, dict(options or {}))


def run_needed(project: Project, needed: Stage, wanted: Stage) -> None:
    project.progress.say(
        say(
            "'{wanted}' needs records/{record}.json, which is missing or out of date: '{needed}' runs first.",
            wanted=wanted.name,
            record=needed.record,
            needed=needed.name,
        )
    )
    try:
        run_stage(project, needed.name, force=False)
    except RefusedError as error:
        if error.code == NO_BUNDLE:
            _without_bundle(project, error)
            return
        # Whoever asks for a plan or an adapter has decided already; the refusal stays visible.
        if needed.name != "decide":
            raise
        project.progress.say(
            say(
                "No decision was recorded ({reason}); '{wanted}' goes on without it.",
                reason=error.what,
                wanted=wanted.name,
            )
        )


def _without_bundle(project: Project, error: RefusedError) -> None:
    """A whole model has no bundle; what comes after does without."""
    project.progress.say(say("No bundle was made: {reason}", reason=error.what))


def _execute(project: Project, stage: Stage, options: dict[str, Any]) -> Record:
    with (
        speaking(project.scenario.language),
        files.lock(project.folder.work, "stage", f"hauslm {stage.name}"),
    ):
        inputs = expected_inputs(project, stage)
        record: Record = ROOMS[stage.name](project, options)
        done = record.model_copy(
            update={
                "inputs": inputs,
                "hauslm_version": __version__,
                "language": project.scenario.language,
            }
        )
        done.save(project.folder.records)
    return done


def run(
    project: Project | Path | str = ".",
    *,
    until: str | None = None,
    progress: Progress | None = None,
    on_stage: Callable[[Stage, str, float], None] | None = None,
) -> dict[str, Record]:
    """Every stage that is missing or out of date, in order, then the report.

    `until` names the last stage. `on_stage(stage, 'running'|'current'|'done', seconds)` is told.
    Returns the records by name. Errors of a stage end the run; what was finished stays.
    """
    project = as_project(project, progress)
    if until is not None and until != "report":
        stage_named(until)
    records: dict[str, Record] = {}
    for stage in STAGES.values():
        tell = on_stage or (lambda *_: None)
        if state(project, stage) == "current":
            tell(stage, "current", 0.0)
            records[stage.record] = load_record(project, stage.record)
        else:
            tell(stage, "running", 0.0)
            started = time.monotonic()
            try:
                records[stage.record] = run_stage(project, stage.name, prerequisites=False)
            except RefusedError as error:
                if error.code != NO_BUNDLE:
                    raise
                _without_bundle(project, error)
                continue
            tell(stage, "done", time.monotonic() - started)
        if stage.name == until:
            return records
    report(project)
    return records


def report(
    project: Project | Path | str = ".",
    *,
    template: str = "full",
    formats: tuple[str, ...] = ("html", "md", "json"),
    language: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """`report/` from whatever records the folder holds; returns the files by format."""
    from hauslm.records import RECORDS
    from hauslm.report.build import build

    project = as_project(project, progress)
    records = {name: load_record(project, name) for name in RECORDS}
    code = language or project.scenario.language
    with speaking(code):
        return build(
            project.scenario,
            project.folder,
            {n: r for n, r in records.items() if r is not None},
            template=template,
            formats=formats,
            language=code,
        )
