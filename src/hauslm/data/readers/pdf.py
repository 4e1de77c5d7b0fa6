"""PDF, the format of last resort: text lines from a limited child process, put back into paragraphs.

The child (`_pdf_child`) runs with limits on address space, CPU time, wall time and writing, and without network.
Here: running heads and page numbers are recognised by repetition at the page edges, hyphenation is
joined, columns stay in content-stream order, the reference list is cut off with a notice. No text means
a scan, which is refused; so is a text layer of replacement characters.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hauslm.base.words import Sentence, say
from hauslm.data.document import (
    Document,
    Limits,
    Refusal,
    TextBuilder,
    UnreadableError,
    normal_doi,
    normal_title,
    one_line,
)
from hauslm.data.readers._decode import whole_file
from hauslm.data.rights import classify, find_statement

NAME = "pdf"
SUFFIXES = (".pdf",)

EDGE = 0.12  # share of the page height at top and bottom where running heads stand
_MARGIN = 0.075  # the journal's own name stands above it
MINIMUM_LETTERS = 200  # in the whole file; less is a scan with a stamp on it
MAXIMUM_DAMAGED = 0.03  # share of replacement and private-use characters
MAXIMUM_LETTERS_PER_BLANK = 25  # above: the blanks between words were lost


class Line(NamedTuple):
    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    page: int
    height: float

    @property
    def has_box(self) -> bool:
        return self.y0 >= 0 and self.size > 0

    @property
    def at_edge(self) -> bool:
        middle = (self.y0 + self.y1) / 2
        return self.has_box and not EDGE * self.height < middle < (1 - EDGE) * self.height


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    whole_file(path, limits)
    extracted = _extract(path, limits)
    pages = [
        [Line._make([*raw, number, page["height"]]) for raw in page["lines"]]
        for number, page in enumerate(extracted["pages"])
    ]
    _refuse_bad_text(pages)
    document = assemble(
        pages, path.stem, extracted.get("metadata", {}), int(extracted.get("broken", 0))
    )
    yield _with_hidden(document, extracted)


OCR_SHARE = 0.5  # from this share of undrawn characters on, they are a scan's text layer


def _with_hidden(document: Document, extracted: dict[str, Any]) -> Document:
    """The child's counts; a text layer that was laid over a scan is told, but is no hidden text."""
    hidden = {str(k): int(n) for k, n in extracted.get("hidden", {}).items()}
    undrawn = hidden.get("not_drawn", 0)
    notices = document.notices
    if undrawn > OCR_SHARE * int(extracted.get("characters", 0)):
        del hidden["not_drawn"]
        notices = (
            *notices,
            say("The text was laid over pictures of the pages by text recognition (OCR)."),
        )
    if extracted.get("filter") is not None:
        notices = (*notices, say("The PDF was read without the kernel's filter."))
    return replace(document, hidden=hidden, notices=notices)


# Isolated (-I): neither the folder nor the environment adds modules. The one path that is added is
# that of this very package, which need not be an installed one.
_PACKAGES = Path(__file__).resolve().parents[3]
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from hauslm.data.readers._pdf_child import main; sys.exit(main(sys.argv[1:]))"
)


def _extract(path: Path, limits: Limits) -> dict[str, Any]:
    """Run the child; every way it can end is a sentence."""
    command = [
        sys.executable, "-I", "-c", _CHILD, str(_PACKAGES), str(path.resolve()),
        str(limits.pdf_pages), str(limits.pdf_seconds), str(limits.pdf_memory_bytes),
    ]  # fmt: skip
    too_long = say(
        "Reading the PDF took longer than {seconds:.0f} seconds.", seconds=limits.pdf_seconds
    )
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=limits.pdf_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableError(too_long) from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnreadableError(too_long)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        # pdfium itself aborts when it gets no memory.
        memory = done.returncode == -signal.SIGABRT or b"MemoryError" in done.stderr
        raise UnreadableError(
            _child_failure("memory" if memory else "crash", done.returncode, limits)
        ) from error
    if "error" in answer:
        raise UnreadableError(
            _child_failure(str(answer["error"]), answer.get("detail", ""), limits)
        )
    return answer


def _child_failure(kind: str, detail: object, limits: Limits) -> Sentence:
    if kind == "password":
        return say("The PDF is encrypted and needs a password.")
    if kind == "pages":
        return say(
            "The PDF has {pages:,} pages; the limit is {limit:,}.",
            pages=detail,
            limit=limits.pdf_pages,
        )
    if kind == "memory":
        return say(
            "Reading the PDF needs more than {limit:,} MB of memory.",
            limit=limits.pdf_memory_bytes / 1e6,
        )
    if kind == "damaged":
        return say("The PDF is damaged or no PDF.")
    return say("The PDF crashed its reader (exit status {status}).", status=str(detail))


def _refuse_bad_text(pages: list[list[Line]]) -> None:
    text = "".join(line.text for page in pages for line in page)
    letters = sum(c.isalpha() for c in text)
    if letters < MINIMUM_LETTERS:
        raise UnreadableError(
            say(
                "The PDF has {pages:,} pages but no text: it is a scan. Run text recognition (OCR) on it first.",
                pages=len(pages),
            )
        )
    damaged = sum(c == "\ufffd" or "\ue000" <= c <= "\uf8ff" for c in text)
    if damaged > MAXIMUM_DAMAGED * len(text):
        raise UnreadableError(
            say(
                "The text layer is damaged: {share:.1%} of its characters stand for nothing.",
                share=damaged / len(text),
            )
        )
    blanks = sum(c.isspace() for c in text) + sum(len(page) for page in pages)
    latin = sum("a" <= c.lower() <= "z" for c in text)
    if latin > 0.5 * letters and letters > MAXIMUM_LETTERS_PER_BLANK * blanks:
        raise UnreadableError(say("The text layer has lost the blanks between its words."))


def assemble(pages: list[list[Line]], name: str, metadata: dict[str, str], broken: int) -> Document:
    """The document of extracted lines: pure, so that it can be tested without a PDF."""
    notices: list[Sentence] = []
    empty = sum(1 for page in pages if not page)
    if empty:
        notices.append(
            say(
                "Pages without text (pictures, scans or damage): {empty:,} of {pages:,}.",
                empty=empty,
                pages=len(pages),
            )
        )
    if broken:
        notices.append(say("Pages that could not be decoded: {count:,}.", count=broken))
    title = _title(pages, metadata, name)
    front = " ".join(line.text for page in pages[:1] for line in page)
    ends = " ".join(line.text for page in pages[:2] + pages[2:][-2:] for line in page)
    running = running_heads(pages)
    kept = [
        line for page in pages for line in page if _key(line) not in running or not line.at_edge
    ]
    kept = [line for line in kept if not (line.at_edge and _PAGE_NUMBER.match(line.text.strip()))]
    builder = TextBuilder()
    removed = sum(len(page) for page in pages) - len(kept)
    if removed:
        builder.left_out["running heads and page numbers"] = removed
    body = _cut_references(kept, builder, notices)
    _paragraphs(body, builder)
    text, sections = builder.build()
    statement = find_statement(ends.replace("\ufffe", "-"))
    rights = classify(statement)
    if rights.why is not None and statement:
        notices.append(rights.why)
    return Document(
        id=name,
        title=title,
        text=text,
        licence=rights.label,
        licence_class=rights.licence_class,
        doi=_own_doi(front, metadata),
        format=NAME,
        sections=sections,
        metadata={"pages": len(pages), "pdf": metadata, "licence_statement": statement},
        left_out=dict(builder.left_out),
        notices=tuple(notices),
    )


# ------------------------------------------------------------------ running heads

_PAGE_NUMBER = re.compile(
    r"^(?:(?:page|seite|s\.|p\.)\s*)?[\W_]*\d{1,5}[\W_]*(?:(?:of|von|/)\s*\d{1,5})?$", re.IGNORECASE
)


def _key(line: Line) -> str:
    return re.sub(r"\d+", "#", " ".join(line.text.split())).casefold()


def running_heads(pages: list[list[Line]]) -> frozenset[str]:
    """Edge lines (digits levelled) that stand on at least a quarter of the pages, and on two.

    Left and right pages have different heads, hence a quarter and not a half.
    """
    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({_key(line) for line in page if line.at_edge})
    needed = max(2, round(0.25 * len(pages)))
    return frozenset(key for key, count in seen.items() if count >= needed)


# ------------------------------------------------------------------ references

_REFERENCES = re.compile(
    r"^(?:\d{1,2}\.?\s*)?(?:references?(?: cited)?|literature cited|works cited|bibliograph(?:y|ie)|literatur"
    r"(?:verzeichnis|hinweise)?|quellen(?:verzeichnis)?|reference list)\s*:?$",
    re.IGNORECASE,
)
_AFTER_REFERENCES = re.compile(
    r"^(?:[A-Z]\.?\s+)?(?:appendix|anhang|supplementary|supporting information|tables?|figures? legends?|abbildungs"
    r"verzeichnis)\b.{0,60}$",
    re.IGNORECASE,
)


def _cut_references(lines: list[Line], builder: TextBuilder, notices: list[Sentence]) -> list[Line]:
    """Without the last reference list, if it begins in the second half (an appendix stays)."""
    start = next(
        (
            i
            for i in range(len(lines) - 1, len(lines) // 3, -1)
            if _REFERENCES.match(lines[i].text.strip())
        ),
        None,
    )
    if start is None:
        return lines
    size = lines[start].size
    end = next(
        (
            i
            for i in range(start + 1, len(lines))
            if _AFTER_REFERENCES.match(lines[i].text.strip())
            and (not size or lines[i].size >= 0.9 * size)
            and len(lines[i].text) < 60
        ),
        len(lines),
    )
    characters = sum(len(line.text) for line in lines[start:end])
    builder.left_out["reference lists"] = 1
    notices.append(
        say("The reference list was cut off ({characters:,} characters).", characters=characters)
    )
    return lines[:start] + lines[end:]


# ------------------------------------------------------------------ paragraphs

_NAMED_HEADING = re.compile(
    r"^(?:\d{1,2}(?:\.\d{1,2})*\.?\s+|[IVX]{1,4}\.\s+)?(?:abstract|summary|zusammenfassung|introduction|einleitung|background|hintergrund"
    r"|(?:materials?\s+and\s+)?methods?(?:\s+and\s+materials?)?|methodology|methodik|methoden|results?(?:\s+and\s+discussion)?"
    r"|ergebnisse|discussion|diskussion|conclusions?|fazit|schluss(?:folgerung(?:en)?)?|ausblick|acknowledge?ments?|danksagung"
    r"|related work|limitations|keywords?)\s*:?$",
    re.IGNORECASE,
)
_NUMBERED_HEADING = re.compile(r"^\d{1,2}(?:\.\d{1,2})*\.?\s+[A-ZÄÖÜ][^.!?;]{2,90}$")
_SENTENCE_END = re.compile(r"[.!?:…][\"'”’)\]]*$")
_HYPHENS = "-\u2010\u00ad\ufffe"


def _paragraphs(lines: list[Line], builder: TextBuilder) -> None:
    words = _vocabulary(lines)
    sizes = sorted(line.size for line in lines if line.has_box)
    body_size = sizes[len(sizes) // 2] if sizes else 0.0
    widths = sorted(line.x1 - line.x0 for line in lines if line.has_box)
    column = widths[int(len(widths) * 0.7)] if widths else 0.0
    paragraph = ""
    before: Line | None = None
    for line in lines:
        text = line.text.strip()
        if is_heading(line, body_size):
            builder.paragraph(_joined_inside(paragraph, words))
            paragraph = ""
            builder.heading(text.replace("\ufffe", "-"))
            before = None
            continue
        if before is not None and paragraph and _new_paragraph(before, line, column):
            builder.paragraph(_joined_inside(paragraph, words))
            paragraph = ""
        paragraph = join(paragraph, text, words)
        before = line
    builder.paragraph(_joined_inside(paragraph, words))


def is_heading(line: Line, body_size: float) -> bool:
    text = line.text.strip()
    if _NAMED_HEADING.match(text):
        return True
    larger = line.has_box and line.size >= 1.08 * body_size
    return (
        bool(_NUMBERED_HEADING.match(text)) and (larger or text.upper() == text) and len(text) < 100
    )


def _new_paragraph(before: Line, line: Line, column: float) -> bool:
    """A gap, an indented line, or a line that ended early with a full stop."""
    ended = bool(_SENTENCE_END.search(before.text.strip()))
    if not (before.has_box and line.has_box):
        return ended and len(before.text) < 40
    if before.page != line.page or line.y0 < before.y0 - before.size:  # next column or page
        return ended and before.x1 - before.x0 < 0.85 * column
    gap = line.y0 - before.y1
    if gap > 1.3 * max(before.size, line.size):
        return True
    indented = line.x0 > before.x0 + 0.8 * line.size and line.x0 < before.x0 + 5 * line.size
    short = before.x1 - before.x0 < 0.85 * column
    return ended and (short or indented)


def _vocabulary(lines: list[Line]) -> Counter[str]:
    """Words that stand unbroken inside lines: they decide whether a hyphen belongs to the word."""
    words: Counter[str] = Counter()
    for line in lines:
        words.update(w.casefold() for w in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", line.text))
    return words


def join(left: str, right: str, words: Counter[str]) -> str:
    """Two lines into one, undoing hyphenation at the seam."""
    if not left:
        return right
    if left[-1] in _HYPHENS and len(left) > 1 and left[-2].isalpha():
        return left[:-1] + _seam(left[:-1], right, words)
    return f"{left} {right}"


def _joined_inside(text: str, words: Counter[str]) -> str:
    """pdfium writes U+FFFE where it joined a hyphenated word itself: decide those seams too."""
    parts = text.split("\ufffe")
    out = parts[0]
    for part in parts[1:]:
        out += _seam(out, part.lstrip(), words) if out and out[-1:].isalpha() else "-" + part
    return out


_HANGING = re.compile(r"^(?:und|oder|bzw\.|sowie|and|or|to)\b")


def _seam(left: str, right: str, words: Counter[str]) -> str:
    """What follows `left` (its hyphen removed): `right`, or a hyphen and `right`."""
    head = re.search(r"[^\W\d_]+$", left)
    tail = re.match(r"[^\W\d_]+", right)
    if head is None or tail is None:
        return "-" + right
    if _HANGING.match(right):
        return "- " + right  # German "Literatur- und Quellenverzeichnis"
    whole = (head.group() + tail.group()).casefold()
    hyphenated = f"{head.group()}-{tail.group()}".casefold()
    if words[whole] or words[hyphenated]:
        return right if words[whole] >= words[hyphenated] else "-" + right
    if tail.group()[0].isupper() or left[head.start() - 1 : head.start()] == "-":
        return "-" + right
    both_known = words[head.group().casefold()] > 1 and words[tail.group().casefold()] > 1
    return "-" + right if both_known and len(head.group()) > 3 and len(tail.group()) > 3 else right


# ------------------------------------------------------------------ title, DOI, licence


_KIND_LINE = re.compile(
    r"^(?:open access|(?:original |research |review |short |full |brief |case )?(?:article|paper|communication|report|research)"
    r"|review|hypothesis|editorial|letter|originalarbeit|übersicht(?:sarbeit)?|beitrag|abstract|dokumentation)\W*$",
    re.IGNORECASE,
)
_NO_TITLE = re.compile(
    r"microsoft word|untitled|\.(?:docx?|pdf|indd|tex|qxd|dvi|fm)\b|^\W*\d|^doi\b", re.IGNORECASE
)


def _title(pages: list[list[Line]], metadata: dict[str, str], name: str) -> str:
    """The declared title if page one shows it; else the largest lines there; else the file name."""
    declared = one_line(metadata.get("Title", "")).strip(" \"'“”„")
    front = set(normal_title(" ".join(line.text for page in pages[:2] for line in page)).split())
    words = normal_title(declared).split()
    if (
        words
        and not _NO_TITLE.search(declared)
        and sum(w in front for w in words) >= 0.8 * len(words)
    ):
        return declared
    running = running_heads(pages)
    lines = [
        line
        for line in (pages[0] if pages else [])
        if line.has_box and line.y1 > _MARGIN * line.height and _key(line) not in running
        and sum(c.isalpha() for c in line.text) >= 3 and not _KIND_LINE.match(line.text.strip())
    ]  # fmt: skip
    groups: list[list[Line]] = []
    for line in lines:
        if (
            groups
            and abs(groups[-1][-1].size - line.size) <= 0.08 * line.size
            and len(groups[-1]) < 6
        ):
            groups[-1].append(line)
        else:
            groups.append([line])
    titles = [
        (g[0].size, one_line(" ".join(line.text.replace("\ufffe", "") for line in g)))
        for g in groups
    ]
    fitting = [(size, t) for size, t in titles if 2 <= len(t.split()) <= 60 and len(t) >= 12]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else name


def _own_doi(front: str, metadata: dict[str, str]) -> str:
    """The DOI on the first page, if it is the only one there or marked as such; else ''."""
    in_metadata = normal_doi(" ".join(metadata.values()))
    if in_metadata:
        return in_metadata
    found = list(
        dict.fromkeys(normal_doi(m) for m in re.findall(r"10\.\d{4,9}/[^\s\"'<>]+", front))
    )
    if len(found) == 1:
        return found[0]
    marked = re.search(r"doi(?:\.org/|\s*[:\s]\s*)(10\.\d{4,9}/\S+)", front, re.IGNORECASE)
    return normal_doi(marked.group(1)) if marked else ""
