"""Do two texts share wording? Hashed word n-grams, MinHash signatures, exact 13-gram overlap.

Words are letters and digits, case-folded; an n-gram is one 64-bit number. MinHash and its index come
from datasketch; here are only the numbers that go in. They are imported where they are used, as they bring
scipy along, which takes half a second. 13 words is the length that GPT-3's authors used
to find test text in training text (Brown et al., arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hauslm.data.characters import code_points, table

OVERLAP_WORDS = 13
SHINGLE_WORDS = 5
PERMUTATIONS = 128
SCHEME: Literal["affine32"] = "affine32"  # datasketch 2: 32-bit hashes, 4 bytes per permutation
MOST_ALIKE = 20  # of rows that agree in a band: each is compared with the first so many
NEAR_DUPLICATE = 0.8  # Jaccard similarity of the 5-word shingles
KEEP_ONE_IN = 8  # shingles of long texts are sampled by their own value, alike in every text
MOST_GRAMS = (
    4_000_000  # of the test part; the share of a sample so large is exact to a tenth of a percent
)
SAMPLE_ABOVE = 2000  # shingles; a sample of a shorter text would be too small to compare

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX, _MIX_AGAIN = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
WORDS_BLOCK = 1 << 18  # characters whose words are hashed at once: the tables stay in the cache


def word_hashes(text: str) -> NDArray[np.uint64]:
    """One number of 32 bits per word, in order; the same in every process."""
    return folded_word_hashes(text.casefold())


def folded_word_hashes(folded: str) -> NDArray[np.uint64]:
    """`word_hashes` of a text that is case-folded already.

    A polynomial over the code points, taken for all words at once: with running sums S of the powers,
    the word from a to b is (S[b] - S[a]) / factor^a, modulo 2^64, and mixed afterwards.
    """
    points = code_points(folded)
    inside = table(r"\w").take(points)
    found = [
        _hashes(points[start:end], inside[start:end]) for start, end in _blocks(inside, WORDS_BLOCK)
    ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)


def _blocks(inside: NDArray[np.uint8], size: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most `size` characters that end between words (a longer word is cut)."""
    start = 0
    while start < len(inside):
        end = min(len(inside), start + size)
        if end < len(inside):
            gaps = np.flatnonzero(inside[start:end] == 0)
            end = start + int(gaps[-1]) + 1 if len(gaps) else end
        yield start, end
        start = end


def _hashes(points: NDArray[np.uint32], inside: NDArray[np.uint8]) -> NDArray[np.uint64]:
    powers, inverses = _powers()
    bounds = np.zeros(len(inside) + 2, dtype=np.uint8)
    bounds[1:-1] = inside
    edges = np.flatnonzero(bounds[1:] != bounds[:-1])
    starts, ends = edges[::2], edges[1::2]
    sums = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum((points + np.uint64(1)) * powers[: len(points)], out=sums[1:])
    values = (sums[ends] - sums[starts]) * inverses[starts]
    return _mixed(values) >> np.uint64(32)


@lru_cache(maxsize=1)
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """factor^n and factor^-n modulo 2^64 for every place in a block."""
    inverse = np.uint64(pow(int(_FACTOR), -1, 1 << 64))
    both = []
    for factor in (_FACTOR, inverse):
        row = np.full(WORDS_BLOCK, factor, dtype=np.uint64)
        row[0] = 1
        both.append(np.multiply.accumulate(row))
    return both[0], both[1]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of the value (the finaliser of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values *= _MIX
    values ^= values >> np.uint64(33)
    values *= _MIX_AGAIN
    values ^= values >> np.uint64(33)
    return values


def distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted and each once; for numbers spread at random, sorting is faster than numpy's hash table."""
    values = np.sort(values)
    return values[np.concatenate(([True], values[1:] != values[:-1]))] if len(values) else values


def ngrams(words: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Hash of every run of `n` words, in order; one hash of all words if there are fewer.

    A polynomial over the words, for all runs at once from running sums, as in `_hashes`.
    """
    if len(words) == 0:
        return words
    n = min(n, len(words))
    powers, inverses = _powers()
    step = max(1, WORDS_BLOCK - n + 1)
    found = []
    for start in range(0, len(words) - n + 1, step):
        part = words[start : start + step + n - 1]
        sums = np.zeros(len(part) + 1, dtype=np.uint64)
        np.cumsum((part + np.uint64(1)) * inverses[: len(part)], out=sums[1:])
        found.append((sums[n:] - sums[:-n]) * powers[n - 1 : len(part)])
    return _mixed(np.concatenate(found))


def signature_values(words: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """MinHash values of the 5-word shingles.

    Long texts are sampled by the value of each shingle, which keeps the same shingles in every text,
    so that the estimate of their similarity stays unbiased.
    """
    from datasketch import MinHash

    shingles = ngrams(words, SHINGLE_WORDS)
    if len(shingles) > SAMPLE_ABOVE:
        shingles = shingles[shingles % np.uint64(KEEP_ONE_IN) == 0]
    minhash = MinHash(
        num_perm=PERMUTATIONS, seed=1, scheme=SCHEME, hashfunc=int, permutations=_permutations()
    )
    minhash.update_batch(distinct(shingles >> np.uint64(32)).tolist())
    return np.asarray(minhash.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=1)
def _permutations() -> Any:
    """The same for every text: drawing them costs more than using them."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, scheme=SCHEME, hashfunc=int).permutations


def near_duplicates(
    signatures: NDArray[np.uint32], threshold: float = NEAR_DUPLICATE
) -> list[tuple[int, int, float]]:
    """Pairs of rows (earlier, later) whose estimated similarity reaches the threshold, and the estimate.

    Locality-sensitive hashing as datasketch does it (its bands and rows): rows that agree in a whole
    band are compared. One band is looked at at a time, by sorting, so that beside the signatures
    (which may be mapped from a file) memory is about 40 bytes per row. Of more than `MOST_ALIKE` rows
    that agree in a band each is compared with the first so many: enough to find which belong together.
    """
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    bands = ((n * index.r, (n + 1) * index.r) for n in range(index.b))
    pairs = np.empty((0, 2), dtype=np.int64)
    for start, end in bands:
        new = _agreeing(np.ascontiguousarray(signatures[:, start:end]))
        pairs = np.unique(np.concatenate([pairs, new]), axis=0) if len(new) else pairs
    found = []
    for block in np.array_split(pairs, len(pairs) // 4096 + 1):
        equal = signatures[block[:, 0]] == signatures[block[:, 1]]
        for (left, right), estimate in zip(
            block.tolist(), equal.mean(axis=1).tolist(), strict=True
        ):
            if estimate >= threshold:
                found.append((left, right, estimate))
    return sorted(found, key=lambda one: (one[1], -one[2], one[0]))


def _agreeing(band: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Pairs of rows (earlier, later) that are equal in all columns of the band."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = _mixed(keys * _FACTOR + column + np.uint64(1))
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    edges = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    pairs = []
    for group in np.flatnonzero(np.diff(edges) > 1).tolist():
        rows = order[edges[group] : edges[group + 1]]
        for place in range(min(len(rows) - 1, MOST_ALIKE)):
            later = rows[place + 1 :]
            pairs.append(np.stack([np.full(len(later), rows[place]), later], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)


class Overlap:
    """Which share of the test texts' 13-grams also stands in training texts?

    First `add_test` for all test texts, then `seal`, then `add_train` for all training texts, then read
    the figures. Above `most` distinct 13-grams a sample is kept, chosen by the value of the hash, so the
    share stays unbiased and memory stays below about 40 bytes times `most`, 160 MB.
    """

    def __init__(self, most: int = MOST_GRAMS) -> None:
        self._most = most
        self._one_in = np.uint64(1)
        self._owners: dict[str, NDArray[np.uint64]] = {}
        self._held = 0
        self._grams: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._hit: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self._shares: dict[str, float] | None = None  # by test text; None after a change
        self.sources: dict[str, int] = {}  # training document -> test 13-grams in it

    def add_test(self, document: str, words: NDArray[np.uint64]) -> None:
        if len(words) < OVERLAP_WORDS:
            return
        grams = distinct(self._sampled(ngrams(words, OVERLAP_WORDS)))
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
            self._grams = distinct(np.concatenate(list(self._owners.values())))
        self._hit = np.zeros(len(self._grams), dtype=np.bool_)
        bits = min(26, max(10, len(self._grams).bit_length() + 3))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, dtype=np.bool_)
        self._maybe[self._grams >> self._shift] = True

    def add_train(self, document: str, words: NDArray[np.uint64]) -> int:
        """Mark what this training text shares with the test texts; returns how many 13-grams."""
        places = self._places_of(words)
        if len(places):
            self._shares = None
            self._hit[places] = True
            self.sources[document] = len(places)
        return len(places)

    def grams_of(self, document: str) -> NDArray[np.uint64]:
        """The 13-grams of one test text (empty for a text of fewer than 13 words)."""
        return self._owners.get(document, np.empty(0, dtype=np.uint64))

    def shared_with(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The test 13-grams that stand in these words, each once; marks nothing."""
        return self._grams[self._places_of(words)]

    def _places_of(self, words: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Where the 13-grams of these words stand among those of the test part, ascending, each once."""
        if len(words) < OVERLAP_WORDS or not len(self._grams):
            return np.empty(0, dtype=np.intp)
        grams = self._sampled(ngrams(words, OVERLAP_WORDS))
        # Most are ruled out by their first bits; the others in order are found several times faster.
        grams = distinct(grams[self._maybe[grams >> self._shift]])
        places = np.searchsorted(self._grams, grams)
        places[places == len(self._grams)] = 0
        found: NDArray[np.intp] = places[self._grams[places] == grams]
        return found

    @property
    def share(self) -> float:
        """Share of all distinct test 13-grams that occur in training texts."""
        return float(self._hit.mean()) if len(self._hit) else 0.0

    def shares(self) -> dict[str, float]:
        """The same for each test text of 13 words or more. They are remembered."""
        if self._shares is None:
            # Looked for among the few that were hit: among all it takes several times as long.
            hit = self._grams[self._hit]
            self._shares = {d: _share_in(g, hit) for d, g in self._owners.items()}
        return self._shares

    def share_of(self, document: str) -> float:
        """The same for one test text; 0 if it is shorter."""
        return self.shares().get(document, 0.0)

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        ranked = sorted((r for r in self.shares().items() if r[1] > 0), key=lambda r: (-r[1], r[0]))
        return ranked[:count]


def _share_in(grams: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> float:
    if not len(grams) or not len(ascending):
        return 0.0
    places = np.minimum(np.searchsorted(ascending, grams), len(ascending) - 1)
    return float((ascending[places] == grams).mean())


def containment(needle: NDArray[np.uint64], haystack: Iterable[int] | NDArray[np.uint64]) -> float:
    """Share of the needle's 13-grams that stand in the haystack's words."""
    if len(needle) < OVERLAP_WORDS:
        return 0.0
    grams = np.unique(ngrams(needle, OVERLAP_WORDS))
    other = np.unique(ngrams(np.asarray(haystack, dtype=np.uint64), OVERLAP_WORDS))
    return float(np.isin(grams, other, assume_unique=True).mean())
