"""JATS / NLM XML, the archive format of scientific publishers: the cleanest source of an article.

Taken: title, abstract, body sections, figure and table captions, table cells (a row is a line, cells
separated by " | "), formulas as text, DOI, authors, licence statement and link, language. Left out and
counted: reference list, figures, tables that exist only as an image,
supplementary files, acknowledgements, funding. A formula that exists only as an image becomes the
marker `[formula]`. Sub-articles (decision letters, replies) are parts of the document under their title.
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

NAME = "jats"
SUFFIXES = (".xml", ".nxml")

FORMULA = "[formula]"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DROPPED = {
    "graphic": "figures",
    "inline-graphic": "figures",
    "media": "media files",
    "supplementary-material": "supplementary files",
    "ref-list": "reference lists",
    "object-id": "",
    "processing-meta": "",
    "fn": "notes",
    "table-wrap-foot": "table notes",
}
_BACK_MATTER = {
    "ack": "acknowledgements",
    "fn-group": "notes",
    "glossary": "glossaries",
    "notes": "notes",
}


def accepts(head: bytes) -> bool:
    return root_name(head) == "article"


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    root = parse(whole_file(path, limits), limits)
    if local(root) != "article":
        raise UnreadableError(
            say("The XML is neither JATS nor TEI (its first element is <{tag}>).", tag=local(root))
        )
    yield article(root, path.stem)


def article(root: Element, name: str) -> Document:
    meta = first(root, "front", "article-meta")
    if meta is None:
        meta = first(root, "front")
    builder = TextBuilder()
    title = plain(first(meta, "title-group", "article-title"))
    builder.heading(title)
    for abstract in children(meta if meta is not None else (), "abstract", "trans-abstract"):
        _abstract(abstract, builder)
    _parts(root, builder)
    text, sections = builder.build()
    count_invisible(root, builder)
    statement, links = _permissions(meta)
    rights = classify(statement, links)
    ids = {
        i.get("pub-id-type"): plain(i)
        for i in children(meta if meta is not None else (), "article-id")
    }
    keywords = [
        plain(k)
        for g in children(meta if meta is not None else (), "kwd-group")
        for k in children(g, "kwd")
    ]
    journal = first(root, "front", "journal-meta", "journal-title-group", "journal-title")
    return Document(
        id=ids.get("pmcid") or ids.get("pmc") or ids.get("doi") or name,
        title=title or name,
        text=text,
        language=normal_code(root.get(_XML_LANG)),
        licence=rights.label,
        licence_class=rights.licence_class,
        doi=normal_doi(ids.get("doi", "")),
        format=NAME,
        sections=sections,
        metadata={
            "authors": _authors(meta),
            "journal": plain(journal)
            or plain(first(root, "front", "journal-meta", "journal-title")),
            "year": plain(first(meta, "pub-date", "year")),
            "keywords": [k for k in keywords if k],
            "article_type": root.get("article-type", ""),
            "licence_statement": statement,
            "licence_links": links,
        },
        left_out={k: v for k, v in builder.left_out.items() if k and v},
        notices=() if rights.why is None else (rights.why,),
    )


def _abstract(abstract: Element, builder: TextBuilder) -> None:
    kind = abstract.get("abstract-type") or ""
    if kind in ("graphical", "toc", "teaser", "web-summary"):
        builder.left_out["short abstracts"] += 1
        return
    if first(abstract, "title") is None:
        builder.heading(
            "Zusammenfassung" if normal_code(abstract.get(_XML_LANG)) == "de" else "Abstract"
        )
    _block(abstract, builder)


def _parts(root: Element, builder: TextBuilder) -> None:
    """Body, floats, back matter and sub-articles of one article element."""
    for part in root:
        name = local(part)
        if name in ("body", "floats-group"):
            _block(part, builder)
        elif name == "back":
            _back(part, builder)
        elif name in ("sub-article", "response"):
            stub = first(part, "front-stub", "title-group", "article-title")
            builder.heading(plain(stub) or part.get("article-type", ""))
            _parts(part, builder)


def _back(back: Element, builder: TextBuilder) -> None:
    for part in back:
        name = local(part)
        if name == "ref-list":
            builder.left_out["references"] += sum(1 for e in part.iter() if local(e) == "ref")
        elif name in ("app-group", "app", "sec", "bio"):
            _block(part, builder)
        elif name in _BACK_MATTER:
            builder.left_out[_BACK_MATTER[name]] += 1


def _block(element: Element, builder: TextBuilder) -> None:
    """Everything below an element that holds blocks (sec, body, abstract, boxed-text, fig, list)."""
    for child in element:
        name = local(child)
        if name in ("title", "subtitle"):
            if local(element) in ("caption", "boxed-text", "table-wrap", "fig"):
                builder.paragraph(_inline(child, builder))
            else:
                label = first(element, "label")
                number = plain(label) if local(element) in ("sec", "app") else ""
                builder.heading(f"{number} {_inline(child, builder)}".strip())
        elif name == "label":
            continue  # taken with the title or caption
        elif name == "p":
            _paragraph(child, builder)
        elif name in ("fig", "table-wrap"):
            _float(child, builder)
        elif name == "list":
            builder.paragraph(_list(child, builder))
        elif name in ("disp-formula", "disp-formula-group"):
            builder.paragraph(_formula(child))
        elif name in ("table", "array"):
            builder.paragraph(_cells(child, builder))
        elif name == "ref-list":
            builder.left_out["references"] += sum(1 for e in child.iter() if local(e) == "ref")
        elif name in _DROPPED:
            builder.left_out[_DROPPED[name]] += 1
        elif name in ("def-list", "def-item", "verse-group", "speech", "statement", "disp-quote"):
            _definition(child, builder) if name == "def-list" else _block(child, builder)
        elif name:
            if any(local(c) in ("p", "sec", "title", "fig", "table-wrap", "list") for c in child):
                _block(child, builder)
            else:
                builder.paragraph(_inline(child, builder))


def _paragraph(element: Element, builder: TextBuilder) -> None:
    """A paragraph; figures and tables inside it follow it, so that no sentence is torn."""
    floats: list[Element] = []
    builder.paragraph(_inline(element, builder, floats))
    for found in floats:
        _float(found, builder) if local(found) in ("fig", "table-wrap") else _block(found, builder)


def _float(element: Element, builder: TextBuilder) -> None:
    """Label and caption of a figure or table, the rows and notes of the table; a picture is counted."""
    label = plain(first(element, "label"))
    parts: list[str] = []
    for caption in children(element, "caption"):
        parts += [_inline(c, builder) for c in caption if local(c)]
    text = " ".join([label, *parts]).strip()
    if text:
        builder.paragraph(text)
    if local(element) == "fig":
        builder.left_out["figures"] += 1
        return
    tables = [e for e in element.iter() if local(e) == "table"]
    for table in tables:
        if not any(local(above) in ("td", "th") for above in table.iterancestors()):
            builder.paragraph(_cells(table, builder))
    if not tables:  # the publisher gives a picture of it
        builder.left_out["tables"] += 1
    for part in element:
        if local(part) == "table-wrap-foot":
            builder.paragraph(_inline(part, builder))


def _cells(table: Element, builder: TextBuilder) -> str:
    return table_text(table, ("tr",), ("td", "th"), lambda cell: _inline(cell, builder))


def _list(element: Element, builder: TextBuilder) -> str:
    lines = []
    ordered = element.get("list-type") in ("order", "arabic")
    for number, item in enumerate(children(element, "list-item"), 1):
        label = plain(first(item, "label")) or (f"{number}." if ordered else "-")
        pieces = []
        for child in item:
            name = local(child)
            if name == "list":
                pieces.append("\n" + _list(child, builder))
            elif name and name != "label":
                pieces.append(_inline(child, builder))
        lines.append(f"{label} {' '.join(p for p in pieces if p)}")
    return "\n".join(lines)


def _definition(element: Element, builder: TextBuilder) -> None:
    lines = [
        f"{plain(first(item, 'term'))}: {' '.join(_inline(d, builder) for d in children(item, 'def'))}"
        for item in children(element, "def-item")
    ]
    builder.paragraph("\n".join(lines))


def _inline(element: Element, builder: TextBuilder, floats: list[Element] | None = None) -> str:
    """Running text of an element on one line (lists keep their lines)."""
    parts = [element.text or ""]
    for child in element:
        parts.append(_inline_child(child, builder, floats))
        parts.append(child.tail or "")
    return "".join(parts)


def _inline_child(child: Element, builder: TextBuilder, floats: list[Element] | None) -> str:
    name = local(child)
    if not name:  # an entity that no DTD explained: keep its name visible
        return str(getattr(child, "text", "") or "")
    if name in ("inline-formula", "disp-formula", "math", "tex-math", "disp-formula-group"):
        return f" {_formula(child)} "
    if name in ("fig", "table-wrap", "fig-group", "boxed-text", "table-wrap-group"):
        if floats is not None:
            floats.append(child)
        else:
            builder.left_out["figures"] += 1
        return ""
    if name == "list":
        return "\n" + _list(child, builder) + "\n"
    if name in ("table", "array"):
        return "\n" + _cells(child, builder) + "\n"
    if name in _DROPPED:
        if _DROPPED[name]:
            builder.left_out[_DROPPED[name]] += 1
        return ""
    text = _inline(child, builder, floats)
    if name == "sup":
        if any(local(c) == "xref" and c.get("ref-type") == "bibr" for c in child):
            return f" [{text.strip()}]"
        return f"^{text.strip()}" if text.strip("-+−–0123456789 ") == "" and text.strip() else text
    return f" {text} " if name in ("p", "title", "break", "td", "th") else text


def _formula(element: Element) -> str:
    """TeX if the publisher gives it, else MathML as text, else the marker (an image)."""
    tex = next((e for e in element.iter() if local(e) == "tex-math"), None)
    label = plain(first(element, "label"))
    text = ""
    if tex is not None:
        text = _strip_tex(plain(tex))
    if not text:
        math = (
            element
            if local(element) == "math"
            else next((e for e in element.iter() if local(e) == "math"), None)
        )
        text = one_line(mathml(math)) if math is not None else ""
    if not text:
        has_image = any(local(e) in ("graphic", "inline-graphic") for e in element.iter())
        text = FORMULA if has_image else plain(element)
        if not has_image:
            return text or FORMULA
    return f"{text} {label}".strip()


def _strip_tex(text: str) -> str:
    """Springer wraps each formula into a LaTeX document; only its body is the formula."""
    begin, end = text.find(r"\begin{document}"), text.rfind(r"\end{document}")
    if begin >= 0 and end > begin:
        text = text[begin + len(r"\begin{document}") : end]
    return text.strip()


def _permissions(meta: Element | None) -> tuple[str, list[str]]:
    """The words of the permissions and the licence links, apart, so that they can be compared."""
    permissions = first(meta, "permissions")
    if permissions is None:
        permissions = next(
            iter(children(meta if meta is not None else (), "copyright-statement", "license")), None
        )
        if permissions is None:
            return "", []
    links = [
        e.get(_XLINK)
        for e in permissions.iter()
        if local(e) in ("license", "ext-link", "license_ref", "uri") and e.get(_XLINK)
    ]
    links += [plain(e) for e in permissions.iter() if local(e) == "license_ref" and plain(e)]
    words = []
    for element in permissions.iter():
        name = local(element)
        if name in ("copyright-statement", "license-p", "license_ref"):
            words.append(plain(element))
        elif name == "license":
            words.append(element.get("license-type") or "")
            words += [plain(element)] if not any(local(c) == "license-p" for c in element) else []
    return one_line(" ".join(w for w in words if w)), list(dict.fromkeys(links))


def _authors(meta: Element | None) -> list[str]:
    names = []
    for group in children(meta if meta is not None else (), "contrib-group"):
        for contributor in children(group, "contrib"):
            if contributor.get("contrib-type") not in (None, "author"):
                continue
            name = first(contributor, "name")
            if name is None:
                names.append(plain(first(contributor, "collab")))
            else:
                names.append(
                    f"{plain(first(name, 'given-names'))} {plain(first(name, 'surname'))}".strip()
                )
    return [n for n in names if n]
