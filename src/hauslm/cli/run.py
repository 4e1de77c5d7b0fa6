"""demo, run, report: the whole way, and what is read at its end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from hauslm.base.words import N_, language, say, translate
from hauslm.cli.common import Setting, common
from hauslm.cli.guidance import open_report


def _teller(setting: Setting) -> Any:
    """Tell each stage as it starts and ends, one line each."""

    def tell(stage: Any, what: str, seconds: float) -> None:
        from hauslm import flow

        title = flow.stage_title(stage)
        if what == "current":
            setting.progress.say(say("{title}: up to date", title=title))
        elif what == "running":
            setting.progress.say(say("{title} ...", title=title))
        else:
            setting.progress.say(
                say("{title}: done in {seconds:.1f} s", title=title, seconds=seconds)
            )

    return tell


@click.command()
@click.option("--until", metavar="STAGE", help=translate(N_("Stop after this stage.")))
@common
def run(setting: Setting, until: str | None) -> None:
    from hauslm import flow

    project = setting.project()
    records = flow.run(project, until=until, on_stage=_teller(setting))
    setting.progress.close()
    if setting.as_json:
        data = {n: r.model_dump(mode="json", by_alias=True) for n, r in records.items()}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    elif until is None:
        path = project.folder.report / "report.html"
        click.echo(path)
        setting.weiter(open_report(str(path)))


@click.command()
@click.option("--until", metavar="STAGE", help=translate(N_("Stop after this stage.")))
@common
def demo(setting: Setting, until: str | None) -> None:
    from hauslm import flow

    root = Path("demo") if setting.folder == Path() else setting.folder
    setting.progress.say(say("The embedded model is tiny: it shows the way, not quality."))
    path = flow.demo(
        root, language=language(), until=until, progress=setting.progress, on_stage=_teller(setting)
    )
    setting.progress.close()
    setting.progress.say(say("The embedded model is tiny: it shows the way, not quality."))
    if setting.as_json:
        click.echo(json.dumps({"report": str(path)}))
    elif until is None:
        click.echo(say("Report: {path}", path=str(path)).text())
    setting.weiter(f"hauslm web -C {shlex.quote(str(root))}")


@click.command()
@click.option(
    "--template",
    type=click.Choice(["full", "lab"]),
    default="full",
    help=translate(N_("full, or the lab sheet's three answers.")),
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["html", "md", "json", "pdf", "terminal"]),
    help=translate(N_("Output format; can be given several times.")),
)
@common
def report(setting: Setting, template: str, formats: tuple[str, ...]) -> None:
    from hauslm import flow

    files = flow.report(
        setting.project(),
        template=template,
        formats=formats or ("html", "md", "json"),
        language=language(),
        progress=setting.progress,
    )
    if setting.as_json:
        click.echo(json.dumps({k: str(v) for k, v in files.items()}, ensure_ascii=False, indent=2))
        return
    for kind, path in files.items():
        if kind == "terminal":
            setting.print(path.read_text(encoding="utf-8"))
        else:
            click.echo(path)
    if "html" in files:
        setting.weiter(open_report(str(files["html"])))
