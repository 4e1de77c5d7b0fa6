"""The plan: does it fit, how long, how much, and why these settings."""

from __future__ import annotations

from hauslm.base.words import N_, say
from hauslm.records import Plan
from hauslm.report import plots
from hauslm.report.blocks import Writer

PARTS = {
    "weights": N_("Weights"),
    "adapter": N_("Adapter"),
    "gradients": N_("Gradients"),
    "optimizer": N_("Optimizer"),
    "activations": N_("Activations"),
    "logits": N_("Logits and loss"),
    "kv_cache": N_("KV cache"),
    "overhead": N_("Context and margin"),
}
EVIDENCE = {
    "formula": N_("by closed formula"),
    "trace": N_("by a traced training step without weights"),
    "probe": N_("by measured steps on this device"),
}


def write(w: Writer, plan: Plan) -> None:
    w.heading(say("The plan"))
    w.callout("verdict" if all_fit(plan) else "warning", plan.margin)
    w.text(
        say(
            "{model} by {method}; memory known {how}.",
            model=plan.model,
            method=plan.method,
            how=w.t(EVIDENCE[plan.evidence]),
        )
    )
    _memory(w, plan)
    rows = [
        (w.t(say("Speed")), w.quantity(plan.throughput.tokens_per_second)),
        (w.t(say("Duration")), w.quantity(plan.time.hours)),
        (w.t(say("Energy")), w.quantity(plan.energy.kwh)),
        (w.t(say("Cost of the run")), w.quantity(plan.cost)),
    ]
    w.table([say("Expected"), say("Figure")], rows)
    w.table(
        [say("Setting"), say("Value"), say("Why")],
        [(name, _value(s.value), w.t(s.reason)) for name, s in plan.settings.items()],
        caption=say("The settings that were chosen"),
    )
    if plan.fits:
        w.table(
            [say("GPU"), say("fits")],
            [(gpu, w.t(say("yes") if fits else say("no"))) for gpu, fits in plan.fits.items()],
        )
    if plan.suggestions:
        w.heading(say("What would make it fit"), 3)
        w.bullets(list(plan.suggestions))
    for notice in plan.notices:
        w.callout("note", notice)


def all_fit(plan: Plan) -> bool:
    """The device that was asked for is the first of `fits`."""
    return next(iter(plan.fits.values()), True)


def _value(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


def _memory(w: Writer, plan: Plan) -> None:
    parts = [(w.t(title), getattr(plan.memory.parts, name)) for name, title in PARTS.items()]
    sizable = [(n, q) for n, q in parts if q.value > 0]
    rows = [(n, w.quantity(q, ".2f" if q.value < 10 else ".1f")) for n, q in sizable]
    peak = plan.memory.peak_gib
    rows.append((w.t(say("Peak")), w.quantity(peak, ".2f" if peak.value < 10 else ".1f")))
    table = w.make_table([say("Memory"), say("GiB")], rows, align="lr")
    if w.brief:
        w.blocks.append(table)
        return
    limits = [
        (f"{g} GiB", float(g)) for g in (8, 16, 24, 48, 80) if peak.value / 4 < g < peak.value * 2.2
    ][:2]
    svg = plots.memory_bar(
        [(n, q.value) for n, q in sizable],
        limits,
        w.t(say("Peak memory by part")),
        "GiB",
        language=w.language,
    )
    w.figure(
        svg,
        say("Peak memory by part"),
        say("Everything that lies in the device's memory at the fullest moment."),
        table,
    )
