"""XML from strangers: parsed without DTD, network and entities of its own; formulas kept readable.

An internal DTD subset with entity declarations is what an entity bomb needs and what no publisher's
article has: such a file is refused. Named characters of the public DTDs (&alpha;) are replaced before
parsing, because the DTD itself is never loaded.
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lxml import etree

from hauslm.base.words import say
from hauslm.data.document import (
    Limits,
    TextBuilder,
    UnreadableError,
    hidden_characters,
    one_line,
)

Element = Any  # lxml has no complete types

_DOCTYPE = re.compile(rb"<!DOCTYPE[^\[>]*(\[)?", re.IGNORECASE)
_NAMED = re.compile(rb"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_OWN = frozenset({b"amp", b"lt", b"gt", b"quot", b"apos"})


def root_name(head: bytes) -> str:
    """Local name of the document element, from the first bytes of a file ('' if there is none)."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head.decode("utf-16", "ignore").encode()
    head = re.sub(rb"<!--.*?-->|<\?.*?\?>", b"", head, flags=re.DOTALL)
    head = re.sub(
        rb"<!DOCTYPE[^\[>]*(\[.*?\])?[^>]*>", b"", head, count=1, flags=re.DOTALL | re.IGNORECASE
    )
    match = re.search(rb"<(?:[\w.\-]+:)?([\w.\-]+)", head)
    return match.group(1).decode("ascii", "ignore") if match else ""


def parse(raw: bytes, limits: Limits) -> Element:
    """The root element, or `UnreadableError` with the parser's line and reason."""
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if wide:
        try:
            raw = raw.decode("utf-16").encode("utf-8")
        except UnicodeError as error:
            raise UnreadableError(
                say(
                    "The XML says that it is UTF-16, but is not ({reason}).", reason=str(error)[:80]
                )
            ) from error
        raw = re.sub(rb"^<\?xml[^>]*\?>", b"", raw)
    doctype = _DOCTYPE.search(raw[: 1 << 20])
    if (doctype and doctype.group(1)) or b"<!ENTITY" in raw:
        raise UnreadableError(
            say("The XML file declares entities of its own, which is how entity bombs are built.")
        )
    raw = _NAMED.sub(_named_character, raw)
    parser = _parser()
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        # A bad xml:id breaks a rule of validity, not of the text; real TEI files have them.
        log = parser.error_log
        if len(log) and all(e.type == etree.ErrorTypes.DTD_XMLID_VALUE for e in log):
            root = etree.fromstring(raw, _parser(recover=True))
            if root is not None:
                return root
        line = getattr(error, "lineno", None) or 0
        reason = str(error).split("\n")[0].split(", line")[0]
        raise UnreadableError(
            say("The XML is damaged in line {line:,}: {reason}.", line=line, reason=reason)
        ) from error
    return root


def _parser(*, recover: bool = False) -> Element:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,  # keeps libxml2's own limits on depth (256) and text size (10 MB)
        remove_comments=True,
        remove_pis=True,
        recover=recover,
    )


def _named_character(match: re.Match[bytes]) -> bytes:
    name = match.group(1)
    if name in _XML_OWN:
        return match.group(0)
    character = html.entities.html5.get(name.decode() + ";")
    return "".join(f"&#{ord(c)};" for c in character).encode() if character else match.group(0)


def local(element: Element) -> str:
    """Tag without its namespace; '' for comments, processing instructions, entities."""
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def children(element: Element, *names: str) -> Iterator[Element]:
    for child in element:
        if local(child) in names:
            yield child


def first(element: Element | None, *path: str) -> Element | None:
    """The first descendant along the path of local names, or None."""
    for name in path:
        if element is None:
            return None
        element = next((c for c in element if local(c) == name), None)
    return element


def plain(element: Element | None) -> str:
    """All text below an element on one line; '' for None."""
    return "" if element is None else one_line("".join(element.itertext()))


def count_invisible(element: Element, builder: TextBuilder) -> None:
    """Zero-width and tag characters anywhere below `element`: `plain` has dropped them by now."""
    count = hidden_characters("".join(element.itertext()))
    builder.left_out["invisible characters"] = count
    if not count:
        del builder.left_out["invisible characters"]


CELL_BREAK = " | "
_MOST_SPANNED = 1000  # of rows or columns; more is a mistake in the file


def table_text(
    table: Element, rows: Sequence[str], cells: Sequence[str], words: Callable[[Element], str]
) -> str:
    """A table as lines, one per row, its cells separated by " | ".

    A cell that spans rows stands in each of them, so that every line can be read alone; one that spans
    columns is followed by empty cells, so that columns stay columns. `words` gives the text of a cell.
    """
    lines: list[str] = []
    held: dict[int, tuple[str, int]] = {}  # column -> text, and how many further rows it spans
    for row in (e for e in table.iter() if local(e) in rows and _table_of(e) is table):
        line: list[str] = []
        above, held = held, {}
        for cell in (c for c in row if local(c) in cells):
            _inherit(line, above, held)
            text = one_line(words(cell))
            high, wide = _spans(cell)
            for part in (text, *[""] * (wide - 1)):
                if high > 1:
                    held[len(line)] = (part, high - 1)
                line.append(part)
        _inherit(line, above, held)
        if any(line):
            lines.append(CELL_BREAK.join(line).rstrip(" |"))
    return "\n".join(lines)


def _inherit(
    line: list[str], above: dict[int, tuple[str, int]], held: dict[int, tuple[str, int]]
) -> None:
    """Append the cells of rows above that reach into the next columns of this one."""
    while len(line) in above:
        text, left = above[len(line)]
        if left > 1:
            held[len(line)] = (text, left - 1)
        line.append(text)


def _table_of(row: Element) -> Element | None:
    """The table that a row belongs to: the innermost one."""
    return next((e for e in row.iterancestors() if local(e) in ("table", "array")), None)


def _spans(cell: Element) -> tuple[int, int]:
    """Rows and columns that a cell spans (HTML's names, else TEI's)."""

    def span(*names: str) -> int:
        given = next((v for n in names if (v := cell.get(n))), "1")
        return max(1, min(_MOST_SPANNED, int(given))) if given.isascii() and given.isdigit() else 1

    return span("rowspan", "rows"), span("colspan", "cols")


def mathml(element: Element) -> str:
    """MathML as one readable line: x^2, a_i, (a)/(b), sqrt(x). Nothing is dropped."""
    name = local(element)
    parts = [mathml(c) for c in element if local(c)]
    own = (element.text or "").strip() if not len(element) else ""
    if name in ("annotation", "annotation-xml"):
        return ""
    if name == "mfrac" and len(parts) == 2:
        return f"({parts[0]})/({parts[1]})"
    if name in ("msup", "mover") and len(parts) == 2:
        return f"{parts[0]}^{_grouped(parts[1])}"
    if name in ("msub", "munder") and len(parts) == 2:
        return f"{parts[0]}_{_grouped(parts[1])}"
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return f"{parts[0]}_{_grouped(parts[1])}^{_grouped(parts[2])}"
    if name == "msqrt":
        return f"sqrt({' '.join(p for p in parts if p)})"
    if name == "mroot" and len(parts) == 2:
        return f"root({parts[0]}, {parts[1]})"
    if name == "mfenced":
        return f"({', '.join(parts)})"
    if name == "mspace":
        return " "
    return own or " ".join(p for p in parts if p)


def _grouped(text: str) -> str:
    return text if len(text) <= 1 else "{" + text + "}"
