"""serve and web: both listen on this machine only, unless more is asked for and encrypted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hauslm.base import egress
from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)


def _where(default: str | None) -> Callable[[F], F]:
    """The options that say where to listen; `base/listen.py` judges them."""

    def add(function: F) -> F:
        for option in (
            click.option(
                "--tls-key", type=_FILE,
                help=translate(N_("The certificate's private key, PEM, readable by you alone.")),
            ),
            click.option(
                "--tls-cert", type=_FILE,
                help=translate(N_("Certificate for TLS, PEM, with the server's names in it.")),
            ),
            click.option(
                "--allow-network", is_flag=True,
                help=translate(N_("Permit an address that other machines reach; needs TLS.")),
            ),
            click.option(
                "--host", default=default, metavar="ADDRESS",
                help=translate(N_("Address to listen on; 127.0.0.1 is this machine only.")),
            ),
        ):  # fmt: skip
            function = option(function)
        return function

    return add


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help=translate(N_("Port to listen on.")))
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm"]),
    help=translate(N_("What runs the model; default: serving.engine of the project file.")),
)
@_where(None)
@common
def serve(setting: Setting, port: int | None, engine: str | None, **where: Any) -> None:
    from hauslm import flow

    project = setting.project()
    if engine is not None:
        serving = project.scenario.serving.model_copy(update={"engine": engine})
        scenario = project.scenario.model_copy(update={"serving": serving})
        project = dataclasses.replace(project, scenario=scenario)
    if project.scenario.serving.engine == "vllm":
        setting.progress.say(
            say(
                "vLLM's processes call each other, so this command runs without the kernel's filter; "
                "the audit hook guards hauslm itself, and vLLM is told to stay on this machine."
            )
        )
    else:
        egress.shut("loopback")
    flow.serve(project, port=port, progress=setting.progress, **where)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8398, help=translate(N_("Port to listen on."))
)
@_where("127.0.0.1")
@common
def web(setting: Setting, port: int, **where: Any) -> None:
    from hauslm.web.app import run

    egress.shut("loopback")
    run(setting.folder, port=port, progress=setting.progress, **where)
