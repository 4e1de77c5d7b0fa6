"""compare, decide, prepare, train, evaluate, analyse: one stage each, its record, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hauslm.base.errors import Interrupted
from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common

NEXT = {
    "compare": "hauslm decide",
    "decide": "hauslm plan",
    "plan": "hauslm prepare",
    "prepare": "hauslm train",
    "train": "hauslm evaluate",
    "evaluate": "hauslm bundle",
    "bundle": "hauslm analyse",
    "analyse": "hauslm report",
}


def _stage(setting: Setting, name: str, **options: Any) -> None:
    from hauslm import flow

    record = flow.run_stage(setting.project(), name, options=options)
    setting.show(record, NEXT.get(name, ""))


@click.command()
@common
def compare(setting: Setting) -> None:
    _stage(setting, "compare")


@click.command()
@click.option(
    "--why", metavar="OPTION", help=translate(N_("Why was this option cut or ranked where it is?"))
)
@click.option(
    "--diff",
    "old",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="OLD.json",
    help=translate(N_("Show what changed against an older decision, and why.")),
)
@click.option(
    "--note", is_flag=True, help=translate(N_("Print the decision as a note in MADR form."))
)
@common
def decide(setting: Setting, why: str | None, old: Path | None, note: bool) -> None:
    from hauslm import flow

    project = setting.project()
    record: Any = flow.run_stage(project, "decide")
    if why:
        for sentence in flow.why_option(project, why):
            click.echo(sentence.text())
    elif old:
        for sentence in flow.decision_diff(old, record):
            click.echo(sentence.text())
    elif note:
        click.echo(flow.decision_note(record))
    else:
        setting.show(record, NEXT["decide"])


@click.command()
@common
def prepare(setting: Setting) -> None:
    _stage(setting, "prepare")


@click.command()
@click.option(
    "--resume/--fresh",
    default=True,
    help=translate(N_("Go on from the newest sound checkpoint, or start anew.")),
)
@click.option(
    "--accept-change",
    is_flag=True,
    help=translate(N_("Go on although data or settings changed; the record says so.")),
)
@click.option(
    "--detach",
    is_flag=True,
    help=translate(N_("Start it in the background and return; --attach follows it.")),
)
@click.option(
    "--attach",
    is_flag=True,
    help=translate(N_("Follow the run of this folder, also one of another terminal.")),
)
@click.option(
    "--nproc",
    type=click.IntRange(1, 1024),
    default=1,
    help=translate(N_("Processes on this machine, one for each GPU.")),
)
@click.option(
    "--strategy",
    type=click.Choice(["ddp", "fsdp"]),
    default="ddp",
    help=translate(N_("Each process holds the base (ddp), or all share it (fsdp).")),
)
@click.option(
    "--profile",
    is_flag=True,
    help=translate(N_("Also write a page that says where the time of the first steps went.")),
)
@common
def train(
    setting: Setting,
    resume: bool,
    accept_change: bool,
    detach: bool,
    attach: bool,
    profile: bool,
    **several: Any,
) -> int | None:
    from hauslm import flow

    shape = _shape(**several)
    if profile and (attach or detach or shape is not None):
        flow.refuse_profile()
    if attach:
        return _attach(setting)
    if detach:
        pid = flow.train_detached(
            setting.project(), resume=resume, accept_change=accept_change, shape=shape
        )
        setting.progress.say(say("The training runs as process {pid}.", pid=pid))
        setting.weiter("hauslm train --attach")
        return None
    with flow.telling_how_training_ended(setting.folder):
        _stage(
            setting,
            "train",
            resume=resume,
            accept_change=accept_change,
            shape=shape,
            profile=profile,
        )
    if profile:
        page = flow.profile_page(setting.project())
        setting.progress.say(say("Where the time went: {page}.", page=str(page)))
    return None


def _shape(nproc: int, strategy: str) -> dict[str, Any] | None:
    """How many processes; None: this one. Several machines are not offered: two nodes of one folder
    would still fight for its lock."""
    if nproc == 1:
        return None
    return {"processes": nproc, "strategy": strategy}


def _attach(setting: Setting) -> int | None:
    """Show the run until it ends; then its record, or what it failed with and its exit code."""
    from hauslm import flow

    project = setting.project()
    try:
        found, record = flow.train_followed(project)
    except KeyboardInterrupt:
        setting.progress.close()
        setting.progress.say(say("No longer following; the training goes on."))
        return 0
    if found.state != "done":
        setting.progress.close()
        click.echo(found.message or _gone(found.pid), err=True)
        return found.exit_code or Interrupted.exit_code
    setting.show(record, NEXT["train"])
    return None


def _gone(pid: int) -> str:
    return say(
        "Process {pid} ended without a word: it was killed. hauslm train goes on from its newest checkpoint.",
        pid=pid,
    ).text()


@click.command()
@common
def evaluate(setting: Setting) -> None:
    _stage(setting, "evaluate")


@click.command()
@common
def analyse(setting: Setting) -> None:
    _stage(setting, "analyse")
