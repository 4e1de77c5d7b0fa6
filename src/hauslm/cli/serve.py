"""serve and web: both listen on this machine only."""

from __future__ import annotations

import dataclasses

import click

from hauslm.base import egress
from hauslm.base.words import N_, translate
from hauslm.cli.common import Setting, common


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help=translate(N_("Port to listen on.")))
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm"]),
    help=translate(N_("What runs the model; default: serving.engine of the project file.")),
)
@common
def serve(setting: Setting, port: int | None, engine: str | None) -> None:
    from hauslm import flow

    project = setting.project()
    if engine is not None:
        serving = project.scenario.serving.model_copy(update={"engine": engine})
        scenario = project.scenario.model_copy(update={"serving": serving})
        project = dataclasses.replace(project, scenario=scenario)
    egress.shut("loopback")
    flow.serve(project, port=port, progress=setting.progress)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8398, help=translate(N_("Port to listen on."))
)
@common
def web(setting: Setting, port: int) -> None:
    from hauslm.web.app import run

    egress.shut("loopback")
    run(setting.folder, port=port, progress=setting.progress)
