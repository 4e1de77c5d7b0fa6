"""Does the quote stand in the article, and does the article try to give orders? Checks on text.

Articles are untrusted input: preprints have carried hidden prompts (Nikkei 2025; note in
docs/trust.md). Analysis has no tools and answers are bound to a schema, so an injection can at most
change its own row; the flags tell the reader which rows to look at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORTEST_QUOTE = 12  # characters; anything shorter is found in every text and proves nothing

_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_ORDERS = (
    r"(?:ignore|disregard|forget|override)\b.{0,40}\b(?:previous|above|prior|earlier|all|any|your)\b"
    r".{0,30}\b(?:instruction|prompt|direction|rule|guideline)",
    r"\b(?:you are|act as|pretend to be)\b.{0,30}\b(?:assistant|ai|language model|reviewer|chatbot)\b",
    r"\b(?:give|write|provide)\b.{0,20}\b(?:a )?(?:positive|favou?rable)\b.{0,20}\breview",
    r"\bdo not (?:mention|highlight|report)\b.{0,40}\b(?:negative|weakness|limitation|flaw)",
    r"\b(?:system prompt|developer message|jailbreak)\b",
    r"(?:ignorier|missacht|vergiss|vergesst|übergeh)\w*\b.{0,40}"
    r"\b(?:anweisung|vorgabe|anleitung|regel|instruktion|prompt)",
    r"\b(?:du bist|sie sind|verhalte dich)\b.{0,30}\b(?:assistent|sprachmodell|gutachter|ki)\b",
    r"\b(?:bewerte|beurteile|begutachte)\w*\b.{0,40}\b(?:positiv|wohlwollend)",
    r"\[/?inst\]|<\|(?:im_start|im_end|system|user|assistant|eot_id)|</?s>|<<sys>>",
    r"(?m:^\s*#{2,}\s*(?:instruction|system|response)\s*:)",
)
_ORDER = re.compile("|".join(f"(?:{p})" for p in _ORDERS), re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Found:
    """Where a quote stands in the article (characters), or that it does not."""

    found: bool
    start: int = -1
    end: int = -1


def find_quote(quote: str, text: str, start: int = 0, end: int | None = None) -> Found:
    """The quote in `text`, first within `start`..`end`, then anywhere; blanks may differ.

    A quote that is too short to prove anything counts only if it is all there is between the two.
    """
    wanted = quote.strip()
    end = len(text) if end is None else end
    if len(wanted) < SHORTEST_QUOTE:
        if not wanted or text[start:end].strip() != wanted:
            return Found(False)
        at = text.index(wanted, start)
        return Found(True, at, at + len(wanted))
    for low, high in ((start, end), (0, len(text))):
        at = text.find(wanted, low, high)
        if at >= 0:
            return Found(True, at, at + len(wanted))
    pattern = re.compile(r"\s+".join(map(re.escape, wanted.split())))
    match = pattern.search(text, start, end) or pattern.search(text)
    return Found(True, match.start(), match.end()) if match else Found(False)


def untrusted(text: str, metadata: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Flags of what looks like an attempt to steer the reader: hidden_characters,
    instruction_like, invisible_text (as the document's reader reported it)."""
    metadata = metadata or {}
    flags = []
    if _HIDDEN.search(text) or metadata.get("hidden_characters"):
        flags.append("hidden_characters")
    if _ORDER.search(text):
        flags.append("instruction_like")
    if any(metadata.get(k) for k in ("invisible_text", "white_text", "tiny_text")):
        flags.append("invisible_text")
    return tuple(flags)


def suspicious_passages(text: str, most: int = 3) -> Sequence[str]:
    """The passages that raised `instruction_like`, for the reader to judge."""
    return [m.group()[:120] for _, m in zip(range(most), _ORDER.finditer(text), strict=False)]
