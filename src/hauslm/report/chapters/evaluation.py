"""The evaluation: does the adapter help, by how much, how sure, and at what price."""

from __future__ import annotations

from typing import Any

from hauslm.base.quantity import Quantity
from hauslm.base.words import N_, say
from hauslm.records import CostPerItem, Difference, Evaluation
from hauslm.report import plots
from hauslm.report.blocks import Writer

METRICS = {
    "accuracy": N_("accuracy"),
    "macro_f1": N_("macro F1"),
    "exact_match": N_("exact match"),
    "token_f1": N_("token F1"),
    "entity_f1": N_("entity F1"),
    "json_valid": N_("valid JSON"),
    "bits_per_byte": N_("bits per byte"),
    "calibration_error": N_("calibration error"),
    "terminology": N_("terminology"),
    "term_written": N_("terms written"),
    "term_bits_per_byte": N_("bits per byte of the terms"),
}
MEASURES = {
    "measured": N_("measured"),
    "unit": N_("unit"),
    "difference_en": N_("change on English text"),
    "difference_de": N_("change on German text"),
    "kl_nats_per_token": N_("distance from the base (KL, nats per token)"),
    "passed": N_("within the limit"),
    "limit": N_("limit"),
    "spans": N_("passages asked"),
    "span_tokens": N_("tokens per passage"),
    "documents": N_("documents"),
    "exact_base": N_("reproduced by the base"),
    "exact_adapter": N_("reproduced by the adapter"),
    "exact_unseen": N_("reproduced of unseen text"),
    "exact_above_base": N_("reproduced beyond the base"),
    "canaries_memorised": N_("planted sentences memorised"),
    "repeated_sentences": N_("repeated sentences"),
    "repeated_reproduced": N_("repeated sentences reproduced"),
}
SYSTEMS = {
    "base": N_("Base"),
    "adapter": N_("Adapter"),
    "cloud": N_("Cloud model"),
    "majority": N_("Most frequent label"),
    "tfidf_logistic": N_("TF-IDF"),
    "tfidf_position_logistic": N_("TF-IDF with position"),
}
SHOWN_EXAMPLES = 10


def name_of(w: Writer, metric: str) -> str:
    return w.t(METRICS.get(metric, metric.replace("_", " ")))


def system_of(w: Writer, name: str) -> str:
    """A system in words; one that the user named (a cloud model) keeps its name."""
    return w.t(SYSTEMS[name]) if name in SYSTEMS else name


def write(w: Writer, evaluation: Evaluation) -> None:
    w.heading(say("The evaluation"))
    w.callout("verdict" if evaluation.verdict == "better" else "warning", evaluation.verdict_text)
    w.text(
        say(
            "{n:,} items from {documents:,} held-out documents; the document is the unit of every interval.",
            n=evaluation.n, documents=evaluation.documents,
        )
    )  # fmt: skip
    _systems(w, evaluation)
    _differences(w, evaluation)
    _costs(w, evaluation)
    _price(w, evaluation)
    _harness(w, evaluation)
    if not w.brief:
        _examples(w, evaluation)
    for notice in evaluation.notices:
        w.callout("note", notice)


def _systems(w: Writer, evaluation: Evaluation) -> None:
    metrics = list(dict.fromkeys(m for s in evaluation.systems for m in s.metrics))
    rows = []
    for system in evaluation.systems:
        cells = []
        for metric in metrics:
            value = system.metrics.get(metric)
            cells.append("–" if value is None else w.number(value, ".3f"))
        rows.append((system_of(w, system.name), *cells))
    w.table(
        [say("System"), *[name_of(w, m) for m in metrics]], rows, align="l" + "r" * len(metrics)
    )
    if not w.brief:
        w.bullets(_absent(w, evaluation))


def _absent(w: Writer, evaluation: Evaluation) -> list[str]:
    """Why a dash stands in the table: each reason once, with the systems and metrics that it explains."""
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for system in evaluation.systems:
        for metric, reason in system.absent.items():
            systems, metrics = reasons.setdefault(w.t(reason), ({}, {}))
            systems[system_of(w, system.name)] = None
            metrics[name_of(w, metric)] = None
    return [f"{', '.join(s)} ({', '.join(m)}): {reason}" for reason, (s, m) in reasons.items()]


def _differences(w: Writer, evaluation: Evaluation) -> None:
    if not evaluation.differences:
        return
    rows = []
    for d in evaluation.differences:
        p = d.p if d.p_holm is None else d.p_holm
        rows.append(
            (
                w.t(
                    say(
                        "{metric}: {system} minus {against}",
                        metric=name_of(w, d.metric),
                        system=system_of(w, d.system),
                        against=system_of(w, d.against),
                    )
                ),
                w.number(d.value, ".3f"),
                f"{w.number(d.low, '.3f')} … {w.number(d.high, '.3f')}",
                w.number(p, ".3f"),
                "–" if d.detectable is None else w.number(d.detectable, ".3f"),
            )
        )
    table = w.make_table(
        [say("Difference"), say("Value"), say("95 % interval"), say("p"), say("Detectable from")],
        rows,
        align="lrrrr",
        caption=say("Paired differences; p by sign flips over documents, corrected after Holm"),
    )
    if w.brief:
        w.blocks.append(table)
        return
    drawn = [
        (f"{name_of(w, d.metric)}: {_pair(w, d)}", d.value, d.low, d.high)
        if d.higher_is_better
        else (f"{name_of(w, d.metric)} (−): {_pair(w, d)}", -d.value, -d.high, -d.low)
        for d in evaluation.differences
    ]
    svg = plots.intervals(
        drawn,
        w.t(say("Differences with their intervals")),
        w.t(say("difference (right is better)")),
        language=w.language,
    )
    w.figure(
        svg,
        say("Differences with their intervals"),
        say(
            "An interval that crosses the dashed line shows no demonstrable difference. Metrics for which lower is better are drawn with the sign turned."
        ),
        table,
    )


def _pair(w: Writer, difference: Difference) -> str:
    return f"{system_of(w, difference.system)} − {system_of(w, difference.against)}"


PER = 1000.0  # one item's energy and money are too small to read


def _costs(w: Writer, evaluation: Evaluation) -> None:
    """Tokens, waiting time, energy and money per item beside the gain, and how each is known."""
    made = [(s.name, s.per_item) for s in evaluation.systems if s.per_item is not None]
    if not made:
        return
    w.heading(say("What it cost"), 3)
    rows = [
        (system_of(w, name), _gain(w, evaluation, name), *_cost_cells(w, cost))
        for name, cost in made
    ]
    per_document = made[0][1].unit == "document"
    w.table(
        [
            say("System"),
            say("Gain against the base"),
            say("Tokens per document") if per_document else say("Tokens per item"),
            say("Seconds, median"),
            say("Seconds, 95th percentile"),
            say("Wh per 1,000"),
            say("EUR per 1,000"),
        ],
        rows,
        align="llrrrrr",
        caption=say("Cost per held-out document, energy and money per 1,000 of them")
        if per_document
        else say("Cost per item, energy and money per 1,000 of them"),
    )
    if w.brief:
        return
    w.bullets([line for name, cost in made for line in _how_known(w, system_of(w, name), cost)])


def _cost_cells(w: Writer, cost: CostPerItem) -> tuple[str, ...]:
    def cell(quantity: Quantity | None, spec: str, factor: float = 1.0) -> str:
        if quantity is None:
            return "–"
        shown = w.number(quantity.value * factor, spec)
        if quantity.low is None and quantity.high is None:
            return shown
        low, high = quantity.lowest * factor, quantity.highest * factor
        return f"{shown} ({w.number(low, spec)} … {w.number(high, spec)})"

    return (
        cell(cost.tokens, ",.0f"),
        cell(cost.seconds_p50, ".3f"),
        cell(cost.seconds_p95, ".3f"),
        cell(cost.energy, ".2f", PER),
        cell(cost.money, ".4f", PER),
    )


def _gain(w: Writer, evaluation: Evaluation, name: str) -> str:
    """The headline difference of this system, where it was compared."""
    headline = evaluation.task.get("headline")
    for d in evaluation.differences:
        if d.metric != headline or "base" not in (d.system, d.against):
            continue
        if name == d.system:
            return (
                f"{name_of(w, d.metric)} {w.number(d.value, '.3f')} "
                f"({w.number(d.low, '.3f')} … {w.number(d.high, '.3f')})"
            )
    return "–"


def _how_known(w: Writer, system: str, cost: CostPerItem) -> list[str]:
    figures = (
        (say("tokens"), cost.tokens),
        (say("seconds"), cost.seconds_p50),
        (say("energy"), cost.energy),
        (say("money"), cost.money),
    )
    lines = [f"{system}, {w.t(t)}: {w.provenance(q)}" for t, q in figures if q is not None]
    named = {"energy": say("energy"), "money": say("money")}
    lines += [f"{system}, {w.t(named.get(k, k))}: {w.t(why)}" for k, why in cost.absent.items()]
    return lines


def _harness(w: Writer, evaluation: Evaluation) -> None:
    """What lm-evaluation-harness measured, with the paired difference over its items."""
    rows = []
    for task, metrics in evaluation.lm_eval.items():
        for metric, row in metrics.items():
            values = [
                "–" if (found := row["systems"].get(s)) is None else w.number(found["value"], ".3f")
                for s in ("base", "adapter")
            ]
            d = row.get("difference")
            shown = "–"
            if d:
                low, high = w.number(d["low"], ".3f"), w.number(d["high"], ".3f")
                shown = f"{w.number(d['value'], '.3f')} ({low} … {high})"
            name = metric.partition(",")[0]
            rows.append(
                (f"{task}: {name_of(w, name)}", w.number(row["items"], ","), *values, shown)
            )
    if not rows:
        return
    w.heading(say("Tasks of lm-evaluation-harness"), 3)
    w.table(
        [say("Task"), say("Items"), say("Base"), say("Adapter"), say("Difference")],
        rows,
        align="lrrrr",
        caption=say("Further figures, each item for itself; the verdict does not rest on them"),
    )


def _price(w: Writer, evaluation: Evaluation) -> None:
    kept = evaluation.memorisation
    if kept.get("spans") == 0:  # no passage was asked: rates of none are no figures
        idle = {"passed"} if not kept.get("canaries_memorised") else set()
        kept = {k: v for k, v in kept.items() if not k.startswith("exact_") and k not in idle}
    rows = [
        *_flat(w, evaluation.forgetting, say("Forgetting")),
        *_flat(w, kept, say("Memorisation")),
    ]
    if rows:
        w.heading(say("What the adapter lost and kept"), 3)
        w.table([say("Measure"), say("Figure")], rows, align="lr")


def _flat(w: Writer, data: dict[str, Any], title: Any) -> list[tuple[str, str]]:
    rows = []
    unit = f" ({w.t(str(data['unit']))})" if data.get("unit") else ""
    for key, value in data.items():
        if key == "unit" or (key == "measured" and value is True):
            continue  # the unit stands beside its figures; that it was measured is seen by them
        if isinstance(value, bool):
            text = w.t(say("yes") if value else say("no"))
        elif isinstance(value, (int, float)):
            text = w.number(value, "" if isinstance(value, int) else ".4f")
        elif isinstance(value, str):
            text = value
        else:
            continue
        named = w.t(MEASURES.get(key, key.replace("_", " ")))
        if key.startswith("difference_"):
            named += unit
        rows.append((f"{w.t(title)}: {named}", text))
    return rows


def _examples(w: Writer, evaluation: Evaluation) -> None:
    shown = evaluation.examples[:SHOWN_EXAMPLES]
    if not shown:
        return
    w.heading(say("Where base and adapter differ"), 3)
    rows = [
        (
            str(e.get("text", ""))[:220],
            str(e.get("label", "")),
            str(e.get("base", "")),
            str(e.get("adapter", "")),
        )
        for e in shown
    ]
    w.table([say("Item"), say("Expected"), say("Base"), say("Adapter")], rows)
