"""Does the adapter know the team's language? Bits per byte of held-out text, and the team's terms.

Bits per UTF-8 byte do not depend on the tokenizer, so models can be compared; perplexity does. A
document is scored in windows: each window sees the text before it as context, every byte is scored
exactly once, and the bytes are counted to prove it. Nothing is cut off.

Terms: every place in the held-out documents where a term of the glossary stands is a small test. How
probable is the term there (bits per byte of the term), would greedy decoding have written it, and is the
sentence with the term more probable than with a forbidden form in its place?
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hauslm.base.errors import RefusedError
from hauslm.base.words import say
from hauslm.data.glossary import Term
from hauslm.evaluate.inputs import Text
from hauslm.evaluate.ledger import Ledger, System, Unit
from hauslm.evaluate.sampling import spread
from hauslm.lm.interface import Scored

PART = "language"
MOST_WINDOW_TOKENS = 2048  # longer windows cost memory and change bits per byte by little
CONTEXT_SHARE = 0.25
TERM_CONTEXT_CHARACTERS = 240
TERM_TAIL_CHARACTERS = 40
MOST_OCCURRENCES = 60  # per evaluation, evenly spread; every one costs one pass per form

Row = tuple[float, ...]


@dataclass(frozen=True)
class Window:
    """Characters `start` to `end` of a text are scored, those from `context` to `start` are seen."""

    context: int
    start: int
    end: int


def windows(text: str, count_tokens: Callable[[str], int], most_tokens: int) -> list[Window]:
    """Cut a text into windows of at most `most_tokens` tokens, context included.

    Cuts stand before white space where there is any, so that no token spans two windows. The scored
    parts are the whole text, once, in order.
    """
    total = count_tokens(text)
    if total <= most_tokens:
        return [Window(0, 0, len(text))]
    context_tokens = int(most_tokens * CONTEXT_SHARE)
    per_token = len(text) / total
    found: list[Window] = []
    start = 0
    while start < len(text):
        context = _before_space(text, max(0, start - int(context_tokens * per_token)), start)
        room = most_tokens - count_tokens(text[context:start])
        end = min(len(text), start + max(1, int(room * per_token)))
        while True:
            end = len(text) if end == len(text) else _before_space(text, end, start + 1)
            if count_tokens(text[context:end]) <= most_tokens or end - start <= 1:
                break
            end = start + max(1, int((end - start) * 0.8))
        found.append(Window(context, start, end))
        start = end
    return found


def _before_space(text: str, place: int, lowest: int) -> int:
    """The nearest place at or before `place` where white space follows; `place` if none is near."""
    for candidate in range(min(place, len(text) - 1), max(lowest, place - 200) - 1, -1):
        if text[candidate].isspace() and not text[candidate - 1 : candidate].isspace():
            return candidate
    return place


def document_units(texts: Sequence[Text], system: System, part: str) -> list[Unit]:
    """One unit per document: its windows as (context, continuation) pairs."""
    return [Unit(part, t.id, t.id, document_windows(t.text, system)) for t in texts]


def document_windows(text: str, system: System) -> tuple[tuple[str, str], ...]:
    """The windows of a text as (context, continuation) pairs."""
    most = min(MOST_WINDOW_TOKENS, system.model.context_length - 1)
    return tuple(
        (text[w.context : w.start], text[w.start : w.end])
        for w in windows(text, system.model.count_tokens, most)
    )


def bits_and_bytes(
    ledger: Ledger, system: System, texts: Sequence[Text], part: str = PART
) -> list[Row]:
    """(bits, bytes) per text, in order. H661 if a byte was not scored, or not once."""
    units = document_units(texts, system, part)
    title = say("Bits per byte ({system})", system=system.shown)
    rows: list[Row] = []
    for text, scored in zip(texts, ledger.score(system, units, title), strict=True):
        size = len(text.text.encode("utf-8"))
        if sum(s.bytes for s in scored) != size:
            raise RefusedError(
                "H661",
                say("The text of {document} was not scored completely.", document=text.id),
                next_step=say("Report this: an evaluation must not leave text out."),
            )
        rows.append((-sum(s.logprob for s in scored) / math.log(2), float(size)))
    return rows


# ---------------------------------------------------------------- terms


@dataclass(frozen=True)
class Occurrence:
    """A term where it stands in a held-out document, with the forms that should not stand there."""

    document: str
    term: str
    before: str
    form: str
    after: str
    forbidden: tuple[str, ...]
    work: str  # what counts once in the statistics


def occurrences(texts: Sequence[Text], terms: Sequence[Term]) -> list[Occurrence]:
    """Every place where an allowed form of a term stands, longest forms first, none overlapping."""
    found: list[Occurrence] = []
    for text in texts:
        fitting = [
            t for t in terms if not t.language or t.language == text.language or not text.language
        ]
        forms = {f: t for t in reversed(fitting) for f in t.forms}
        if not forms:
            continue
        longest_first = sorted(forms, key=lambda f: (-len(f), f))
        pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
        for match in pattern.finditer(text.text):
            if match.start() == 0:
                continue  # nothing stands before it that could call for it
            found.append(_occurrence(text, forms[match.group()], match.start(), match.end()))
    return found


def _occurrence(text: Text, term: Term, start: int, end: int) -> Occurrence:
    first = _before_space(text.text, max(0, start - TERM_CONTEXT_CHARACTERS), 0)
    last = _before_space(text.text, min(len(text.text), end + TERM_TAIL_CHARACTERS), end)
    # The blank before a word belongs to it: that is how tokenizers cut.
    cut = start - 1 if text.text[start - 1].isspace() else start
    return Occurrence(
        text.id, term.id, text.text[first:cut], text.text[cut:end], text.text[end:last],
        tuple(text.text[cut:start] + f for f in term.forbidden), text.unit,
    )  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """Results of all places: per place (bits, bytes), (greedy, 1), and (chosen, 1) where there is a
    forbidden form; with the works they stand in."""

    documents: tuple[str, ...]
    bits: tuple[Row, ...]
    written: tuple[Row, ...]
    choice_documents: tuple[str, ...]
    chosen: tuple[Row, ...]


def chosen_occurrences(
    texts: Sequence[Text], terms: Sequence[Term]
) -> tuple[list[Occurrence], int]:
    """The places that are tested, at most MOST_OCCURRENCES of them, and how many there are."""
    found = occurrences(texts, terms)
    return spread(found, MOST_OCCURRENCES), len(found)


def term_scores(ledger: Ledger, system: System, places: Sequence[Occurrence]) -> Terms:
    """Score every place: the term alone, then the sentence with the term and with each forbidden form."""
    units = []
    for number, place in enumerate(places):
        pairs = [(place.before, place.form)]
        pairs += [(place.before, form + place.after) for form in (place.form, *place.forbidden)
                  if place.forbidden]  # fmt: skip
        units.append(
            Unit(
                "terms",
                f"{place.document}#{number}",
                place.document,
                tuple(pairs),
                {"term": place.term},
            )
        )
    title = say("Terms ({system})", system=system.shown)
    scores = ledger.score(system, units, title)
    with_choice = [(p, s) for p, s in zip(places, scores, strict=True) if p.forbidden]
    return Terms(
        documents=tuple(p.work for p in places),
        bits=tuple((-s[0].logprob / math.log(2), float(s[0].bytes)) for s in scores),
        written=tuple((float(s[0].greedy), 1.0) for s in scores),
        choice_documents=tuple(p.work for p, _ in with_choice),
        chosen=tuple((float(_prefers_term(s)), 1.0) for _, s in with_choice),
    )


def _prefers_term(scores: Sequence[Scored]) -> bool:
    """Is the sentence with the term more probable than with every forbidden form?"""
    return all(scores[1].logprob > other.logprob for other in scores[2:])
