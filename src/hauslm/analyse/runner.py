"""How does every section get its row exactly once, whatever happens in between? Keys and groups.

The key of a row is a hash over everything that could change it: article, span, template, schema,
model, adapter, decoding, engine. A group's rows are in the journal (journal.py) and on the disk before
the next group begins; after a crash the rows that are there are kept and the rest is computed. Sections are always
run in the same groups, and an unfinished group is run again as a whole, so that a resumed job computes
the very same numbers as an uninterrupted one. Failures are rows with a reason, after one more try
with more room and tighter bounds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hauslm.analyse.evidence import find_quote
from hauslm.base.errors import DataError, HauslmError
from hauslm.base.files import canonical_json, sha256_bytes
from hauslm.base.words import Sentence, say
from hauslm.lm import schema as schemas
from hauslm.lm.interface import LanguageModel, Reply, Request

GROUP_BATCHES = 4  # batches per journal entry group: rows that leave make room for rows that wait
RETRY_FACTOR = 0.5  # bounds of free texts in the second attempt
VOLATILE = ("seconds", "speed")  # fields that may differ between two runs of the same work


@dataclass(frozen=True)
class Task:
    """One row to make. `facts` are the row's fields about where it comes from; `text` is the article,
    in which the quote must stand, first looked for within `start`..`end`."""

    key: str
    request: Request
    schema: Mapping[str, Any]
    facts: Mapping[str, Any]
    text: str = field(repr=False)
    start: int = 0
    end: int | None = None


def key_of(**parts: Any) -> str:
    """The content address of a row: sha256 over the canonical JSON of everything that shapes it."""
    return sha256_bytes(canonical_json(parts))


def prompt_sha256(request: Request) -> str:
    """Hash of what the model is shown; the text itself may be copyrighted and is not stored."""
    shown = request.raw_prompt or [[m.role, m.content] for m in request.messages]
    return sha256_bytes(canonical_json(shown))


class Runner:
    """Runs tasks on a model. `keep(rows)` puts new rows on the disk before the next group begins;
    `on_rows(rows)` is told of every row that is there, new or known."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        batch_size: int,
        keep: Callable[[Sequence[dict[str, Any]]], object],
        on_rows: Callable[[Sequence[dict[str, Any]]], None] = lambda rows: None,
    ) -> None:
        self._model = model
        self._keep = keep
        self._group = max(1, batch_size) * GROUP_BATCHES
        self._on_rows = on_rows
        self._done: dict[str, dict[str, Any]] = {}
        self.resumed = 0  # rows that were known
        self.computed = 0
        self.differing = 0  # rows computed again that came out differently: should stay 0
        self.model_seconds = 0.0

    def begin(self, known: Mapping[str, dict[str, Any]]) -> None:
        """What was there of the documents whose tasks follow; everything else is forgotten."""
        self._done = dict(known)

    def run(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """The rows of the tasks, in their order. Equal keys are one piece of work."""
        unique = {t.key: t for t in tasks}
        for group in self._groups(unique.values()):
            self._run_group(group)
        return [self._done[t.key] for t in tasks]

    def _groups(self, tasks: Iterable[Task]) -> Iterator[list[Task]]:
        """Groups of similar length, the same whatever is already done."""
        ordered = sorted(tasks, key=lambda t: (-_length(t.request), t.key))
        for start in range(0, len(ordered), self._group):
            yield ordered[start : start + self._group]

    def _run_group(self, group: list[Task]) -> None:
        missing = [t for t in group if t.key not in self._done]
        self.resumed += len(group) - len(missing)
        if missing:
            started = time.monotonic()
            rows = self._answers(group)
            self.model_seconds += time.monotonic() - started
            fresh = []
            for task, row in zip(group, rows, strict=True):
                known = self._done.get(task.key)
                if known is not None:
                    self.differing += essence(known) != essence(row)
                else:
                    fresh.append(row)
            self._keep(fresh)
            self._done |= {row["key"]: row for row in fresh}
            self.computed += len(fresh)
        self._on_rows([self._done[t.key] for t in group])

    # ------------------------------------------------------------ one group

    def _answers(self, group: list[Task]) -> list[dict[str, Any]]:
        first = self._generate([t.request for t in group])
        rows = [_row(t, reply, 1) for t, reply in zip(group, first, strict=True)]
        again = [i for i, row in enumerate(rows) if row["status"] == "failed" and _worth(first[i])]
        requests = [self._second(group[i].request, _reply(first[i])) for i in again]
        for i, reply in zip(again, self._generate(requests) if requests else [], strict=True):
            spent = _reply(first[i])
            rows[i] = _row(group[i], reply, 2, spent)
        return rows

    def _generate(self, requests: Sequence[Request]) -> list[Reply | HauslmError]:
        """All replies; if the batch is refused, each request on its own, so one row's fault is one
        row's failure."""
        try:
            return list(self._model.generate(requests))
        except DataError:
            pass
        replies: list[Reply | HauslmError] = []
        for request in requests:
            try:
                replies.extend(self._model.generate([request]))
            except DataError as error:
                replies.append(error)
        return replies

    def _second(self, request: Request, reply: Reply) -> Request:
        """More room for the answer, tighter bounds for its free texts."""
        room = self._model.context_length - reply.usage.prompt_tokens
        schema = request.json_schema
        return dataclasses.replace(
            request,
            max_new_tokens=max(1, min(2 * request.max_new_tokens, room)),
            json_schema=schemas.tightened(schema, RETRY_FACTOR) if schema else None,
        )


def _length(request: Request) -> int:
    return sum(len(m.content) for m in request.messages) + len(request.raw_prompt or "")


def _worth(outcome: Reply | HauslmError) -> bool:
    return isinstance(outcome, Reply)


def _reply(outcome: Reply | HauslmError) -> Reply:
    if isinstance(outcome, HauslmError):
        raise outcome
    return outcome


def _row(
    task: Task, outcome: Reply | HauslmError, attempt: int, spent: Reply | None = None
) -> dict[str, Any]:
    """The row of one outcome; `spent` is an earlier attempt whose tokens and time count too."""
    row: dict[str, Any] = {
        "key": task.key,
        **task.facts,
        "prompt_sha256": prompt_sha256(task.request),
        "attempts": attempt,
    }
    if isinstance(outcome, HauslmError):
        return row | _failure("refused", outcome.text(), None) | _usage(None, None)
    row |= _usage(outcome, spent)
    value, problem = schemas.parse(outcome.text, task.schema)
    if outcome.finish_reason == "length":
        return row | _failure("cut", "max_new_tokens", outcome)
    if problem:
        return row | _failure("invalid", problem, outcome)
    quote = value.get("quote", "") if isinstance(value, dict) else ""
    quote = quote if isinstance(quote, str) else ""
    found = find_quote(quote, task.text, task.start, task.end)
    answer = {k: v for k, v in value.items() if k != "quote"} if isinstance(value, dict) else value
    return row | {
        "status": "valid",
        "reason": "",
        "schema_valid": True,
        "finish_reason": outcome.finish_reason,
        "answer": answer,
        "quote": quote,
        "quote_found": found.found,
        "quote_start": found.start,
        "quote_end": found.end,
        "raw": outcome.text,
    }


def _failure(code: str, detail: str, reply: Reply | None) -> dict[str, Any]:
    return {
        "status": "failed",
        "reason": f"{code}: {detail}",
        "schema_valid": False,
        "finish_reason": reply.finish_reason if reply else "error",
        "answer": None,
        "quote": "",
        "quote_found": False,
        "quote_start": -1,
        "quote_end": -1,
        "raw": reply.text if reply else "",
    }


def why(reason: str) -> Sentence | str:
    """The reason of a failed row, which is the same in every language, as a sentence."""
    code, _, detail = reason.partition(": ")
    if code == "cut":
        return say(
            "The answer was not finished, even with twice the room of analysis: max_new_tokens."
        )
    if code == "invalid":
        return say("The answer does not fit the schema ({detail}).", detail=detail)
    return detail if code == "refused" else reason


def _usage(reply: Reply | None, spent: Reply | None) -> dict[str, Any]:
    all_replies = [r for r in (reply, spent) if r is not None]
    return {
        "prompt_tokens": sum(r.usage.prompt_tokens for r in all_replies),
        "completion_tokens": sum(r.usage.completion_tokens for r in all_replies),
        "seconds": round(sum(r.seconds for r in all_replies), 4),
    }


def essence(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what may differ between two runs of the same work."""
    return {k: v for k, v in row.items() if k not in VOLATILE}
