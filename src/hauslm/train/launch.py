"""How does a run outlive the terminal or page that started it? As a process of its own.

`start` begins `hauslm train` in a process group that no terminal owns; `follow` shows it to a reader, also
after a reconnect and also one that somebody started in the foreground. Which files carry this:
process.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from hauslm.base import words
from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.records import Run, Said
from hauslm.train import threads
from hauslm.train.meter import METRICS, figures_of
from hauslm.train.process import NOTICES, RECORD, Status, _work, claim, status

__all__ = ["Status", "follow", "notices", "result", "start", "status"]

LOOK_EVERY_S = 0.5
# Fields of `cluster.Shape` whose option has another name.
OPTIONS = {"processes": "nproc", "nodes": "nnodes", "rendezvous": "master"}
SILENT_S = 300.0  # without a new figure for so long, the follower is told


def start(
    folder: ProjectFolder,
    *,
    resume: bool = True,
    accept_change: bool = False,
    language: str | None = None,
    several: Mapping[str, Any] | None = None,
) -> int:
    """Start `hauslm train` in a process of its own (closing the terminal does not end it); its pid.

    RefusedError H652 if one is running here.
    """
    found = status(folder)
    if found.state == "running":
        raise RefusedError(
            "H652",
            say("Process {pid} is training in this folder already.", pid=found.pid),
            where=str(folder.root),
            next_step=say("hauslm train --attach follows it."),
        )
    folder.logs.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", "hauslm", "train", "-C", str(folder.root), "--json"]
    arguments += ["--resume" if resume else "--fresh"]
    arguments += ["--accept-change"] if accept_change else []
    arguments += ["--language", language or words.language()]
    for name, value in (several or {}).items():  # the fields of cluster.Shape
        option = OPTIONS.get(name, name)
        arguments += [f"--{option.replace('_', '-')}", str(value)] if value != "" else []
    with (folder.logs / "train.log").open("ab") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**threads.WAITING, **os.environ},
        )
    claim(folder, process.pid)
    return process.pid


def result(folder: ProjectFolder) -> Run:
    """The record of a run that is done; H651 if there is none."""
    path = _work(folder) / RECORD
    if status(folder).state != "done" or not path.is_file():
        raise MissingError(
            "H651",
            say("There is no finished training run in this folder."),
            where=str(folder.root),
            next_step=say("hauslm train starts or resumes one."),
        )
    return Run.load(path)


def notices(folder: ProjectFolder) -> list[Said]:
    """What the run has said so far."""
    return [Said.model_validate(row) for row in _rows(folder, NOTICES)]


def _rows(folder: ProjectFolder, name: str) -> list[dict[str, Any]]:
    """The whole lines of a file that another process may be writing to."""
    import json

    path = _work(folder) / name
    if not path.is_file():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def follow(folder: ProjectFolder, progress: Progress) -> Status:
    """Show the run of this folder until it ends; how it ended. Ctrl-C ends the showing alone."""
    said, shown, warned = 0, 0, False
    while True:
        found = status(folder)
        sentences = notices(folder)
        for one in sentences[said:]:
            progress.say(one.sentence())
        said = len(sentences)
        rows = [r for r in _rows(folder, METRICS) if r.get("of")]
        if rows and rows[-1]["step"] != shown:
            shown, warned = rows[-1]["step"], False
            validation = next(
                (r["validation"] for r in reversed(rows) if r.get("validation") is not None), None
            )
            figures = figures_of(rows[-1], validation)
            progress.step(say("Training"), shown, rows[-1]["of"], **figures)
        if found.state != "running":
            return found
        if not warned and (found.stopped or found.silent_seconds > SILENT_S):
            warned = True
            progress.say(_silent(found))
        time.sleep(LOOK_EVERY_S)


def _silent(found: Status) -> words.Sentence:
    if found.stopped:
        return say(
            "Process {pid} is paused; kill -CONT {pid} lets it go on, and what is sealed is safe.",
            pid=found.pid,
        )
    return say(
        "Process {pid} has not finished a step for {minutes:.0f} minutes. Ending it loses nothing but the steps since the last checkpoint; hauslm train goes on from there.",
        pid=found.pid,
        minutes=found.silent_seconds / 60,
    )
