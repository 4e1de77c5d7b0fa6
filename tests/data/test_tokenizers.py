"""Further real tokenizers count on a sample of the documents; absent ones do not count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from hauslm.data.document import Document
from hauslm.data.tokenizers import PER_DOCUMENT, characters_per_token, offline_tokenizers


def document(text: str) -> Document:
    return Document(id="x", title="", text=text)


def words() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_characters_per_token_over_several_documents() -> None:
    tokenizer = words()
    counters = {"words": lambda text: len(tokenizer.encode(text).ids), "characters": len}
    found = characters_per_token([document("abcd efgh"), document("ij")], counters)
    assert found == {"words": pytest.approx(11 / 3), "characters": 1.0}


def test_a_sample_suffices_and_every_document_counts_only_from_its_start() -> None:
    read: list[int] = []

    def documents() -> Iterator[Document]:
        for number in range(100):
            read.append(number)
            yield document("a" * (PER_DOCUMENT + 5))

    seen: list[int] = []

    def count(text: str) -> int:
        seen.append(len(text))
        return len(text)

    characters_per_token(documents(), {"c": count}, sample_characters=3 * PER_DOCUMENT)
    assert seen == [PER_DOCUMENT] * 3
    assert len(read) == 3


def test_without_counters_no_document_is_read() -> None:
    def none() -> Iterator[Document]:
        raise AssertionError("read for nothing")
        yield

    assert characters_per_token(none(), {}) == {}


def test_rank_files_that_are_not_there_are_not_fetched(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.mktemp("empty")))
    assert not {"o200k", "cl100k"} & set(offline_tokenizers())
