"""The page of `hauslm train --profile`: where the time of some training steps went, and of how much.

What `train.profile` measured becomes report/profile.html, in the style of the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hauslm.base.files import ProjectFolder, write_sealed
from hauslm.base.version import __version__
from hauslm.base.words import N_, say, translate
from hauslm.report import html, plots
from hauslm.report.blocks import Writer
from hauslm.report.build import words_of

# What can be done about a part when it is the largest.
ADVICE = {
    "base": N_("Most of the time is the base's own products: the machine does what it is for. training.base_precision int8 or fp8 makes them cheaper, behind a measured gate."),
    "lora": N_("The adapter's products take most: a smaller adapter.r, or fewer adapter.target_modules."),
    "attention": N_("Attention takes most: shorter sequences (training.seq_len) cost less of it."),
    "loss": N_("Head and loss take most: the model is small beside its vocabulary; larger bases suffer less."),
    "optimizer": N_("The optimizer takes most: a larger batch per step (training.gradient_accumulation_steps) runs it less often."),
    "rounding": N_("Rounding takes most: for matrices this small 8-bit products do not pay; set training.base_precision to full."),
    "rest": N_("Norms, activations and copies take most, bound by memory: a GPU gains from training.liger and training.compile."),
    "data": N_("Making rows takes most: look at the disk that holds work/prepared."),
    "python": N_("Python and waiting take most: more tokens per forward pass (training.micro_batch_size) amortise it; or other programs use the machine."),
}  # fmt: skip


def write(
    folder: ProjectFolder, found: dict[str, Any], names: dict[str, str], language: str
) -> Path:
    """report/profile.html from `train.profile.read`; `names` are the parts' names by key."""
    w = Writer(language)
    _chapter(w, found, names)
    title = say("Where the time of the training went").text(language)
    lead = say(
        "{steps} steps, {tokens:,} tokens, {seconds:.1f} seconds on {device}, with hauslm {version}",
        steps=found["steps"], tokens=found["tokens"], seconds=found["wall_seconds"],
        device=found["device"], version=__version__,
    ).text(language)  # fmt: skip
    footer = say("Nothing in this file contacts a server.").text(language)
    text = html.page(
        w.blocks, title=title, lead=lead, language=language, footer=footer, words=words_of(language)
    )
    target = folder.root / "report" / "profile.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(target, text.encode("utf-8"))
    return target


def _chapter(w: Writer, found: dict[str, Any], names: dict[str, str]) -> None:
    wall = float(found["wall_seconds"])
    parts = sorted(found["parts"].items(), key=lambda i: -i[1])
    limit = found["limit"]
    if limit:
        w.callout(
            "verdict",
            say("These steps reached {share:.0%} of the {peak:,.0f} GFLOP/s that this machine multiplies in {format}, measured at the start of the run.",
                share=limit["share"], peak=limit["peak_gflops"], format=limit["number_format"]),
        )  # fmt: skip
    w.callout("note", ADVICE[parts[0][0]])
    rows = [(translate(names[k], w.language), v) for k, v in parts]
    title = say("Time by part")
    w.figure(
        plots.bars([(n, v / wall * 100, i == 0) for i, (n, v) in enumerate(rows)],
                   w.t(title), "%", language=w.language),
        title,
        say("Per cent of the wall time. Python and waiting is what no operator accounts for."),
        w.make_table([say("Part"), say("Seconds"), say("Share")],
                     [(n, w.number(v, ".2f"), w.number(v / wall, ".1%")) for n, v in rows], align="lrr"),
    )  # fmt: skip
    w.heading(say("The operators that took most"))
    w.table(
        [say("Operator"), say("Seconds"), say("Share"), say("Calls")],
        [
            (o["name"], w.number(o["seconds"], ".2f"), w.number(o["seconds"] / wall, ".1%"), w.number(o["calls"], ","))
            for o in found["operators"]
        ],
        align="lrrr",
    )  # fmt: skip
    w.text(say("The whole trace, for any viewer of Chrome traces: work/train/profile/trace.json."))
    w.text(say("The profiler itself costs time, so these steps are slower than those of the run."))
