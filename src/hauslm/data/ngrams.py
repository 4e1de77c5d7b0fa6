"""Do two texts share wording? Hashed word n-grams, MinHash signatures, exact 13-gram overlap.

Words are letters and digits, case-folded; an n-gram is one 64-bit number. MinHash and its index come
from datasketch; here are only the numbers that go in. 13 words is the length that GPT-3's authors used
to find test text in training text (Brown et al., arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

OVERLAP_WORDS = 13
SHINGLE_WORDS = 5
PERMUTATIONS = 128
SCHEME: Literal["affine32"] = "affine32"  # datasketch 2: 32-bit hashes, 4 bytes per permutation
NEAR_DUPLICATE = 0.8  # Jaccard similarity of the 5-word shingles
KEEP_ONE_IN = 8  # shingles of long texts are sampled by their own value, alike in every text
SAMPLE_ABOVE = 2000  # shingles; a sample of a shorter text would be too small to compare

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_WORDS_KEPT = 2_000_000  # the cache is emptied when it has grown to this


class _Hashes(dict[str, int]):
    """Word -> CRC-32 of its UTF-8, computed once."""

    def __missing__(self, word: str) -> int:
        value = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return value


_hashes = _Hashes()


def word_hashes(text: str) -> NDArray[np.uint64]:
    """One number per word, in order."""
    if len(_hashes) > _WORDS_KEPT:
        _hashes.clear()
    words = _WORD.findall(text.casefold())
    return np.fromiter(map(_hashes.__getitem__, words), dtype=np.uint64, count=len(words))


def ngrams(words: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Hash of every run of `n` words, in order; one hash of all words if there are fewer."""
    if len(words) == 0:
        return words
    n = min(n, len(words))
    out = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for offset in range(n):
        out = out * _FACTOR + words[offset : offset + len(out)] + np.uint64(1)
    out ^= out >> np.uint64(33)
    out *= _MIX
    out ^= out >> np.uint64(33)
    return out


def signature_values(words: NDArray[np.uint64]) -> NDArray[Any]:
    """MinHash values of the 5-word shingles.

    Long texts are sampled by the value of each shingle, which keeps the same shingles in every text,
    so that the estimate of their similarity stays unbiased.
    """
    shingles = ngrams(words, SHINGLE_WORDS)
    if len(shingles) > SAMPLE_ABOVE:
        shingles = shingles[shingles % np.uint64(KEEP_ONE_IN) == 0]
    minhash = _minhash(None)
    minhash.update_batch(np.unique(shingles >> np.uint64(32)).tolist())
    values: NDArray[Any] = minhash.hashvalues
    return values


_permutations: list[Any] = []


def _minhash(values: NDArray[Any] | None) -> MinHash:
    """An empty MinHash or one with these values; all share one set of permutations."""
    if not _permutations:
        first = MinHash(num_perm=PERMUTATIONS, seed=1, scheme=SCHEME, hashfunc=int)
        _permutations.append(first.permutations)
    return MinHash(
        num_perm=PERMUTATIONS, seed=1, scheme=SCHEME, hashfunc=int,
        permutations=_permutations[0], hashvalues=values,
    )  # fmt: skip


class NearDuplicates:
    """Feed documents one by one; learn which earlier ones each resembles."""

    def __init__(self, threshold: float = NEAR_DUPLICATE) -> None:
        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._signatures: dict[str, MinHash] = {}

    def add(self, key: str, values: NDArray[Any]) -> list[tuple[str, float]]:
        """Earlier keys with an estimated similarity of at least the threshold, and that estimate."""
        minhash = _minhash(values)
        similar = []
        for other in self._index.query(minhash):
            estimate = float(minhash.jaccard(self._signatures[other]))
            if estimate >= self._threshold:
                similar.append((str(other), estimate))
        self._index.insert(key, minhash, check_duplication=False)
        self._signatures[key] = minhash
        return sorted(similar, key=lambda pair: (-pair[1], pair[0]))


class Overlap:
    """Which share of the test texts' 13-grams also stands in training texts?

    First `add_test` for all test texts, then `seal`, then `add_train` for all training texts, then read
    the figures. Above `most` distinct 13-grams a sample is kept, chosen by the value of the hash, so the
    share stays unbiased and memory stays below about 30 bytes times `most`.
    """

    def __init__(self, most: int = 20_000_000) -> None:
        self._most = most
        self._one_in = np.uint64(1)
        self._owners: dict[str, NDArray[np.uint64]] = {}
        self._held = 0
        self._grams: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._hit: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self.sources: dict[str, int] = {}  # training document -> test 13-grams in it

    def add_test(self, document: str, words: NDArray[np.uint64]) -> None:
        if len(words) < OVERLAP_WORDS:
            return
        grams = np.unique(self._sampled(ngrams(words, OVERLAP_WORDS)))
        self._owners[document] = grams
        self._held += len(grams)
        while self._held > self._most:
            self._one_in *= np.uint64(2)
            self._owners = {d: self._sampled(g) for d, g in self._owners.items()}
            self._held = sum(len(g) for g in self._owners.values())

    def _sampled(self, grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return grams if self._one_in == 1 else grams[grams % self._one_in == 0]

    def seal(self) -> None:
        if self._owners:
            self._grams = np.unique(np.concatenate(list(self._owners.values())))
        self._hit = np.zeros(len(self._grams), dtype=np.bool_)

    def add_train(self, document: str, words: NDArray[np.uint64]) -> int:
        """Mark what this training text shares with the test texts; returns how many 13-grams."""
        shared = self.shared_with(words)
        if len(shared):
            self._hit[np.searchsorted(self._grams, shared)] = True
            self.sources[document] = len(shared)
        return len(shared)

    def grams_of(self, document: str) -> NDArray[np.uint64]:
        """The 13-grams of one test text (empty for a text of fewer than 13 words)."""
        return self._owners.get(document, np.empty(0, dtype=np.uint64))

    def shared_with(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The test 13-grams that stand in these words, each once; marks nothing."""
        if len(words) < OVERLAP_WORDS or not len(self._grams):
            return self._grams[:0]
        grams = self._sampled(ngrams(words, OVERLAP_WORDS))
        places = np.searchsorted(self._grams, grams)
        places[places == len(self._grams)] = 0
        return np.unique(grams[self._grams[places] == grams])

    @property
    def share(self) -> float:
        """Share of all distinct test 13-grams that occur in training texts."""
        return float(self._hit.mean()) if len(self._hit) else 0.0

    def share_of(self, document: str) -> float:
        """The same for one test text."""
        grams = self._owners.get(document)
        if grams is None or not len(grams):
            return 0.0
        return float(self._hit[np.searchsorted(self._grams, grams)].mean())

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        ranked = ((d, self.share_of(d)) for d in self._owners)
        return sorted((r for r in ranked if r[1] > 0), key=lambda r: (-r[1], r[0]))[:count]


def containment(needle: NDArray[np.uint64], haystack: Iterable[int] | NDArray[np.uint64]) -> float:
    """Share of the needle's 13-grams that stand in the haystack's words."""
    if len(needle) < OVERLAP_WORDS:
        return 0.0
    grams = np.unique(ngrams(needle, OVERLAP_WORDS))
    other = np.unique(ngrams(np.asarray(haystack, dtype=np.uint64), OVERLAP_WORDS))
    return float(np.isin(grams, other, assume_unique=True).mean())
