"""How is a drawing written down? A small SVG canvas: rectangles, lines, texts, and how wide a text is.

Colours stand in attributes, so that a file or a PDF shows them as they are; every mark also has a class,
so that a page with a style sheet can give it the colours of its own theme (a rule of CSS wins over an
attribute). Nothing stands in `style`, which a strict content policy forbids.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from html import escape

FONT = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"
INK, SOFT, GRID, PAPER = "#22303c", "#5b6b79", "#dfe5ea", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY = (
    "#0067a8", "#e08a00", "#00855f", "#b25a92", "#4aa3da", "#c94f00", "#c9b400", "#9aa5af",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY)
# Class of each colour, for style sheets: c0 ... c7 as in PALETTE.
_CLASS = {c: f"c{i}" for i, c in enumerate(PALETTE)} | {
    INK: "ci", SOFT: "cs", GRID: "cg", PAPER: "cp",
}  # fmt: skip

_NARROW = frozenset("iIl.,:;'|!jft()[]{} /\u202f\u00a0")
_WIDE = frozenset("mwMW%@—…€")


def text_width(text: str, size: float) -> float:
    """Width in user units, by classes of letters: good to about 5 % for the usual sans serifs."""
    units = 0.0
    for letter in text:
        if letter in _NARROW:
            units += 0.33
        elif letter in _WIDE:
            units += 0.87
        elif letter.isupper():
            units += 0.70
        else:
            units += 0.59
    return units * size


def wrapped(text: str, size: float, width: float, most: int = 3) -> list[str]:
    """The text in lines of at most `width`; whole words, and the last line ends in … if it must."""
    letters = max(6, int(width / (0.59 * size)))
    lines = textwrap.wrap(" ".join(text.split()), letters) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rstrip() + " …"]
    return lines


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass
class Canvas:
    """A drawing of `width` x `height` user units; `label` is what it shows, in words."""

    width: float
    height: float
    label: str
    parts: list[str] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, colour: str, *,
        title: str = "", radius: float = 2.0, opacity: float = 1.0,
    ) -> None:  # fmt: skip
        shade = f' fill-opacity="{_n(opacity)}"' if opacity < 1 else ""
        self._mark(
            "rect",
            f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(height)}" rx="{_n(radius)}"'
            f'{shade} fill="{colour}" class="f {_CLASS[colour]}"',
            title,
        )

    def circle(self, x: float, y: float, radius: float, colour: str, *, title: str = "") -> None:
        self._mark(
            "circle",
            f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{colour}" class="f {_CLASS[colour]}"',
            title,
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str, *,
        width: float = 1.0, dash: str = "", title: str = "",
    ) -> None:  # fmt: skip
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._mark(
            "line",
            f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{colour}"'
            f' stroke-width="{_n(width)}" stroke-linecap="round"{dashes} class="s {_CLASS[colour]}"',
            title,
        )

    def path(
        self, points: list[tuple[float, float]], colour: str, *, width: float = 2.0, title: str = ""
    ) -> None:
        where = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._mark(
            "polyline",
            f'points="{where}" fill="none" stroke="{colour}" stroke-width="{_n(width)}"'
            f' stroke-linejoin="round" stroke-linecap="round" class="s {_CLASS[colour]}"',
            title,
        )

    def text(
        self, x: float, y: float, text: str, *,
        size: float = 12.5, colour: str = INK, anchor: str = "start", weight: str = "",
    ) -> None:  # fmt: skip
        bold = f' font-weight="{weight}"' if weight else ""
        self.parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"{bold}'
            f' fill="{colour}" class="f {_CLASS[colour]}">{escape(text)}</text>'
        )

    def _mark(self, name: str, attributes: str, title: str) -> None:
        inner = f"><title>{escape(title)}</title></{name}>" if title else "/>"
        self.parts.append(f"<{name} {attributes}{inner}")

    def svg(self) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{escape(self.label)}"'
            f' viewBox="0 0 {_n(self.width)} {_n(self.height)}" font-family="{escape(FONT)}">'
            + "".join(self.parts)
            + "</svg>"
        )


# ---------------------------------------------------------------- scales


def nice_step(span: float, wanted: int) -> float:
    """A step of 1, 2, 2.5 or 5 times a power of ten that divides `span` into about `wanted` parts."""
    raw = span / max(wanted, 1)
    if raw <= 0 or not math.isfinite(raw):
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next((s * power for s in (1.0, 2.0, 2.5, 5.0) if raw <= s * power), 10.0 * power)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    step = nice_step(high - low, wanted)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between the ends; with 2 and 5 in between where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    found = [d * 10.0**p for p in powers for d in digits]
    return [t for t in found if low * 0.999 <= t <= high * 1.001]


@dataclass(frozen=True)
class Scale:
    """Values -> user units; `log` for a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, wanted)
