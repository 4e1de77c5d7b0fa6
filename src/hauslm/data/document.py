"""What is a document to the house? Cleaned text with sections, rights and provenance, whatever it was.

Readers build it through `TextBuilder`, so that every format ends up with the same kind of text: NFC,
no control characters, paragraphs separated by one empty line, section offsets that fit the text.
What a reader left out on purpose (references, table cells, ...) is counted in `left_out`, never lost
without a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hauslm.base.files import sha256_bytes
from hauslm.base.words import Sentence, say
from hauslm.data.characters import any_of

UNKNOWN_LANGUAGE = "unknown"

# Everything that is not text: controls but tab and newline, surrogates, code points that are no characters.
_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
# Invisible: zero-width characters, soft hyphens, tag characters.
_INVISIBLE = r"\u200b\u200c\u2060\ufeff\u00ad\U000e0000-\U000e007f"
_LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
}
_BREAKS = {"\r\n": "\n", "\r": "\n", "\u2028": "\n", "\u2029": "\n\n"}
_REPLACED = _LIGATURES | _BREAKS
_ODD_ONE = rf"[{_CONTROL}{_INVISIBLE}\u2028\u2029\ufb00-\ufb05]"
_ODD = re.compile(rf"\r\n|{_ODD_ONE}")
_INVISIBLE_ONE = re.compile(f"[{_INVISIBLE}]")
_ODD_BLANK = r"[^\S\n ]"
_BLANKS = re.compile(rf"[^\S\n]{{2,}}|{_ODD_BLANK}")
_LONG = 200  # characters; below this the expression itself is faster than a look at the table


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one input file may cost. Beyond a limit the file is rejected, not cut."""

    file_bytes: int = 256 << 20  # formats that are read as a whole
    line_bytes: int = 64 << 20  # one line of JSONL, one cell of CSV
    unpacked_bytes: int = 512 << 20  # DOCX parts together
    unpack_ratio: int = 200  # unpacked : packed; ordinary XML stays below 30
    gzip_bytes: int = 16 << 30  # a compressed JSONL is streamed, so it may be large
    pdf_pages: int = 2000
    pdf_seconds: float = 60.0
    pdf_memory_bytes: int = 1 << 30
    xml_depth: int = 250
    text_field: str = "text"


@dataclass(frozen=True, slots=True)
class Section:
    """A titled stretch of the text: characters `start` (inclusive) to `end` (exclusive)."""

    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A part of a file (a line, a row) that was not used; `place` is '' for the whole file."""

    reason: Sentence
    place: str = ""


class UnreadableError(Exception):
    """A reader's word for 'not this file', with the reason as a sentence; never reaches a user."""

    def __init__(self, reason: Sentence) -> None:
        super().__init__(reason.template)
        self.reason = reason


@dataclass(frozen=True)
class Document:
    """One document. `messages` is filled for conversations (then `text` is their plain reading).

    `licence` is a short label, `licence_class` one of `data.rights.CLASSES`; the full statement stands
    in `metadata["licence_statement"]`. `sha256` is that of the text.
    """

    id: str
    title: str
    text: str
    language: str = UNKNOWN_LANGUAGE
    licence: str = ""
    licence_class: str = "unknown"
    doi: str = ""
    source_file: str = ""
    format: str = ""
    sections: tuple[Section, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[Sentence, ...] = ()
    hidden: Mapping[str, int] = field(default_factory=dict)  # characters by kind (`data.hidden`)

    def with_hash(self) -> Document:
        return replace(self, sha256=sha256_bytes(self.text.encode("utf-8", "surrogatepass")))


def clean(text: str) -> str:
    """NFC, Unix newlines, no control or invisible characters, ligatures spelt out.

    Idempotent. Never shortens visible text.
    """
    if len(text) < _LONG or any_of(_ODD_ONE, text):
        text = _ODD.sub(_plain_character, text)
    return unicodedata.normalize("NFC", text)


def _plain_character(match: re.Match[str]) -> str:
    character = match.group()
    known = _REPLACED.get(character)
    if known is not None:
        return known
    return "" if _INVISIBLE_ONE.match(character) else " "


def tidy(text: str) -> str:
    """`clean`, then single blanks, and paragraphs separated by exactly one empty line."""
    text = clean(text)
    if len(text) < _LONG or any_of(_ODD_BLANK, text):
        text = _BLANKS.sub(" ", text)
    while "  " in text:  # a search for a fixed string is far faster than an expression
        text = text.replace("  ", " ")
    text = "\n".join([line.strip(" ") for line in text.split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()


def one_line(text: str) -> str:
    """`clean`, with every run of white space turned into one blank."""
    return " ".join(clean(text).split())


def hidden_characters(text: str) -> int:
    """Zero-width and tag characters: invisible to people, read by models (prompt injection)."""
    if len(text) >= _LONG and not any_of(_INVISIBLE_ONE.pattern, text):
        return 0
    return sum(1 for c in _INVISIBLE_ONE.findall(text) if c not in "\u00ad\ufeff")


def encodable(text: str) -> str:
    """The text with halves of characters spelt out; JSON and file names can hold them, UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()


_DOI = re.compile(r"10\.\d{4,9}/[^\s\"'<>]+", re.IGNORECASE)


def normal_doi(text: str) -> str:
    """The DOI in a field or address, lower case, without resolver and trailing punctuation; or ''."""
    match = _DOI.search(text or "")
    return match.group(0).rstrip(".,;:)]}").lower() if match else ""


def normal_title(title: str) -> str:
    """Letters and digits of a title, case-folded: what makes two spellings one title."""
    folded = unicodedata.normalize("NFKD", title).casefold()
    if not folded.isascii():
        folded = "".join(c for c in folded if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", folded))


# What readers leave out on purpose: the key in `Document.left_out`, and how it is called.
PARTS = {
    "acknowledgements": say("acknowledgements"),
    "comments": say("comments"),
    "deleted passages": say("deleted passages of tracked changes"),
    "figures": say("figures"),
    "footers": say("footers"),
    "forms": say("forms"),
    "frames": say("frames"),
    "glossaries": say("glossaries"),
    "hidden elements": say("hidden elements"),
    "hidden passages": say("hidden passages"),
    "images": say("images"),
    "invisible characters": say("invisible characters"),
    "links inside the file": say("links inside the file"),
    "media files": say("media files"),
    "menus": say("menus"),
    "notes": say("notes"),
    "reference lists": say("reference lists"),
    "references": say("references"),
    "running heads and page numbers": say("running heads and page numbers"),
    "short abstracts": say("short abstracts"),
    "side columns": say("side columns"),
    "supplementary files": say("supplementary files"),
    "table notes": say("table notes"),
    "tables": say("tables"),
}


class TextBuilder:
    """Collects headings and paragraphs and keeps the section offsets true."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._marks: list[tuple[str, int]] = []
        self.left_out: Counter[str] = Counter()
        self.hidden: Counter[str] = Counter()

    def paragraph(self, text: str) -> None:
        hidden = hidden_characters(text)
        if hidden:
            self.left_out["invisible characters"] += hidden
        text = tidy(text)
        if text:
            if self._parts:
                self._length += 2
            self._parts.append(text)
            self._length += len(text)

    def heading(self, title: str) -> None:
        """Begin a section; the title itself is part of the text."""
        title = one_line(title)
        if title:
            self._marks.append((title, self._length + (2 if self._parts else 0)))
            self.paragraph(title)

    def build(self) -> tuple[str, tuple[Section, ...]]:
        """Text and sections; sections are flat and do not overlap."""
        text = "\n\n".join(self._parts)
        ends = [start for _, start in self._marks[1:]] + [len(text)]
        return text, tuple(
            Section(title, start, len(text[start:end].rstrip()) + start)
            for (title, start), end in zip(self._marks, ends, strict=False)  # no mark: no section
        )
