"""Steps three and four of preparing: which split each document and task item belongs to, and what leaks.

Documents and task documents are grouped together, so that a document has one split everywhere. Near
duplicates (MinHash) and documents that contain a task text (half of its 13-word runs) count as one work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hauslm.data.build import signatures_of, words_of_shard
from hauslm.data.facts import Facts, identities
from hauslm.data.ngrams import Overlap, near_duplicates, word_hashes
from hauslm.data.split import TEST, TRAIN, Assignment, Member, assign
from hauslm.data.task import TaskItem
from hauslm.data.workers import Team
from hauslm.scenario import DocumentsSection

LEAK = 0.5  # share of a task text's 13-word runs in one document: then it is the same work
_MINIMUM_WORDS = 20  # shorter texts have too few shingles to be compared


@dataclass(frozen=True)
class Corpus:
    """The facts of all documents, by shard, and where their word hashes lie."""

    folder: Path
    shards: Sequence[Sequence[Facts]]

    def all(self) -> list[Facts]:
        return [one for shard in self.shards for one in shard]


def task_id(document: str) -> str:
    """The member id of a task document (never that of a corpus document)."""
    return f"task\0{document}"


def place(
    corpus: Corpus,
    items: Sequence[TaskItem],
    section: DocumentsSection,
    team: Team | None = None,
) -> tuple[Assignment, list[tuple[str, str]]]:
    """Every document and task document in its split; and the near-duplicate pairs."""
    near = _near(corpus, team or Team())
    members = [
        Member(one.id, one.doi, one.title, one.sha256, one.identities) for one in corpus.all()
    ]
    assignment = assign(
        [*members, *_task_members(items)],
        [*near, *_contained(corpus, items)],
        salt=section.split_salt,
        validation_share=section.validation_share,
        test_share=section.test_share,
    )
    return assignment, near


def _near(corpus: Corpus, team: Team) -> list[tuple[str, str]]:
    """Pairs of documents with nearly the same wording; texts of a few words are not compared.

    They are looked for in a process that has the library for it in memory already.
    """
    facts = corpus.all()
    rows = np.array(
        [n for n, one in enumerate(facts) if one.words >= _MINIMUM_WORDS], dtype=np.int64
    )
    pairs = team.call(near_rows, corpus.folder, len(corpus.shards), rows)
    return [(facts[rows[i]].id, facts[rows[j]].id) for i, j in pairs]


def near_rows(folder: Path, shards: int, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Which of the chosen documents (numbers among all) are nearly the same, as places in `rows`."""
    signatures = signatures_of(folder, shards)
    chosen = signatures if len(rows) == len(signatures) else signatures[rows]
    return [(i, j) for i, j, _ in near_duplicates(chosen)]


def _task_members(items: Sequence[TaskItem]) -> list[Member]:
    """One member per task document, with the split that its file prescribes."""
    members: dict[str, Member] = {}
    for item in items:
        known = members.get(item.document)
        if known is None:
            members[item.document] = Member(
                id=task_id(item.document),
                doi=str(item.extra.get("doi", "")) or item.document,
                title=str(item.extra.get("title", "")),
                identities=identities(item.document),
                forced=item.split,
                in_corpus=False,
            )
        elif item.split == TEST and known.forced != TEST:
            members[item.document] = replace(known, forced=TEST)
    return list(members.values())


def task_texts(items: Sequence[TaskItem]) -> dict[str, str]:
    """The text of each task document, put together from its items."""
    texts: dict[str, list[str]] = {}
    for item in items:
        texts.setdefault(item.document, []).append(item.text)
    return {document: " ".join(parts) for document, parts in texts.items()}


def _contained(corpus: Corpus, items: Sequence[TaskItem]) -> list[tuple[str, str]]:
    """Documents that contain the text of a task document: the same work under another name."""
    if not items:
        return []
    probe = Overlap()
    texts = task_texts(items)
    for document, text in texts.items():
        probe.add_test(document, word_hashes(text))
    probe.seal()
    owners: dict[int, list[str]] = {}
    sizes = {}
    for document in texts:
        grams = probe.grams_of(document)
        sizes[document] = len(grams)
        for gram in grams.tolist():
            owners.setdefault(gram, []).append(document)
    pairs: list[tuple[str, str]] = []

    def look(name: str, words: NDArray[np.uint64]) -> None:
        hits: Counter[str] = Counter()
        for gram in probe.shared_with(words).tolist():
            hits.update(owners[gram])
        pairs.extend((name, task_id(d)) for d, n in hits.items() if n >= LEAK * sizes[d])

    for number, shard in enumerate(corpus.shards):
        for one, words in words_of_shard(corpus.folder, number, shard):
            look(one.id, words)
    for document, text in texts.items():  # the same text under two names in the task itself
        look(task_id(document), word_hashes(text))
    return pairs


def place_items(items: Sequence[TaskItem], assignment: Assignment) -> tuple[list[TaskItem], int]:
    """Items with their split and work, and how many training items were left out because a test file (or a test
    document) holds the same document."""
    placed, dropped = [], 0
    for item in items:
        member = task_id(item.document)
        split = assignment.split_of[member]
        if item.split == TRAIN and split == TEST:
            dropped += 1
        else:
            placed.append(replace(item, split=split, work=assignment.work_of.get(member, "")))
    return placed, dropped


def measure_overlap(corpus: Corpus, items: Sequence[TaskItem], assignment: Assignment) -> Overlap:
    """What the test part (documents and items) shares with the training part, in 13-word runs."""
    overlap = Overlap()
    texts = task_texts(items)
    split_of_text = {item.document: item.split for item in items}
    for number, shard in enumerate(corpus.shards):
        for one, words in words_of_shard(corpus.folder, number, shard):
            if assignment.split_of[one.id] == TEST:
                overlap.add_test(one.id, words)
    for document, text in texts.items():
        if split_of_text[document] == TEST:
            overlap.add_test(task_id(document), word_hashes(text))
    overlap.seal()
    for number, shard in enumerate(corpus.shards):
        for one, words in words_of_shard(corpus.folder, number, shard):
            if assignment.split_of[one.id] == TRAIN:
                overlap.add_train(one.id, words)
    for document, text in texts.items():
        if split_of_text[document] == TRAIN:
            overlap.add_train(task_id(document), word_hashes(text))
    overlap.shares()  # remembered: here other processes are tokenizing, later they would wait
    return overlap
