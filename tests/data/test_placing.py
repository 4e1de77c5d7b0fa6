"""Leaks between files of a task are found, in made and in published data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hauslm.data.placing import Corpus, place, place_items, task_id
from hauslm.data.split import TEST
from hauslm.data.task import TaskItem
from hauslm.data.task_files import load_task
from hauslm.scenario import DocumentsSection, TaskSection


def test_one_text_in_both_files_is_test(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    items = [
        TaskItem("a", "first-name", text, "x", split="train"),
        TaskItem("b", "second-name", "Prefix. " + text, "x", split="test"),
        TaskItem("c", "other", " ".join(f"else{i}" for i in range(60)), "x", split="train"),
    ]
    assignment, near = place(Corpus(tmp_path, []), items, DocumentsSection())
    placed, dropped = place_items(items, assignment)
    assert not near and dropped == 1 and assignment.split_of[task_id("first-name")] == TEST
    assert [i.id for i in placed] == ["b", "c"]


def test_versions_of_one_work_are_one_unit(tmp_path: Path) -> None:
    """Items of a preprint and of its article: two documents, one work, which counts once."""
    words = [" ".join(f"{part}{i}" for i in range(60)) for part in ("one", "two", "three")]
    items = [
        TaskItem("a", "preprint", words[0], "x", split="test", extra={"doi": "10.1000/a"}),
        TaskItem("b", "article", words[1], "x", split="test", extra={"doi": "10.1000/A"}),
        TaskItem("c", "other", words[2], "x", split="test", extra={"doi": "10.1000/c"}),
    ]
    assignment, _ = place(Corpus(tmp_path, []), items, DocumentsSection())
    placed, _ = place_items(items, assignment)
    assert placed[0].unit == placed[1].unit != placed[2].unit
    assert items[0].unit == "preprint"  # before placing nothing but the name is known
    assert TaskItem.from_json(placed[0].to_json()) == placed[0]


def test_a_published_task_has_test_texts_in_its_training_file(shared_data: Path) -> None:
    """26 of the 226 test abstracts of CSAbstruct stand word for word in its training file."""
    folder = shared_data / "task_roles_csabstruct"
    section = TaskSection(train_file="train.jsonl", test_file="test.jsonl")
    _, items, rejected, _ = load_task(section, folder)
    assignment, _ = place(Corpus(folder, []), items, DocumentsSection())
    placed, dropped = place_items(items, assignment)
    assert not rejected and dropped > 100
    train, test = ({i.document for i in items if i.split == s} for s in ("train", "test"))
    moved = {d for d in train if assignment.split_of[task_id(d)] == TEST}
    assert len(moved) >= 26 and len(test) == 226
    texts = {i.text for i in placed if i.split == TEST and len(i.text) > 80}
    assert not texts & {i.text for i in placed if i.split != TEST}
    assert replace(placed[0], split="", work="") in [replace(i, split="") for i in items]
