"""serve and web: both listen on this machine only."""

from __future__ import annotations

import click

from hauslm.base import egress
from hauslm.base.words import N_, translate
from hauslm.cli.common import Setting, common


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help=translate(N_("Port to listen on.")))
@common
def serve(setting: Setting, port: int | None) -> None:
    from hauslm import flow

    egress.shut("loopback")
    flow.serve(setting.project(), port=port, progress=setting.progress)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8398, help=translate(N_("Port to listen on."))
)
@common
def web(setting: Setting, port: int) -> None:
    from hauslm.web.app import run

    egress.shut("loopback")
    run(setting.folder, port=port, progress=setting.progress)
