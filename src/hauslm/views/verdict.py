"""How is the decision drawn while somebody moves a slider? Verdict and curve at once, the depths folded.

The same blocks as in the report, written as HTML fragments with their sources; `whatif` finds the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hauslm.base.quantity import derived
from hauslm.base.words import Sentence, say
from hauslm.decide import keep, sensitivity
from hauslm.decide.answers import answer_flips
from hauslm.decide.context import Context
from hauslm.decide.cost import Bills, costs, documents_at_capacity
from hauslm.decide.criteria import criteria
from hauslm.report import html, plots
from hauslm.report.blocks import Writer
from hauslm.report.build import words_of
from hauslm.report.chapters.decision import CRITERIA, KINDS, end_of

SHOWN_OPTIONS = 8
SHOWN_BARS = 9
SHOWN_FLIPS = 14
CURVE_POINTS = 61


@dataclass(frozen=True)
class Answered:
    """What a page shows for one set of answers."""

    verdict: str  # pieces of HTML
    details: str
    plain: str  # the verdict in one line, for a status region
    standing: str  # admissible, conditional, none
    full: bool = False  # candidates were generated anew for exactly these answers


def answered(context: Context, language: str, full: bool) -> Answered:
    """What is shown at once: verdict and cost; curve, options and what moves the difference.

    `full`: the candidates were generated anew for exactly these answers.
    """
    w = Writer(language, linked=True)
    if context.chosen is None:
        sentence = say("No option is left: the answers and the rules exclude each other.")
        w.callout("warning", sentence)
        w.text(
            say("Relax an answer, or add a machine, staff or an option of your own institution.")
        )
        return Answered(_html(w, "v"), "", w.t(sentence), "none", full)
    standing = "conditional" if context.obstacles(context.chosen) else "admissible"
    _verdict(w, context)
    verdict = _html(w, "v")
    d = Writer(language, linked=True)
    _curve(d, context)
    _options(d, context)
    _tornado(d, context)
    plain = w.t(context.name(context.chosen))
    return Answered(verdict, _html(d, "q"), plain, standing, full)


def _html(w: Writer, prefix: str) -> str:
    body = html.fragment(w.blocks, words_of(w.language), w.sources, prefix)
    return body + html.source_list(w.sources, w.t(say("Sources of the figures")), prefix)


def _verdict(w: Writer, context: Context) -> None:
    """The option, what it costs, against what, and the shortest why."""
    chosen = context.chosen
    assert chosen is not None  # noqa: S101 - the caller asked
    w.callout("verdict", context.name(chosen))
    rules = ", ".join(sorted({g.rule for g in context.obstacles(chosen)}))
    if rules:
        w.callout("warning", say(
            "No option is free of obstacles. The verdict holds only once the condition of rule "
            "{rules} is met; until then no document may be sent.", rules=rules))  # fmt: skip
    low, high = context.judged.cost_ranges([chosen])[chosen]
    months = float(context.judged.settings.months)
    source = w.t(say("cost formula over the horizon"))
    monthly = derived(context.monthly(chosen), "EUR", source, low / months, high / months)
    rows = [(w.t(say("Per month")), w.quantity(monthly))]
    each = context.per_document(chosen)
    if each is not None:
        rows.append(
            (w.t(say("Per 1,000 documents")), w.quantity(derived(each * 1000, "EUR", source)))
        )
    rows.append(
        (
            w.t(say("Over {months:,} months", months=months)),
            w.quantity(derived(context.judged.cost(chosen), "EUR", source, low, high)),
        )
    )
    rival = context.rival
    if rival is not None:
        gap = context.monthly(rival) - context.monthly(chosen)
        title = (
            say("Cheaper per month than {name}", name=context.name(rival))
            if gap >= 0
            else say("Dearer per month than {name}", name=context.name(rival))
        )
        rows.append((w.t(title), w.quantity(derived(abs(gap), "EUR", source))))
    w.table([say("Cost"), say("Figure")], rows, align="lr")


def _reasons(w: Writer, context: Context) -> None:
    """Sentences per criterion, in the order of the verdict."""
    for criterion in sorted(criteria(), key=lambda c: c.place_in_verdict):
        lines = [
            w.t(sentence) + (f" ({'; '.join(w.facts(facts, 4))})" if facts else "")
            for sentence, facts in criterion.argue(context)
        ]
        if lines:
            w.heading(CRITERIA.get(criterion.id, criterion.title), 4)
            w.bullets(lines)


def _curve(w: Writer, context: Context) -> None:
    """EUR per month over documents per month: the chosen one, its rival, the best API."""
    judged, chosen = context.judged, context.chosen
    assert chosen is not None  # noqa: S101
    rows = list(dict.fromkeys(
        r for r in (chosen, context.rival, context.cloud, context.local) if r is not None
    ))  # fmt: skip
    now = float(judged.settings.documents_per_month)
    even = sensitivity.break_even(context)
    ends = [v for v in (now, even.documents_per_month) if v and v > 0] or [1000.0]
    low, high = max(1.0, min(ends) / 20), max(ends) * 8
    grid = np.geomspace(low, high, CURVE_POINTS)
    bills = Bills([judged.contenders.bills.rows[r] for r in rows])
    settings = judged.settings.with_(documents_per_month=grid)
    found = costs(bills, settings)
    limits = documents_at_capacity(found, settings)
    series, table_rows = [], []
    for place, row in enumerate(rows):
        candidate = context.candidate(row)
        alive = (
            grid <= limits[place]
            if judged.contenders.bills.rows[row].own_machine
            else np.ones_like(grid, dtype=bool)
        )
        name = w.t(candidate.title)
        series.append((name, grid[alive].tolist(), found.monthly[place][alive].tolist()))
        table_rows.append((name, alive, found.monthly[place]))
    # The chosen one is drawn in blue, which is the second colour of a drawing with several lines.
    order = [1, 0, *range(2, len(series))] if len(series) > 1 else [0]
    marks = [(now, w.t(say("now {count:,}", count=now)))] if now > 0 else []
    if even.documents_per_month:
        text = say("break-even {count:,}", count=even.documents_per_month)
        marks.append((even.documents_per_month, w.t(text)))
    svg = plots.curves(
        [series[i] for i in order],
        w.t(say("Cost per month by documents per month")),
        w.t(say("documents per month (each step of the axis multiplies)")),
        w.t(say("EUR per month")),
        language=w.language, log_x=True, marks=marks, from_zero=True,
    )  # fmt: skip
    table = w.make_table(
        [say("Documents per month"), *[name for name, _, _ in table_rows]],
        [
            (
                w.number(float(grid[k]), ","),
                *[w.number(float(m[k]), "EUR") if a[k] else "–" for _, a, m in table_rows],
            )
            for k in range(0, CURVE_POINTS, 6)
        ],
        align="r" * (1 + len(rows)),
    )
    w.heading(say("Cost and break-even"), 3)
    w.figure(svg, say("Cost per month"), _even_words(w, context, even), table)


def _even_words(w: Writer, context: Context, even: Any) -> Sentence:
    row = context.judged.row.get(even.against)
    other: Sentence | str = context.name(row) if row is not None else even.against
    if even.documents_per_month is not None and even.months is not None:
        return say(
            "Equal cost with {other} at {count:,} documents a month, or after {months:.1f} months. "
            "A line ends where the machine is full.",
            other=other, count=even.documents_per_month, months=even.months,
        )  # fmt: skip
    if even.documents_per_month is not None:
        return say(
            "Equal cost with {other} at {count:,} documents a month. A line ends where the machine is full.",
            other=other, count=even.documents_per_month,
        )  # fmt: skip
    return say("{reason} A line ends where the machine is full.",
               reason=even.reason.say(w.language) if even.reason else "")  # fmt: skip


def _options(w: Writer, context: Context) -> None:
    """What was compared: the chosen one first, admissible ones, what a rule keeps out."""
    judged = context.judged
    kept = keep.kept_rows(context, context.chosen)
    open_rows = [r for r in kept if not context.obstacles(r)]
    kept_out = [r for r in kept if context.obstacles(r) and not judged.misses_a_floor(r)]
    # The best of every kind of place before further models in the same place.
    sides = [r for r in (context.chosen, context.rival, context.local) if r is not None]
    need = judged.contenders.meets_need
    places: dict[str, int] = {judged.candidates[r].setting: r for r in reversed(sides)}
    for row in [r for r in open_rows if need[r]] + open_rows:
        places.setdefault(judged.candidates[row].setting, row)
    shown_rows = list(dict.fromkeys([*sides, *places.values()]))[: SHOWN_OPTIONS - 2]
    cloud = [context.cloud] if context.cloud is not None else []
    shown_rows = list(dict.fromkeys([*shown_rows, *cloud, *kept_out[:1]]))
    source = w.t(say("cost formula over the horizon"))
    lines = []
    for row in shown_rows:
        candidate = context.candidate(row)
        rules = ", ".join(dict.fromkeys(g.rule for g in context.obstacles(row)))
        each = context.per_document(row)
        lines.append(
            (
                w.t(candidate.title),
                w.t(KINDS[candidate.kind]),
                w.quantity(derived(context.monthly(row), "EUR", source)),
                w.quantity(derived(each * 1000, "EUR", source)) if each is not None else "–",
                w.t(say("no: {rules}", rules=rules) if rules else say("yes")),
            )
        )
    w.heading(say("The options"), 3)
    w.table(
        [say("Option"), say("Kind"), say("Per month"), say("Per 1,000 documents"), say("Admissible")],
        lines,
        caption=say("{shown} of {all:,} options; the cheapest that a rule keeps out are listed last.",
                    shown=len(lines), all=len(judged.candidates)),
        align="llrrl",
        marked=0,
    )  # fmt: skip


def _tornado(w: Writer, context: Context) -> None:
    found = sensitivity.tornado(context)
    if not found or context.chosen is None or context.rival is None:
        return
    here = context.judged.cost(context.rival) - context.judged.cost(context.chosen)
    rows = [
        (w.t(i.title), i.advantage_at_low, i.advantage_at_high)
        for i in found[:SHOWN_BARS]
        if i.advantage_at_low != i.advantage_at_high
    ]
    svg = plots.tornado(
        rows, w.t(say("Cost advantage over the rival for each assumption")), "EUR", here,
        language=w.language,
    )  # fmt: skip
    table = w.make_table(
        [say("Assumption"), say("at its low end"), say("at its high end")],
        [(n, w.number(a, "EUR"), w.number(b, "EUR")) for n, a, b in rows],
        align="lrr",
    )
    w.heading(say("Which assumption matters most"), 3)
    w.figure(
        svg,
        say("Cost advantage over {name}", name=context.name(context.rival)),
        say(
            "Over the horizon, with each assumption at the low (orange) and high (blue) end of its range. Left of the dashed line the rival is cheaper."
        ),
        table,
    )


# ---------------------------------------------------------------- what would overturn it


def depth(context: Context, language: str) -> str:
    """What takes longer, as HTML: flips in sight; every reason, the criteria and all figures folded away.
    One list of sources."""
    w = Writer(language, linked=True)
    parts = []
    if context.chosen is not None:
        _main_reasons(w, context)
        _flips(w, context)
        parts.append(_taken(w))
        _reasons(w, context)
        parts.append(_folded(w, say("All reasons, with their figures")))
    _criteria(w, context)
    parts.append(_folded(w, say("Cloud/API and local models compared")))
    _figures(w, context)
    parts.append(_folded(w, say("Figures that all options share")))
    parts.append(html.source_list(w.sources, w.t(say("Sources of the figures")), "d"))
    return "".join(parts)


def _taken(w: Writer) -> str:
    """The blocks so far as HTML; the writer goes on with the sources it has."""
    blocks, w.blocks = w.blocks, []
    return html.fragment(blocks, words_of(w.language), w.sources, "d")


def _folded(w: Writer, title: Sentence) -> str:
    return f'<details class="fold"><summary>{escape(w.t(title))}</summary>{_taken(w)}</details>'


def _main_reasons(w: Writer, context: Context) -> None:
    """The first sentence under each criterion, in the order of the verdict."""
    lines = []
    for criterion in sorted(criteria(), key=lambda c: c.place_in_verdict):
        for sentence, _ in criterion.argue(context)[:1]:
            lines.append(f"{w.t(CRITERIA.get(criterion.id, criterion.title))}: {w.t(sentence)}")
    w.heading(say("Why"), 3)
    w.bullets(lines)


def _flips(w: Writer, context: Context) -> None:
    assert context.chosen is not None  # noqa: S101
    field = sensitivity.field_of(context.judged, context.chosen)
    flips = [*answer_flips(context), *sensitivity.figure_flips(context, field)]
    share = sensitivity.probability(context, field)
    w.heading(say("What would flip the verdict"), 3)
    w.text(
        say(
            "Over the ranges of all assumptions the verdict holds in {share:.0%} of the cases.",
            share=share.value / 100 if share.unit == "%" else share.value,
        )
    )
    row = context.judged.row
    w.table(
        [say("If this changed"), say("from"), say("to"), say("the verdict would be")],
        [
            (
                w.t(f.title),
                end_of(w, f.from_, f.unit),
                end_of(w, f.to, f.unit),
                w.t(context.name(row[f.becomes]))
                if f.becomes in row
                else f.becomes or w.t(say("nothing that is admissible")),
            )
            for f in flips[:SHOWN_FLIPS]
        ],
        align="llll",
        caption=say("{shown} of {count} changes that would flip it", shown=min(len(flips), SHOWN_FLIPS), count=len(flips)),
    )  # fmt: skip


def _criteria(w: Writer, context: Context) -> None:
    """The lab's table: cloud against local, criterion by criterion."""
    rows = []
    for criterion in criteria():
        cloud, local, ahead = criterion.judge(context)
        title = w.t(Sentence(criterion.title, {}))
        cells = [
            w.t(cell.judgement)
            + (f" {'; '.join(w.facts(cell.facts, 4))}." if cell.facts else "")
            + (f" {w.t(say('(ahead)'))}" if ahead == side else "")
            for side, cell in (("cloud", cloud), ("local", local))
        ]
        rows.append((title, *cells))
    w.table([say("Criterion"), say("Cloud/API models"), say("Local open-weight models")], rows)


def _figures(w: Writer, context: Context) -> None:
    """The figures that all options share, with how each is known."""
    w.table(
        [say("Figure"), say("Value")],
        [
            (w.t(Sentence(p.title, {})), w.quantity(p.quantity))
            for p in context.judged.parameters.values()
        ],
        align="lr",
    )
