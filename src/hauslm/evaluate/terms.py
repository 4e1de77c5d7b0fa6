"""Which terms does a field use, if nobody wrote a glossary? Words that its documents share.

A crude method, and said to be one: words of at least six letters that stand in several training
documents and nowhere in the general text. It knows no wrong forms, so only the probability of the
terms can be measured, not the choice between right and wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hauslm.data.glossary import Term
from hauslm.evaluate.inputs import Text

MOST_TERMS = 60
FEWEST_DOCUMENTS = 3
_WORD = re.compile(r"[^\W\d_]{6,}")
# Frequent in articles of every field; their probability says nothing about this one.
_EVERYWHERE = frozenset(
    word
    for line in (
        "abstract results method methods discussion introduction conclusion conclusions background",
        "between during should against therefore however although because measured analysis",
        "ergebnisse methode methoden einleitung schluss hintergrund zusammenfassung zwischen",
        "während jedoch deshalb dadurch werden wurden wurde konnte können",
    )
    for word in line.split()
)


def mined(train: Sequence[Text], general: Sequence[Text]) -> list[Term]:
    """Up to MOST_TERMS words per language, the most widely used first."""
    found: list[Term] = []
    for language in sorted({t.language for t in train}):
        common = {w.casefold() for t in general for w in _WORD.findall(t.text)} | _EVERYWHERE
        spread: Counter[str] = Counter()
        for text in train:
            if text.language == language:
                spread.update({w for w in _WORD.findall(text.text) if w.casefold() not in common})
        ranked = sorted(spread, key=lambda w: (-spread[w], w))[:MOST_TERMS]
        found += [Term(w, language, w) for w in ranked if spread[w] >= FEWEST_DOCUMENTS]
    return found
