"""plan: over the project, or free-standing with --model, --method and --gpu."""

from __future__ import annotations

from typing import Any

import click

from hauslm.base.errors import UsageError
from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common


@click.command()
@click.option(
    "--model",
    metavar="M",
    help=translate(N_("Catalog id, folder or config.json; makes the question free-standing.")),
)
@click.option(
    "--method",
    type=click.Choice(["lora", "qlora", "full", "inference"]),
    help=translate(N_("What is done with the model.")),
)
@click.option("--gpu", metavar="G", help=translate(N_("Catalog id of the GPU.")))
@click.option(
    "--seq-len", type=click.IntRange(1), metavar="N", help=translate(N_("Tokens per sequence."))
)
@click.option(
    "--micro-batch-size",
    type=click.IntRange(1),
    metavar="N",
    help=translate(N_("Sequences per forward pass.")),
)
@click.option(
    "--checkpointing",
    type=click.Choice(["on", "off"]),
    help=translate(N_("Recompute activations to save memory.")),
)
@click.option(
    "--rank", type=click.IntRange(1, 1024), metavar="N", help=translate(N_("Rank of the adapter."))
)
@click.option(
    "--targets",
    metavar="NAMES",
    help=translate(N_("Adapted modules, separated by commas; attention or all-linear.")),
)
@click.option(
    "--evidence",
    type=click.Choice(["formula", "trace", "probe"]),
    default="formula",
    help=translate(N_("How the memory is known.")),
)
@common
def plan(setting: Setting, evidence: str, **question: Any) -> None:
    from hauslm import flow

    asked = {k: v for k, v in question.items() if v is not None}
    if not asked:
        record: Any = flow.run_stage(setting.project(), "plan", options={"evidence": evidence})
        setting.show(record, "hauslm prepare")
    else:
        if "model" not in asked:
            raise UsageError(
                "H103",
                say("A free-standing plan needs --model."),
                next_step=say(
                    "hauslm catalog models lists the ids; without any option the project is planned."
                ),
            )
        asked.setdefault("method", "qlora")
        if "checkpointing" in asked:
            asked["checkpointing"] = asked["checkpointing"] == "on"
        record = flow.plan_free(**asked, evidence=evidence)
        setting.show(record)
    if record.fits and not record.fits.get(next(iter(record.fits)), True):
        setting.progress.say(record.margin.say())
        raise click.exceptions.Exit(4)
