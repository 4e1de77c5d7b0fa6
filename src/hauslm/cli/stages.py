"""compare, decide, prepare, train, evaluate, analyse: one stage each, its record, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hauslm.base.errors import Interrupted, UsageError
from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common


def _stage(setting: Setting, name: str, **options: Any) -> None:
    from hauslm import flow

    record = flow.run_stage(setting.project(), name, options=options)
    setting.show(record)


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
        setting.show(record)


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
@click.option(
    "--detach",
    is_flag=True,
    help=translate(N_("Start it in the background and return; --attach follows it.")),
)
@click.option(
    "--attach",
    is_flag=True,
    help=translate(N_("Follow the run of this folder, also one of another terminal.")),
)
@click.option(
    "--nproc",
    type=click.IntRange(1, 1024),
    default=1,
    help=translate(N_("Processes on this machine, one for each GPU.")),
)
@click.option(
    "--strategy",
    type=click.Choice(["ddp", "fsdp"]),
    default="ddp",
    help=translate(N_("Each process holds the base (ddp), or all share it (fsdp).")),
)
@click.option(
    "--nnodes",
    type=click.IntRange(1, 4096),
    default=1,
    help=translate(N_("Machines that train together; give the same command on each.")),
)
@click.option(
    "--node-rank",
    type=click.IntRange(0, 4095),
    default=0,
    help=translate(N_("Which of them this one is; 0 writes the result.")),
)
@click.option(
    "--master",
    default="",
    metavar="HOST:PORT",
    help=translate(N_("Where they meet: an address of machine 0 and a free port.")),
)
@click.option(
    "--profile",
    is_flag=True,
    help=translate(N_("Also write a page that says where the time of the first steps went.")),
)
@common
def train(
    setting: Setting,
    resume: bool,
    accept_change: bool,
    detach: bool,
    attach: bool,
    profile: bool,
    **several: Any,
) -> int | None:
    from hauslm import flow

    shape = _shape(**several)
    if profile and (attach or detach or shape is not None):
        flow.refuse_profile()
    if attach:
        return _attach(setting)
    if detach:
        pid = flow.train_detached(
            setting.project(), resume=resume, accept_change=accept_change, shape=shape
        )
        setting.progress.say(say("The training runs as process {pid}.", pid=pid))
        setting.weiter("hauslm train --attach")
        return None
    if shape is not None and shape["node_rank"] > 0:
        flow.train_node(setting.project(), shape, resume=resume, accept_change=accept_change)
        setting.progress.say(say("This machine's part is done; machine 0 has the result."))
        return None
    with flow.telling_how_training_ended(setting.folder):
        _stage(
            setting,
            "train",
            resume=resume,
            accept_change=accept_change,
            shape=shape,
            profile=profile,
        )
    if profile:
        page = flow.profile_page(setting.project())
        setting.progress.say(say("Where the time went: {page}.", page=str(page)))
    return None


@click.command()
@click.option(
    "--learning-rate",
    "learning_rates",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    help=translate(N_("To try; can be given several times. Without it three around the present.")),
)
@click.option(
    "--rank",
    "ranks",
    type=click.IntRange(1, 1024),
    multiple=True,
    help=translate(N_("To try; can be given several times. Without it 8, 16, 32.")),
)
@click.option(
    "--targets",
    multiple=True,
    metavar="NAMES",
    help=translate(N_("all-linear, or module names with commas; can be given several times.")),
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help=translate(N_("Optimizer steps of a whole trial; without it those of the training.")),
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 10_000),
    help=translate(N_("Trials at once; without it one for each GPU.")),
)
@common
def sweep(setting: Setting, **grid: Any) -> None:
    from hauslm import flow

    setting.show(flow.sweep(setting.project(), **grid))


def _shape(
    nproc: int, strategy: str, nnodes: int, node_rank: int, master: str
) -> dict[str, Any] | None:
    """How many processes, and where; None: this one alone."""
    if nproc == 1 and nnodes == 1 and not node_rank and not master:
        return None
    return {
        "processes": nproc, "strategy": strategy, "nodes": nnodes, "node_rank": node_rank,
        "rendezvous": master,
    }  # fmt: skip


def _attach(setting: Setting) -> int | None:
    """Show the run until it ends; then its record, or what it failed with and its exit code."""
    from hauslm import flow

    project = setting.project()
    try:
        found, record = flow.train_followed(project)
    except KeyboardInterrupt:
        setting.progress.close()
        setting.progress.say(say("No longer following; the training goes on."))
        return 0
    if found.state != "done":
        setting.progress.close()
        click.echo(found.message or _gone(found.pid), err=True)
        return found.exit_code or Interrupted.exit_code
    setting.show(record)
    return None


def _gone(pid: int) -> str:
    return say(
        "Process {pid} ended without a word: it was killed. hauslm train goes on from its newest checkpoint.",
        pid=pid,
    ).text()


@click.command()
@common
def evaluate(setting: Setting) -> None:
    _stage(setting, "evaluate")


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm", "openai", "ray"]),
    help=translate(
        N_("What runs the model, in place of the project file's; ray: many workers share the work.")
    ),
)
@click.option(
    "--workers",
    type=click.IntRange(1, 100_000),
    help=translate(N_("Ray workers; without it one for each GPU, or for two processor cores.")),
)
@click.option(
    "--ray-address",
    default="",
    metavar="HOST:PORT",
    help=translate(N_("A Ray cluster that runs already; without it one is started here.")),
)
@click.option(
    "--shard",
    metavar="I/N",
    help=translate(N_("Only part I of N, on as many machines as you like; --merge ends it.")),
)
@click.option(
    "--merge", is_flag=True, help=translate(N_("Put the parts of --shard together; repeatable."))
)
@common
def analyse(
    setting: Setting,
    engine: str | None,
    workers: int | None,
    ray_address: str,
    shard: str | None,
    merge: bool,
) -> None:
    from hauslm import flow

    if merge:
        if shard or engine or workers or ray_address:
            raise UsageError(
                "H115",
                say("--merge takes no other option: the parts say what they were made with."),
                next_step=say("Run hauslm analyse --merge alone, once all parts are there."),
            )
        _stage(setting, "analyse", merge=True)
        return
    options: dict[str, Any] = {"workers": workers, "ray_address": ray_address}
    if engine is not None:
        options["engine"] = engine
    if shard is None:
        _stage(setting, "analyse", **options)
        return
    record = flow.analyse_part(setting.project(), shard, **options)
    setting.show(record)
    setting.weiter("hauslm analyse --merge")
