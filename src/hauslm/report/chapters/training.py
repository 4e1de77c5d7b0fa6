"""The training: how it went, what came out, and how repeatable it is."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Run
from hauslm.report import plots
from hauslm.report.blocks import Writer


def write(w: Writer, run: Run) -> None:
    w.heading(say("The training"))
    w.text(
        say(
            "{steps:,} steps over {tokens:,} tokens on {device} in {minutes:.1f} minutes.",
            steps=run.steps, tokens=run.tokens, device=run.device, minutes=run.seconds / 60,
        )
    )  # fmt: skip
    loss = run.loss
    rows = [
        (
            w.t(say("Loss, first and last step")),
            f"{w.number(loss.first, '.3f')} → {w.number(loss.last, '.3f')}",
        ),
        (
            w.t(say("Validation loss, before and after")),
            f"{_or_dash(w, loss.validation_first)} → {_or_dash(w, loss.validation)}",
        ),
        (w.t(say("Speed")), w.quantity(run.tokens_per_second)),
        *_limit(w, run),
        (w.t(say("Peak memory")), w.quantity(run.peak_memory_gib, ".2f")),
        (
            w.t(say("Adapter")),
            f"{run.adapter.path} ({w.number(run.adapter.parameters)} {w.t(say('parameters'))})",
        ),
        (w.t(say("Adapter sha256")), run.adapter.sha256[:16]),
        (w.t(say("Base model")), f"{run.base.get('id', '')} ({run.base.get('sha256', '')[:16]})"),
        (w.t(say("Repeatability")), _determinism(w, run)),
    ]
    w.table([say("Result"), say("Figure")], rows)
    _curve(w, run)
    if not w.brief:
        config = {k: v for k, v in run.adapter.config.items() if v not in (None, [], {})}
        w.table(
            [say("LoRA setting"), say("Value")],
            [
                (k, ", ".join(map(str, v)) if isinstance(v, list) else str(v))
                for k, v in config.items()
            ],
        )
    for notice in run.notices:
        w.callout("note", notice)


def _limit(w: Writer, run: Run) -> list[tuple[str, str]]:
    """How much of the measured matmul peak the run reached."""
    found = run.settings.get("limit")
    if not found:
        return []
    text = say(
        "{share:.0%} of the {peak:,.0f} GFLOP/s that this machine multiplies in {format}, measured at the start",
        share=found["share"],
        peak=found["peak_gflops"],
        format=found["number_format"],
    )
    return [(w.t(say("Share of what the machine could do")), w.t(text))]


def _or_dash(w: Writer, value: float | None) -> str:
    return "–" if value is None else w.number(value, ".3f")


def _determinism(w: Writer, run: Run) -> str:
    if run.determinism == "bitwise":
        text = w.t(say("bit for bit on this kind of machine"))
    else:
        text = w.t(say("statistically, not bit for bit"))
    if run.resumed_from:
        text += "; " + w.t(say("resumed {count} times", count=len(run.resumed_from)))
    return text


def _curve(w: Writer, run: Run) -> None:
    steps = [(h["step"], h["loss"]) for h in run.history if "loss" in h and "step" in h]
    checks = [(h["step"], h["validation"]) for h in run.history if h.get("validation") is not None]
    if w.brief or len(steps) < 2:
        return
    series = [(w.t(say("Training")), [s for s, _ in steps], [v for _, v in steps])]
    if checks:
        series.append((w.t(say("Validation")), [s for s, _ in checks], [v for _, v in checks]))
    shown = steps[:: max(1, len(steps) // 20)]
    by_step = dict(checks)
    table = w.make_table(
        [say("Step"), say("Loss"), say("Validation")],
        [(w.number(s, ","), w.number(v, ".3f"), _or_dash(w, by_step.get(s))) for s, v in shown],
        align="rrr",
    )
    svg = plots.curves(
        series,
        w.t(say("Loss during the training")),
        w.t(say("Step")),
        w.t(say("Loss (nats per token)")),
        language=w.language,
    )
    w.figure(
        svg,
        say("Loss during the training"),
        say("Lower is better; validation is measured on works that were held out."),
        table,
    )
