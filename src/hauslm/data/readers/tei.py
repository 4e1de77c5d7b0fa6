"""TEI XML, the archive format of the humanities: header data and the text body with its divisions.

Table rows become lines, cells separated by " | "; formulas stay as text. Left out and counted:
bibliography, notes, figures without a caption.
"""

from __future__ import annotations

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
from hauslm.data.language import normal_code
from hauslm.data.readers._decode import whole_file
from hauslm.data.readers._xml import (
    Element,
    children,
    count_invisible,
    first,
    local,
    mathml,
    parse,
    plain,
    root_name,
    table_text,
)
from hauslm.data.rights import classify

NAME = "tei"
SUFFIXES = (".xml", ".tei")

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DROPPED = {
    "listBibl": "reference lists", "bibl": "references", "note": "notes", "graphic": "figures",
    "figDesc": "figures", "pb": "", "lb": "", "milestone": "",
}  # fmt: skip
_BLOCKS = (
    "div",
    "div1",
    "div2",
    "div3",
    "div4",
    "body",
    "group",
    "text",
    "front",
    "back",
    "quote",
    "cit",
)


def accepts(head: bytes) -> bool:
    return root_name(head) in ("TEI", "TEI.2", "teiCorpus")


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    root = parse(whole_file(path, limits), limits)
    texts = [root] if local(root) in ("TEI", "TEI.2") else list(children(root, "TEI", "TEI.2"))
    if not texts:
        raise UnreadableError(
            say("The XML is neither JATS nor TEI (its first element is <{tag}>).", tag=local(root))
        )
    for number, text in enumerate(texts, 1):
        yield _document(text, path.stem if len(texts) == 1 else f"{path.stem}:{number}")


def _document(root: Element, name: str) -> Document:
    header = first(root, "teiHeader")
    description = first(header, "fileDesc")
    title = _title(first(description, "titleStmt"))
    builder = TextBuilder()
    builder.heading(title)
    text_element = first(root, "text")
    for part in () if text_element is None else text_element:
        _block(part, builder)
    text, sections = builder.build()
    count_invisible(root, builder)
    availability = first(description, "publicationStmt", "availability")
    links = (
        []
        if availability is None
        else [e.get("target") for e in availability.iter() if e.get("target")]
    )
    statement = plain(availability)
    rights = classify(statement, links)
    identifiers = plain(first(description, "publicationStmt"))
    language = first(header, "profileDesc", "langUsage", "language")
    declared = root.get(_XML_LANG) or (language.get("ident") if language is not None else "")
    return Document(
        id=name,
        title=title or name,
        text=text,
        language=normal_code(
            declared or (text_element.get(_XML_LANG) if text_element is not None else "")
        ),
        licence=rights.label,
        licence_class=rights.licence_class,
        doi=normal_doi(identifiers),
        format=NAME,
        sections=sections,
        metadata={
            "authors": _authors(first(description, "titleStmt")),
            "keywords": [plain(e) for e in _all(header, "term")],
            "licence_statement": statement,
            "licence_links": links,
        },
        left_out={k: v for k, v in builder.left_out.items() if k and v},
    )


def _all(element: Element | None, name: str) -> list[Element]:
    return [] if element is None else [e for e in element.iter() if local(e) == name]


def _title(statement: Element | None) -> str:
    """The title without being read twice where a full title contains main and sub title."""
    titles = [] if statement is None else list(children(statement, "title"))
    for title in titles:
        parts = [plain(t) for t in children(title, "title")]
        if parts:
            return ": ".join(p for p in parts if p)
    return ": ".join(plain(t) for t in titles if plain(t))


def _authors(statement: Element | None) -> list[str]:
    names = []
    for author in () if statement is None else children(statement, "author"):
        person = first(author, "persName")
        source = person if person is not None else author
        forename, surname = plain(first(source, "forename")), plain(first(source, "surname"))
        names.append(f"{forename} {surname}".strip() or plain(source))
    return [n for n in names if n]


def _block(element: Element, builder: TextBuilder) -> None:
    name = local(element)
    if name in ("listBibl", "back") and name == "listBibl":
        builder.left_out["references"] += len(_all(element, "bibl")) + len(
            _all(element, "biblStruct")
        )
    elif name in _BLOCKS:
        if name.startswith("div") and element.get("type") in ("bibliography", "references"):
            builder.left_out["reference lists"] += 1
            return
        for child in element:
            _block(child, builder)
    elif name == "head":
        builder.heading(_inline(element, builder))
    elif name == "table":
        builder.paragraph(_inline(first(element, "head"), builder))
        builder.paragraph(_cells(element, builder))
    elif name == "figure":
        builder.left_out["figures"] += 1
        for caption in children(element, "head", "p"):
            builder.paragraph(_inline(caption, builder))
    elif name == "list":
        builder.paragraph(
            "\n".join(f"- {one_line(_inline(i, builder))}" for i in children(element, "item"))
        )
    elif name == "formula":
        builder.paragraph(_formula(element))
    elif name in _DROPPED:
        builder.left_out[_DROPPED[name]] += 1
    elif name:
        builder.paragraph(one_line(_inline(element, builder)))


def _inline(element: Element | None, builder: TextBuilder) -> str:
    if element is None:
        return ""
    parts = [element.text or ""]
    for child in element:
        name = local(child)
        if name == "formula":
            parts.append(f" {_formula(child)} ")
        elif name == "lb":
            parts.append(" ")
        elif name == "table":
            parts.append(f"\n{_cells(child, builder)}\n")
        elif name == "figure":
            builder.left_out["figures"] += 1
            parts.append(" ".join(f" {_inline(c, builder)} " for c in children(child, "head")))
        elif name in _DROPPED and name != "bibl":
            builder.left_out[_DROPPED[name]] += 1
        else:
            parts.append(_inline(child, builder) if name else "")
        parts.append(child.tail or "")
    return "".join(parts)


def _cells(table: Element, builder: TextBuilder) -> str:
    return table_text(table, ("row",), ("cell",), lambda cell: _inline(cell, builder))


def _formula(element: Element) -> str:
    math = next((e for e in element.iter() if local(e) == "math"), None)
    text = one_line(mathml(math)) if math is not None else plain(element)
    return text or "[formula]"
