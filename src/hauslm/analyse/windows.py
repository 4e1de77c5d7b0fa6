"""How does an article that is longer than the context get read completely? In windows along sections.

Sentences are packed into windows of at most so many tokens; a window prefers to end where a section
ends, and one that begins inside a section repeats the last sentences before it. Nothing is left out:
`uncovered` counts the characters outside all windows, and the caller insists on zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

OVERLAP = 0.1  # share of a window that repeats the end of the one before
EARLY_END = 0.5  # a window this full ends at a section's end

_ENDS = re.compile(r"[.!?…][\"'”’“»)\]]*(?=\s)|\n\s*\n")
_OPENS = re.compile(r"\s*[\"'“„»(\[]*[A-ZÄÖÜ0-9]")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|et al|cf|vs|ca|approx|resp|no|nos|fig|figs|eq|ref|refs|tab|vol|dr|prof|st"
    r"|z\. ?b|d\. ?h|u\. ?a|bzw|vgl|abb|bspw|nr|evtl|ggf|usw|s|p|pp)|\b[A-ZÄÖÜ])\.$",
    re.IGNORECASE,
)


class HasSections(Protocol):
    """What is needed of a `Document`: its text, and sections with title, start, end."""

    @property
    def text(self) -> str: ...

    @property
    def sections(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Window:
    """Characters `start` to `end` of the text; the first `overlap` of them were in the one before."""

    section: str
    start: int
    end: int
    overlap: int = 0


@dataclass(frozen=True)
class _Atom:
    start: int
    end: int
    tokens: int
    section: int


def sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Character spans that together cover `text[start:end]`, each about a sentence long."""
    end = len(text) if end is None else end
    spans, begin = [], start
    for match in _ENDS.finditer(text, start, end):
        stop = match.end()
        if match.group().isspace():
            stop = match.start()
        elif not _OPENS.match(text, stop) or _ABBREVIATION.search(
            text[max(begin, stop - 12) : stop]
        ):
            continue
        if stop > begin:
            spans.append((begin, stop))
            begin = stop
    if begin < end:
        spans.append((begin, end))
    return spans


def windows(document: HasSections, budget: int, count: Callable[[str], int]) -> list[Window]:
    """Windows of at most `budget` tokens (by `count`) that cover the document's text completely."""
    titles, atoms = _atoms(document, budget, count)
    result: list[Window] = []
    current: list[_Atom] = []
    repeated = 0
    for atom in atoms:
        size = sum(a.tokens for a in current)
        new_section = bool(current) and atom.section != current[-1].section
        full = size + atom.tokens > budget
        if len(current) > repeated and (full or (new_section and size >= EARLY_END * budget)):
            result.append(_window(current, repeated, titles))
            current = [] if new_section else _tail(current, int(OVERLAP * budget))
            if sum(a.tokens for a in current) + atom.tokens > budget:
                current = []
            repeated = len(current)
        current.append(atom)
    if len(current) > repeated:
        result.append(_window(current, repeated, titles))
    return result


def _window(atoms: list[_Atom], repeated: int, titles: list[str]) -> Window:
    named = list(dict.fromkeys(titles[a.section] for a in atoms if titles[a.section]))
    shown = " / ".join(named[:3]) + (" / ..." if len(named) > 3 else "")
    overlap = atoms[repeated].start - atoms[0].start if repeated else 0
    return Window(shown, atoms[0].start, atoms[-1].end, overlap)


def _tail(atoms: list[_Atom], budget: int) -> list[_Atom]:
    """The last sentences of one section that fit the overlap."""
    kept: list[_Atom] = []
    for atom in reversed(atoms):
        if atom.section != atoms[-1].section or sum(a.tokens for a in kept) + atom.tokens > budget:
            break
        kept.insert(0, atom)
    return kept


def _atoms(
    document: HasSections, budget: int, count: Callable[[str], int]
) -> tuple[list[str], list[_Atom]]:
    text = document.text
    titles, borders = [""], [0]
    for section in sorted(document.sections, key=lambda s: int(s.start)):
        if section.start < len(text):
            titles.append(str(section.title))
            borders.append(max(int(section.start), borders[-1]))
    atoms: list[_Atom] = []
    for number, begin in enumerate(borders):
        end = borders[number + 1] if number + 1 < len(borders) else len(text)
        for a, b in sentences(text, begin, end):
            if text[a:b].strip():
                atoms += _pieces(text, a, b, number, budget, count)
    return titles, atoms


def _pieces(
    text: str, start: int, end: int, section: int, budget: int, count: Callable[[str], int]
) -> list[_Atom]:
    """The span as atoms of at most `budget` tokens; overlong sentences are halved at a blank."""
    tokens = count(text[start:end])
    if tokens <= budget or end - start < 2:
        return [_Atom(start, end, tokens, section)]
    middle = (start + end) // 2
    blank = text.rfind(" ", start + 1, middle)
    cut = blank if blank > start + (end - start) // 4 else middle
    return _pieces(text, start, cut, section, budget, count) + _pieces(
        text, cut, end, section, budget, count
    )


def uncovered(text: str, parts: Sequence[Window]) -> int:
    """Characters of the text, blanks aside, that no window holds."""
    missing, reached = 0, 0
    for part in sorted(parts, key=lambda w: w.start):
        if part.start > reached:
            missing += len("".join(text[reached : part.start].split()))
        reached = max(reached, part.end)
    return missing + len("".join(text[reached:].split()))


def quotable(text: str, window: Window, shortest: int, longest: int, most: int) -> list[str]:
    """Passages of the window that can serve as a quote, verbatim; evenly thinned out to `most`.

    Sentences, if there are any of a usable length; else stretches of what there is (tables, formulas,
    lists without a full stop), so that every window with text has something to point to.
    """
    found = []
    for start, end in sentences(text, window.start, window.end):
        sentence = text[start:end].strip()
        if shortest <= len(sentence) <= longest and len(sentence.split()) >= 3:
            found.append(sentence)
    unique = list(dict.fromkeys(found or _stretches(text[window.start : window.end], longest)))
    if len(unique) > most:
        unique = [unique[i * len(unique) // most] for i in range(most)]
    return unique


def _stretches(text: str, longest: int) -> list[str]:
    """The whole text in stretches of at most `longest` characters, cut at blanks where there are any."""
    found = []
    rest = text.strip()
    while len(rest) > longest:
        blank = max(rest.rfind(c, longest // 2, longest) for c in " \n\t")
        cut = blank if blank > 0 else longest
        found.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*found, rest] if rest else found
