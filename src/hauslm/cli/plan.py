"""plan: over the project, or free-standing with --model, --method and --gpu; --table for whole tables."""

from __future__ import annotations

import shlex
from typing import Any

import click

from hauslm.base.errors import UsageError
from hauslm.base.words import N_, Sentence, say, translate
from hauslm.cli.common import Setting, common

USUAL_TABLE_LENGTH = 4096
# Options that ask a free-standing question; --evidence alone still plans the project.
OF_A_TABLE = frozenset(("table", "gpu", "model", "seq_len"))


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
@click.option(
    "--gpu", metavar="G", help=translate(N_("Catalog id of the GPU; cpu for this computer."))
)
@click.option(
    "--gpus", type=click.IntRange(1, 1024), metavar="N", help=translate(N_("How many of that GPU."))
)
@click.option(
    "--seq-len", type=click.IntRange(1), metavar="N", help=translate(N_("Tokens per sequence."))
)
@click.option(
    "--micro-batch-size",
    type=click.IntRange(1),
    metavar="N",
    help=translate(N_("Sequences per forward pass; of inference, how many at once.")),
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
    help=translate(N_("Adapted modules, separated by commas; attention, mlp or all-linear.")),
)
@click.option(
    "--dropout", type=click.FloatRange(0, 1, max_open=True), metavar="P",
    help=translate(N_("Dropout of the adapter.")),
)  # fmt: skip
@click.option(
    "--variant",
    metavar="V",
    help=translate(N_("Variant of LoRA: lora, rslora, dora, pissa, olora, eva, loftq, lora_plus.")),
)
@click.option(
    "--quantisation",
    type=click.Choice(["none", "nf4", "nf4_single", "int8", "fp8", "int8_mm", "mxfp4"]),
    help=translate(N_("Format of the base; nf4 is with double quantisation.")),
)
@click.option(
    "--kbit-upcast",
    is_flag=True,
    default=None,
    help=translate(N_("Embeddings, head and norms in fp32, as PEFT's k-bit preparation does.")),
)
@click.option(
    "--loss",
    type=click.Choice(["naive", "kernel", "fused"]),
    help=translate(N_("All logits at once, by a fused kernel, or in chunks.")),
)
@click.option(
    "--attention",
    type=click.Choice(["sdpa", "flash", "padded", "eager", "documents"]),
    help=translate(N_("How attention is computed; padded is SDPA with a dense mask.")),
)
@click.option(
    "--arithmetic",
    type=click.Choice(["mixed", "autocast", "lean"]),
    help=translate(N_("How LoRA computes: as PEFT does without or with autocast, or as hauslm.")),
)
@click.option(
    "--optimizer",
    type=click.Choice(["adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit"]),
    help=translate(N_("The optimizer and the format of its states.")),
)
@click.option(
    "--sharding",
    type=click.Choice(["ddp", "fsdp"]),
    help=translate(N_("Several GPUs: the whole model on each (ddp), or shared (fsdp).")),
)
@click.option(
    "--kv-cache",
    type=click.Choice(["16bit", "8bit", "4bit"]),
    help=translate(N_("Format of the KV cache, for inference.")),
)
@click.option(
    "--suggest",
    is_flag=True,
    default=None,
    help=translate(N_("Also name the fastest setting that fits.")),
)
@click.option(
    "--table",
    type=click.Choice(["models", "gpus"]),
    help=translate(N_("Which models fit --gpu, or which GPUs hold --model.")),
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
    if "table" in asked:
        _table(setting, asked)
        return
    if not asked or set(asked) == {"suggest"}:
        # A project's plan always brings its suggestions.
        record: Any = flow.run_stage(setting.project(), "plan", options={"evidence": evidence})
        setting.show(record)
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
        record = flow.plan_free(**asked, evidence=evidence, progress=setting.progress)
        setting.show(record)
    if record.fits and not record.fits.get(next(iter(record.fits)), True):
        setting.progress.say(record.margin.say())
        setting.weiter(f"hauslm plan --table gpus --model {shlex.quote(record.model)}")
        raise click.exceptions.Exit(4)
    if "model" in asked:
        setting.weiter(_after_a_question(asked))


def _after_a_question(asked: dict[str, Any]) -> Sentence | str:
    """A free-standing plan has no project to go on with: what it can be asked further, or init."""
    if not asked.get("suggest"):
        return say("The same with --suggest names the fastest setting that fits.")
    return "hauslm init"


def _table(setting: Setting, asked: dict[str, Any]) -> None:
    from hauslm import flow

    strangers = sorted(set(asked) - OF_A_TABLE)
    if strangers:
        raise UsageError(
            "H104",
            say(
                "A table does not know the option {option}.",
                option="--" + strangers[0].replace("_", "-"),
            ),
            where="--table",
            next_step=say("It takes --gpu or --model, and --seq-len."),
        )
    answer = flow.plan_table(
        asked["table"],
        gpu=asked.get("gpu"),
        model=asked.get("model"),
        seq_len=asked.get("seq_len", USUAL_TABLE_LENGTH),
    )
    setting.show(answer)
    if not setting.as_json:
        for notice in answer["notices"]:
            setting.progress.say(notice)
