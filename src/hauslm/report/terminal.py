"""Blocks on a terminal, through rich: the same chapters, in brief."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hauslm.base.words import language as current_language
from hauslm.base.words import say
from hauslm.report.blocks import (
    Block,
    Bullets,
    Callout,
    Code,
    Figure,
    Heading,
    Masked,
    Table,
    Text,
    Writer,
)

BAR_WIDTH = 56
UNFOLDED_WIDTH = 26  # characters; columns of shorter cells do not fold
LONG_COLUMN_WIDTH = 20  # the least that a column of long texts is left


def render(record: Any, language: str | None = None) -> Any:
    """A record, or an answer of the catalog, as a rich renderable."""
    from hauslm.records import Plan, Record

    writer = Writer(language or current_language(), brief=True)
    extra: list[Any] = []
    if isinstance(record, Record):
        from hauslm.report.chapters import CHAPTERS

        CHAPTERS[record.name](writer, record)
        if isinstance(record, Plan):
            extra = [memory_bar(record)]
    else:
        _catalog(writer, record)
    return renderable(writer.blocks, extra)


def renderable(blocks: Sequence[Block], extra: Sequence[Any] = ()) -> Any:
    from rich.console import Group

    return Group(*[_one(b) for b in blocks], *extra)


def _one(block: Block) -> Any:
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text as Styled

    match block:
        case Heading(level, text):
            return Styled(
                ("\n" if level > 1 else "") + text, style="bold cyan" if level < 3 else "bold"
            )
        case Text(text):
            return Styled(text)
        case Bullets(items):
            return Padding(Styled("\n".join(f"• {i}" for i in items)), (0, 0, 0, 1))
        case Table():
            return _Fitted(block)
        case Figure():
            return _Fitted(block.table)
        case Code(_, text):
            return Styled(text)
        case Callout(kind, text):
            if kind == "note":
                return Styled(f"! {text}", style="dim")
            return Panel(
                Styled(text, style="bold"), border_style="green" if kind == "verdict" else "yellow"
            )
        case Masked(title, pieces):
            styled = Styled(f"{title}: ")
            for piece, trained in pieces:
                styled.append(piece, style="reverse" if trained else "")
            return styled
    raise TypeError(type(block))


class _Fitted:
    """A table as wide as the terminal lets it be: heads fold before figures, and nothing is cut off."""

    def __init__(self, block: Table) -> None:
        self.block = block

    def __rich_console__(self, console: Any, options: Any) -> Any:
        yield _table(self.block, options.max_width)


def _table(block: Table, width: int) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as Styled

    made = RichTable(
        box=box.SIMPLE_HEAD, caption=block.caption or None, caption_justify="left", pad_edge=False
    )
    for index, (head, room) in enumerate(zip(block.headers, _widths(block, width), strict=True)):
        right = index < len(block.align) and block.align[index] == "r"
        made.add_column(
            Styled(head), justify="right" if right else "left", overflow="fold", width=room
        )
    for index, row in enumerate(block.rows):
        chosen = index == block.marked
        cells = [Styled(c) for c in row]
        if chosen:
            cells[0] = Styled("✔ ") + cells[0]
        made.add_row(*cells, style="bold green" if chosen else "")
    return made


def _widths(block: Table, width: int) -> list[int | None]:
    """Characters per column; None where rich may choose, in columns of long texts.

    Ids and figures stay whole as long as they fit: first the heads fold between words, then inside
    words; only then do the widest cells fold.
    """
    from rich.cells import cell_len

    cells = [
        max(
            (
                cell_len(row[i]) + 2 * (i == 0 and n == block.marked)
                for n, row in enumerate(block.rows)
            ),
            default=0,
        )
        for i in range(len(block.headers))
    ]
    short = [i for i, n in enumerate(cells) if n <= UNFOLDED_WIDTH]
    heads = [cell_len(h) for h in block.headers]
    words = [max(map(cell_len, h.split()), default=0) for h in block.headers]
    room = [max(c, h) for c, h in zip(cells, heads, strict=True)]
    free = len(cells) - len(short)
    most = (
        width - 3 * len(cells) + 1 - free * LONG_COLUMN_WIDTH
    )  # three blanks between columns, two edges
    for floor in ([max(c, w) for c, w in zip(cells, words, strict=True)], cells, [1] * len(cells)):
        while sum(room[i] for i in short) > most:
            widest = max(short, key=lambda i: (room[i] > floor[i], room[i]))
            if room[widest] <= floor[widest]:
                break
            room[widest] -= 1
    return [room[i] if i in short else None for i in range(len(cells))]


def memory_bar(plan: Any) -> Any:
    """The stacked memory bar in characters against the device's memory, with its legend."""
    from rich.text import Text as Styled

    from hauslm.plan.picture import stacked_bar

    memory = plan.device.memory_gib if plan.device else plan.memory.peak_gib.value
    return Styled(stacked_bar(plan, memory, BAR_WIDTH, current_language()))


def _catalog(w: Writer, answer: dict[str, Any]) -> None:
    """`hauslm catalog`: a listing (headers, rows) or one entry (facts with how they are known)."""
    if "rows" in answer:
        w.table(answer["headers"], [[str(c) for c in row] for row in answer["rows"]])
        return
    if "id" in answer:
        w.heading(str(answer.get("name") or answer["id"]), 2)
    rows = [
        [str(f.get(k, "")) for k in ("label", "text", "known", "source", "date")]
        for f in answer.get("facts", [])
    ]
    w.table([say("Fact"), say("Figure"), say("Known"), say("Source"), say("Date")], rows)
