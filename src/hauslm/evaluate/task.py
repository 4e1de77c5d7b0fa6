"""Does the adapter do the team's task? Every system answers the same items, asked in the same words.

Classification reads the answer off the probabilities: each label is scored as the continuation of the
prompt, in the very form in which it was trained, and the most probable one is the answer. The
probability of a label is that of all its tokens; with `length_normalised` it is taken per byte, which
favours long labels less unfairly in a base model that was never tuned (lm-evaluation-harness reports both
ways as acc and acc_norm). If a cloud model takes part, which gives no probabilities for a text of ours,
every system answers in its own words instead, so that all are judged alike. Extraction is always
answered in words.

An item that does not fit the training length is asked in the parts that training would have made of it;
nothing is cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.data.task import EXTRACTION, Task, TaskItem, answer_text, task_messages
from hauslm.evaluate.ledger import Ledger, Question, System, Unit
from hauslm.evaluate.scorers import normalised, parsed
from hauslm.lm.interface import LanguageModel, Message, Request, Scored

PART = "task"
LEAST_ANSWER_TOKENS = 16
MOST_ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Answer:
    """What a system answered: the label or text, how sure it was (classification by probability)."""

    value: str | None
    confidence: float | None = None
    cut: bool = False  # stopped by the token limit, not by itself


@dataclass(frozen=True)
class Asked:
    """An item as it is asked: one prompt, or several where its text is too long for one."""

    item: TaskItem
    prompts: tuple[tuple[Message, ...], ...]


# ---------------------------------------------------------------- prompts


def gold(task: Task, item: TaskItem) -> str:
    """The right answer of an item as text."""
    return answer_text(task, item)


def messages_of(task: Task, item: TaskItem) -> tuple[Message, ...]:
    return tuple(
        Message(m["role"], m["content"])  # type: ignore[arg-type]
        for m in task_messages(task, item)
    )


def asked(
    task: Task, items: Sequence[TaskItem], model: LanguageModel, seq_len: int, answer_tokens: int
) -> list[Asked]:
    """The prompts of all items, split where they exceed `seq_len` tokens with their answer."""
    limit = min(seq_len, model.context_length) - answer_tokens
    return [Asked(i, tuple(_prompts(task, i, model, limit))) for i in items]


def _prompts(
    task: Task, item: TaskItem, model: LanguageModel, limit: int
) -> Iterator[tuple[Message, ...]]:
    """As in training: with neighbours, else without, else in overlapping parts."""

    def size(candidate: TaskItem) -> int:
        return model.count_tokens(model.render(messages_of(task, candidate)))

    alone = item.without_neighbours()
    for candidate in (item, alone):
        if size(candidate) <= limit:
            yield messages_of(task, candidate)
            return
    room = limit - size(alone.with_text("")) - 8
    if room < limit // 8:
        raise RefusedError(
            "H662",
            say(
                "The instruction of the task leaves no room for a text in {limit:,} tokens.",
                limit=limit,
            ),
            next_step=say("Shorten evaluation.task.instruction, or raise training.seq_len."),
        )
    per_token = len(item.text) / max(1, model.count_tokens(item.text))
    yield from _parts(task, alone, model, limit, max(32, int(room * per_token * 0.85)))


def _parts(
    task: Task, item: TaskItem, model: LanguageModel, limit: int, characters: int
) -> Iterator[tuple[Message, ...]]:
    """Parts that all fit; text with more tokens per character than the average gets smaller ones."""
    while characters > 8:
        made = [messages_of(task, p) for p in item.parts(characters)]
        if all(model.count_tokens(model.render(m)) <= limit for m in made):
            yield from made
            return
        characters = int(characters * 0.7)
    raise RefusedError(
        "H662",
        say(
            "The instruction of the task leaves no room for a text in {limit:,} tokens.",
            limit=limit,
        ),
        next_step=say("Shorten evaluation.task.instruction, or raise training.seq_len."),
    )


def continuations(
    model: LanguageModel, messages: Sequence[Message], labels: Sequence[str]
) -> list[str]:
    """Each label as it follows the prompt in the base's own template: what training rewarded.

    The end-of-answer text is added only where one label begins with another, since it is what tells
    those apart.
    """
    prompt = model.render(messages)
    leads, tails = [], []
    for label in labels:
        whole = model.render([*messages, Message("assistant", label)])
        rest = whole[len(prompt) :] if whole.startswith(prompt) else label
        place = rest.find(label)
        leads.append(rest[:place] if place >= 0 else "")
        tails.append(rest[place + len(label) :] if place >= 0 else "")
    ambiguous = any(a != b and b.startswith(a) for a in labels for b in labels)
    end = _common_start(tails) if ambiguous else ""
    return [lead + label + end for lead, label in zip(leads, labels, strict=True)]


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    size = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:size]


# ---------------------------------------------------------------- answering


def answer_room(
    task: Task, train: Sequence[TaskItem], model: LanguageModel, *, likelihood: bool
) -> int:
    """Tokens for an answer: the longest label, or half as much again as the longest training answer."""
    if task.kind != EXTRACTION:
        longest = max((model.count_tokens(label) for label in task.labels), default=1)
        return longest + (4 if likelihood else LEAST_ANSWER_TOKENS)
    longest = max((model.count_tokens(answer_text(task, i)) for i in train), default=256)
    most = min(MOST_ANSWER_TOKENS, model.context_length // 2)
    return max(LEAST_ANSWER_TOKENS, min(most, int(1.5 * longest)))


def by_likelihood(
    ledger: Ledger,
    system: System,
    task: Task,
    items: Sequence[Asked],
    *,
    length_normalised: bool = False,
) -> list[Answer]:
    """The most probable label per item, with its probability among the labels."""
    units = label_units(system, task, items)
    scores = ledger.score(system, units, say("Task ({system})", system=system.shown))
    return [_most_probable(list(task.labels), s, length_normalised) for s in scores]


def label_units(system: System, task: Task, items: Sequence[Asked]) -> list[Unit]:
    """Per item every label as a continuation of its prompt (of each, where it has several)."""
    model, labels = system.model, list(task.labels)
    endings = continuations(model, items[0].prompts[0], labels) if items else []
    return [
        Unit(
            PART,
            a.item.id,
            a.item.document,
            tuple((prompt, c) for prompt in map(model.render, a.prompts) for c in endings),
            {"gold": gold(task, a.item), "labels": labels},
        )
        for a in items
    ]


def _most_probable(labels: list[str], scores: Sequence[Scored], per_byte: bool) -> Answer:
    """Several parts of one item: their log-probabilities are averaged."""
    parts = len(scores) // len(labels)
    values = [
        sum(s.logprob / (s.bytes if per_byte else 1) for s in scores[i :: len(labels)]) / parts
        for i in range(len(labels))
    ]
    best = max(range(len(labels)), key=lambda i: (values[i], -i))
    total = sum(math.exp(v - values[best]) for v in values)
    return Answer(labels[best], 1.0 / total)


def by_generation(
    ledger: Ledger, system: System, task: Task, items: Sequence[Asked], answer_tokens: int
) -> list[Answer]:
    """The answer in the system's own words: a label that it names, or a JSON list."""
    questions = [q for a in items for q in questions_of(task, a, answer_tokens)]
    rows = iter(ledger.generate(system, questions, say("Task ({system})", system=system.shown)))
    return [_joined(task, [next(rows) for _ in a.prompts]) for a in items]


def questions_of(task: Task, asked_item: Asked, answer_tokens: int) -> list[Question]:
    """One question per part of the item; most items have one."""
    item, prompts = asked_item.item, asked_item.prompts
    return [
        Question(
            PART,
            f"{item.id}:{n}" if len(prompts) > 1 else item.id,
            item.document,
            Request(prompt, max_new_tokens=answer_tokens),
            {"gold": gold(task, item)},
        )
        for n, prompt in enumerate(prompts)
    ]


def _joined(task: Task, rows: Sequence[dict[str, Any]]) -> Answer:
    cut = any(r["finish_reason"] == "length" for r in rows)
    texts = [str(r["text"]) for r in rows]
    if task.kind == EXTRACTION:
        if len(texts) == 1:
            return Answer(texts[0].strip(), cut=cut)
        lists = [v if isinstance(v := parsed(t), list) else [] for t in texts]
        return Answer(json.dumps([e for part in lists for e in part], ensure_ascii=False), cut=cut)
    named = [label for t in texts if (label := label_in(t, task.labels))]
    best = max(dict.fromkeys(named), key=named.count) if named else None
    return Answer(best, cut=cut)


def label_in(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer names: as its first line, or as the only label in it; else None."""
    spelt = {normalised(label): label for label in labels}
    lines = text.strip().splitlines()
    if lines and normalised(lines[0]) in spelt:
        return spelt[normalised(lines[0])]
    said = f" {normalised(text)} "
    named = [s for s in spelt if s and f" {s} " in said]
    # "not relevant" names "relevant" too; the longer one is meant.
    longest = [s for s in named if not any(s != o and f" {s} " in f" {o} " for o in named)]
    return spelt[longest[0]] if len(longest) == 1 else None


def answer_notices(answers: Sequence[Answer], system: Sentence | str) -> list[Sentence]:
    """How many answers ran into the token limit or named no label, if any did."""
    found = []
    cut, silent = sum(a.cut for a in answers), sum(a.value is None for a in answers)
    if cut:
        found.append(
            say(
                "{count:,} of {all:,} answers ({system}) did not end within the token limit; they were "
                "scored as they are.",
                count=cut,
                all=len(answers),
                system=system,
            )
        )
    if silent:
        found.append(
            say(
                "{count:,} of {all:,} answers ({system}) name no label; they count as wrong.",
                count=silent,
                all=len(answers),
                system=system,
            )
        )
    return found
