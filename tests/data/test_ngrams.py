"""Near-duplicates are found, unrelated texts are not, and the 13-gram overlap counts what it says."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hauslm.data import ngrams as module
from hauslm.data.ngrams import (
    PERMUTATIONS,
    Overlap,
    containment,
    near_duplicates,
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


def signatures(*texts: str) -> NDArray[np.uint32]:
    return np.array([signature_values(word_hashes(t)) for t in texts])


def test_near_duplicates_short_and_long() -> None:
    for size in (120, 1500, 9000):
        original, other = text(size, size), text(size + 1, size)
        words = original.split()
        words[size // 2] = "changed"
        copy = " ".join(words)
        assert jaccard(original, copy) > 0.9
        found = near_duplicates(signatures(original, other, copy))
        assert [(i, j) for i, j, _ in found] == [(0, 2)]
    assert near_duplicates(np.empty((0, PERMUTATIONS), dtype=np.uint32)) == []


def test_estimate_is_near_the_truth() -> None:
    first = text(7, 6000)
    words = first.split()
    second = " ".join(words[:5000]) + " " + text(8, 1000)
    ((_, _, estimate),) = near_duplicates(signatures(first, second), threshold=0.3)
    assert abs(estimate - jaccard(first, second)) < 0.15


def test_the_pairs_are_those_of_the_library() -> None:
    """datasketch's own index, fed one by one, finds the same pairs."""
    texts = []
    for seed in range(40):
        words = text(seed % 8, 300).split()
        for n in range(seed % 4 * 2):
            words[(n * 37 + seed) % 300] = f"new{seed}x{n}"
        texts.append(" ".join(words))
    rows = signatures(*texts)
    index = MinHashLSH(threshold=0.8, num_perm=PERMUTATIONS)
    made = [MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32", hashvalues=r) for r in rows]
    expected = []
    for n, one in enumerate(made):
        alike = [(int(k), made[int(k)].jaccard(one)) for k in index.query(one)]
        alike = [pair for pair in alike if pair[1] >= 0.8]
        expected += [(k, n, e) for k, e in sorted(alike, key=lambda p: (-p[1], p[0]))]
        index.insert(str(n), one)
    found = near_duplicates(rows)
    assert [(i, j, pytest.approx(e)) for i, j, e in expected] == found
    assert 20 < len(found) < 40 * 39 / 2


def test_many_alike_stay_together_at_linear_cost() -> None:
    rows = np.repeat(signatures(text(1, 300)), 500, axis=0)
    found = near_duplicates(rows)
    assert {j for i, j, _ in found if i == 0} == set(range(1, 500))
    assert len(found) <= 500 * module.MOST_ALIKE


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
