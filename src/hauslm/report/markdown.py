"""Blocks as Markdown: readable as it is, and by every forge and notebook."""

from __future__ import annotations

from collections.abc import Sequence

from hauslm.report.blocks import Block, Bullets, Callout, Code, Figure, Heading, Masked, Table, Text


def render(blocks: Sequence[Block], figures: dict[str, str] | None = None) -> str:
    """`figures` collects file name -> SVG for the drawings that the text refers to."""
    parts = [_one(b, figures) for b in blocks]
    return "\n\n".join(p for p in parts if p) + "\n"


def _one(block: Block, figures: dict[str, str] | None) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {i}" for i in items)
        case Table():
            return table(block)
        case Figure():
            drawing = ""
            if figures is not None:
                name = f"figure-{len(figures) + 1}.svg"
                figures[name] = block.svg
                drawing = f"![{block.title}. {block.description}]({name})\n\n"
            return f"{drawing}*{block.title}.* {block.description}\n\n{table(block.table)}"
        case Code(language, text):
            return f"```{language}\n{text.rstrip()}\n```"
        case Callout(kind, text):
            mark = {"verdict": "**", "warning": "**", "note": ""}[kind]
            return f"> {mark}{text}{mark}"
        case Masked(title, pieces):
            words = "".join(f"**{p.strip()}** " if t and p.strip() else p for p, t in pieces)
            return f"*{_cell(title)}*: {_cell(words)}"
    raise TypeError(type(block))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(block: Table) -> str:
    marks = {"l": ":---", "r": "---:"}
    lines = [
        "| " + " | ".join(_cell(h) for h in block.headers) + " |",
        "| " + " | ".join(marks.get(a, ":---") for a in block.align) + " |",
    ]
    for index, row in enumerate(block.rows):
        cells = [_cell(c) for c in row]
        if index == block.marked and cells:
            cells[0] = f"**{cells[0]}** ✔"
        lines.append("| " + " | ".join(cells) + " |")
    caption = f"\n\n*{block.caption}*" if block.caption else ""
    return "\n".join(lines) + caption
