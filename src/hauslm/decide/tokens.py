"""How many characters make a token? Per tokenizer and language, so that options compare per document.

A price per token says little: the same German page is 25 % more tokens for Mistral 7B than for GPT.
Figures: characters per token on real articles with a 32k vocabulary (Mistral v3) and a 131k one
(Tekken), measured on this project's article collection; the other tokenizers by their ratio to Tekken
on one methods paragraph (o200k 126/201, cl100k 131/232, Tekken 129/206 tokens English/German). Where
no tokenizer is available offline (Claude, Gemini, others) the reference stands in, with a range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hauslm.base.quantity import Quantity, assumed, measured
from hauslm.catalog import load
from hauslm.catalog.schema import Model

MEASURED_ON = "2026-11-23"
_SOURCE = "characters per token on articles and a methods paragraph"

# tokenizer -> language -> characters per token
MEASURED = {
    "mistral-v3": {"en": 3.75, "de": 3.27},
    "tekken": {"en": 4.30, "de": 4.30},
    "o200k": {"en": 4.40, "de": 4.41},
    "cl100k": {"en": 4.23, "de": 3.82},
}
REFERENCE = "o200k"
OTHER_LANGUAGE = (3.6, 2.5, 4.4)  # value, low, high; no measurement
UNKNOWN_SPREAD = (0.8, 1.15)  # of the reference, where nobody has the tokenizer offline
SIMILAR_SPREAD = (0.93, 1.07)  # of the tokenizer with a vocabulary of about the same size


@dataclass(frozen=True)
class Density:
    """Characters per token of one model on the scenario's languages; `known`: its own tokenizer
    (or the same one) was counted, not one like it."""

    quantity: Quantity
    known: bool


def density(model: Model, languages: Sequence[str]) -> Density:
    """Characters per token for `model`, averaged over `languages` with equal numbers of documents."""
    return _density(model.id, tuple(languages))


@cache
def _density(model_id: str, languages: tuple[str, ...]) -> Density:
    model = load.model(model_id)
    name, same = tokenizer_of(model)
    if name is None:
        value = mix(REFERENCE, languages)
        low, high = UNKNOWN_SPREAD
        why = f"no offline tokenizer of {model.name}; like {REFERENCE}"
        return Density(assumed(value, "characters/token", value * low, value * high, why), False)
    value = mix(name, languages)
    if same and all(lang in MEASURED[name] for lang in languages):
        found = measured(value, "characters/token", MEASURED_ON, f"{name}: {_SOURCE}")
        return Density(found, True)
    low, high = SIMILAR_SPREAD
    why = f"like {name} (vocabulary of similar size)"
    return Density(assumed(value, "characters/token", value * low, value * high, why), same)


def reference_characters_per_token(languages: Sequence[str]) -> Quantity:
    """The tokenizer in whose tokens answers and instructions are counted."""
    source = f"{REFERENCE}: {_SOURCE}"
    return measured(mix(REFERENCE, languages), "characters/token", MEASURED_ON, source)


def mix(tokenizer: str, languages: Sequence[str]) -> float:
    """Characters per token over several languages: tokens add up, so the mean is harmonic."""
    table = MEASURED[tokenizer]
    values = [table.get(lang, OTHER_LANGUAGE[0]) for lang in languages]
    return len(values) / sum(1 / v for v in values)


def reasons(model: Model) -> bool:
    """Whether a model was only ever scored with thoughts before the answer: those are paid for."""
    methods = [s.method for s in model.scores if s.harness == "EuroEval"]
    return bool(methods) and all(m.startswith("reasoning") for m in methods)


def tokenizer_of(model: Model) -> tuple[str | None, bool]:
    """The measured tokenizer that stands for a model's, and whether it is the very same one."""
    if model.architecture is not None:
        return _by_vocabulary(model)
    name = model.id.lower()
    if "gpt-4-turbo" in name or "gpt-3.5" in name:
        return "cl100k", True
    if (model.provider or "") in ("openai", "azure") or "gpt" in name:
        return "o200k", True
    if (model.provider or "") == "mistral" or "stral" in name:
        return "tekken", False
    return None, False


def _by_vocabulary(model: Model) -> tuple[str, bool]:
    shape = model.architecture
    assert shape is not None  # noqa: S101 - the caller looked
    if "mistral" in model.family.lower() or "mistral" in model.id or "ministral" in model.id:
        return ("mistral-v3", True) if shape.vocab_size < 100_000 else ("tekken", True)
    if "llama" in model.id and shape.vocab_size > 100_000:
        return "cl100k", False  # its first 100k merges are cl100k's
    if "gpt-oss" in model.id:
        return "o200k", True
    if shape.vocab_size < 70_000:
        return "mistral-v3", False
    return ("cl100k", False) if shape.vocab_size < 200_000 else ("o200k", False)
