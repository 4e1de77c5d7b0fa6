"""What do the figures look like? Small SVG drawings by matplotlib, the same in report and web.

Every plot is a pure function of its data: no dates, fixed ids, fonts as outlines, so that golden files
stay equal. Colours are a palette that stays apart for colour-blind readers (Okabe and Ito, 2008) and
prints in grey. Whoever draws also gives the same data as a table (`blocks.Figure`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

INK = "#22303c"
SOFT = "#7a8894"
GRID = "#dfe5ea"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#9aa5af",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure as Canvas

    mpl.rcParams.update(
        {
            "svg.hashsalt": "hauslm",
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.edgecolor": SOFT,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.add_subplot()


def _svg(canvas: Any, label: str) -> str:
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # A picture needs its words for people who do not see it.
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    text = re.sub(r"<svg ", f'<svg role="img" aria-label="{escaped}" ', text, count=1)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )


def _quiet_axes(axes: Any, *, grid: str) -> None:
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def memory_bar(
    parts: Sequence[tuple[str, float]],
    limits: Sequence[tuple[str, float]],
    label: str,
    unit: str,
    spread: tuple[float, float] | None = None,
) -> str:
    """One stacked bar of (name, GiB) against vertical lines of (GPU, GiB); `spread`: ends of its range."""
    canvas, axes = _figure(7.2, 1.9)
    left = 0.0
    for (name, size), colour in zip(parts, PALETTE * 2, strict=False):
        axes.barh(0, size, left=left, color=colour, height=0.55, label=name, edgecolor="white")
        left += size
    if spread is not None:
        axes.plot(spread, [0, 0], color=INK, linewidth=1.2, marker="|", markersize=8)
    for name, size in limits:
        axes.axvline(size, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
        axes.text(size, 0.42, f" {name}", ha="left", va="bottom", fontsize=8)
    axes.set_yticks([])
    axes.set_xlabel(unit)
    axes.set_xlim(0, max([left, *(spread or ()), *[s for _, s in limits]]) * 1.14)
    axes.spines["left"].set_visible(False)
    _quiet_axes(axes, grid="x")
    axes.legend(ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.42), fontsize=8)
    return _svg(canvas, label)


def bars(rows: Sequence[tuple[str, float, bool]], label: str, unit: str) -> str:
    """Horizontal bars of (name, value, chosen); the chosen one in colour."""
    canvas, axes = _figure(7.2, 0.6 + 0.4 * len(rows))
    names = [r[0] for r in rows][::-1]
    axes.barh(
        range(len(rows)),
        [r[1] for r in rows][::-1],
        color=[BLUE if r[2] else GREY for r in rows][::-1],
        height=0.62,
    )
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xlabel(unit)
    _quiet_axes(axes, grid="x")
    return _svg(canvas, label)


def tornado(rows: Sequence[tuple[str, float, float]], label: str, unit: str, here: float) -> str:
    """(parameter, advantage at its low end, at its high end) around the advantage now; 0 is the flip."""
    canvas, axes = _figure(7.2, 0.8 + 0.34 * len(rows))
    for index, (_, low, high) in enumerate(rows[::-1]):
        axes.barh(index, low - here, left=here, color=ORANGE, height=0.62)
        axes.barh(index, high - here, left=here, color=BLUE, height=0.62)
    axes.axvline(here, color=INK, linewidth=1)
    axes.axvline(0, color=VERMILION, linewidth=1.4, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(rows)), [r[0] for r in rows][::-1], fontsize=8)
    axes.set_xlabel(unit)
    _quiet_axes(axes, grid="x")
    return _svg(canvas, label)


def curves(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    label: str,
    x_label: str,
    y_label: str,
) -> str:
    """Lines of (name, x values, y values)."""
    canvas, axes = _figure(7.2, 2.9)
    for (name, xs, ys), colour in zip(series, (SOFT, BLUE, ORANGE, GREEN), strict=False):
        dense = len(xs) > 25
        axes.plot(
            xs,
            ys,
            color=colour,
            linewidth=1.6,
            marker=None if dense else "o",
            markersize=4,
            label=name,
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _quiet_axes(axes, grid="both")
    if len(series) > 1:
        axes.legend(frameon=False)
    return _svg(canvas, label)


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, unit: str) -> str:
    """(name, value, low, high) as points with their interval; a line at 0 is 'no difference'."""
    canvas, axes = _figure(7.2, 0.8 + 0.38 * len(rows))
    for index, (_, value, low, high) in enumerate(rows[::-1]):
        sure = low > 0 or high < 0
        colour = BLUE if sure else GREY
        axes.plot([low, high], [index, index], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([value], [index], color=colour, marker="o", markersize=6)
    axes.axvline(0, color=VERMILION, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(rows)), [r[0] for r in rows][::-1], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(unit)
    _quiet_axes(axes, grid="x")
    return _svg(canvas, label)


def histogram(rows: Sequence[tuple[str, int]], label: str, x_label: str, y_label: str) -> str:
    """Columns of (class, count) in the order given."""
    canvas, axes = _figure(7.2, 2.3)
    axes.bar(range(len(rows)), [r[1] for r in rows], color=BLUE, width=0.78)
    axes.set_xticks(range(len(rows)), [r[0] for r in rows], fontsize=8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _quiet_axes(axes, grid="y")
    return _svg(canvas, label)
