"""prove-privacy: the stages in a network trap, and what tried to leave."""

from __future__ import annotations

import click

from hauslm.base.words import N_, translate
from hauslm.cli.common import Setting, common


@click.command("prove-privacy")
@click.option(
    "--until",
    metavar="STAGE",
    help=translate(N_("Stop after this stage: prepare, train, evaluate, analyse, serve.")),
)
@common
def prove_privacy(setting: Setting, until: str | None) -> None:
    from hauslm import flow

    record = flow.prove_privacy(setting.folder, until=until, progress=setting.progress)
    setting.show(record)
    flow.privacy_verdict(record)
