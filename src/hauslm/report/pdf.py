"""Blocks as PDF, by typst (extra `pdf`): no browser, no system libraries, tagged for screen readers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hauslm.base.errors import MissingError
from hauslm.base.words import say
from hauslm.report.blocks import Block, Bullets, Callout, Code, Figure, Heading, Masked, Table, Text

SHORT_CELL = 14
# The archive's and the screen reader's standard: tagged, titled, every drawing with its words.
STANDARD: Literal["ua-1"] = "ua-1"
_PRELUDE = """#set document(title: {title}, author: "hauslm")
#set page(paper: "a4", margin: (x: 22mm, y: 24mm), numbering: "1")
#set text(lang: {language}, size: 10pt, font: ("DejaVu Sans", "Libertinus Serif"))
#set par(justify: false, leading: 0.62em)
#show heading.where(level: 1): set text(size: 20pt)
#show heading.where(level: 2): set text(size: 14pt)
#show heading: set block(above: 1.5em, below: 0.8em)
#show table.cell: set text(size: 8pt)
#set table(stroke: (x: none, y: 0.4pt + rgb("#dbe2e8")), inset: (x: 4pt, y: 4pt))
#let callout(body, fill, line) = block(fill: fill, stroke: (left: 3pt + line), inset: 9pt, width: 100%, body)
"""


def _s(text: str) -> str:
    """A typst string literal: nothing in it can become markup."""
    return (
        '"'
        + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "")
        + '"'
    )


def compile_pdf(blocks: Sequence[Block], *, title: str, lead: str, language: str) -> bytes:
    """PDF/UA-1 bytes: typst refuses to write one whose structure breaks that standard. H532 without the extra."""
    try:
        import typst
    except ImportError as error:
        raise MissingError(
            "H532",
            say("PDF needs the package typst."),
            next_step=say("Run: pip install 'hauslm[pdf]', or choose --format html."),
        ) from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _PRELUDE.replace("{title}", _s(title)).replace("{language}", _s(language))
        source += f'#heading(level: 1, {_s(title)})\n#text(fill: rgb("#5b6b79"), {_s(lead)})\n\n'
        for number, block in enumerate(blocks):
            source += _one(block, folder, number) + "\n\n"
        file = folder / "report.typ"
        file.write_text(source, encoding="utf-8")
        result = typst.compile(str(file), root=str(folder), pdf_standards=[STANDARD])
        return bytes(result)


def _one(block: Block, folder: Path, number: int) -> str:
    match block:
        case Heading(level, text):
            return f"#heading(level: {level}, {_s(text)})"
        case Text(text):
            return f"#text({_s(text)})"
        case Bullets(items):
            return "#list(" + ", ".join(f"text({_s(i)})" for i in items) + ")"
        case Table():
            return _table(block)
        case Figure():
            svg = folder / f"figure-{number}.svg"
            svg.write_text(block.svg, encoding="utf-8")
            alt = _s(f"{block.title}. {block.description}")
            return f"#figure(image({_s(svg.name)}, width: 100%, alt: {alt}), caption: {_s(block.title)}, supplement: none, numbering: none)\n\n#text(size: 9pt, {_s(block.description)})\n\n{_table(block.table)}"
        case Code(_, text):
            return f'#block(fill: rgb("#f4f7f9"), inset: 8pt, width: 100%, raw({_s(text)}, block: true))'
        case Callout(kind, text):
            fill, line = {
                "verdict": ("#e7f4ee", "#0b7a55"), "warning": ("#fdf3e1", "#a86400"), "note": ("#f4f7f9", "#9aa5af"),
            }[kind]  # fmt: skip
            weight = "bold" if kind != "note" else "regular"
            return f"#callout(text(weight: {_s(weight)}, {_s(text)}), rgb({_s(fill)}), rgb({_s(line)}))"
        case Masked(title, pieces):
            inner = " + ".join(
                f"highlight({_s(p)})" if t else f"text({_s(p)})" for p, t in pieces if p
            )
            return f"#block(inset: 6pt, width: 100%)[#strong({_s(title)}) #({inner or _s('')})]"
    raise TypeError(type(block))


def _widths(block: Table) -> list[str]:
    """Figures and short words as wide as they are; the others share what is left by their length."""
    widths = []
    for index, align in enumerate(block.align):
        cells = [row[index] for row in block.rows]
        longest = max((len(c) for c in cells), default=0)
        if align == "r" or longest <= SHORT_CELL:
            widths.append("auto")
        else:
            mean = sum(len(c) for c in cells) / max(1, len(cells))
            word = max(len(w) for c in (block.headers[index], *cells) for w in c.split() or [""])
            widths.append(f"{min(3.0, max(1.0, min(word, 24) / 14, mean / 30)):.2f}fr")
    return widths


def _table(block: Table) -> str:
    columns = ", ".join(_widths(block))
    align = ", ".join("right" if a == "r" else "left" for a in block.align)
    head = ", ".join(f"strong({_s(h)})" for h in block.headers)
    cells = [
        f"strong({_s(cell)})" if index == block.marked else f"text({_s(cell)})"
        for index, row in enumerate(block.rows)
        for cell in row
    ]
    caption = (
        f'\n#text(size: 8pt, fill: rgb("#5b6b79"), {_s(block.caption)})' if block.caption else ""
    )
    one = "," if len(block.headers) == 1 else ""
    return f"#table(columns: ({columns}{one}), align: ({align}{one}), table.header({head}), {', '.join(cells)}){caption}"
