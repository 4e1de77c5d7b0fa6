"""What is the team's task? Labelled items, and how an item is asked and answered.

`task_messages` is what training, evaluation and baselines share: the same item is always asked in the
same words. The answer is the label, or for extraction a JSON list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hauslm.data.document import (
    UNKNOWN_LANGUAGE,
    one_line,
)

CLASSIFICATION, EXTRACTION = "classification", "extraction"
NEIGHBOUR_CHARACTERS = 300

_WORDS = {
    "en": {
        "classify": "Assign the text to exactly one of these labels: {labels}. Answer with the label only.",
        "classify_sentence": "Which role does the sentence have in its document? Answer with exactly one of "
        "these labels and nothing else: {labels}.",
        "extract": "List every mention of these types in the text: {labels}. Answer with a JSON list of "
        'objects with the keys "text" and "type", in the order of the text; [] if there is none.',
        "extract_list": "Which of these labels apply to the text: {labels}? Answer with a JSON list of strings.",
        "text": "Text",
        "sentence": "Sentence",
        "position": "Position",
        "before": "Before it",
        "after": "After it",
    },
    "de": {
        "classify": "Ordne den Text genau einem dieser Etiketten zu: {labels}. Antworte nur mit dem Etikett.",
        "classify_sentence": "Welche Rolle hat der Satz in seinem Dokument? Antworte mit genau einem dieser "
        "Etiketten und sonst nichts: {labels}.",
        "extract": "Nenne jede Erwähnung dieser Typen im Text: {labels}. Antworte mit einer JSON-Liste von "
        'Objekten mit den Schlüsseln "text" und "type" in der Reihenfolge des Textes; [] wenn es keine gibt.',
        "extract_list": "Welche dieser Etiketten treffen auf den Text zu: {labels}? Antworte mit einer "
        "JSON-Liste von Zeichenketten.",
        "text": "Text",
        "sentence": "Satz",
        "position": "Stelle",
        "before": "Davor",
        "after": "Danach",
    },
}


@dataclass(frozen=True)
class Task:
    """How items are asked. `instruction` is the user's; empty: a fitting one per item language."""

    kind: str = CLASSIFICATION
    labels: tuple[str, ...] = ()
    instruction: str = ""
    sequence: bool = False  # items are sentences of documents, in order
    label_list: bool = False  # extraction whose answer is a list of labels, not of mentions

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"labels": list(self.labels)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """Back from `Corpus.task`; keys that belong to others are ignored."""
        known = {k: data[k] for k in ("kind", "instruction", "sequence", "label_list") if k in data}
        return cls(labels=tuple(data.get("labels", ())), **known)

    def instruction_for(self, language: str) -> str:
        if self.instruction:
            return self.instruction
        words = _WORDS["de" if language == "de" else "en"]
        if self.kind == EXTRACTION:
            key = "extract_list" if self.label_list else "extract"
        else:
            key = "classify_sentence" if self.sequence else "classify"
        return words[key].format(labels=", ".join(self.labels))


@dataclass(frozen=True)
class TaskItem:
    """One labelled item. `label` is a string, or for extraction a list (of mentions or of labels).

    `work` is shared by items of versions of one work, as placing found them; "" before that. `position`
    is 0.0 for the first sentence of a document and 1.0 for the last, None where order is
    unknown. `extra` holds `before`, `after` (neighbouring sentences), `entities` (original offsets), `doi`,
    `title`.
    """

    id: str
    document: str
    text: str
    label: Any
    position: float | None = None
    split: str = ""
    language: str = UNKNOWN_LANGUAGE
    extra: Mapping[str, Any] = field(default_factory=dict)
    work: str = ""

    @property
    def unit(self) -> str:
        """What counts once in the statistics: the work, where it is known."""
        return self.work or self.document

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> TaskItem:
        return cls(**{k: row[k] for k in cls.__dataclass_fields__ if k in row})

    def without_neighbours(self) -> TaskItem:
        return replace(
            self, extra={k: v for k, v in self.extra.items() if k not in ("before", "after")}
        )

    def with_text(self, text: str) -> TaskItem:
        return replace(self, text=text)

    def parts(self, characters: int) -> Iterator[TaskItem]:
        """The item as parts of at most about `characters`, overlapping by an eighth at sentence ends.

        A part of a classified text keeps the label; a part of an extraction keeps the mentions in it.
        """
        start = 0
        while start < len(self.text):
            end = _sentence_end(self.text, start, start + characters)
            part = self.text[start:end]
            label = self.label
            if isinstance(label, list) and label and isinstance(label[0], Mapping):
                label = [m for m in label if m["text"] in part]
            yield replace(self, text=part, label=label)
            if end >= len(self.text):
                return
            start = max(start + 1, _sentence_end(self.text, start, end - characters // 8))


_SENTENCE_END = re.compile(r"[.!?:;][\"')\]”]*\s+")


def _sentence_end(text: str, start: int, limit: int) -> int:
    if limit >= len(text):
        return len(text)
    ends = [m.end() for m in _SENTENCE_END.finditer(text, start + (limit - start) // 2, limit)]
    if ends:
        return ends[-1]
    blank = text.rfind(" ", start + (limit - start) // 2, limit)
    return blank + 1 if blank > start else max(limit, start + 1)


# ------------------------------------------------------------------ asking


def task_messages(task: Task, item: TaskItem) -> list[dict[str, str]]:
    """The question about an item as chat messages, without the answer."""
    words = _WORDS["de" if item.language == "de" else "en"]
    lines = [task.instruction_for(item.language), ""]
    if item.position is not None and task.kind == CLASSIFICATION:
        lines.append(f"{words['position']}: {round(100 * item.position)} %")
    before, after = (one_line(str(item.extra.get(k) or "")) for k in ("before", "after"))
    if before:
        lines.append(f"{words['before']}: {_tail(before)}")
    title = words["sentence" if task.sequence else "text"]
    lines.append(f"{title}: {item.text}")
    if after:
        lines.append(f"{words['after']}: {_head(after)}")
    return [{"role": "user", "content": "\n".join(lines)}]


def _tail(text: str) -> str:
    return text if len(text) <= NEIGHBOUR_CHARACTERS else "… " + text[-NEIGHBOUR_CHARACTERS:]


def _head(text: str) -> str:
    return text if len(text) <= NEIGHBOUR_CHARACTERS else text[:NEIGHBOUR_CHARACTERS] + " …"


def answer_text(task: Task, item: TaskItem) -> str:
    """The right answer as the model should write it."""
    if task.kind == EXTRACTION:
        return json.dumps(item.label, ensure_ascii=False)
    return str(item.label)
