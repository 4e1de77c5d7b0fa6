"""What is evaluated? Held-out documents and test items, as `prepare` left them.

The corpus is streamed: only the documents that are evaluated are kept in memory.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.words import Sentence, say
from hauslm.data.ngrams import Overlap, word_hashes
from hauslm.data.task import Task, TaskItem
from hauslm.evaluate.sampling import rank, whole_documents

LEAK_SHARE = 0.2  # of a document's 13-grams; formulas and set phrases alone stay far below
SCAN_CHARACTERS = 2_000_000_000  # training text searched for wording of test documents


@dataclass(frozen=True)
class Text:
    """One document of the prepared corpus."""

    id: str
    title: str
    language: str
    text: str


@dataclass
class Texts:
    """The held-out documents used, how many there are, and which share wording with training text."""

    test: list[Text]
    available: int
    shared: dict[str, float] = field(default_factory=dict)  # document -> share of its 13-grams
    notices: list[Sentence] = field(default_factory=list)


def stream(path: Path, split: str) -> Iterator[Text]:
    """The documents of one split, one at a time; H330 for a damaged file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError as error:
                raise DataError(
                    "H330",
                    say(
                        "The prepared examples are missing or damaged ({reason}).",
                        reason=f"{path.name}:{number}",
                    ),
                    where=str(path),
                    next_step=say("hauslm prepare makes them again."),
                ) from error
            if row.get("split") == split and str(row.get("text", "")).strip():
                yield Text(
                    str(row["id"]), str(row.get("title") or row["id"]),
                    str(row.get("language", "")), str(row["text"]),
                )  # fmt: skip


def held_out(path: Path, most: int) -> Texts:
    """Test documents, at most `most`, chosen by the hash of their name and in the order of their id."""
    kept: list[tuple[int, str, Text]] = []
    available = 0
    for text in stream(path, "test"):
        available += 1
        entry = (-int(rank(text.id)[:15], 16), text.id, text)
        if len(kept) < most:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)
    texts = Texts(sorted((t for _, _, t in kept), key=lambda t: t.id), available)
    if available > len(texts.test):
        texts.notices.append(
            say(
                "Bits per byte are measured on {used:,} of {all:,} held-out documents "
                "(evaluation.max_documents).",
                used=len(texts.test),
                all=available,
            )
        )
    return texts


def find_leaks(path: Path, texts: Texts) -> None:
    """Fill `texts.shared`: test documents whose wording also stands in training documents."""
    overlap = Overlap()
    for text in texts.test:
        overlap.add_test(text.id, word_hashes(text.text))
    overlap.seal()
    scanned = 0
    for text in stream(path, "train"):
        scanned += len(text.text)
        if scanned > SCAN_CHARACTERS:
            texts.notices.append(
                say(
                    "Only the first {gigabytes:.0f} GB of the training text were searched for "
                    "wording of the test documents.",
                    gigabytes=SCAN_CHARACTERS / 1e9,
                )
            )
            break
        overlap.add_train(text.id, word_hashes(text.text))
    texts.shared = {
        t.id: share for t in texts.test if (share := overlap.share_of(t.id)) >= LEAK_SHARE
    }


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
                raise DataError(
                    "H330",
                    say(
                        "The prepared examples are missing or damaged ({reason}).",
                        reason=f"{path.name}:{number}",
                    ),
                    where=str(path),
                    next_step=say("hauslm prepare makes them again."),
                ) from error
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
