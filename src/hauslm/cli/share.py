"""bundle, verify, export: what leaves the project folder, and what comes in from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common


@click.command()
@click.option(
    "--accept-memorisation",
    is_flag=True,
    help=translate(N_("Pack although the adapter repeats training text.")),
)
@common
def bundle(setting: Setting, accept_memorisation: bool) -> None:
    from hauslm import flow

    options = {"accept_memorisation": accept_memorisation}
    record = flow.run_stage(setting.project(), "bundle", options=options)
    setting.show(record, "hauslm analyse")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--base",
    type=click.Path(file_okay=False, path_type=Path),
    help=translate(N_("Folder of the base model to check against.")),
)
@common
def verify(setting: Setting, path: Path, base: Path | None) -> None:
    from hauslm import flow

    result = flow.verify(path, base=base)
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for line in result.get("checks", []):
        click.echo(f"✔ {line}")
    click.echo(say("{path} is sound.", path=str(path)).text())


@click.command()
@click.argument("kind", type=click.Choice(["merge", "script"]))
@click.argument("target", type=click.Path(path_type=Path), required=False)
@common
def export(setting: Setting, kind: str, target: Path | None) -> None:
    from hauslm import flow

    result: dict[str, Any] = flow.export(setting.project(), kind, target)
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        click.echo(say("Written: {path}", path=str(result["path"])).text())
