"""Are items asked as in training, answers read as meant, and long items never cut?"""

from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.errors import RefusedError
from hauslm.base.progress import Silent
from hauslm.data.task import Task, TaskItem
from hauslm.evaluate import task as asking
from hauslm.evaluate.ledger import Ledger, System
from hauslm.lm.interface import Message

from .conftest import Knowing, indifferent

TASK = Task(labels=("result", "results", "no result"))


def item(text: str) -> TaskItem:
    return TaskItem("i", "d", text, "result")


class Chatty(Knowing):
    """Renders like a chat model with an end token."""

    def render(self, messages):  # type: ignore[no-untyped-def]
        text = "<s>"
        for m in messages:
            text += f"[INST] {m.content} [/INST]" if m.role == "user" else f" {m.content}</s>"
        return text


def test_labels_follow_as_the_template_writes_them() -> None:
    question = [Message("user", "which?")]
    model = Chatty(indifferent)
    assert asking.continuations(model, question, ["a", "b"]) == [" a", " b"]
    # One label begins with another: only the end of the answer tells them apart.
    assert asking.continuations(model, question, ["result", "results"]) == [
        " result</s>",
        " results</s>",
    ]
    assert asking.continuations(Knowing(indifferent), question, ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("result", "result"),
        ("Results.\nBecause it says so", "results"),
        ("The label is: no result", "no result"),
        ("It could be result or results", None),
        ("", None),
        ("something else", None),
    ],
)
def test_label_named_in_words(text: str, label: str | None) -> None:
    assert asking.label_in(text, TASK.labels) == label


def test_a_long_item_is_asked_in_parts_that_cover_it() -> None:
    model = Knowing(indifferent, context_length=200)
    text = " ".join(f"w{n}" for n in range(500)) + "."
    (asked,) = asking.asked(TASK, [item(text)], model, 120, 8)
    assert len(asked.prompts) > 3
    for prompt in asked.prompts:
        assert model.count_tokens(model.render(prompt)) <= 112
    together = " ".join(p[0].content for p in asked.prompts)
    assert all(f"w{n}" in together for n in range(500))


def test_neighbours_go_first_when_room_is_short() -> None:
    model = Knowing(indifferent)
    one = TaskItem(
        "i", "d", "the sentence", "result", extra={"before": "b " * 60, "after": "after"}
    )
    (roomy,) = asking.asked(TASK, [one], model, 400, 8)
    (narrow,) = asking.asked(TASK, [one], model, 60, 8)
    assert "after" in roomy.prompts[0][0].content
    assert len(narrow.prompts) == 1 and "after" not in narrow.prompts[0][0].content


def test_an_instruction_without_room_for_text_is_refused() -> None:
    task = Task(labels=("a", "b"), instruction="word " * 100)
    with pytest.raises(RefusedError) as caught:
        asking.asked(task, [item("text " * 50)], Knowing(indifferent), 110, 4)
    assert caught.value.code == "H662"


def test_length_normalisation_helps_long_labels(tmp_path: Path) -> None:
    """Equal nats per byte: in sum the shortest label wins, per byte the first of equals."""
    task = Task(labels=("longest label", "short"))
    model = Knowing(lambda p, c, a: (0.49 if c.startswith("long") else 0.5, False))
    system = System("base", model)
    items = asking.asked(task, [item("text")], model, 200, 8)
    with Ledger(tmp_path / "items.jsonl", Silent()) as ledger:
        (plain,) = asking.by_likelihood(ledger, system, task, items)
        (per_byte,) = asking.by_likelihood(ledger, system, task, items, length_normalised=True)
    assert plain.value == "short" and per_byte.value == "longest label"
    assert plain.confidence == pytest.approx(1 / (1 + 2.718281828 ** (2.5 - 0.49 * 13)))
