"""Markdown: YAML front matter becomes metadata, headings become sections, mark-up that is not text goes.

Kept: emphasis, lists, tables, code (they are text a model should see). Removed: comments, images
(their caption stays), link targets, HTML tags, and a table of contents that only links inside the file.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hauslm.base.words import Sentence, say
from hauslm.data.document import (
    Document,
    Limits,
    Refusal,
    TextBuilder,
    clean,
    hidden_characters,
    normal_doi,
    one_line,
)
from hauslm.data.language import normal_code
from hauslm.data.readers._decode import decode, whole_file
from hauslm.data.rights import classify, statement_at_ends

NAME = "markdown"
SUFFIXES = (".md", ".markdown")

MAX_FRONT_MATTER_BYTES = 1 << 20
_FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)\n]*\)")
_LINK = re.compile(r"\[([^\]\n]+)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_INNER_LINK_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+\[[^\]]+\]\(#[^)]*\)\s*$")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,300}>")
_BREAK = re.compile(r"<(?:br|p|/p|hr|div|/div|tr|/tr|li|/li)\b[^>]*>", re.IGNORECASE)
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_QUOTE = re.compile(r"^\s*(?:>\s?)+(?:\[!\w+\]\s*$)?")
_TABLE_RULE = re.compile(r"^\s*\|?[\s:|-]*-{3}[\s:|-]*\|?\s*$")
_FENCE = re.compile(r"^\s*(```+|~~~+)")


class NoAliasLoader(yaml.SafeLoader):
    """YAML without anchors: an alias is how a small file becomes a large value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def front_matter(text: str) -> tuple[dict[str, Any], str, Sentence | None]:
    """Metadata, the remaining text, and a notice if the front matter could not be read."""
    match = _FRONT.match(text)
    if not match:
        return {}, text, None
    source = match.group(1)
    try:
        if len(source) > MAX_FRONT_MATTER_BYTES:
            raise yaml.YAMLError("too long")
        value = yaml.load(source, NoAliasLoader)  # noqa: S506 - a SafeLoader without aliases
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = one_line(str(error))[:120]
        return (
            {},
            text,
            say(
                "The front matter is not valid YAML and was read as text ({reason}).", reason=reason
            ),
        )
    if not isinstance(value, dict):
        return {}, text, None
    return {str(k): v for k, v in value.items()}, text[match.end() :], None


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    text, notice = decode(whole_file(path, limits))
    meta, body, trouble = front_matter(clean(text))
    builder = TextBuilder()
    hidden = hidden_characters(text)
    if hidden:
        builder.left_out["invisible characters"] = hidden
    title = one_line(str(meta.get("title", "")))
    if title and not re.search(rf"^#\s+{re.escape(title)}\s*$", body, re.MULTILINE):
        builder.heading(title)
    first_heading = _body(body, builder)
    whole, sections = builder.build()
    statement = one_line(
        " ".join(str(meta[k]) for k in ("licence", "license", "rights") if meta.get(k))
    )
    declared = statement
    if not statement:
        statement = statement_at_ends(whole)
    rights = classify(statement)
    yield Document(
        id=str(meta.get("id") or path.stem),
        title=title or first_heading or path.stem,
        text=whole,
        language=normal_code(meta.get("language") or meta.get("lang")),
        licence=rights.label or declared[:80],
        licence_class=rights.licence_class,
        doi=normal_doi(str(meta.get("doi", ""))),
        format=NAME,
        sections=sections,
        metadata={**_plain(meta), "licence_statement": statement},
        left_out=dict(builder.left_out),
        notices=tuple(n for n in (notice, trouble) if n is not None),
    )


def _body(body: str, builder: TextBuilder) -> str:
    """Fill the builder; returns the first heading."""
    first = ""
    body = _COMMENT.sub("", body)
    block: list[str] = []
    fence = ""

    def flush() -> None:
        builder.paragraph("\n".join(block))
        block.clear()

    for line in body.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark.group(1).startswith(fence)):
            fence = "" if fence else mark.group(1)[:3]
            continue
        if fence:
            block.append(line)
            continue
        if _INNER_LINK_ITEM.match(line):
            builder.left_out["links inside the file"] += 1
            continue
        heading = _HEADING.match(line)
        if heading:
            flush()
            builder.heading(inline(heading.group(2)))
            first = first or one_line(inline(heading.group(2)))
        elif not line.strip():
            flush()
        elif block and _TABLE_RULE.match(line):
            continue  # the rule below a table head (or a heading): drawing, not text
        else:
            block.append(inline(_QUOTE.sub("", line), builder))
    flush()
    return first


def inline(line: str, builder: TextBuilder | None = None) -> str:
    """One line without link targets, images and tags."""
    if builder is not None:
        builder.left_out["images"] += len(_IMAGE.findall(line))
        if not builder.left_out["images"]:
            del builder.left_out["images"]
    line = _IMAGE.sub(r"\1", line)
    line = _LINK.sub(r"\1", line)
    line = _TAG.sub("", _BREAK.sub(" " if line.lstrip().startswith("|") else "\n", line))
    return html.unescape(line)


def _plain(value: Any, depth: int = 0) -> Any:
    """Metadata as JSON values; dates as text, nothing deeper than five levels."""
    if depth > 5:
        return str(value)[:200]
    if isinstance(value, dict):
        return {str(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v, depth + 1) for v in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
