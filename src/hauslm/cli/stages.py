"""compare, decide, prepare, train, evaluate, analyse: one stage each, its record, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hauslm.base.words import N_, translate
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
@common
def train(setting: Setting, resume: bool, accept_change: bool) -> None:
    _stage(setting, "train", resume=resume, accept_change=accept_change)


@click.command()
@common
def evaluate(setting: Setting) -> None:
    _stage(setting, "evaluate")


@click.command()
@common
def analyse(setting: Setting) -> None:
    _stage(setting, "analyse")
