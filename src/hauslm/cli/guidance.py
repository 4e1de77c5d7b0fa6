"""What comes next? After every command one sentence or one command that goes on from there.

A command that knows better (`check` with a cross, `keys` after `new`) says its own; all others get the
line below that bears their name, so that a command without one is a failing test, not a dead end.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from hauslm.base.words import N_, Sentence, say

# Command -> the command to type next, or a sentence (a template without fields).
NEXT: dict[str, str] = {
    "demo": "hauslm web",
    "check": "hauslm decide",
    "init": "hauslm decide",
    "compare": "hauslm decide",
    "decide": "hauslm plan",
    "plan": "hauslm prepare",
    "prepare": "hauslm train",
    "train": "hauslm evaluate",
    "sweep": "hauslm train",
    "evaluate": "hauslm bundle",
    "bundle": "hauslm analyse",
    "verify": N_("hauslm adapters import FILE takes it into the project."),
    "export": "hauslm report",
    "keys": N_("hauslm bundle --sign NAME signs with a key of yours."),
    "adapters": N_("hauslm adapters compare A B sets two side by side; hauslm evaluate measures."),
    "push": N_("Colleagues check what they fetched with hauslm verify."),
    "pack": N_("Copy the folder to the other machine and run its install.sh there."),
    "analyse": "hauslm report",
    "serve": "hauslm report",
    "web": "hauslm report",
    "report": N_("Open the report, or look at the same stages with hauslm web."),
    "run": N_("Open the report, or look at the same stages with hauslm web."),
    "catalog": N_("hauslm catalog KIND ID shows one entry with its sources."),
    "prove-privacy": "hauslm report",
    "schema": N_("Edit hauslm.yaml; hauslm check tells whether it is sound."),
    "completion": N_("Put the line above into your shell's start file and open a new shell."),
}
# Commands that mean nothing without a project folder: the one that was named is named again.
IN_A_PROJECT = frozenset(
    [
        "check",
        "decide",
        "compare",
        "plan",
        "prepare",
        "train",
        "sweep",
        "evaluate",
        "bundle",
        "analyse",
        "report",
        "run",
        "web",
        "serve",
    ]
)


def next_of(command: str) -> str | Sentence:
    """The line of `command`: a command as it is typed, or a sentence to translate."""
    line = NEXT[command]
    return line if _is_command(line) else Sentence(line)


def in_folder(step: str | Sentence, folder: Path) -> str | Sentence:
    """A command for the project that was named with -C, not for the folder one stands in."""
    if isinstance(step, Sentence) or not _is_command(step) or folder == Path():
        return step
    words = step.split()
    if words[1] not in IN_A_PROJECT or "-C" in words:
        return step
    return f"{step} -C {shlex.quote(str(folder))}"


def _is_command(step: str) -> bool:
    return step.startswith("hauslm ") and not step.endswith(".")


def open_report(path: str) -> Sentence:
    return say("Open {path} in a browser, or look at the same stages with hauslm web.", path=path)
