"""DOCX: a zip of XML from strangers, opened with limits on size, ratio and names, and without macros.

Taken: paragraphs, headings, list items, tables as lines of cells, formulas as text, core properties. Left
out and counted: pictures, comments, notes, deleted text of tracked changes, headers and footers, text
that Word hides. White and tiny text stays in and is counted (`data.hidden`).
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from hauslm.base.words import say
from hauslm.data.document import (
    Document,
    Limits,
    Refusal,
    TextBuilder,
    UnreadableError,
    normal_doi,
    one_line,
)
from hauslm.data.hidden import SMALLEST_PT, is_white
from hauslm.data.language import normal_code
from hauslm.data.readers._xml import Element, children, count_invisible, first, local, parse, plain
from hauslm.data.rights import classify, statement_at_ends

NAME = "docx"
SUFFIXES = (".docx", ".docm")

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MAIN = "word/document.xml"
_MOST_PARTS = 10_000
_RATIO_FROM_BYTES = 1 << 20  # small parts may compress as well as they like
_HEADING = re.compile(r"(?:heading|überschrift|berschrift|title|titel)\s*(\d?)$", re.IGNORECASE)
_REFERENCES = re.compile(
    r"^(?:references|bibliography|literatur(?:verzeichnis)?|works cited)$", re.IGNORECASE
)


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    size = path.stat().st_size
    if size == 0:
        raise UnreadableError(say("The file is empty."))
    with path.open("rb") as stream:
        if stream.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            raise UnreadableError(
                say("The document is encrypted with a password, or in the old DOC format.")
            )
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(archive, limits)
            body = _part(archive, _MAIN, limits)
            core = _part(archive, "docProps/core.xml", limits)
            styles = _part(archive, "word/styles.xml", limits)
            names = archive.namelist()
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,  # a name in the directory that is no UTF-8
        OverflowError,
        struct.error,
        OSError,
    ) as error:
        raise UnreadableError(
            say("The DOCX is damaged: {reason}.", reason=str(error)[:120])
        ) from error
    if body is None:
        raise UnreadableError(say("The file is a zip archive but no Word document."))
    yield _document(path.stem, parse(body, limits), core, styles, names, limits)


def _refuse_bomb(archive: zipfile.ZipFile, limits: Limits) -> None:
    """Sizes as the directory states them; `_part` checks them again while unpacking."""
    entries = archive.infolist()
    if len(entries) > _MOST_PARTS:
        raise UnreadableError(
            say(
                "The DOCX has {count:,} parts; the limit is {limit:,}.",
                count=len(entries),
                limit=_MOST_PARTS,
            )
        )
    total = sum(e.file_size for e in entries)
    if total > limits.unpacked_bytes:
        raise UnreadableError(
            say(
                "The DOCX unpacks to {size:,} MB; the limit is {limit:,} MB.",
                size=total / 1e6,
                limit=limits.unpacked_bytes / 1e6,
            )
        )
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise UnreadableError(
                say("The document is encrypted with a password, or in the old DOC format.")
            )
        if entry.file_size > _RATIO_FROM_BYTES and entry.file_size > limits.unpack_ratio * max(
            1, entry.compress_size
        ):
            raise UnreadableError(
                say("A part of the DOCX unpacks to {ratio:,} times its size, which is how zip bombs are built.",
                    ratio=entry.file_size / max(1, entry.compress_size))
            )  # fmt: skip


def _part(archive: zipfile.ZipFile, name: str, limits: Limits) -> bytes | None:
    if name not in archive.namelist():
        return None
    with archive.open(name) as stream:
        data = stream.read(limits.file_bytes + 1)
    if len(data) > limits.file_bytes:
        raise UnreadableError(
            say(
                "The DOCX unpacks to {size:,} MB; the limit is {limit:,} MB.",
                size=len(data) / 1e6,
                limit=limits.file_bytes / 1e6,
            )
        )
    return data


def _document(
    name: str,
    root: Element,
    core: bytes | None,
    styles: bytes | None,
    names: list[str],
    limits: Limits,
) -> Document:
    properties = parse(core, limits) if core else None
    sheet = parse(styles, limits) if styles else None
    levels = _heading_styles(sheet) if sheet is not None else {}
    looks = _looks(sheet) if sheet is not None else {}
    builder = TextBuilder()
    body = first(root, "body")
    _blocks(body if body is not None else root, builder, levels, looks)
    pictures = sum(n.startswith("word/media/") for n in names)
    if pictures:
        builder.left_out["images"] += pictures
    for part, kind in (("comments", "comments"), ("footnotes", "notes"), ("endnotes", "notes")):
        if f"word/{part}.xml" in names:
            builder.left_out[kind] += 1
    text, sections = builder.build()
    count_invisible(root, builder)
    declared = plain(first(properties, "title")) if properties is not None else ""
    statement = plain(first(properties, "rights")) if properties is not None else ""
    statement = statement or statement_at_ends(text)
    rights = classify(statement)
    return Document(
        id=name,
        title=declared or (sections[0].title if sections else text.split("\n", 1)[0][:200]) or name,
        text=text,
        language=normal_code(
            plain(first(properties, "language")) if properties is not None else ""
        ),
        licence=rights.label,
        licence_class=rights.licence_class,
        doi=normal_doi(plain(first(properties, "identifier")) if properties is not None else ""),
        format=NAME,
        sections=sections,
        metadata={
            "authors": [plain(first(properties, "creator"))] if properties is not None else [],
            "licence_statement": statement,
        },
        left_out=dict(builder.left_out),
        hidden=dict(builder.hidden),
    )


def _on(element: Element | None) -> bool:
    """A switch of Word is on if it is there, unless its value says no."""
    return element is not None and element.get(f"{_W}val", "1") not in ("0", "false", "off")


def _look(properties: Element | None) -> str:
    """How run properties hide their text: 'vanish', 'white', 'tiny', or ''."""
    if properties is None:
        return ""
    if _on(first(properties, "vanish")):
        return "vanish"
    colour = first(properties, "color")
    shaded = first(properties, "shd") is not None or first(properties, "highlight") is not None
    if colour is not None and not shaded and is_white(colour.get(f"{_W}val", "")):
        return "white"
    size = first(properties, "sz")
    half_points = size.get(f"{_W}val", "") if size is not None else ""
    return "tiny" if half_points.isdigit() and int(half_points[:6]) < 2 * SMALLEST_PT else ""


def _looks(styles: Element) -> dict[str, str]:
    """Style id -> how it hides its text, for the styles that do."""
    found = {
        style.get(f"{_W}styleId") or "": _look(first(style, "rPr"))
        for style in children(styles, "style")
    }
    return {k: v for k, v in found.items() if k and v}


def _heading_styles(styles: Element) -> dict[str, int]:
    """Style id -> heading level, by the style's name or outline level, in any language of Word."""
    found: dict[str, int] = {}
    for style in children(styles, "style"):
        id_ = style.get(f"{_W}styleId") or ""
        name = first(style, "name")
        label = name.get(f"{_W}val", "") if name is not None else ""
        outline = first(style, "pPr", "outlineLvl")
        match = _HEADING.match(label)
        if match:
            found[id_] = int(match.group(1) or 1)
        elif outline is not None and (outline.get(f"{_W}val") or "9").isdigit():
            level = int(outline.get(f"{_W}val") or "9")
            if level < 9:
                found[id_] = level + 1
    return found


def _blocks(
    element: Element, builder: TextBuilder, levels: dict[str, int], looks: dict[str, str]
) -> bool:
    """Paragraphs and tables in order; False once the reference list has begun (the rest is left out)."""
    for child in element:
        name = local(child)
        if name == "p":
            style = first(child, "pPr", "pStyle")
            style_id = style.get(f"{_W}val", "") if style is not None else ""
            text = _runs(child, builder, looks, looks.get(style_id, ""))
            if style_id in levels or _HEADING.match(style_id):
                if _REFERENCES.match(one_line(text)):
                    builder.left_out["reference lists"] += 1
                    return False
                builder.heading(text)
            elif text.strip():
                is_item = first(child, "pPr", "numPr") is not None
                builder.paragraph(f"- {text}" if is_item else text)
        elif name == "tbl":
            builder.paragraph(_table(child, builder, looks))
        elif name in ("sdt", "sdtContent", "customXml", "ins", "smartTag") and not _blocks(
            child, builder, levels, looks
        ):
            return False
    return True


def _table(table: Element, builder: TextBuilder, looks: dict[str, str]) -> str:
    lines = []
    for row in children(table, "tr"):
        cells = [
            one_line(" ".join(_paragraph(p, builder, looks) for p in cell.iter(f"{_W}p")))
            for cell in children(row, "tc")
        ]
        if any(cells):
            lines.append(" | ".join(cells))
    return "\n".join(lines)


def _paragraph(paragraph: Element, builder: TextBuilder, looks: dict[str, str]) -> str:
    style = first(paragraph, "pPr", "pStyle")
    style_id = style.get(f"{_W}val", "") if style is not None else ""
    return _runs(paragraph, builder, looks, looks.get(style_id, ""))


def _runs(element: Element, builder: TextBuilder, looks: dict[str, str], look: str) -> str:
    """The text of the runs; `look` is how the paragraph's style hides it, a run's own goes before."""
    parts: list[str] = []
    for child in element:
        name = local(child)
        if name == "t":
            parts.append(child.text or "")
        elif name in ("tab", "br", "cr"):
            parts.append(" " if name == "tab" else "\n")
        elif name in ("noBreakHyphen", "softHyphen"):
            parts.append("-" if name == "noBreakHyphen" else "")
        elif name == "del":
            builder.left_out["deleted passages"] += 1
        elif name in ("oMath", "oMathPara"):
            formula = plain(child)
            parts.append(f" {formula} " if formula else " [formula] ")
        elif name == "r":
            parts.append(_run(child, builder, looks, look))
        elif name in _TRANSPARENT:
            parts.append(_runs(child, builder, looks, look))
    return "".join(parts)


_TRANSPARENT = ("hyperlink", "ins", "smartTag", "sdt", "sdtContent", "fldSimple", "customXml")


def _run(run: Element, builder: TextBuilder, looks: dict[str, str], look: str) -> str:
    properties = first(run, "rPr")
    style = first(properties, "rStyle") if properties is not None else None
    look = looks.get(style.get(f"{_W}val", ""), look) if style is not None else look
    own = _look(properties)
    if own:
        look = own
    elif look == "vanish" and properties is not None and first(properties, "vanish") is not None:
        look = ""  # the run shows what its style hides
    if look == "vanish":
        builder.left_out["hidden passages"] += 1
        return ""
    text = _runs(run, builder, looks, look)
    if look and text.strip():
        builder.hidden[look] += len(text.strip())
    return text
