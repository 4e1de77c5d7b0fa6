"""How many tokens would other models make of these texts? With every real tokenizer that is here.

An option's price per token compares only per document, and vocabularies differ by half on domain
texts. Besides the base model's own tokenizer (always there), two packages bring real ones offline:
`mistral-common` (Mistral v3, Tekken) and `tiktoken` with its rank files in TIKTOKEN_CACHE_DIR
(cl100k, o200k). Nothing is fetched: a tokenizer whose data is not here does not count.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hauslm.data.document import Document

Count = Callable[[str], int]  # text -> number of its tokens

SAMPLE_CHARACTERS = 1_000_000  # enough for three digits; more would cost seconds a million
PER_DOCUMENT = 20_000  # from the start of each, so that many documents have a say
# Rank files as tiktoken names them in its cache (SHA-1 of the address they come from).
_RANKS = {
    "o200k": ("o200k_base", "fb374d419588a4632f3f557e76b4b70aebbca790"),
    "cl100k": ("cl100k_base", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
}


def offline_tokenizers() -> dict[str, Count]:
    """Name -> counter of every tokenizer that is installed with its data."""
    return {**_tiktoken(), **_mistral()}


def _tiktoken() -> dict[str, Count]:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if not folder or importlib.util.find_spec("tiktoken") is None:
        return {}
    import tiktoken

    found: dict[str, Count] = {}
    for name, (encoding, file) in _RANKS.items():
        if (Path(folder) / file).is_file():
            found[name] = _ordinary(tiktoken.get_encoding(encoding))
    return found


def _ordinary(encoding: Any) -> Count:
    return lambda text: len(encoding.encode_ordinary(text))


def _mistral() -> dict[str, Count]:
    if importlib.util.find_spec("mistral_common") is None:
        return {}
    try:
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

        both = {"mistral-v3": MistralTokenizer.v3(), "tekken": MistralTokenizer.v3(is_tekken=True)}
    except ImportError:  # installed without sentencepiece
        return {}
    return {name: _plain(one.instruct_tokenizer.tokenizer) for name, one in both.items()}


def _plain(tokenizer: Any) -> Count:
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


def characters_per_token(
    documents: Iterable[Document],
    counters: Mapping[str, Count],
    sample_characters: int = SAMPLE_CHARACTERS,
) -> dict[str, float]:
    """Characters per token of each tokenizer over a sample: the starts of the first documents."""
    if not counters:
        return {}
    characters = 0
    tokens = dict.fromkeys(counters, 0)
    for document in documents:
        text = document.text[:PER_DOCUMENT]
        characters += len(text)
        for name, count in counters.items():
            tokens[name] += count(text)
        if characters >= sample_characters:
            break
    return {name: characters / n for name, n in tokens.items() if n}
