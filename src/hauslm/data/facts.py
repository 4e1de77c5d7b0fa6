"""What must be known of a document before it is placed? Everything that needs its text, in one pass.

`facts_of` runs on one document and returns a small value, so that worker processes can do it: word
hashes for overlap and duplicates, personal-data hints, control-token spellings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hauslm.data.characters import runs
from hauslm.data.document import Document
from hauslm.data.ngrams import folded_word_hashes

# Hints, not proofs: a person looks. Long runs of digits are found once and then judged by what stands
# before them; the other patterns run only where a rare character or word says it is worth it.
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}")
_DIGITS = re.compile(r"\d[\d ()/.\-]{7,40}\d")
_OF_DIGITS, _SHORTEST_DIGITS = r"[\d ()/.\-]", 9  # of what `_DIGITS` consists, and its least length
_BEFORE_PHONE = re.compile(
    r"(?:\+|\b(?:tel|phone|fon|fax|telefon|mobil)\b\.?:?\s*\(?\+?)$", re.IGNORECASE
)
_BEFORE_IBAN = re.compile(r"\b[A-Z]{2}$")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?:\d{4}[ -]){3}\d{4}(?!\d)")
_BIRTH = re.compile(r"\b(?:geboren am|geb\.|born on|date of birth:?)\s*\d{1,2}[./ ]", re.IGNORECASE)
_BEFORE_BIRTH = ("geboren am", "geb.", "born on", "date of birth")


@dataclass(frozen=True, slots=True)
class Facts:
    """One document as grouping, splitting and checking see it."""

    id: str
    doi: str
    title: str
    sha256: str
    language: str
    licence_class: str
    format: str
    source_file: str
    characters: int
    words: int
    conversation: bool
    identities: tuple[str, ...] = ()
    hints: Mapping[str, int] = field(default_factory=dict)


def facts_of(document: Document) -> tuple[Facts, NDArray[np.uint64]]:
    """The facts and the word hashes of a document."""
    folded = document.text.casefold()
    words = folded_word_hashes(folded)
    return (
        Facts(
            id=document.id,
            doi=document.doi,
            title=document.title,
            sha256=document.sha256,
            language=document.language,
            licence_class=document.licence_class,
            format=document.format,
            source_file=document.source_file,
            characters=len(document.text),
            words=len(words),
            conversation=bool(document.messages),
            identities=identities(document.id, document.source_file),
            hints=personal_hints(document.text, folded),
        ),
        words,
    )


def identities(id_: str, source_file: str = "") -> tuple[str, ...]:
    """Names under which the same document may appear elsewhere: its id, its file, its PMC number."""
    names = {id_.split("#")[0]}
    if source_file and not source_file.lower().endswith(
        (".jsonl", ".ndjson", ".gz", ".csv", ".tsv", ".parquet")
    ):
        names.add(PurePosixPath(source_file).stem)
    names |= {re.sub(r"^pmc(?=\d)", "", n, flags=re.IGNORECASE) for n in names}
    return tuple(sorted(n.casefold() for n in names if n))


def personal_hints(text: str, folded: str | None = None) -> dict[str, int]:
    """How many strings look like personal data, by kind: email, phone, iban, card, birth date.

    `folded` is the text case-folded, if the caller has it.
    """
    found: Counter[str] = Counter()
    if "@" in text:
        found["email"] = len(_EMAIL.findall(text))
    iban = "IBAN" in text
    if iban:
        found["iban"] = sum(1 for m in _IBAN.finditer(text) if is_iban(m.group()))
    for match in _long_digits(text):
        before = text[max(0, match.start() - 12) : match.start()]
        run = match.group()
        digits = sum(c.isdigit() for c in run)
        if 7 <= digits <= 15 and _BEFORE_PHONE.search(before):
            found["phone"] += 1
        elif not iban and _BEFORE_IBAN.search(before):
            found["iban"] += is_iban(before[-2:] + run.rstrip(" .-/()"))
        elif _CARD.match(run):
            found["card"] += _luhn(run[:19])
    folded = text.casefold() if folded is None else folded
    if any(begin in folded for begin in _BEFORE_BIRTH):  # the expression itself is slow
        found["birth date"] = len(_BIRTH.findall(text))
    return {kind: count for kind, count in found.items() if count}


def _long_digits(text: str) -> Iterator[re.Match[str]]:
    """What `_DIGITS.finditer` finds; the expression only looks where enough of its characters stand."""
    for start, end in runs(_OF_DIGITS, text, _SHORTEST_DIGITS):
        yield from _DIGITS.finditer(text, start, end)


def is_iban(text: str) -> bool:
    """ISO 13616: the number, its first four characters moved to the end, is 1 modulo 97."""
    compact = re.sub(r"\s", "", text)
    if not (15 <= len(compact) <= 34 and compact.isascii() and compact.isalnum()):
        return False
    digits = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return int(digits) % 97 == 1


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    total = sum(
        d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(reversed(digits))
    )
    return total % 10 == 0 and len(set(digits)) > 1
