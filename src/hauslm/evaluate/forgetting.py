"""What did the adapter cost in general ability? Bits per byte of everyday text, base against adapter.

The text is ours, short, in English and German, and ships with the package, so figures of different
projects can be compared. The paragraph is the unit. A second figure tells how far the adapter moved at
all: the Kullback-Leibler divergence base || adapter per token, estimated on text that the base model
itself writes (mean of log p_base - log p_adapter over samples from the base), so no logits are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from hauslm.base.words import say
from hauslm.evaluate.inputs import Text
from hauslm.evaluate.language import bits_and_bytes
from hauslm.evaluate.ledger import Ledger, Question, System, Unit
from hauslm.evaluate.statistics import Array, compare, finding
from hauslm.lm.interface import Request

PART = "forgetting"
LANGUAGES = ("en", "de")
SAMPLED_TOKENS = 32
OPENING_CHARACTERS = 120
WORTH_SAYING = 0.05  # bits per byte; below this nobody would notice


def general_texts(language: str) -> list[Text]:
    """The paragraphs of the shipped general text in one language."""
    name = f"{language}.txt"
    raw = (files("hauslm.evaluate") / "general_text" / name).read_text(encoding="utf-8")
    paragraphs = [p.strip() for p in raw.split("\n\n") if p.strip()]
    return [Text(f"general-{language}-{n}", "", language, p) for n, p in enumerate(paragraphs, 1)]


def measure(ledger: Ledger, base: System, adapter: System, *, seed: int = 0) -> dict[str, Any]:
    """The record's `forgetting`: per language base, adapter, difference with interval; and KL."""
    languages: dict[str, dict[str, Any]] = {}
    for language in LANGUAGES:
        texts = general_texts(language)
        rows = [np.array(bits_and_bytes(ledger, s, texts, PART)) for s in (base, adapter)]
        languages[language] = _compared(rows[0], rows[1], seed)
    moved = divergence(ledger, base, adapter)
    return {
        "measured": True,
        "unit": "bit/byte",
        **{f"difference_{k}": v["difference"] for k, v in languages.items()},
        "kl_nats_per_token": moved["value"] if moved else None,
        "languages": languages,
        "divergence": moved,
    }


def _compared(base: Array, adapter: Array, seed: int) -> dict[str, Any]:
    made = compare(adapter, base, higher_is_better=False, seed=seed)
    return {
        "base": float(base[:, 0].sum() / base[:, 1].sum()),
        "adapter": float(adapter[:, 0].sum() / adapter[:, 1].sum()),
        "difference": made.value,
        "low": made.low,
        "high": made.high,
        "p": made.p,
        "paragraphs": made.documents,
        "finding": finding(made),
        "noticeable": finding(made) == "worse" and made.value >= WORTH_SAYING,
    }


def divergence(ledger: Ledger, base: System, adapter: System) -> dict[str, Any] | None:
    """KL(base || adapter) per token (nats) with its standard error over the samples.

    None where the base wrote nothing usable. The samples start from the openings of the general
    paragraphs and are drawn with fixed seeds.
    """
    texts = [t for language in LANGUAGES for t in general_texts(language)]
    openings = [t.text[: t.text.rfind(" ", 0, OPENING_CHARACTERS)] for t in texts]
    questions = [
        Question(PART, f"{t.id}:sample", t.id, Request(
            (), SAMPLED_TOKENS, temperature=1.0, seed=n, raw_prompt=opening))
        for n, (t, opening) in enumerate(zip(texts, openings, strict=True), 1)
    ]  # fmt: skip
    replies = ledger.generate(base, questions, say("General text ({system})", system=base.shown))
    units = [
        Unit(PART, f"{t.id}:divergence", t.id, ((opening, str(reply["text"])),))
        for t, opening, reply in zip(texts, openings, replies, strict=True)
        if str(reply["text"]).strip()
    ]
    if not units:
        return None
    title = say("General text ({system})", system=base.shown)
    of_base = ledger.score(base, units, title)
    of_adapter = ledger.score(adapter, units, title)
    gaps = [
        ((b[0].logprob - a[0].logprob), b[0].tokens)
        for b, a in zip(of_base, of_adapter, strict=True)
    ]
    tokens = sum(n for _, n in gaps)
    per_token = [gap / n for gap, n in gaps]
    spread = float(np.std(per_token, ddof=1)) if len(per_token) > 1 else float("nan")
    return {
        "value": sum(gap for gap, _ in gaps) / tokens,
        "standard_error": None if math.isnan(spread) else spread / math.sqrt(len(per_token)),
        "samples": len(per_token),
        "tokens": tokens,
        "unit": "nat",
    }


def worst(result: dict[str, Any]) -> Sequence[tuple[str, float]]:
    """Languages with noticeable forgetting and by how many bits per byte."""
    languages = result.get("languages", {})
    return [(k, v["difference"]) for k, v in languages.items() if v["noticeable"]]
