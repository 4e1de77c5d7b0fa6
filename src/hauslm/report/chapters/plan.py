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
        title = say("What else is possible") if all_fit(plan) else say("What would make it fit")
        w.heading(title, 3)
        w.bullets(list(plan.suggestions))
    if plan.context is not None and not any(n.text == plan.context.text.text for n in plan.notices):
        w.text(plan.context.text)
    if not w.brief:
        _tables(w, plan)
    for notice in plan.notices:
        w.callout("note", notice)


TABLES = {
    "models": (N_("The largest models that this card can train"), N_("Model")),
    "gpus": (N_("The smallest cards that can train this model"), N_("GPU")),
}


def _tables(w: Writer, plan: Plan) -> None:
    """Which models fit the card, which cards hold the model; full tables: hauslm plan --table."""
    for name, rows in plan.tables.items():
        title, first = TABLES[name]
        key = "model" if name == "models" else "gpu"
        w.table(
            [say(first), say("Method"), say("Peak, GiB"), say("Memory, GiB"), say("tokens/s")],
            [
                (
                    str(r[key]), str(r["method"]), w.number(r["peak_gib"], ".1f"),
                    w.number(r["memory_gib"], ".0f"), w.number(r["tokens_per_second"], ",.0f"),
                )
                for r in rows
            ],
            align="llrrr",
            caption=say(title),
        )  # fmt: skip


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
    svg = plots.memory_bar(
        [(n, q.value) for n, q in sizable],
        _limits(plan),
        w.t(say("Peak memory by part")),
        "GiB",
        (peak.lowest, peak.highest),
        language=w.language,
    )
    w.figure(
        svg,
        say("Peak memory by part"),
        say("Everything that lies in the device's memory at the fullest moment."),
        table,
    )


def _limits(plan: Plan) -> list[tuple[str, float]]:
    """The planned device; beside it the next usual card size above the peak, if it does not fit."""
    peak = plan.memory.peak_gib.value
    found = []
    if plan.device is not None and plan.device.memory_gib < 12 * peak:
        found.append((plan.device.id, plan.device.memory_gib))
    if not found or peak > found[0][1]:
        larger = [g for g in (8, 16, 24, 32, 48, 80, 141) if g > peak]
        found += [(f"{g} GiB", float(g)) for g in larger[:1]]
    return found
