"""Labelled items of every shape, asked the same way for everyone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import DataError
from hauslm.data.check import Findings, check
from hauslm.data.task import Task, TaskItem, answer_text, task_messages
from hauslm.data.task_files import load_task
from hauslm.embedded import TASKS
from hauslm.scenario import TaskSection


def load(
    folder: Path, rows: list[Any], **kwargs: Any
) -> tuple[Task, list[TaskItem], list[Any], list[Any]]:
    (folder / "t.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return load_task(TaskSection(file="t.jsonl", **kwargs), folder)


def test_the_embedded_task_is_a_sequence_with_neighbours() -> None:
    task, items, rejected, notices = load_task(TaskSection(file=str(TASKS / "roles.jsonl")), TASKS)
    assert task.sequence and len(items) == 774 and not rejected and not notices
    assert len(task.labels) == 5
    first = [i for i in items if i.position == 0.0]
    assert len(first) == 28 and all("before" not in i.extra and "after" in i.extra for i in first)
    german = next(i for i in items if i.language == "de")
    (message,) = task_messages(task, german)
    assert (
        message["role"] == "user"
        and "Etiketten" in message["content"]
        and german.text in message["content"]
    )
    assert all(label in message["content"] for label in task.labels)
    assert answer_text(task, german) == german.label


def test_rows_of_sentences(tmp_path: Path) -> None:
    rows = [
        {
            "id": "a",
            "sentences": ["One.", "Two."],
            "labels": ["X", "Y"],
            "doi": "10.1000/A",
            "title": "T",
        }
    ]
    task, items, _, notices = load(tmp_path, rows)
    assert [(i.id, i.position, i.label) for i in items] == [
        ("a-s001", 0.0, "X"),
        ("a-s002", 1.0, "Y"),
    ]
    assert items[1].extra["before"] == "One." and items[0].extra["doi"] == "10.1000/a"
    assert task.sequence and len(notices) == 2, "the fields it had to find itself are told"


def test_a_name_that_all_rows_share_is_no_document(tmp_path: Path) -> None:
    rows = [
        {"abstract_id": 0, "sentences": ["a"], "labels": ["x"]},
        {"abstract_id": 0, "sentences": ["b"], "labels": ["y"]},
    ]
    _, items, _, notices = load(tmp_path, rows)
    assert len({i.document for i in items}) == 2 and len({i.id for i in items}) == 2
    assert any("document of its own" in n.text("en") for n in notices)


def test_entities_are_checked_against_their_text(tmp_path: Path) -> None:
    text = "Lead pipes rot."
    good = {
        "text": text,
        "document": "d",
        "entities": [{"start": 0, "end": 4, "text": "Lead", "type": "METAL"}],
    }
    rows = [
        good,
        {**good, "entities": [{"start": 0, "end": 4, "text": "Tin!", "type": "METAL"}]},
        {**good, "entities": [{"start": 9, "end": 99, "type": "METAL"}]},
        {**good, "entities": [{"start": 0, "end": 4}]},
        {**good, "entities": []},
    ]
    task, items, rejected, _ = load(tmp_path, rows, kind="extraction", label_field="entities")
    assert [answer_text(task, i) for i in items] == ['[{"text": "Lead", "type": "METAL"}]', "[]"]
    assert [r.file for r in rejected] == ["t.jsonl:2", "t.jsonl:3", "t.jsonl:4"]
    assert items[0].extra["entities"] == good["entities"]
    assert "METAL" in task_messages(task, items[0])[0]["content"]


def test_a_list_of_labels_is_an_extraction(tmp_path: Path) -> None:
    rows = [{"text": "x y", "topics": ["B", "A", "B"]}]
    task, items, _, _ = load(tmp_path, rows, kind="extraction", label_field="topics")
    assert task.label_list and answer_text(task, items[0]) == '["B", "A"]'
    with pytest.raises(DataError) as error:
        load(tmp_path, rows, label_field="topics")
    assert "extraction" in error.value.text("en")


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "x"},
        {"text": "a"},
        {"label": "x"},
        {"text": "", "label": "x"},
        [1],
    ]
    _, items, rejected, notices = load(tmp_path, rows)
    assert len(items) == 1 and [r.file for r in rejected] == [f"t.jsonl:{n}" for n in (2, 3, 4, 5)]
    assert any("both sides of the split" in n.text("en") for n in notices)


def test_a_named_field_is_never_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path, [{"sentences": ["a"], "labels": ["x"]}], text_field="body")
    assert error.value.code == "H341" and "body" in error.value.text("en")


def test_labels_must_be_in_the_list(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path, [{"text": "a", "label": "x"}], labels=["y"])
    assert error.value.code == "H342"


def test_a_free_text_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path, [{"text": "a", "label": f"l{i}"} for i in range(300)])
    assert error.value.code == "H343"


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "roles.jsonl").write_text("{}")
    with pytest.raises(DataError) as error:
        load_task(TaskSection(file="role.jsonl"), tmp_path)
    assert error.value.code == "H340" and "roles.jsonl" in error.value.text("en")


def test_csv_and_separate_test_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,document\nx,1,d\ny,2,e\n")
    (tmp_path / "b.csv").write_text("text,label,document\nz,1,f\n")
    _, items, _, _ = load_task(TaskSection(train_file="a.csv", test_file="b.csv"), tmp_path)
    assert [(i.text, i.label, i.split) for i in items] == [
        ("x", "1", "train"),
        ("y", "2", "train"),
        ("z", "1", "test"),
    ]


def test_the_users_instruction_is_used_as_it_is(tmp_path: Path) -> None:
    task, items, _, _ = load(tmp_path, [{"text": "a", "label": "x"}], instruction="Which?")
    assert task_messages(task, items[0])[0]["content"].startswith("Which?\n")


def test_items_and_task_survive_json() -> None:
    item = TaskItem("i", "d", "t", [{"text": "a", "type": "B"}], 0.5, "test", "de", {"before": "x"})
    assert TaskItem.from_json(json.loads(json.dumps(item.to_json()))) == item
    task = Task("extraction", ("A", "B"), "Do.", sequence=True, label_list=True)
    assert Task.from_json(json.loads(json.dumps(task.to_json())) | {"items": {}}) == task


@pytest.mark.parametrize(
    ("name", "settings", "items", "documents"),
    [
        ("task_roles_structured_abstracts", {"document_field": "id"}, 918, 77),
        ("task_roles_csabstruct", {}, 2026, 295),
        (
            "task_entities_craft",
            {"kind": "extraction", "label_field": "entities", "document_field": "pmid"},
            345,
            6,
        ),
    ],
)
def test_real_tasks(
    shared_data: Path, name: str, settings: dict[str, Any], items: int, documents: int
) -> None:
    section = TaskSection(file=f"{name}/dev.jsonl", **settings)
    task, found, rejected, _ = load_task(section, shared_data)
    assert len(found) == items and len({i.document for i in found}) == documents and not rejected
    assert len({i.id for i in found}) == items
    assert task_messages(task, found[0])


def test_blank_labels_and_texts_are_rejected_and_blanks_around_labels_go(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "label": "X "},
        {"text": "two", "label": "  "},
        {"text": None, "label": "X"},
        {"text": 5, "label": "X"},
    ]
    task, items, rejected, _ = load(tmp_path, rows)
    assert task.labels == ("X",) and len(items) == 1
    assert [r.reason.text for r in rejected] == [
        "The item has no label in 'label'.",
        "The field 'text' is empty.",
        "The field 'text' is not text.",
    ]


def test_empty_sentences_are_counted_and_a_sentence_needs_a_label(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "sentences": ["One.", "", "Two."], "labels": ["X ", "X", "Y"]},
        {"id": "b", "sentences": ["One.", "Two."], "labels": ["X", ""]},
    ]
    task, items, rejected, notices = load(tmp_path, rows)
    assert [i.label for i in items] == ["X", "Y"] and task.labels == ("X", "Y")
    assert [r.reason.text for r in rejected] == ["A sentence has no label."]
    assert "left out of the task: 1" in notices[-1].text("en")


def test_a_task_of_one_label_is_told() -> None:
    items = [TaskItem(str(n), str(n), "text", "X", split="train") for n in range(30)]
    told = check(Findings({}, {}, [], {}, {}, {}), Task(labels=("X",)), items)
    assert any("nothing to tell apart" in s.text("en") for s in told)
