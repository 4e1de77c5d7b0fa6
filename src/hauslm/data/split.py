"""Which works are trained on, which are kept back? By work, before any cutting, by a salted hash.

A work is everything that is the same text to a reader: documents with one DOI, one title, one identity,
or nearly one wording. A work's place is a pure function of the salt and of the work's own key, so it does
not move when other works come or go. What can move a work is only a change of the work itself (a DOI
becomes known, two works turn out to be one).

Guarantee: with three or more works none of the wanted splits is empty. If the hash leaves one empty, the
work whose hash comes next is lent to it; it goes back as soon as the corpus has a work that belongs
there by itself. At most two works are ever lent, and `Assignment.lent` names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hauslm.data.document import normal_doi, normal_title

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
_TITLE_WORDS = 4  # shorter titles ("Introduction", "Notes 3") do not identify a work
_TITLE_HOLDERS = 3  # documents of different DOI under one title: beyond that the title is generic
_ID_CHARACTERS = 5  # shorter identities ("1", "12") are row numbers


@dataclass(frozen=True, slots=True)
class Member:
    """One document as the split sees it.

    `forced` is what a file of its own prescribes: "test", or "train" (train or validation, not test).
    """

    id: str
    doi: str = ""
    title: str = ""
    sha256: str = ""
    identities: tuple[str, ...] = ()
    forced: str = ""
    in_corpus: bool = True


@dataclass
class Assignment:
    split_of: dict[str, str] = field(default_factory=dict)  # member id -> split
    work_of: dict[str, str] = field(default_factory=dict)  # member id -> key of its work
    works: dict[str, list[str]] = field(default_factory=dict)  # key -> member ids
    lent: dict[str, str] = field(default_factory=dict)  # work key -> split it was lent to
    forced: dict[str, str] = field(default_factory=dict)  # work key -> split a file prescribed
    clashes: list[str] = field(default_factory=list)  # works that files put into two splits


def position(key: str, salt: str) -> float:
    """Where a work stands between 0 and 1: the first 64 bits of SHA-256 over salt and key."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def home(key: str, salt: str, validation_share: float, test_share: float) -> str:
    """The split that the hash alone gives: test first, then validation, then train."""
    place = position(key, salt)
    if place < test_share:
        return TEST
    return VALIDATION if place < test_share + validation_share else TRAIN


def assign(
    members: Iterable[Member],
    similar: Iterable[tuple[str, str]],
    *,
    salt: str,
    validation_share: float,
    test_share: float,
) -> Assignment:
    """Group the members into works and place every work.

    `similar` are pairs of member ids with nearly the same wording. Members that are not part of the
    corpus (documents of a labelled task) take part in grouping, so that a document has one split
    everywhere; the guarantee is given to corpus and task separately.
    """
    listed = list(members)
    works = _group(listed, similar)
    result = Assignment(works={key: [m.id for m in group] for key, group in works.items()})
    split_of_work: dict[str, str] = {}
    for key, group in works.items():
        forced = {m.forced for m in group if m.forced}
        split_of_work[key] = home(key, salt, validation_share, test_share)
        if not forced:
            continue
        if len(forced) > 1:
            result.clashes.append(key)
        if TEST in forced:  # what any file keeps back stays back: it is never trained on
            split_of_work[key] = TEST
        elif split_of_work[key] == TEST:  # a training file also gives the validation part
            split_of_work[key] = TRAIN
        result.forced[key] = split_of_work[key]
    wanted = [TRAIN] + [VALIDATION] * (validation_share > 0) + [TEST] * (test_share > 0)
    corpus = [k for k, group in works.items() if any(m.in_corpus for m in group)]
    task = [k for k, group in works.items() if any(not m.in_corpus for m in group)]
    for keys in (corpus, task):
        _lend(keys, split_of_work, wanted, result, salt)
    for key, group in works.items():
        for member in group:
            result.split_of[member.id] = split_of_work[key]
            result.work_of[member.id] = key
    return result


def _lend(
    keys: list[str], split_of: dict[str, str], wanted: list[str], result: Assignment, salt: str
) -> None:
    """Fill empty splits from the next work by hash, without emptying another."""
    free = [k for k in keys if k not in result.forced]
    if len(keys) < len(wanted) or not free:
        return
    by_place = sorted(free, key=lambda k: (position(k, salt), k))
    for split in (TEST, VALIDATION, TRAIN):
        counts = {s: sum(split_of[k] == s for k in keys) for s in SPLITS}
        if split not in wanted or counts[split]:
            continue
        order = reversed(by_place) if split == TRAIN else iter(by_place)
        donor = next((k for k in order if counts[split_of[k]] > 1 and k not in result.lent), None)
        if donor is not None:
            split_of[donor] = split
            result.lent[donor] = split


def _group(members: list[Member], similar: Iterable[tuple[str, str]]) -> dict[str, list[Member]]:
    """Works by union-find over shared keys; named by their most stable key, in sorted order."""
    parent: dict[str, str] = {m.id: m.id for m in members}

    def root(node: str) -> str:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    holder: dict[str, str] = {}
    generic = _generic_titles(members)
    for member in members:
        for key in keys_of(member):
            if key in generic:
                continue
            if key in holder:
                parent[root(member.id)] = root(holder[key])
            else:
                holder[key] = member.id
    for left, right in similar:
        if left in parent and right in parent:
            parent[root(left)] = root(right)
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(root(member.id), []).append(member)
    named = {work_key(group, generic): group for group in groups.values()}
    return dict(sorted(named.items()))


def _generic_titles(members: list[Member]) -> frozenset[str]:
    """Title keys that many different documents share ("Editorial", a journal's name taken for a title)."""
    holders: dict[str, set[str]] = {}
    for member in members:
        for key in keys_of(member):
            if key.startswith("title:"):
                holders.setdefault(key, set()).add(
                    normal_doi(member.doi) or member.sha256 or member.id
                )
    return frozenset(key for key, found in holders.items() if len(found) > _TITLE_HOLDERS)


def keys_of(member: Member) -> list[str]:
    """Everything that makes two members one work."""
    keys = []
    doi = normal_doi(member.doi)
    if doi:
        keys.append(f"doi:{doi}")
    title = normal_title(member.title)
    if len(title.split()) >= _TITLE_WORDS:
        keys.append(f"title:{title}")
    keys += [f"id:{i}" for i in member.identities if len(i) >= _ID_CHARACTERS]
    if member.sha256:
        keys.append(f"text:{member.sha256}")
    return keys


def work_key(group: Iterable[Member], generic: frozenset[str] = frozenset()) -> str:
    """The name of a work: its smallest DOI, else title, else identity, else text hash, else id."""
    keys = [
        k for member in group for k in (*keys_of(member), f"zz:{member.id}") if k not in generic
    ]
    rank = {"doi": 0, "title": 1, "id": 2, "text": 3, "zz": 4}
    return min(keys, key=lambda k: (rank[k.split(":", 1)[0]], k))


def counts(split_of: Mapping[str, str], ids: Iterable[str]) -> dict[str, int]:
    """How many of the ids each split holds."""
    found = dict.fromkeys(SPLITS, 0)
    for id_ in ids:
        found[split_of[id_]] += 1
    return found
