"""Where do the labelled items come from? JSONL, CSV or Parquet files of several shapes.

A row is one of:
* a text and its label (`text_field`, `label_field`), perhaps with `position` in its document;
* a list of sentences and a list of labels of the same length: one item per sentence, with its position;
* a text and its entities ({start, end, text, type}), or a list of labels, for `kind: extraction`.

What had to be assumed is told; a row that cannot be used is rejected with its number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, did_you_mean
from hauslm.base.words import Sentence, say
from hauslm.data.document import Limits, UnreadableError, clean, normal_doi, one_line
from hauslm.data.language import detect, normal_code
from hauslm.data.readers import jsonl, table
from hauslm.data.task import CLASSIFICATION, EXTRACTION, Task, TaskItem
from hauslm.records import Rejected, Said
from hauslm.scenario import TaskSection

MOST_LABELS = 200


def load_task(
    section: TaskSection, root: Path, limits: Limits | None = None
) -> tuple[Task, list[TaskItem], list[Rejected], list[Sentence]]:
    """The task, its items (split "" unless the file prescribes one), unusable rows, notices.

    Raises `DataError` H340 (no such file), H341 (no usable item), H342 (a label that is not in the list).
    """
    limits = limits or Limits()
    loader = _Loader(section, limits)
    files = [(section.file, ""), (section.train_file, "train"), (section.test_file, "test")]
    for name, split in files:
        if name:
            loader.load(_existing(root, name), name, split)
    if not loader.items:
        first = loader.rejected[0].reason.text if loader.rejected else ""
        raise DataError(
            "H341",
            say("The task file holds no usable item. {reason}", reason=first),
            where=str(section.file or section.train_file or section.test_file),
            next_step=say("Name the fields under evaluation: task: text_field and label_field."),
        )
    return loader.finish()


def _existing(root: Path, name: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            "H340",
            say("The task file does not exist."),
            where=str(path),
            next_step=did_you_mean(path.name, siblings)
            or say("Check evaluation: task in the project file."),
        )
    return path


class _Loader:
    """Reads rows of every shape into items and remembers what it had to assume."""

    def __init__(self, section: TaskSection, limits: Limits) -> None:
        self.section = section
        self.limits = limits
        self.items: list[TaskItem] = []
        self.rejected: list[Rejected] = []
        self.notices: list[Sentence] = []
        self._seen: Counter[str] = Counter()
        self._assumed: set[str] = set()
        self._empty = 0  # sentences without a word
        self._sequence = False
        self._label_list = False
        self._rows_of: dict[str, list[str]] = {}  # document -> rows of sentences that name it

    def load(self, path: Path, shown: str, split: str) -> None:
        reader = table if path.suffix.lower() in table.SUFFIXES else jsonl
        try:
            for number, row in reader.rows(path, self.limits):
                problem = (
                    row
                    if isinstance(row, Sentence)
                    else self._row(row, f"{path.stem}:{number}", split)
                )
                if problem is not None:
                    self.rejected.append(
                        Rejected(file=f"{shown}:{number}", reason=Said.of(problem))
                    )
        except UnreadableError as error:
            self.rejected.append(Rejected(file=shown, reason=Said.of(error.reason)))

    def _row(self, row: dict[str, Any], number: str, split: str) -> Sentence | None:
        text = self._field(row, self.section.text_field, ("sentences", "sentence", "content"))
        label = self._field(row, self.section.label_field, ("labels", "entities", "class"))
        if text is None and self.section.text_field in row:
            return say("The field '{field}' is empty.", field=self.section.text_field)
        if text is None:
            return say(
                "There is no field '{field}'; the fields are {fields}.",
                field=self.section.text_field,
                fields=", ".join(sorted(map(str, row))[:12]),
            )
        if label is None or (isinstance(label, str) and not label.strip()):
            return say("The item has no label in '{field}'.", field=self.section.label_field)
        document = self._document(row, number, sentences=isinstance(text, list))
        if isinstance(text, list):
            return self._sentences(row, document, text, label, split, number)
        if not isinstance(text, str):
            return say("The field '{field}' is not text.", field=self.section.text_field)
        if not text.strip():
            return say("The field '{field}' is empty.", field=self.section.text_field)
        return self._single(row, document, text, label, split, number)

    def _field(self, row: Mapping[str, Any], name: str, others: Sequence[str]) -> Any:
        if name in row:
            return row[name]
        default = TaskSection.model_fields[
            "text_field" if name == self.section.text_field else "label_field"
        ].default
        if name != default:
            return None  # the user named a field: nothing else is taken for it
        for other in others:
            if other in row:
                self._assume(
                    "field", say("The task is read from the field '{field}'.", field=other), other
                )
                return row[other]
        return None

    def _assume(self, kind: str, notice: Sentence, key: str = "") -> None:
        if f"{kind}:{key}" not in self._assumed:
            self._assumed.add(f"{kind}:{key}")
            self.notices.append(notice)

    def _document(self, row: Mapping[str, Any], number: str, *, sentences: bool) -> str:
        name = self.section.document_field
        usual = ("doi", "pmid", "document_id", "abstract_id", "doc_id")
        for key in (name, "id", *usual) if sentences else (name, *usual):
            if row.get(key) not in (None, ""):
                if key not in (name, "id"):
                    self._assume(
                        "document",
                        say("Items are grouped into documents by the field '{field}'.", field=key),
                        key,
                    )
                return str(row[key])
        if not sentences:
            self._assume(
                "document",
                say("The task names no document per item ('{field}'), so each item counts as a document of its own; "
                    "items of one document may stand on both sides of the split.", field=name),
            )  # fmt: skip
        return str(row.get("id") or number)

    def _facts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if normal_doi(str(row.get("doi") or "")):
            facts["doi"] = normal_doi(str(row["doi"]))
        if row.get("title"):
            facts["title"] = one_line(str(row["title"]))
        if row.get("id") and str(row["id"]) != str(row.get(self.section.document_field, "")):
            facts["row_id"] = str(row["id"])
        return facts

    def _language(self, row: Mapping[str, Any], text: str) -> str:
        return normal_code(row.get("language") or row.get("lang")) or detect(text)

    def _add(self, item: TaskItem) -> None:
        self._seen[item.id] += 1
        if self._seen[item.id] > 1:
            item = replace(item, id=f"{item.id}#{self._seen[item.id]}")
        self.items.append(item)

    def _sentences(
        self,
        row: Mapping[str, Any],
        document: str,
        texts: list[Any],
        labels: Any,
        split: str,
        number: str,
    ) -> Sentence | None:
        if not isinstance(labels, list) or len(labels) != len(texts):
            return say(
                "{texts:,} sentences but {labels:,} labels.",
                texts=len(texts),
                labels=len(labels) if isinstance(labels, list) else 1,
            )
        if not all(isinstance(t, str) for t in texts) or not all(
            isinstance(v, (str, int)) for v in labels
        ):
            return say("Sentences and labels must be texts.")
        labels = [str(v).strip() for v in labels]
        if not all(labels):
            return say("A sentence has no label.")
        self._sequence = True
        self._rows_of.setdefault(document, []).append(number)
        language = self._language(row, " ".join(texts))
        facts = self._facts(row)
        for index, (text, label) in enumerate(zip(texts, labels, strict=True)):
            if not text.strip():
                self._empty += 1
                continue
            extra = {**facts, "row": number}
            if index:
                extra["before"] = clean(texts[index - 1])
            if index + 1 < len(texts):
                extra["after"] = clean(texts[index + 1])
            self._add(
                TaskItem(
                    id=f"{document}-s{index + 1:03d}",
                    document=document,
                    text=one_line(text),
                    label=label,
                    position=index / (len(texts) - 1) if len(texts) > 1 else 0.0,
                    split=split,
                    language=language,
                    extra=extra,
                )
            )
        return None

    def _single(
        self, row: Mapping[str, Any], document: str, text: str, label: Any, split: str, number: str
    ) -> Sentence | None:
        extra = self._facts(row)
        answer: Any
        if self.section.kind == EXTRACTION:
            answer = self._extraction(text, label, extra)
        elif isinstance(label, (list, dict)):
            answer = say(
                "The item has a list of labels; set evaluation: task: kind to extraction for that."
            )
        else:
            answer = str(label).strip()
        if isinstance(answer, Sentence):
            return answer
        position = row.get("position")
        number_like = isinstance(position, (int, float)) and not isinstance(position, bool)
        self._add(
            TaskItem(
                id=str(row.get("id") or f"{document}-{number}"),
                document=document,
                text=clean(text).strip(),
                label=answer,
                position=float(position) if number_like and 0 <= float(position) <= 1 else None,  # type: ignore[arg-type]
                split=split,
                language=self._language(row, text),
                extra=extra,
            )
        )
        return None

    def _extraction(self, text: str, label: Any, extra: dict[str, Any]) -> list[Any] | Sentence:
        if isinstance(label, str):
            try:
                label = json.loads(label)
            except ValueError:
                return say("The entities are not a list.")
        if not isinstance(label, list):
            return say("The entities are not a list.")
        if all(isinstance(v, str) for v in label) and label:
            self._label_list = True
            return list(dict.fromkeys(label))
        mentions = []
        for entry in label:
            if not isinstance(entry, Mapping) or "type" not in entry:
                return say("An entity has no type.")
            start, end = entry.get("start"), entry.get("end")
            mention = entry.get("text")
            if isinstance(start, int) and isinstance(end, int):
                if not 0 <= start < end <= len(text):
                    return say("An entity lies outside its text.")
                if mention is not None and text[start:end] != mention:
                    return say(
                        "The offsets of the entity '{text}' do not fit the text.",
                        text=str(mention)[:60],
                    )
                mention = text[start:end]
            if not mention:
                return say("An entity has neither offsets nor text.")
            mentions.append(
                {"text": clean(str(mention)), "type": str(entry["type"]), "start": start}
            )
        mentions.sort(key=lambda m: m["start"] if isinstance(m["start"], int) else 0)
        extra["entities"] = label
        unique = dict.fromkeys((m["text"], m["type"]) for m in mentions)
        return [{"text": t, "type": k} for t, k in unique]

    # -------------------------------------------------------------- the task as a whole

    def _rows_as_documents(self) -> list[TaskItem]:
        """A field that names many rows of sentences alike names no document: each row is one."""
        shared = {d for d, rows in self._rows_of.items() if len(rows) > 1}
        if shared:
            self.notices.append(
                say("{count:,} document names stand on several rows of sentences, so each row counts as a "
                    "document of its own.", count=len(shared))
            )  # fmt: skip
        items = []
        for item in self.items:
            row = item.extra.get("row")
            extra = {k: v for k, v in item.extra.items() if k != "row"}
            if row is not None and item.document in shared:
                index = item.id.rsplit("-s", 1)[-1].split("#")[0]
                item = replace(item, document=str(row), id=f"{row}-s{index}")
            items.append(replace(item, extra=extra))
        return items

    def finish(self) -> tuple[Task, list[TaskItem], list[Rejected], list[Sentence]]:
        items = self._rows_as_documents()
        if self._empty:
            self.notices.append(
                say("Empty sentences that were left out of the task: {count:,}.", count=self._empty)
            )
        if not self._sequence and self.section.kind == CLASSIFICATION:
            items, self._sequence = _with_neighbours(items)
        found = sorted({label for item in items for label in _labels_of(item)})
        labels = tuple(self.section.labels) or tuple(found)
        unknown = [label for label in found if label not in labels]
        if unknown:
            raise DataError(
                "H342",
                say("The task uses labels that are not in the list: {labels}.", labels=unknown[:8]),
                where=str(self.section.file or self.section.train_file or ""),
                next_step=say("Add them under evaluation: task: labels, or correct the file."),
            )
        if self.section.kind == CLASSIFICATION and len(labels) > MOST_LABELS:
            raise DataError(
                "H343",
                say(
                    "The task has {count:,} different labels; a classification may have {limit:,}.",
                    count=len(labels),
                    limit=MOST_LABELS,
                ),
                where=str(self.section.file or self.section.train_file or ""),
                next_step=say("Check evaluation: task: label_field, or use kind: extraction."),
            )
        task = Task(
            kind=self.section.kind,
            labels=labels,
            instruction=self.section.instruction.strip(),
            sequence=self._sequence,
            label_list=self._label_list,
        )
        return task, items, self.rejected, self.notices


def _labels_of(item: TaskItem) -> Iterable[str]:
    if isinstance(item.label, list):
        return [v["type"] if isinstance(v, Mapping) else str(v) for v in item.label]
    return [str(item.label)]


def _with_neighbours(items: list[TaskItem]) -> tuple[list[TaskItem], bool]:
    """Items with a position get the sentences around them; True if all items have one."""
    if not items or any(item.position is None for item in items):
        return items, False
    by_document: dict[str, list[TaskItem]] = {}
    for item in items:
        by_document.setdefault(item.document, []).append(item)
    around: dict[str, dict[str, str]] = {}
    for group in by_document.values():
        ordered = sorted(group, key=lambda i: (i.position or 0.0, i.id))
        for index, item in enumerate(ordered):
            around[item.id] = {
                **({"before": ordered[index - 1].text} if index else {}),
                **({"after": ordered[index + 1].text} if index + 1 < len(ordered) else {}),
            }
    return [replace(item, extra={**item.extra, **around[item.id]}) for item in items], True
