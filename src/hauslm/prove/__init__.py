"""Does anything leave? The stages run in a network trap, and what they send is counted.

A claim that nothing leaves is worth nothing to a data-protection officer; this makes the record
`privacy.json`. The stages run as the commands that a user runs, with the guard as shipped, on a copy of
the project with few steps, in a private network whose only way out counts every packet (`base/trap.py`).
A control then sends on purpose, past the guard, to an address of the trap: if that is not caught, a
count of 0 means nothing. Passed means 0 packets from the stages and more than 0 from the control.

What this does not prove stands in the record as well (`limits`). Where the kernel permits no private
network, the record says "not proven"; it never says that nothing was seen.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError, RefusedError, UsageError, did_you_mean
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.progress import Progress, Silent
from hauslm.base.version import __version__
from hauslm.base.words import language, say
from hauslm.prove.copy import prepare_copy, workplace
from hauslm.prove.record import TRAP_LAYER, TRIED_LAYER, make_record
from hauslm.prove.stages import STAGES, commands, environment
from hauslm.records import Privacy

DEFAULT = ("prepare", "train", "evaluate", "analyse", "serve")


def prove(
    root: Path,
    *,
    stages: Sequence[str] = DEFAULT,
    progress: Progress | None = None,
) -> Privacy:
    """Run `stages` (in the order of `STAGES`) in the trap and write `records/privacy.json`.

    `root` is a project folder; without a project file in it the demo's project is taken. The project
    itself is not touched: the stages work on a copy. Whether the record is a proof says `passed`;
    `verdict` turns anything else into an error. H140 for a stage that cannot be run here.
    """
    progress = progress or Silent()
    for name in stages:
        if name not in STAGES:
            raise UsageError(
                "H140",
                say("'{name}' cannot be run in the trap.", name=name),
                next_step=did_you_mean(name, STAGES),
            )
    folder = ProjectFolder(root)
    with workplace(folder) as place:
        copy = place / "project"
        notices = prepare_copy(folder, copy)
        log = place / "attempts.jsonl"
        asked = commands(copy, [s for s in STAGES if s in stages], log)
        answers = in_trap(asked, progress)
        attempts = _attempts(log)
    inputs = {"hauslm.yaml": sha256_file(folder.file)} if folder.file.is_file() else {}
    record = make_record(answers, list(stages), attempts, notices).model_copy(
        update={"inputs": inputs, "hauslm_version": __version__, "language": language()}
    )
    record.save(folder.records)
    return record


def verdict(record: Privacy) -> None:
    """Nothing if the proof passed, else the error that says why not: exit code 4 or 5.

    H480 packets were seen; H550 no private network here; H551 a stage or the control did not work.
    """
    if record.passed:
        return
    if record.packets:
        targets = sorted({a["target"] for a in record.attempts if a.get("event") == "packet"})
        raise RefusedError(
            "H480",
            say(
                "{count:,} packets tried to leave ({targets}).",
                count=record.packets,
                targets=", ".join(targets[:5]) or "?",
            ),
            next_step=say("Read the attempts in records/privacy.json, and report them."),
        )
    if record.packets is None:
        raise MissingError(
            "H550",
            say(
                "Not proven: {reason}",
                reason=record.layers[TRAP_LAYER].sentence(),
            ),
            next_step=say(
                "Run it on Linux where unprivileged user namespaces are permitted, or as root in a "
                "virtual machine."
            ),
        )
    raise MissingError(
        "H551",
        say(
            "Not proven: {reasons}",
            reasons=[n.sentence() for n in record.notices] or say("the control was not caught"),
        ),
        next_step=say("Make the stage run outside the trap first, then prove again."),
    )


def in_trap(commands: Sequence[dict[str, Any]], progress: Progress) -> list[dict[str, Any]]:
    """The trap's answers, in order; it runs as a process of its own, for it cannot come back."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hauslm.base.trap"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr  # noqa: S101 - pipes were asked for
    answers: list[dict[str, Any]] = []
    try:
        with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            json.dump({"commands": list(commands)}, stdin)
        for line in process.stdout:
            answers.append(json.loads(line))
            _report(answers[-1], answers, len(commands), progress)
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    if not any(a["event"] in ("ready", "impossible") for a in answers):
        reason = process.stderr.read().strip().splitlines()[-1:] or [str(process.returncode)]
        answers.append({"event": "impossible", "reason": reason[0]})
    return answers


def _report(
    answer: dict[str, Any], answers: list[dict[str, Any]], total: int, progress: Progress
) -> None:
    if answer["event"] == "started":
        ended = sum(a["event"] == "ended" for a in answers)
        progress.step(say("In the trap"), ended, total, command=answer["name"])
    elif answer["event"] == "ended" and answer["name"] in STAGES:
        progress.say(
            say(
                "{stage}: {packets:,} packets in {seconds:.1f} s (exit code {code})",
                stage=answer["name"],
                packets=answer["packets"],
                seconds=answer["seconds"],
                code=str(answer["exit_code"]),
            )
        )


def _attempts(log: Path) -> list[dict[str, str]]:
    """What the audit hooks of the stages refused."""
    found: list[dict[str, str]] = []
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append({k: str(v) for k, v in json.loads(line).items()})
    return found


__all__ = [
    "DEFAULT", "STAGES", "TRAP_LAYER", "TRIED_LAYER", "in_trap", "make_record", "prove", "verdict",
]  # fmt: skip
