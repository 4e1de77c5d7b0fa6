"""Near-duplicates are found, unrelated texts are not, and the 13-gram overlap counts what it says."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.data import ngrams as module
from hauslm.data.ngrams import (
    NearDuplicates,
    Overlap,
    containment,
    ngrams,
    signature_values,
    word_hashes,
)

WIND = 3861789549
VOCABULARY = [f"word{i}" for i in range(3000)]


def text(seed: int, words: int) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(VOCABULARY) for _ in range(words))


def jaccard(a: str, b: str) -> float:
    left, right = (set(ngrams(word_hashes(t), 5).tolist()) for t in (a, b))
    return len(left & right) / len(left | right)


def test_hashes_do_not_depend_on_process_or_case() -> None:
    assert word_hashes("Wind, WIND wind").tolist() == [word_hashes("wind")[0]] * 3
    assert word_hashes("wind").tolist() == [WIND]
    assert len(ngrams(word_hashes("a b c"), 13)) == 1
    assert len(ngrams(word_hashes(""), 13)) == 0
    assert len(ngrams(word_hashes(text(1, 20)), 13)) == 8


ODD_TEXTS = st.text(
    st.sampled_from(" \n\t\u00a0abcW1_-+().'éßİ\u0301\ud800\U0001f600٣"), max_size=400
)


@settings(max_examples=200, deadline=None)
@given(ODD_TEXTS)
def test_words_are_those_of_the_regular_expression(one: str) -> None:
    """Word for word, and the same number for the same word wherever it stands."""
    words = re.findall(r"\w+", one.casefold())
    hashes = word_hashes(one).tolist()
    assert len(hashes) == len(words)
    assert hashes == [word_hashes(w)[0] for w in words]
    assert len(set(hashes)) == len(set(words))


def test_texts_longer_than_a_block_are_hashed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = text(1, 300)
    expected = word_hashes(whole).tolist()
    monkeypatch.setattr(module, "WORDS_BLOCK", 64)
    assert word_hashes(whole).tolist() == expected
    assert len(word_hashes("x" * 200)) == 4  # a word that fills blocks is cut, not lost


def test_the_hashes_of_many_words_do_not_meet() -> None:
    """Of 200,000 words, chance lets about 5 pairs share one of 2^32 numbers."""
    many = [f"{a}{b}" for a in ("tin", "pipe", "x", "ö") for b in range(50_000)]
    assert len(set(word_hashes(" ".join(many)).tolist())) >= len(many) - 25


def test_near_duplicates_short_and_long() -> None:
    for size in (120, 1500, 9000):
        index = NearDuplicates()
        original, other = text(size, size), text(size + 1, size)
        words = original.split()
        words[size // 2] = "changed"
        copy = " ".join(words)
        assert jaccard(original, copy) > 0.9
        assert not index.add("original", signature_values(word_hashes(original)))
        assert not index.add("other", signature_values(word_hashes(other)))
        found = index.add("copy", signature_values(word_hashes(copy)))
        assert [key for key, _ in found] == ["original"]


def test_estimate_is_near_the_truth() -> None:
    first = text(7, 6000)
    words = first.split()
    second = " ".join(words[:5000]) + " " + text(8, 1000)
    index = NearDuplicates(threshold=0.3)
    index.add("a", signature_values(word_hashes(first)))
    ((_, estimate),) = index.add("b", signature_values(word_hashes(second)))
    assert abs(estimate - jaccard(first, second)) < 0.15


def test_overlap_names_the_leak() -> None:
    overlap = Overlap()
    test_text, clean_text = text(1, 400), text(2, 400)
    overlap.add_test("leaked", word_hashes(test_text))
    overlap.add_test("clean", word_hashes(clean_text))
    overlap.add_test("tiny", word_hashes("too short"))
    overlap.seal()
    overlap.add_train("other", word_hashes(text(3, 4000)))
    assert overlap.share == 0.0 and not overlap.worst()
    overlap.add_train("thief", word_hashes(text(4, 100) + " " + " ".join(test_text.split()[:212])))
    assert overlap.sources == {"thief": 200}
    assert overlap.worst() == [("leaked", 200 / 388)]
    assert overlap.share == 200 / 776
    assert overlap.share_of("tiny") == 0.0


def test_sampled_overlap_is_near_the_exact_one() -> None:
    exact, sampled = Overlap(), Overlap(most=2000)
    for seed in range(10):
        for one in (exact, sampled):
            one.add_test(str(seed), word_hashes(text(seed, 2000)))
    for one in (exact, sampled):
        one.seal()
        one.add_train("t", word_hashes(" ".join(text(s, 2000)[:9000] for s in range(10))))
    assert sampled._held <= 2000
    assert abs(exact.share - sampled.share) < 0.05


def test_containment() -> None:
    inner = word_hashes(text(5, 100))
    outer = np.concatenate([word_hashes(text(6, 500)), inner])
    assert containment(inner, outer) == 1.0
    assert containment(inner, word_hashes(text(6, 500))) == 0.0
