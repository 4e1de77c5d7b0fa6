"""How does a shard of documents become rows? Windows, tasks, groups, and the merge of each article.

A shard is always worked off in the same way, whoever does it: this process, or an actor on another
machine (cluster.py). What is known of its documents comes in, new rows go out through `keep` group by
group, and the result are the shard's rows in the order of its documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hauslm.analyse import merge
from hauslm.analyse.evidence import SHORTEST_QUOTE, untrusted
from hauslm.analyse.runner import Runner, Task, key_of, prompt_sha256
from hauslm.analyse.sources import Engine, article_sha256
from hauslm.analyse.templates import MAX_QUOTE_CHARACTERS, Template
from hauslm.analyse.windows import Window, quotable, uncovered, windows
from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.files import sha256_bytes
from hauslm.base.words import say
from hauslm.lm import schema as schemas
from hauslm.lm.interface import Request
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.data.document import Document

Row = dict[str, Any]

SHARD_DOCUMENTS = 64
WINDOW_TOKENS = 1500  # longest stretch read at once: more dilutes what a row says about its place
PROMPT_MARGIN = 48  # tokens for the chat template around instruction and text
MOST_QUOTES = 64
MOST_MERGED = 24  # section texts rewritten into one at a time
DECODING = {"temperature": 0.0, "retry": 1}


@dataclass(frozen=True)
class Done:
    """A shard that is done: per document its section rows and its article rows, and what was counted."""

    documents: tuple[tuple[list[Row], list[Row]], ...]
    sections: int
    resumed: int
    differing: int


class Sections:
    """Documents into rows, with one engine. `keep` and `on_rows` as in `Runner`; `on_tasks(n)` is told
    how many sections a shard has, before the first is asked about."""

    def __init__(
        self,
        scenario: Scenario,
        template: Template,
        engine: Engine,
        *,
        keep: Callable[[Sequence[Row]], object],
        on_rows: Callable[[Sequence[Row]], None] = lambda rows: None,
        on_tasks: Callable[[int], None] = lambda count: None,
        window_tokens: int | None = None,
    ) -> None:
        self.template, self.engine, self.on_tasks = template, engine, on_tasks
        self.max_new_tokens = scenario.analysis.max_new_tokens
        self.window_tokens = window_tokens or WINDOW_TOKENS
        self.budget = self._budget()
        self.runner = Runner(
            engine.model, batch_size=scenario.analysis.batch_size, keep=keep, on_rows=on_rows
        )

    def shard(self, documents: Sequence[Document], known: Mapping[str, Row]) -> Done:
        """The rows of `documents`; those in `known` (by key) are not computed again."""
        before = self.runner.resumed, self.runner.differing
        self.runner.begin(known)
        tasks = [
            [self._task(d, w, q) for q in self.template.questions or ("",) for w in parts]
            for d, parts in [(d, self._windows(d)) for d in documents]
        ]
        count = sum(map(len, tasks))
        self.on_tasks(count)
        rows = iter(self.runner.run([t for group in tasks for t in group]))
        sections = [[next(rows) for _ in group] for group in tasks]
        merged = self._articles(documents, sections)
        return Done(
            tuple(zip(sections, merged, strict=True)),
            count,
            self.runner.resumed - before[0],
            self.runner.differing - before[1],
        )

    def _budget(self) -> int:
        """Tokens of article text per window: what context, instruction and answer leave."""
        model, template = self.engine.model, self.template
        longest = max(template.questions, key=len, default="")
        head = template.messages("", "", "", longest)[0].content
        fixed = model.count_tokens(head) + PROMPT_MARGIN + self.max_new_tokens
        budget = int(0.95 * (model.context_length - fixed))
        if budget < 64:
            raise UsageError(
                "H837",
                say(
                    "A context of {limit:,} tokens leaves no room for text beside the instruction and "
                    "an answer of {new:,} tokens.",
                    limit=model.context_length,
                    new=self.max_new_tokens,
                ),
                where="analysis.max_new_tokens",
                next_step=say("Ask for shorter answers or use a model with a longer context."),
            )
        return min(budget, self.window_tokens)

    # ------------------------------------------------------------ sections

    def _windows(self, document: Document) -> list[Window]:
        parts = windows(document, self.budget, self.engine.model.count_tokens)
        left_out = uncovered(document.text, parts)
        if left_out:
            raise RefusedError(
                "H836",
                say(
                    "{count:,} characters of {id} would not be read.",
                    count=left_out,
                    id=document.id,
                ),
                next_step=say("This is a defect of hauslm; please report it with the document."),
            )
        return parts

    def _facts(self, document: Document, **own: Any) -> dict[str, Any]:
        return {
            "article": document.id,
            "article_sha256": article_sha256(document),
            "title": document.title,
            "language": document.language,
            **self.engine.facts,
            "template": self.template.id,
            "template_version": self.template.version,
            "template_sha256": self.template.sha256,
            **own,
        }

    def _task(self, document: Document, window: Window, question: str) -> Task:
        text = document.text[window.start : window.end]
        quotes = quotable(document.text, window, SHORTEST_QUOTE, MAX_QUOTE_CHARACTERS, MOST_QUOTES)
        schema = self.template.row_schema(quotes, bind_quote=self.engine.bind_quotes)
        messages = self.template.messages(document.title, window.section, text, question)
        facts = self._facts(
            document,
            level="section",
            section=window.section,
            start=window.start,
            end=window.end,
            overlap=window.overlap,
            question=question,
            untrusted=list(untrusted(f"{document.title}\n{text}", document.metadata)),
        )
        request = self._request(messages, schema)
        key = self._key(facts, request, schema)
        return Task(key, request, schema, facts, document.text, window.start, window.end)

    def _request(self, messages: Any, schema: Mapping[str, Any]) -> Request:
        return Request(
            tuple(messages),
            max_new_tokens=self.max_new_tokens,
            adapter=self.engine.adapter,
            json_schema=dict(schema),
        )

    def _key(self, facts: Mapping[str, Any], request: Request, schema: Mapping[str, Any]) -> str:
        return key_of(
            facts={k: v for k, v in facts.items() if k != "untrusted"},
            prompt=prompt_sha256(request),
            schema=sha256_bytes(schemas.key_of(schema)),
            decoding={**DECODING, "max_new_tokens": request.max_new_tokens},
        )

    # ------------------------------------------------------------ articles

    def _articles(
        self, documents: Sequence[Document], sections: Sequence[Sequence[dict[str, Any]]]
    ) -> list[list[dict[str, Any]]]:
        """The article rows per document: one per question, none for an own schema without merge."""
        kind = self.template.merge
        if kind == "none":
            return [[] for _ in documents]
        if kind == "rewrite":
            return self._rewritten(documents, sections)
        merged = []
        for rows in sections:
            by_question: dict[str, list[dict[str, Any]]] = {}
            for row in rows:
                by_question.setdefault(row["question"], []).append(row)
            merged.append(
                [
                    merge.article_row(group, kind, self.template.schema)
                    for group in by_question.values()
                ]
            )
        return merged

    def _rewritten(
        self, documents: Sequence[Document], sections: Sequence[Sequence[dict[str, Any]]]
    ) -> list[list[dict[str, Any]]]:
        """Section texts rewritten into one, level by level, all documents of the shard together."""
        open_rows = {i: list(rows) for i, rows in enumerate(sections) if len(rows) > 1}
        written: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(documents))}
        for level in itertools.count(1):
            batches = [(i, part) for i, rows in open_rows.items() for part in self._parts(rows)]
            if not batches:
                break
            tasks = [self._merge_task(documents[i], part, level) for i, part in batches]
            rows = self.runner.run([t for t in tasks if t is not None])
            results = iter(rows)
            following: dict[int, list[dict[str, Any]]] = {}
            for (i, part), task in zip(batches, tasks, strict=True):
                row = (
                    merge.article_row(part, "first", self.template.schema)
                    if task is None
                    else next(results)
                )
                following.setdefault(i, []).append(row)
            for i, rows_of_level in following.items():
                written[i] += rows_of_level[:-1] if len(rows_of_level) == 1 else rows_of_level
            open_rows = {i: rows for i, rows in following.items() if len(rows) > 1}
            for i, rows_of_level in following.items():
                if len(rows_of_level) == 1:
                    written[i].append({**rows_of_level[0], "level": "article"})
        for i, rows_of_document in enumerate(sections):
            if len(rows_of_document) == 1:
                written[i] = [merge.article_row(rows_of_document, "first", self.template.schema)]
        return [written[i] for i in range(len(documents))]

    def _parts(self, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Consecutive rows whose texts fit one prompt together."""
        parts: list[list[dict[str, Any]]] = [[]]
        size = 0
        for row in rows:
            tokens = self.engine.model.count_tokens(_line(row)) + 4 if row["answer"] else 0
            if len(parts[-1]) >= 2 and (
                len(parts[-1]) >= MOST_MERGED or size + tokens > self.budget
            ):
                parts.append([])
                size = 0
            parts[-1].append(row)
            size += tokens
        if len(parts) > 1 and len(parts[-1]) == 1:
            alone = parts.pop()
            parts[-1] += alone
        return parts

    def _merge_task(
        self, document: Document, rows: Sequence[dict[str, Any]], level: int
    ) -> Task | None:
        """The task that writes one text from several; None if there is nothing to write from."""
        sound = [r for r in rows if r["status"] == "valid"]
        if not sound:
            return None
        quotes = list(dict.fromkeys(r["quote"] for r in sound if r["quote_found"]))
        schema = self.template.row_schema(quotes, bind_quote=self.engine.bind_quotes)
        messages = self.template.merge_messages(document.title, [_line(r) for r in sound])
        facts = self._facts(
            document,
            level="merge",
            section="",
            start=min(r["start"] for r in rows),
            end=max(r["end"] for r in rows),
            question="",
            merge_level=level,
            rests_on=[r["key"] for r in sound],
            sections_failed=sum(r["status"] != "valid" for r in rows),
            untrusted=sorted({f for r in rows for f in r["untrusted"]}),
        )
        request = self._request(messages, schema)
        key = self._key(facts, request, schema)
        return Task(key, request, schema, facts, document.text, facts["start"], facts["end"])


def _line(row: Mapping[str, Any]) -> str:
    """One section's text for the merge, with its sentence."""
    answer = row["answer"] or {}
    text = " ".join(str(v) for v in answer.values())
    section = f"{row['section']}: " if row.get("section") else ""
    return f'{section}{text} ("{row["quote"]}")' if row["quote_found"] else f"{section}{text}"
