"""What is evaluated? Held-out documents and test items, as `prepare` left them.

The corpus is streamed: only the documents that are evaluated are kept in memory.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.words import Sentence, say
from hauslm.data.ngrams import Overlap, word_hashes
from hauslm.data.task import Task, TaskItem
from hauslm.evaluate.sampling import rank, whole_documents

LEAK_SHARE = 0.2  # of a document's 13-grams; formulas and set phrases alone stay far below
MOST_TRAINING_DOCUMENTS, MOST_TRAINING_CHARACTERS = 1000, 100_000_000
SCAN_CHARACTERS = 2_000_000_000  # training text searched for wording of test documents


@dataclass(frozen=True)
class Text:
    """One document of the prepared corpus.

    `work` is shared by versions of one work (an article as PDF and as XML); "" outside a corpus.
    """

    id: str
    title: str
    language: str
    text: str
    work: str = ""

    @property
    def unit(self) -> str:
        """What counts once in the statistics: the work, where it is known."""
        return self.work or self.id


@dataclass
class Texts:
    """The held-out documents used, how many there are, and which share wording with training text."""

    test: list[Text]
    available: int
    tested: int = 0  # documents searched for wording of training documents
    shared: dict[str, float] = field(default_factory=dict)  # document -> share of its 13-grams
    notices: list[Sentence] = field(default_factory=list)


def _damaged(path: Path, line: int) -> DataError:
    return DataError(
        "H664",
        say(
            "The prepared examples are missing or damaged ({reason}).",
            reason=f"{path.name}:{line}",
        ),
        where=str(path),
        next_step=say("hauslm prepare makes them again."),
    )


def stream(path: Path, split: str) -> Iterator[Text]:
    """The documents of one split, one at a time; H664 for a damaged file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError as error:
                raise _damaged(path, number) from error
            if row.get("split") == split and str(row.get("text", "")).strip():
                yield Text(
                    str(row["id"]), str(row.get("title") or row["id"]),
                    str(row.get("language", "")), str(row["text"]), str(row.get("work", "")),
                )  # fmt: skip


def _by_hash(
    path: Path, split: str, most: int, most_characters: float = math.inf
) -> tuple[list[Text], int]:
    """At most `most` documents of a split, those with the smallest hash; and how many there are."""
    kept: list[tuple[int, str, Text]] = []  # a heap: the largest hash is the first to go
    available = characters = 0
    for text in stream(path, split):
        available += 1
        heapq.heappush(kept, (-int(rank(text.id)[:15], 16), text.id, text))
        characters += len(text.text)
        while len(kept) > most or (characters > most_characters and len(kept) > 1):
            characters -= len(heapq.heappop(kept)[2].text)
    return sorted((t for _, _, t in kept), key=lambda t: t.id), available


def held_out(path: Path, most: int) -> Texts:
    """Test documents, at most `most`, chosen by the hash of their name and in the order of their id."""
    texts = Texts(*_by_hash(path, "test", most))
    works = {t.unit for t in texts.test}
    if len(works) < len(texts.test):
        texts.notices.append(
            say(
                "Among the {documents:,} held-out documents are versions of the same work; in the "
                "statistics they count as {works:,} works.",
                documents=len(texts.test),
                works=len(works),
            )
        )
    if texts.available > len(texts.test):
        texts.notices.append(
            say(
                "Bits per byte are measured on {used:,} of {all:,} held-out documents "
                "(evaluation.max_documents).",
                used=len(texts.test),
                all=texts.available,
            )
        )
    return texts


def units(texts: Texts, trial: Trial | None, documents: Iterable[str]) -> frozenset[str]:
    """The names of documents with those of their works, by which the statistics know them."""
    names = frozenset(documents)
    of_items = {i.unit for i in (trial.test if trial else ()) if i.document in names}
    return names | of_items | {t.unit for t in texts.test if t.id in names}


def sampled_train(path: Path) -> list[Text]:
    """Training documents for what needs their text in memory (spans, repetitions, terms); of a large
    corpus those with the smallest hash."""
    return _by_hash(path, "train", MOST_TRAINING_DOCUMENTS, MOST_TRAINING_CHARACTERS)[0]


def find_leaks(path: Path, texts: Texts, trial: Trial | None) -> None:
    """Fill `texts.shared`: test documents (of the corpus, of the task) whose wording also stands in
    training documents or training items."""
    overlap = Overlap()
    tested = {t.id: t.text for t in texts.test}
    for name, text in _joined_items(trial.test if trial else ()).items():
        tested.setdefault(name, text)
    for name, text in tested.items():
        overlap.add_test(name, word_hashes(text))
    overlap.seal()
    scanned = 0
    for document in stream(path, "train"):
        scanned += len(document.text)
        if scanned > SCAN_CHARACTERS:
            texts.notices.append(
                say(
                    "Only the first {gigabytes:.0f} GB of the training text were searched for "
                    "wording of the test documents.",
                    gigabytes=SCAN_CHARACTERS / 1e9,
                )
            )
            break
        overlap.add_train(document.id, word_hashes(document.text))
    for name, text in _joined_items(trial.train if trial else ()).items():
        overlap.add_train(name, word_hashes(text))
    texts.tested = len(tested)
    shares = {name: overlap.share_of(name) for name in tested}
    texts.shared = {name: share for name, share in shares.items() if share >= LEAK_SHARE}


def _joined_items(items: Sequence[TaskItem]) -> dict[str, str]:
    """The text of all items of a document, in their order."""
    joined: dict[str, list[str]] = {}
    for item in items:
        joined.setdefault(item.document, []).append(item.text)
    return {name: " ".join(parts) for name, parts in joined.items()}


def load_items(path: Path) -> dict[str, list[TaskItem]]:
    """The task's items by split; {} if there is no task."""
    if not path.is_file():
        return {}
    items: dict[str, list[TaskItem]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                item = TaskItem.from_json(json.loads(line))
            except (ValueError, TypeError) as error:
                raise _damaged(path, number) from error
            items.setdefault(item.split, []).append(item)
    return items


@dataclass
class Trial:
    """A task ready to be asked: its test items, and the training items for the baselines."""

    task: Task
    test: list[TaskItem]
    train: list[TaskItem]
    available: int
    notices: list[Sentence] = field(default_factory=list)


def trial(task: Task, items: dict[str, list[TaskItem]], most: int) -> Trial | None:
    """The trial, its test items sampled by whole documents; None if there are none to test."""
    test: Sequence[TaskItem] = items.get("test", [])
    if not test:
        return None
    used = whole_documents(test, lambda i: i.document, most)
    made = Trial(task, used, items.get("train", []), len(test))
    if len(used) < len(test):
        made.notices.append(
            say(
                "{used:,} of {all:,} test items are used, in whole documents "
                "(evaluation.max_items).",
                used=len(used),
                all=len(test),
            )
        )
    return made
