"""How many characters make a token? Per tokenizer and language, so that options compare per document.

A price per token says little: the same German page is 40 % more tokens for Mistral 7B than for GPT.
Three ways to know, best first: counted on the team's own prepared documents (`Counted`); counted by
`scripts/measure_tokenizers.py` with the real tokenizers on a collection of articles (`MEASURED`: English, 41
articles of biology and medicine, 1.9 million characters; German, 8 papers of the digital humanities,
61,000 characters, and 6 data reports with tables as the low end); the reference with a range where
nobody has the tokenizer offline (today's Claude, Gemini and others).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from hauslm.base.quantity import Quantity, assumed, measured
from hauslm.catalog import load
from hauslm.catalog.schema import Model

MEASURED_ON = "2026-11-24"
_SOURCE = "characters per token of the real tokenizer on articles (scripts/measure_tokenizers.py)"
_OWN = "characters per token on the team's own documents"

# tokenizer -> language -> characters per token: value, low, high over the collections
MEASURED: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "mistral-v3": {"en": (3.70, 3.54, 3.70), "de": (3.32, 2.92, 3.32)},
    "tekken": {"en": (4.30, 4.05, 4.30), "de": (4.39, 3.71, 4.39)},
    "o200k": {"en": (4.38, 4.20, 4.38), "de": (4.67, 4.03, 4.67)},
    "cl100k": {"en": (4.34, 4.16, 4.34), "de": (3.80, 3.39, 3.80)},
    "deepseek-v3": {"en": (4.47, 4.28, 4.47), "de": (4.03, 3.57, 4.03)},
}
REFERENCE = "o200k"
OTHER_LANGUAGE = (3.6, 2.5, 4.4)  # value, low, high; no measurement
UNKNOWN_SPREAD = (0.8, 1.15)  # of the reference, where nobody has the tokenizer offline
SIMILAR_SPREAD = (0.93, 1.07)  # of the tokenizer with a vocabulary of about the same size


@dataclass(frozen=True)
class Counted:
    """What `hauslm prepare` counted on the team's own documents.

    `model`: the base model whose tokenizer counted (a catalog id or another name), with
    `characters_per_token`; `tokenizers`: characters per token of further real tokenizers that were
    there offline; `characters_per_document`: the mean length; `training_tokens`: of the training
    part, in tokens of the base model.
    """

    model: str
    characters_per_token: float
    documents: int
    characters_per_document: float
    training_tokens: int
    date: str
    languages: tuple[str, ...] = ("en",)
    tokenizers: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str, table_value: float) -> tuple[float, bool] | None:
        """Characters per token of a tokenizer on these documents; True: counted, not scaled.

        A tokenizer that did not count is scaled by how far these texts are from the collection for
        one that did: domain terms make more tokens in every vocabulary. None if nothing relates them.
        """
        if name in self.tokenizers:
            return self.tokenizers[name], True
        for other in (REFERENCE, "cl100k", "tekken", "mistral-v3"):
            if other in self.tokenizers and other in MEASURED:
                scale = self.tokenizers[other] / mix(other, self.languages)
                return table_value * scale, False
        return None


@dataclass(frozen=True)
class Density:
    """Characters per token of one model on the scenario's languages; `known`: its own tokenizer
    (or the same one) was counted, not one like it."""

    quantity: Quantity
    known: bool


def density(model: Model, languages: Sequence[str], counted: Counted | None = None) -> Density:
    """Characters per token for `model`: on the team's documents if `counted`, else averaged over
    `languages` with equal numbers of documents."""
    if counted is not None and counted.model == model.id:
        own = measured(counted.characters_per_token, "characters/token", counted.date, _OWN)
        return Density(own, True)
    table = _density(model.id, tuple(languages))
    name, same = tokenizer_of(model)
    found = counted.of(name or REFERENCE, table.quantity.value) if counted else None
    if found is None:
        return table
    assert counted is not None  # noqa: S101 - found says so
    value, counted_itself = found
    if counted_itself and same:
        return Density(measured(value, "characters/token", counted.date, _OWN), True)
    low, high = SIMILAR_SPREAD if name is not None else UNKNOWN_SPREAD
    why = f"like {name or REFERENCE} on the team's own documents"
    return Density(assumed(value, "characters/token", value * low, value * high, why), table.known)


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
        return Density(_measured(name, languages), True)
    low, high = SIMILAR_SPREAD
    why = f"like {name} (vocabulary of similar size)"
    return Density(assumed(value, "characters/token", value * low, value * high, why), same)


def _measured(name: str, languages: Sequence[str]) -> Quantity:
    ends = (mix(name, languages, 1), mix(name, languages, 2))
    value = mix(name, languages)
    return Quantity(
        value, "characters/token", "measured", min(*ends, value), max(*ends, value),
        f"{name}: {_SOURCE}", MEASURED_ON,
    )  # fmt: skip


def reference_characters_per_token(
    languages: Sequence[str], counted: Counted | None = None
) -> Quantity:
    """The tokenizer in whose tokens answers and instructions are counted."""
    if counted is not None and REFERENCE in counted.tokenizers:
        own = counted.tokenizers[REFERENCE]
        return measured(own, "characters/token", counted.date, f"{REFERENCE}: {_OWN}")
    value = mix(REFERENCE, languages)
    return measured(value, "characters/token", MEASURED_ON, f"{REFERENCE}: {_SOURCE}")


def mix(tokenizer: str, languages: Sequence[str], place: int = 0) -> float:
    """Characters per token over several languages: tokens add up, so the mean is harmonic.

    `place`: 0 the value, 1 the low end, 2 the high end.
    """
    table = MEASURED[tokenizer]
    values = [table.get(lang, OTHER_LANGUAGE)[place] for lang in languages]
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
    if "deepseek" in name:
        return "deepseek-v3", False
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
