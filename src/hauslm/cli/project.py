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
        setting.print(_table(rows))
        for row in rows:  # below the table, where a command stays whole and can be copied
            if row.next_step and not row.ok:
                click.echo(f"{_mark(row)} {as_text(row.title)}\n  → {as_text(row.next_step)}")
    crosses = [r for r in rows if r.required and not r.ok]
    if crosses:
        setting.weiter(crosses[0].next_step)
        raise click.exceptions.Exit(5)


def _mark(row: Any) -> str:
    return "✔" if row.ok else ("✘" if row.required else "–")


def _table(rows: list[Any]) -> Any:
    """Mark, what was looked at, what was found."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("", no_wrap=True)
    for title in (N_("Looked at"), N_("Found")):
        table.add_column(translate(title), overflow="fold")
    for row in rows:
        colour = "green" if row.ok else ("red" if row.required else "yellow")
        found = as_text(row.title), as_text(row.detail)
        table.add_row(Text(_mark(row), style=colour), *map(Text, found))
    return table


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
        asked = flow.questions()
        setting.progress.say(say("{n} questions; Enter takes the value in brackets.", n=len(asked)))
        for number, question in enumerate(asked, 1):
            click.echo(f"\n{number}/{len(asked)}  {translate(question.why)}", err=True)
            kind = click.Choice(question.choices) if question.choices else None
            answers[question.field] = click.prompt(
                translate(question.prompt), default=question.default, type=kind, err=True
            )
    path = flow.init(setting.folder, answers, overwrite=force)
    if setting.as_json:
        click.echo(json.dumps({"path": str(path)}))
        return
    click.echo(say("Written: {path}", path=str(path)).text())


@click.command()
@common
def schema(setting: Setting) -> None:
    from hauslm import flow

    click.echo(json.dumps(flow.schema(language()), ensure_ascii=False, indent=2))
