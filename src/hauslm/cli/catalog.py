"""catalog: the facts, with how each figure is known."""

from __future__ import annotations

import json

import click

from hauslm.cli.common import Setting, common


@click.command()
@click.argument("kind", type=click.Choice(["models", "gpus", "offers", "tariffs", "rules"]))
@click.argument("identifier", metavar="[ID]", required=False)
@common
def catalog(setting: Setting, kind: str, identifier: str | None) -> None:
    from hauslm import flow

    answer = flow.catalog(kind, identifier)
    if setting.as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    setting.print(flow.summary(answer))
