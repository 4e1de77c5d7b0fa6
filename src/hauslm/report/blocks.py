"""What is a report made of? Headings, texts, tables, figures: one tree for every format.

A `Writer` gathers blocks in one language and numbers the sources of the figures it prints, so that
each figure in a report can be followed to where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hauslm.base.origin import said
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, date, number, say, translate
from hauslm.records import Fact, Said

# Around a figure that links to its source: OPEN number SPLIT figure CLOSE (private-use characters).
OPEN, SPLIT, CLOSE = "\ue000", "\ue001", "\ue002"


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`align` has one letter a column: l or r. The caption is read aloud by screen readers too."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    align: str = ""
    marked: int | None = None  # the row that was chosen


@dataclass(frozen=True)
class Figure:
    """A drawing with its words and, always, the same data as a table."""

    svg: str
    title: str
    description: str
    table: Table

    def _repr_svg_(self) -> str:  # a notebook's cell that ends in a figure shows it
        return self.svg


@dataclass(frozen=True)
class Code:
    language: str
    text: str


@dataclass(frozen=True)
class Callout:
    kind: Literal["verdict", "warning", "note"]
    text: str


@dataclass(frozen=True)
class Masked:
    """A training example with its loss mask: trained pieces stand out."""

    title: str
    pieces: tuple[tuple[str, bool], ...]


Block = Heading | Text | Bullets | Table | Figure | Code | Callout | Masked


@dataclass
class Writer:
    """Collects blocks in one language; `figure` prints a quantity and remembers its source."""

    language: str
    brief: bool = False  # for the terminal: what matters, without the appendix
    blocks: list[Block] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    # On pages every figure opens its source: `quantity` then writes a `Mark` around the figure.
    linked: bool = False

    # -- words

    def t(self, sentence: Sentence | Said | str) -> str:
        """The sentence in the writer's language; a plain string is a template to translate."""
        if isinstance(sentence, Said):
            return sentence.say(self.language)
        if isinstance(sentence, Sentence):
            return sentence.text(self.language)
        return translate(sentence, self.language)

    def number(self, value: float, spec: str = "") -> str:
        return number(value, spec, self.language)

    def quantity(self, quantity: Quantity, spec: str = "", *, cite: bool = True) -> str:
        """'1.234,50 € [3]'; assumed and measured figures are marked as such."""
        text = quantity.text(spec, self.language)
        if quantity.low is not None or quantity.high is not None:
            unit = quantity.unit if quantity.unit in ("EUR", "USD") else spec
            low = number(quantity.lowest, unit, self.language)
            high = number(quantity.highest, unit, self.language)
            if low != high:
                text += f" ({low} – {high})"
        if not cite:
            return text
        if self.linked:
            tip = self.provenance(quantity)
            return f"{OPEN}{self._source(tip)}{SPLIT}{text}{CLOSE}"
        mark = {
            "assumed": self.t(say("assumed")),
            "measured": self.t(say("measured")),
            "given": self.t(say("given by you")),
        }.get(quantity.known, "")
        if quantity.known == "sourced":
            mark = f"[{self._source(f'{quantity.source} ({quantity.date})')}]"
        return (
            f"{text} {mark}".strip()
            if mark.startswith("[")
            else (f"{text} ({mark})" if mark else text)
        )

    def provenance(self, quantity: Quantity) -> str:
        """How the figure is known, in one line: 'sourced: BDEW (1 Jan 2026)'."""
        known = self.t(
            {
                "given": say("given by you"),
                "measured": say("measured"),
                "sourced": say("source"),
                "derived": say("computed"),
                "assumed": say("assumed"),
            }[quantity.known]
        )
        day = date(quantity.date, self.language) if quantity.date else ""
        origin = said(quantity.source, self.language) if quantity.source else ""
        origin = f"{origin} ({day})" if origin and day else origin or day
        return f"{known}: {origin}" if origin else known

    def _source(self, text: str) -> int:
        return self.sources.setdefault(text, len(self.sources) + 1)

    def facts(self, facts: Iterable[Fact], limit: int | None = None) -> list[str]:
        listed = list(facts)
        shown = listed if limit is None else listed[:limit]
        return [f"{self.t(f.label)}: {self.quantity(f.quantity)}" for f in shown]

    # -- blocks

    def heading(self, sentence: Sentence | str, level: int = 2) -> None:
        self.blocks.append(Heading(level, self.t(sentence)))

    def text(self, sentence: Sentence | Said | str) -> None:
        words = self.t(sentence)
        if words:
            self.blocks.append(Text(words))

    def bullets(self, items: Iterable[Sentence | Said | str]) -> None:
        lines = tuple(i if isinstance(i, str) else self.t(i) for i in items)
        if lines:
            self.blocks.append(Bullets(lines))

    def table(
        self,
        headers: Sequence[Sentence | str],
        rows: Iterable[Sequence[str]],
        *,
        caption: Sentence | str = "",
        align: str = "",
        marked: int | None = None,
    ) -> Table:
        made = self.make_table(headers, rows, caption=caption, align=align, marked=marked)
        if made.rows:
            self.blocks.append(made)
        return made

    def make_table(
        self,
        headers: Sequence[Sentence | str],
        rows: Iterable[Sequence[str]],
        *,
        caption: Sentence | str = "",
        align: str = "",
        marked: int | None = None,
    ) -> Table:
        return Table(
            tuple(self.t(h) for h in headers),
            tuple(tuple(r) for r in rows),
            self.t(caption) if caption else "",
            align or "l" * len(headers),
            marked,
        )

    def figure(
        self, svg: str, title: Sentence | str, description: Sentence | str, table: Table
    ) -> None:
        self.blocks.append(Figure(svg, self.t(title), self.t(description), table))

    def code(self, language: str, text: str) -> None:
        self.blocks.append(Code(language, text))

    def callout(
        self, kind: Literal["verdict", "warning", "note"], sentence: Sentence | Said | str
    ) -> None:
        self.blocks.append(Callout(kind, self.t(sentence)))

    def masked(self, title: str, pieces: Sequence[tuple[str, bool]]) -> None:
        self.blocks.append(Masked(title, tuple((str(p), bool(t)) for p, t in pieces)))

    def source_list(self) -> None:
        """The numbered sources of every figure printed so far."""
        if self.sources:
            self.heading(say("Sources of the figures"))
            rows = [(str(n), text) for text, n in sorted(self.sources.items(), key=lambda i: i[1])]
            self.table([say("No."), say("Source (date)")], rows, align="rl")
