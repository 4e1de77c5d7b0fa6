"""In which language is this written? English, German, or unknown, by function words alone.

Function words of six languages are counted, so that French or Dutch text is called unknown and not
English. Texts with fewer than 20 words or no clear winner are unknown: the detector never guesses.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from hauslm.data.characters import code_points, table
from hauslm.data.document import UNKNOWN_LANGUAGE

_WORDS = {
    "en": "the of and to in is that for with was are as by this be from which were not have an we it",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum",
    "fr": "le la les des et est une dans pour que qui sur pas au du avec ce par plus sont ne cette",
    "es": "el la los las y es una en para que por con del se su al como más este son no lo",
    "it": "il la di che è una in per del con non della sono dei alla come gli le si più questo",
    "nl": "de het een van en is dat op te zijn met voor niet aan er ook als bij door naar wordt",
}
_LANGUAGE_OF: dict[str, list[str]] = {}
for _code, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGE_OF.setdefault(_word, []).append(_code)

_LETTER, _BLANK = r"[^\W\d_]", np.uint32(0x20)
_SAMPLE_CHARACTERS = 6_000
_MINIMUM_WORDS = 20
_REPORTED = ("en", "de")


def detect(text: str) -> str:
    """'en', 'de' or 'unknown'. Looks at the first, middle and last part of long texts."""
    words = words_of(_sample(text))
    if len(words) < _MINIMUM_WORDS:
        return UNKNOWN_LANGUAGE
    votes: Counter[str] = Counter()
    for word, count in Counter(filter(_LANGUAGE_OF.__contains__, words)).items():
        for code in _LANGUAGE_OF[word]:
            votes[code] += count / len(_LANGUAGE_OF[word])  # type: ignore[assignment]
    ranked = votes.most_common(2)
    if not ranked or ranked[0][1] / len(words) < 0.06:
        return UNKNOWN_LANGUAGE
    if len(ranked) > 1 and ranked[0][1] < 1.5 * ranked[1][1]:
        return UNKNOWN_LANGUAGE
    return ranked[0][0] if ranked[0][0] in _REPORTED else UNKNOWN_LANGUAGE


def words_of(text: str) -> list[str]:
    """Runs of letters, case-folded: everything else is made blank at once, and the blanks are split at."""
    points = code_points(text)
    letters = np.where(table(_LETTER).take(points), points, _BLANK)
    return letters.tobytes().decode("utf-32-le").casefold().split()


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARACTERS:
        return text
    third = _SAMPLE_CHARACTERS // 3
    middle = len(text) // 2
    return f"{text[:third]} {text[middle : middle + third]} {text[-third:]}"


def normal_code(code: object) -> str:
    """A declared language ('de-DE', 'EN', 'ger', 'Deutsch') as a two-letter code, or ''."""
    short = str(code or "").strip().lower().replace("_", "-").split("-")[0]
    names = {
        "ger": "de", "deu": "de", "german": "de", "deutsch": "de",
        "eng": "en", "english": "en", "englisch": "en",
        "fre": "fr", "fra": "fr", "spa": "es", "ita": "it", "dut": "nl", "nld": "nl",
    }  # fmt: skip
    short = names.get(short, short)
    return short if re.fullmatch(r"[a-z]{2}", short) else ""
