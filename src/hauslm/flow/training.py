"""A training beside the process that asked: of its own, on several machines, in several settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base import files
from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.progress import Progress
from hauslm.base.version import __version__
from hauslm.base.words import say, speaking
from hauslm.flow.order import run_needed
from hauslm.flow.stages import (
    STAGES,
    Project,
    as_project,
    expected_inputs,
    if_sound,
    load_record,
    state,
)

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import Run, Sweep


FILED_WITHIN_S = 10.0  # a finished training's record, by the process that ran it


def refuse_profile() -> None:
    """H641: --profile beside --attach, --detach or --nproc."""
    from hauslm.train.profile import refuse

    refuse()


def profile_page(project: Project) -> Path:
    """report/profile.html, from what `hauslm train --profile` measured. H659 if it measured nothing."""
    from hauslm.report.profile import write
    from hauslm.train.profile import PARTS, read

    return write(project.folder, read(project.folder), PARTS, project.scenario.language)


def train_detached(
    project: Project,
    *,
    resume: bool = True,
    accept_change: bool = False,
    shape: dict[str, Any] | None = None,
) -> int:
    """Start the training as a process of its own; its pid. H410 if one is running."""
    from hauslm.train import launch

    return launch.start(project.folder, resume=resume, accept_change=accept_change, several=shape)


def train_node(
    project: Project, shape: Mapping[str, Any], *, resume: bool = True, accept_change: bool = False
) -> None:
    """The processes of a machine other than the first; that one's `train` files the record.

    Nothing is prepared or written here: H107 if what the training reads is not there.
    """
    from hauslm.train import cluster

    for name in STAGES["train"].needs:
        before = next(s for s in STAGES.values() if s.record == name)
        if state(project, before) != "current":
            raise UsageError(
                "H107",
                say("records/{record}.json is missing or out of date.", record=name),
                where=str(project.folder.records),
                next_step=say(
                    "Run hauslm {stage} once before the machines start, and give all the same folder.",
                    stage=before.name,
                ),
            )
    with speaking(project.scenario.language):
        cluster.join(
            project.folder, cluster.Shape(**shape), resume=resume, accept_change=accept_change,
            progress=project.progress,
        )  # fmt: skip


def sweep(
    project: Project | Path | str = ".",
    *,
    learning_rates: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    targets: tuple[str, ...] = (),
    steps: int | None = None,
    parallel: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Short trainings over a grid of settings, compared on the validation split; records/sweep.json and
    report/sweep.svg. The project file is not changed."""
    from hauslm.lm.workers import need_ray
    from hauslm.report.chapters.sweep import drawing
    from hauslm.train.sweep import Grid
    from hauslm.train.sweep import sweep as room

    project = as_project(project, progress)
    with speaking(project.scenario.language):
        need_ray()  # told before anything is prepared
    for name in STAGES["train"].needs:
        before = next(s for s in STAGES.values() if s.record == name)
        if state(project, before) != "current":
            run_needed(project, before, STAGES["train"])
    with speaking(project.scenario.language):
        record = room(
            project.scenario,
            project.folder,
            plan=load_record(project, "plan"),
            corpus=load_record(project, "corpus"),
            grid=Grid(learning_rates, ranks, targets, steps),
            parallel=parallel,
            progress=project.progress,
        )
        done = record.model_copy(
            update={
                "inputs": expected_inputs(project, STAGES["train"]),
                "hauslm_version": __version__,
                "language": project.scenario.language,
            }
        )
        done.save(project.folder.records)
        files.write_sealed(project.folder.report / "sweep.svg", drawing(done))
    return done


def train_followed(project: Project) -> tuple[Any, Run | None]:
    """Show the training of this folder until it ends: its `Status`, and the record if it is done.

    H651 if there was none.
    """
    from hauslm.train import launch

    found = launch.follow(project.folder, project.progress)
    if found.state not in ("none", "done"):
        return found, None
    run_record = launch.result(project.folder)
    end = time.monotonic() + FILED_WITHIN_S
    while time.monotonic() < end:  # its own process files it, a moment after the room is done
        filed = if_sound(project, "run")
        if filed is not None and filed.created >= run_record.created:
            return found, filed
        time.sleep(0.1)
    return found, run_record


def train_status(project: Project) -> Any:
    """How the training of this folder stands, as a `Status`."""
    from hauslm.train import launch

    return launch.status(project.folder)


@contextmanager
def telling_how_training_ended(root: Path) -> Iterator[None]:
    """For `--detach`: also what fails before the training itself begins reaches process.json."""
    from hauslm.train import process

    try:
        yield
    except HauslmError as error:
        process.failed(files.ProjectFolder(root), error)
        raise
