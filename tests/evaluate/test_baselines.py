"""Are the baselines the ones that were measured beforehand, on the same items?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hauslm.data.task import Task, TaskItem
from hauslm.evaluate import scorers
from hauslm.evaluate.baselines import DICTIONARY, MAJORITY, TFIDF, TFIDF_POSITION, baselines


def sentences(path: Path) -> list[TaskItem]:
    items = []
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        last = max(1, len(row["sentences"]) - 1)
        items += [
            TaskItem(f"{row['id']}-{i}", row["id"], s, label, i / last)
            for i, (s, label) in enumerate(zip(row["sentences"], row["labels"], strict=True))
        ]
    return items


def test_real_abstracts_give_the_measured_baselines(shared_data: Path) -> None:
    """Figures of notes/evaluation-and-serving.md, other settings: within a few points."""
    folder = shared_data / "task_roles_structured_abstracts"
    train, test = sentences(folder / "train.jsonl"), sentences(folder / "test.jsonl")
    scorer = scorers.classification(())["accuracy"]
    found = {
        b.name: scorer.value([scorer.row(i.label, a) for i, a in zip(test, b.answers, strict=True)])
        for b in baselines(Task(), train, test)
    }
    assert found[MAJORITY] == pytest.approx(0.445, abs=0.001)
    assert found[TFIDF] == pytest.approx(0.723, abs=0.03)
    assert found[TFIDF_POSITION] == pytest.approx(0.861, abs=0.03)


def test_entities_of_the_training_items_are_found_again() -> None:
    task = Task(kind="extraction", labels=("SPECIES",))
    train = [TaskItem("1", "a", "mice", [{"text": "mice", "type": "SPECIES"}])]
    test = [
        TaskItem("2", "b", "Ten mice and a dormice colony.", []),
        TaskItem("3", "b", "None.", []),
    ]
    found = {b.name: b.answers for b in baselines(task, train, test)}
    assert json.loads(found[DICTIONARY][0]) == [{"text": "mice", "type": "SPECIES"}]
    assert found[DICTIONARY][1] == "[]"


def test_no_training_items_no_baselines() -> None:
    assert baselines(Task(), [], [TaskItem("1", "a", "x", "y")]) == []


def test_one_label_or_no_words_leaves_the_majority() -> None:
    one = [TaskItem("1", "a", "some words", "x"), TaskItem("2", "a", "more words", "x")]
    assert [b.name for b in baselines(Task(), one, one)] == [MAJORITY]
    numbers = [TaskItem("1", "a", "1", "x"), TaskItem("2", "a", "2", "y")]
    assert [b.name for b in baselines(Task(), numbers, numbers)] == [MAJORITY]
