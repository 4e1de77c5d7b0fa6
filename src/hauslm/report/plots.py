"""What do the figures look like? Small SVG drawings, the same in report and web.

Every plot is a pure function of its data and the language: no dates, no random ids, so that golden files
stay equal, and quick enough (about a millisecond) to be drawn while somebody moves a slider. Colours are
a palette that stays apart for colour-blind readers (after Okabe and Ito, 2008) and prints in grey; no
plot tells anything by colour alone. Whoever draws also gives the same data as a table (`blocks.Figure`).
"""

from __future__ import annotations

from collections.abc import Sequence

from hauslm.base.words import number
from hauslm.report.svg import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    ORANGE,
    PALETTE,
    PAPER,
    PURPLE,
    SOFT,
    VERMILION,
    Canvas,
    Scale,
    nice_step,
    text_width,
    wrapped,
)

WIDTH = 720.0
SMALL, NORMAL = 11.5, 12.5
DASH = "5 4"
SERIES = (GREY, BLUE, ORANGE, GREEN, PURPLE)


def _figure(value: float, language: str | None, step: float = 0.0) -> str:
    """A figure on an axis or beside a bar: no more decimals than the step needs."""
    size = abs(step or value)
    decimals = 0 if size >= 10 or value == 0 else 1 if size >= 1 else 2 if size >= 0.1 else 3
    if step and abs(step - round(step)) < 1e-9:
        decimals = 0
    return number(float(value), f".{decimals}f", language)


def _money(value: float, unit: str, language: str | None) -> str:
    """With its unit where that is money, else bare: the axis names the unit."""
    if unit == "EUR":
        return f"{number(float(round(value)), ',', language)} €"
    return _figure(value, language)


def _x_axis(
    c: Canvas, scale: Scale, top: float, bottom: float, title: str, language: str | None
) -> None:
    marks = scale.ticks(6)
    step = nice_step(scale.high - scale.low, 6) if not scale.log else 0.0
    reached = -1e9
    for mark in marks:
        x = scale(mark)
        c.line(x, top, x, bottom, GRID)
        text = _figure(mark, language, step)
        half = text_width(text, SMALL) / 2
        if x - half > reached + 8:
            c.text(x, bottom + 16, text, size=SMALL, colour=SOFT, anchor="middle")
            reached = x + half
    c.text(scale.end, bottom + 33, title, size=SMALL, colour=SOFT, anchor="end")


def _names(
    c: Canvas, rows: Sequence[tuple[str, float]], right: float, width: float, bold: int = -1
) -> None:
    """Row names, right-aligned before `right`, each around its middle."""
    for index, (name, middle) in enumerate(rows):
        lines = wrapped(name, SMALL, width)
        start = middle + 4 - (len(lines) - 1) * 6.5
        for place, line in enumerate(lines):
            weight = "600" if index == bold else ""
            c.text(right, start + place * 13, line, size=SMALL, anchor="end", weight=weight)


def _row_height(names: Sequence[str], width: float, least: float) -> float:
    most = max((len(wrapped(n, SMALL, width)) for n in names), default=1)
    return max(least, most * 13 + 9)


def _legend(c: Canvas, entries: Sequence[tuple[str, str]], x: float, y: float, end: float) -> float:
    """(name, colour) in rows from `y` on; returns the y below the last row."""
    left = x
    for name, colour in entries:
        width = 18 + text_width(name, SMALL) + 18
        if left > x and left + width > end:
            left, y = x, y + 19
        c.rect(left, y - 9.5, 11, 11, colour)
        c.text(left + 17, y, name, size=SMALL)
        left += width
    return y + 10


def memory_bar(
    parts: Sequence[tuple[str, float]],
    limits: Sequence[tuple[str, float]],
    label: str,
    unit: str,
    spread: tuple[float, float] | None = None,
    *,
    language: str | None = None,
) -> str:
    """One stacked bar of (name, GiB) against vertical lines of (GPU, GiB); `spread`: ends of its range."""
    total = sum(size for _, size in parts)
    scale = Scale(
        0.0, max([total, *(spread or ()), *[s for _, s in limits]]) * 1.08 or 1.0, 8, WIDTH - 8
    )
    c = Canvas(WIDTH, 200, label)
    top, bottom = 34.0, 84.0
    _x_axis(c, scale, top - 6, bottom + 8, unit, language)
    left = 0.0
    entries = []
    for (name, size), colour in zip(parts, PALETTE * 2, strict=False):
        said = f"{name}: {number(size, '.2f' if size < 10 else '.1f', language)} {unit}"
        x = scale(left)
        c.rect(x, top, max(scale(left + size) - x - 1.2, 0.8), bottom - top, colour, title=said)
        entries.append((f"{name} {number(size, '.2f' if size < 10 else '.1f', language)}", colour))
        left += size
    if spread is not None:
        low, high, middle = scale(spread[0]), scale(spread[1]), (top + bottom) / 2
        c.line(low, middle, high, middle, INK, width=1.2)
        for x in (low, high):
            c.line(x, middle - 5, x, middle + 5, INK, width=1.2)
    for name, size in limits:
        x = scale(size)
        c.line(x, top - 12, x, bottom + 8, INK, width=1.6, dash=DASH)
        end = x + text_width(name, SMALL) > WIDTH - 8
        c.text(x, top - 17, name, size=SMALL, anchor="end" if end else "middle", weight="600")
    c.height = _legend(c, entries, 8, bottom + 66, WIDTH - 8) + 4
    return c.svg()


def bars(
    rows: Sequence[tuple[str, float, bool]], label: str, unit: str, *, language: str | None = None
) -> str:
    """Horizontal bars of (name, value, chosen); the chosen one in colour and bold."""
    left, gap = 262.0, 12.0
    height = _row_height([r[0] for r in rows], left - gap - 4, 27)
    c = Canvas(WIDTH, len(rows) * height + 46, label)
    texts = [_money(v, unit, language) for _, v, _ in rows]
    room = max((text_width(t, SMALL) for t in texts), default=40) + 12
    low = min(0.0, *(v for _, v, _ in rows)) if rows else 0.0
    high = max(0.0, *(v for _, v, _ in rows)) if rows else 1.0
    scale = Scale(low, high or 1.0, left, WIDTH - room)
    _x_axis(c, scale, 4, len(rows) * height + 4, unit, language)
    chosen = next((i for i, r in enumerate(rows) if r[2]), -1)
    _names(c, [(n, i * height + height / 2 + 4) for i, (n, _, _) in enumerate(rows)],
           left - gap, left - gap - 4, chosen)  # fmt: skip
    for index, ((name, value, mine), text) in enumerate(zip(rows, texts, strict=True)):
        y = index * height + 4 + (height - 16) / 2
        x, end = sorted((scale(0.0), scale(value)))
        c.rect(x, y, max(end - x, 1), 16, BLUE if mine else GREY, title=f"{name}: {text}")
        c.text(end + 6, y + 12, text, size=SMALL, weight="600" if mine else "")
    return c.svg()


def tornado(
    rows: Sequence[tuple[str, float, float]],
    label: str,
    unit: str,
    here: float,
    *,
    language: str | None = None,
) -> str:
    """(parameter, advantage at its low end, at its high end) around the advantage now; 0 is the flip."""
    left, gap = 262.0, 12.0
    height = _row_height([r[0] for r in rows], left - gap - 4, 27)
    c = Canvas(WIDTH, len(rows) * height + 46, label)
    ends = [0.0, here, *[v for _, a, b in rows for v in (a, b)]]
    span = (max(ends) - min(ends)) or 1.0
    scale = Scale(min(ends) - 0.03 * span, max(ends) + 0.03 * span, left, WIDTH - 10)
    bottom = len(rows) * height + 4
    _x_axis(c, scale, 4, bottom, unit, language)
    _names(c, [(n, i * height + height / 2 + 4) for i, (n, _, _) in enumerate(rows)],
           left - gap, left - gap - 4)  # fmt: skip
    for index, (name, low, high) in enumerate(rows):
        y = index * height + 4 + (height - 15) / 2
        for value, colour in ((low, ORANGE), (high, BLUE)):
            x, end = sorted((scale(here), scale(value)))
            c.rect(x, y, end - x, 15, colour, title=f"{name}: {_money(value, unit, language)}")
    c.line(scale(here), 2, scale(here), bottom, INK, width=1.2)
    c.line(scale(0.0), 2, scale(0.0), bottom, VERMILION, width=1.8, dash=DASH)
    return c.svg()


def curves(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    label: str,
    x_label: str,
    y_label: str,
    *,
    language: str | None = None,
    log_x: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
) -> str:
    """Lines of (name, x values, y values); `marks` are vertical lines (x, what is there)."""
    c = Canvas(WIDTH, 300, label)
    points = [(x, y) for _, xs, ys in series for x, y in zip(xs, ys, strict=False)]
    ys = [y for _, y in points] or [0.0, 1.0]
    xs = [x for x, _ in points] or [0.0, 1.0]
    low, high = (0.0 if from_zero else min(ys)), max(ys)
    pad = ((high - low) or abs(high) or 1.0) * 0.06
    top, bottom = (56.0 if marks else 26.0), 236.0
    up = Scale(low if from_zero else low - pad, high + pad, bottom, top)
    step = nice_step(up.high - up.low, 4)
    grid = up.ticks(4)
    left = max((text_width(_figure(m, language, step), SMALL) for m in grid), default=30) + 16
    span_x = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    across = Scale(*span_x, left, WIDTH - 12, log_x)
    _x_axis(c, across, top, bottom, x_label, language)
    for mark in grid:
        c.line(left, up(mark), WIDTH - 12, up(mark), GRID)
        c.text(left - 8, up(mark) + 4, _figure(mark, language, step), size=SMALL, colour=SOFT,
               anchor="end")  # fmt: skip
    colours: tuple[str, ...] = SERIES if len(series) <= len(SERIES) else PALETTE
    if len(series) == 1:
        colours = (BLUE,)
    for (name, line_x, line_y), colour in zip(series, colours, strict=False):
        dots = [(across(x), up(y)) for x, y in zip(line_x, line_y, strict=False)]
        c.path(dots, colour, width=2.4 if colour == BLUE else 2.0, title=name)
        if len(dots) <= 25:
            for (x, y), value_x, value_y in zip(dots, line_x, line_y, strict=False):
                said = f"{name}: {_figure(value_x, language)} / {number(float(value_y), 'g', language)}"
                c.circle(x, y, 3.2, colour, title=said)
    _marks(c, across, marks, top, bottom)
    c.text(2, 12, y_label, size=SMALL, colour=SOFT)
    c.height = bottom + 40
    if len(series) > 1:
        names = [(n, colour) for (n, _, _), colour in zip(series, colours, strict=False)]
        c.height = _legend(c, names, 2, bottom + 54, WIDTH - 8) + 2
    return c.svg()


def _marks(
    c: Canvas, across: Scale, marks: Sequence[tuple[float, str]], top: float, bottom: float
) -> None:
    """Vertical lines with their words above; two that are close write on two levels."""
    reached = [-1e9, -1e9]
    for place, said in sorted(marks):
        x = across(place)
        half = text_width(said, SMALL) / 2
        x_text = min(max(x, across.start + half), across.end - half)
        level = 0 if x_text - half > reached[0] + 10 else 1
        reached[level] = x_text + half
        y = top - 8 - 14 * level
        c.line(x, y + 3, x, bottom, VERMILION, width=1.6, dash=DASH)
        c.text(x_text, y, said, size=SMALL, anchor="middle", weight="600")


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    unit: str,
    *,
    language: str | None = None,
) -> str:
    """(name, value, low, high) as points with their interval; a line at 0 is 'no difference'."""
    left, gap = 262.0, 12.0
    height = _row_height([r[0] for r in rows], left - gap - 4, 32)
    bottom = len(rows) * height + 4
    c = Canvas(WIDTH, bottom + 42, label)
    ends = [0.0, *[v for _, _, a, b in rows for v in (a, b)]]
    span = (max(ends) - min(ends)) or 1.0
    scale = Scale(min(ends) - 0.05 * span, max(ends) + 0.05 * span, left, WIDTH - 12)
    _x_axis(c, scale, 4, bottom, unit, language)
    _names(c, [(r[0], i * height + height / 2 + 4) for i, r in enumerate(rows)],
           left - gap, left - gap - 4)  # fmt: skip
    c.line(scale(0.0), 2, scale(0.0), bottom, VERMILION, width=1.8, dash=DASH)
    for index, (name, value, low, high) in enumerate(rows):
        y = index * height + height / 2 + 4
        colour = BLUE if low > 0 or high < 0 else GREY
        a, v, b = (number(float(x), ".3f", language) for x in (low, value, high))
        said = f"{name}: {v} ({a} … {b})"
        c.line(scale(low), y, scale(high), y, colour, width=3.4, title=said)
        for end in (low, high):
            c.line(scale(end), y - 5, scale(end), y + 5, colour, width=2)
        c.circle(scale(value), y, 6, PAPER)
        c.circle(scale(value), y, 4.6, colour, title=said)
    return c.svg()


def histogram(
    rows: Sequence[tuple[str, int]],
    label: str,
    x_label: str,
    y_label: str,
    *,
    language: str | None = None,
) -> str:
    """Columns of (class, count) in the order given."""
    c = Canvas(WIDTH, 250, label)
    most = max((n for _, n in rows), default=1) or 1
    top, bottom, left = 24.0, 178.0, 44.0
    up = Scale(0.0, most * 1.05, bottom, top)
    step = max(1.0, nice_step(most * 1.05, 4))
    for k in range(int(most * 1.05 / step) + 1):
        y = up(k * step)
        c.line(left, y, WIDTH - 8, y, GRID)
        c.text(left - 8, y + 4, _figure(k * step, language, step), size=SMALL, colour=SOFT,
               anchor="end")  # fmt: skip
    slot = (WIDTH - 8 - left) / max(len(rows), 1)
    for index, (name, count) in enumerate(rows):
        x = left + index * slot
        said = number(count, ",", language)
        c.rect(x + slot * 0.11, up(count), slot * 0.78, bottom - up(count), BLUE,
               title=f"{name}: {said}")  # fmt: skip
        c.text(x + slot / 2, up(count) - 5, said, size=SMALL, anchor="middle")
        c.text(x + slot / 2, bottom + 17, name, size=SMALL, colour=SOFT, anchor="middle")
    c.text(WIDTH - 8, bottom + 36, x_label, size=SMALL, colour=SOFT, anchor="end")
    c.text(2, 13, y_label, size=SMALL, colour=SOFT)
    c.height = bottom + 44
    return c.svg()
