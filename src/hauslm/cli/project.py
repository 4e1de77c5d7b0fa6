"""check, init, schema: before the first stage."""

from __future__ import annotations

import json
from typing import Any

import click

from hauslm.base.words import N_, as_text, language, say, translate
from hauslm.cli.common import Setting, common


@click.command()
@common
def check(setting: Setting) -> None:
    from hauslm import flow

    rows = flow.check(setting.folder)
    if setting.as_json:
        data = [
            {
                "title": as_text(r.title),
                "ok": r.ok,
                "detail": as_text(r.detail),
                "next": as_text(r.next_step),
                "required": r.required,
            }
            for r in rows
        ]
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        for row in rows:
            mark = "✔" if row.ok else ("✘" if row.required else "–")
            click.echo(f"{mark} {as_text(row.title)}: {as_text(row.detail)}")
            if row.next_step and not row.ok:
                click.echo(f"    → {as_text(row.next_step)}")
    if any(r.required and not r.ok for r in rows):
        raise click.exceptions.Exit(5)


@click.command()
@click.option(
    "--yes", is_flag=True, help=translate(N_("Take every default: the lab's research team."))
)
@click.option("--force", is_flag=True, help=translate(N_("Replace an existing project file.")))
@common
def init(setting: Setting, yes: bool, force: bool) -> None:
    from hauslm import flow

    answers: dict[str, Any] = {"language": language()}
    if not yes:
        for question in flow.questions():
            click.echo(f"\n{translate(question.why)}", err=True)
            kind = click.Choice(question.choices) if question.choices else None
            answers[question.field] = click.prompt(
                translate(question.prompt), default=question.default, type=kind, err=True
            )
    path = flow.init(setting.folder, answers, overwrite=force)
    if setting.as_json:
        click.echo(json.dumps({"path": str(path)}))
        return
    click.echo(say("Written: {path}", path=str(path)).text())
    setting.weiter("hauslm decide")


@click.command()
@common
def schema(setting: Setting) -> None:
    from hauslm import flow

    click.echo(json.dumps(flow.schema(language()), ensure_ascii=False, indent=2))
