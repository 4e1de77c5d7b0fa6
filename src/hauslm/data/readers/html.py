"""HTML: the article in the page, without menus, scripts, footers and forms.

If the page marks its main part (`<article>`, `<main>`), only that is read. Meta tags of publishers
(citation_title, citation_doi, citation_author, DC.rights) are used. Text that no reader sees is a way to
speak to a model: elements that say they are hidden are left out and counted; white, tiny or displaced
text, and what a style sheet hides, stays in and is counted (`data.hidden`), for it may be meant otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree, html

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
from hauslm.data.hidden import css_kind, css_rules, has_background, is_white
from hauslm.data.language import normal_code
from hauslm.data.readers._decode import decode, whole_file
from hauslm.data.readers._xml import Element, count_invisible, local, mathml, plain
from hauslm.data.rights import classify, statement_at_ends

NAME = "html"
SUFFIXES = (".html", ".htm", ".xhtml")

_DROPPED = {
    "script": "", "style": "", "noscript": "", "template": "", "head": "", "iframe": "frames",
    "nav": "menus", "aside": "side columns", "footer": "footers", "form": "forms", "button": "", "select": "forms",
    "svg": "figures", "canvas": "figures", "video": "media files", "audio": "media files", "object": "media files",
    "img": "images", "picture": "images", "input": "", "label": "",
}  # fmt: skip
_BLOCKS = frozenset(
    ("p", "div", "section", "article", "main", "body", "html", "blockquote", "figure", "figcaption", "header",
     "dl", "dt", "dd", "pre", "address", "details", "summary", "center", "fieldset", "hgroup")
)  # fmt: skip
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?:\D|$)|opacity\s*:\s*0(?:\.0+)?(?:;|$)",
    re.IGNORECASE,
)
_REFERENCES = re.compile(
    r"^(?:references|bibliography|literatur(?:verzeichnis)?|works cited)$", re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
_MOST_DEPTH = 200


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    raw = whole_file(path, limits)
    declared = _CHARSET.search(raw[:4096])
    notice = None
    try:
        text = raw.decode(declared.group(1).decode("ascii")) if declared else None
    except (LookupError, UnicodeDecodeError):
        text = None
    if text is None:
        text, notice = decode(raw)
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.replace("\0", " "))
    parser = html.HTMLParser(
        remove_comments=True, remove_pis=True, no_network=True, huge_tree=False
    )
    try:
        root = html.document_fromstring(text, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError) as error:
        raise UnreadableError(
            say("The HTML holds nothing that can be read ({reason}).", reason=str(error)[:100])
        ) from error
    builder = TextBuilder()
    meta = _meta(root)
    page_title = one_line(next((plain(e) for e in root.iter("title")), ""))
    title = meta.get("citation_title") or meta.get("dc.title") or meta.get("og:title") or page_title
    main = _main_part(root)
    if title and not any(plain(h) == title for h in main.iter("h1")):
        builder.heading(title)
    _count_hidden(root, main, builder)
    _block(main, builder, 0)
    whole, sections = builder.build()
    count_invisible(main, builder)
    statement = one_line(
        " ".join(meta[k] for k in ("dc.rights", "citation_license", "dcterms.license") if k in meta)
    )
    links = [
        e.get("href", "")
        for e in root.iter("a", "link")
        if "license" in (e.get("rel") or "").lower().split()
    ]
    if not statement and not links:
        statement = statement_at_ends(whole)
    rights = classify(statement, links)
    yield Document(
        id=path.stem,
        title=title or path.stem,
        text=whole,
        language=normal_code(root.get("lang")),
        licence=rights.label,
        licence_class=rights.licence_class,
        doi=normal_doi(meta.get("citation_doi") or meta.get("dc.identifier") or ""),
        format=NAME,
        sections=sections,
        metadata={
            "authors": _all_meta(root, "citation_author"),
            "licence_statement": statement,
            "licence_links": links,
        },
        left_out={k: v for k, v in builder.left_out.items() if k and v},
        hidden=dict(builder.hidden),
        notices=() if notice is None else (notice,),
    )


def _meta(root: Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in root.iter("meta"):
        name = (tag.get("name") or tag.get("property") or "").lower()
        content = one_line(tag.get("content") or "")
        if name and content:
            found.setdefault(name, content)
    return found


def _all_meta(root: Element, name: str) -> list[str]:
    tags = (t for t in root.iter("meta") if (t.get("name") or "").lower() == name)
    return [one_line(t.get("content") or "") for t in tags if t.get("content")]


def _main_part(root: Element) -> Element:
    """The one <article> or <main> that holds most of the text, else the body."""
    body = next(iter(root.iter("body")), root)
    candidates = [*root.iter("article"), *root.iter("main")]
    if not candidates:
        return body
    best = max(candidates, key=lambda e: len(plain(e)))
    return best if len(plain(best)) > 200 else body


def _is_hidden(element: Element) -> bool:
    if element.get("hidden") is not None or (
        element.get("aria-hidden") == "true" and len(plain(element)) > 3
    ):
        return True
    return bool(_HIDDEN.search(element.get("style") or ""))


def _count_hidden(root: Element, main: Element, builder: TextBuilder) -> None:
    """Count the characters that stay in the text although nobody sees them."""
    rules: dict[str, str] = {}
    for sheet in root.iter("style"):
        rules |= css_rules(sheet.text or "")
    waiting = [(main, False)]
    while waiting:
        element, on_colour = waiting.pop()
        style = element.get("style") or ""
        on_colour = (
            on_colour or has_background(style) or not is_white(element.get("bgcolor", "#fff"))
        )
        kind = _look(element, style, rules)
        if kind and not (kind == "white" and on_colour):
            builder.hidden[kind] += len(plain(element))
            continue
        waiting += [
            (child, on_colour)
            for child in element
            if local(child) and local(child) not in _DROPPED and not _is_hidden(child)
        ]


def _look(element: Element, style: str, rules: dict[str, str]) -> str:
    names = [f".{c}" for c in (element.get("class") or "").split()[:50]]
    for name in (*names, f"#{element.get('id', '')}"):
        if name in rules:
            return rules[name]
    if local(element) == "font" and is_white(element.get("color", "")):
        return "white"
    return css_kind(style)


def _block(element: Element, builder: TextBuilder, depth: int) -> None:
    """Blocks become paragraphs; inline children between blocks are gathered into one."""
    if depth > _MOST_DEPTH:
        raise UnreadableError(
            say("The HTML is nested more than {limit:,} levels deep.", limit=_MOST_DEPTH)
        )
    running: list[str] = [element.text or ""]

    def flush() -> None:
        builder.paragraph(one_line("".join(running)))
        running.clear()

    for child in element:
        name = local(child)
        if name in _DROPPED or (name and _is_hidden(child)):
            kind = _DROPPED.get(name, "hidden elements")
            if kind:
                builder.left_out[kind] += 1
        elif name in _HEADINGS:
            flush()
            if _REFERENCES.match(plain(child)):
                builder.left_out["reference lists"] += 1
                return
            builder.heading(plain(child))
        elif name in ("ul", "ol"):
            flush()
            items = [f"- {_inline(i, builder)}" for i in child if local(i) == "li"]
            builder.paragraph("\n".join(one_line(i) for i in items if len(i) > 2))
        elif name == "table":
            flush()
            builder.paragraph(_table(child, builder))
        elif name in _BLOCKS:
            flush()
            _block(child, builder, depth + 1)
        elif name == "br":
            running.append(" ")
        elif name:
            running.append(_inline_child(child, builder))
        running.append(child.tail or "")
    flush()


def _table(table: Element, builder: TextBuilder) -> str:
    """A table of text as lines of cells; layout tables come out as their text as well."""
    lines = []
    for row in table.iter("tr"):
        cells = [one_line(_inline(c, builder)) for c in row if local(c) in ("td", "th")]
        if any(cells):
            lines.append(" | ".join(cells))
    return "\n".join(lines)


def _inline(element: Element, builder: TextBuilder) -> str:
    parts = [element.text or ""]
    for child in element:
        if local(child):
            parts.append(_inline_child(child, builder))
        parts.append(child.tail or "")
    return "".join(parts)


def _inline_child(child: Element, builder: TextBuilder) -> str:
    name = local(child)
    if name == "math":
        return f" {mathml(child)} "
    if name in _DROPPED or _is_hidden(child):
        kind = _DROPPED.get(name, "hidden elements")
        if kind:
            builder.left_out[kind] += 1
        return " "
    text = _inline(child, builder)
    return f" {text} " if name in _BLOCKS or name in ("br", "li", "td", "tr") else text
