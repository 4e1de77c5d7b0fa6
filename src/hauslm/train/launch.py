"""How does a run outlive the terminal or page that started it? As a process of its own.

    python -m hauslm.train.launch PROJECT [--fresh] [--accept-change] [--language de|en]

`start` begins one, `status` says how it stands, also from another process and after a reconnect. The run
writes work/train/metrics.jsonl as it goes, process.json (who, since when, how it ended), notices.jsonl
(the sentences for the reader) and, when it is done, run.json beside them; `flow` files the record.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base import egress, words
from hauslm.base.errors import HauslmError, MissingError
from hauslm.base.files import Journal, ProjectFolder, lock, read_json, write_json
from hauslm.base.words import Sentence, as_text, say
from hauslm.records import Corpus, Plan, Run, Said, now
from hauslm.scenario import load
from hauslm.train import threads

PROCESS = "process.json"
NOTICES = "notices.jsonl"
RECORD = "run.json"


@dataclass(frozen=True)
class Status:
    """How a run stands. `state`: none, running, done, interrupted, failed, killed."""

    state: str
    pid: int = 0
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    message: str = ""
    code: str = ""


def start(
    folder: ProjectFolder,
    *,
    resume: bool = True,
    accept_change: bool = False,
    language: str | None = None,
) -> int:
    """Start training in a process of its own session (closing the terminal does not end it); its pid."""
    folder.logs.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", "hauslm.train.launch", str(folder.root)]
    arguments += [] if resume else ["--fresh"]
    arguments += ["--accept-change"] if accept_change else []
    arguments += ["--language", language or words.language()]
    with (folder.logs / "train.log").open("ab") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**threads.WAITING, **os.environ},
        )
    write_json(_work(folder) / PROCESS, {"state": "running", "pid": process.pid, "started": now()})
    return process.pid


def status(folder: ProjectFolder) -> Status:
    """How the newest run stands; a process that is gone without a word was killed."""
    path = _work(folder) / PROCESS
    if not path.is_file():
        return Status("none")
    found = Status(**read_json(path))
    if found.state == "running" and not _alive(found.pid):
        return Status("killed", found.pid, found.started)
    return found


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
    path = _work(folder) / NOTICES
    if not path.is_file():
        return []
    with Journal(path) as journal:
        return [Said.model_validate(row) for row in journal.rows]


def _work(folder: ProjectFolder) -> Path:
    path = folder.work / "train"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process: the number was given anew
        return False
    try:  # a zombie, a child of ours that nobody waited for, is over
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return text.rsplit(")", 1)[-1].split()[0] != "Z"
    except (OSError, IndexError):
        return True


class _Written:
    """A `Progress` for nobody in front of it: sentences go to a journal, figures are in metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._journal = Journal(path)

    def say(self, sentence: Sentence | str) -> None:
        self._journal.append(Said.of(sentence).model_dump(mode="json"))

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        pass


def main(argv: list[str] | None = None) -> int:
    """Train the project in this process; the exit code of the family of errors."""
    parser = argparse.ArgumentParser(prog="python -m hauslm.train.launch")
    parser.add_argument("project")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--accept-change", action="store_true")
    parser.add_argument("--language", default=words.environment_language())
    options = parser.parse_args(argv)
    egress.shut("strict")
    words.use_language(options.language)
    folder = ProjectFolder(options.project)
    state: dict[str, Any] = {"state": "running", "pid": os.getpid(), "started": now()}
    try:
        with lock(_work(folder), "launch"):
            write_json(_work(folder) / PROCESS, state)
            ended = _run(folder, options)
        # After the lock is free: whoever reads that it is over may start the next one at once.
        write_json(_work(folder) / PROCESS, {**state, "ended": now(), **ended})
    except HauslmError as error:
        sys.stderr.write(error.text() + "\n")
        return error.exit_code
    return int(ended["exit_code"])


def _run(folder: ProjectFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Train and say how it ended."""
    from hauslm.train.loop import train

    try:
        plan = folder.record("plan")
        run = train(
            load(folder.file),
            folder,
            plan=Plan.load(plan) if plan.is_file() else None,
            corpus=Corpus.load(folder.record("corpus")),
            resume=not options.fresh,
            accept_change=options.accept_change,
            progress=_Written(_work(folder) / NOTICES),
        )
        run.save(_work(folder))
        return {"state": "done", "exit_code": 0}
    except HauslmError as error:
        state = "interrupted" if error.exit_code == 75 else "failed"
        sys.stderr.write(error.text() + "\n")
        return {
            "state": state,
            "exit_code": error.exit_code,
            "code": error.code,
            "message": error.text(),
        }
    except Exception as error:
        traceback.print_exc()  # standard error is logs/train.log here
        what = say("An unforeseen error: {reason}; the log has the details.", reason=str(error))
        return {"state": "failed", "exit_code": 70, "code": "H900", "message": as_text(what)}


if __name__ == "__main__":
    sys.exit(main())
