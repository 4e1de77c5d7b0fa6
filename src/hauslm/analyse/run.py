"""Articles in, schema-valid rows out: the room's whole way, from the project file to its record.

Documents come one after the other and are worked off in shards, so that memory does not grow with
their number: windows (`windows.py`), rows (`runner.py`), article rows (`merge.py`), files
(`output.py`). Before the first row the adapter's canary is checked; nothing is cut off, which is
computed, not assumed.
"""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hauslm.analyse import merge
from hauslm.analyse.evidence import SHORTEST_QUOTE, untrusted
from hauslm.analyse.output import RowWriter
from hauslm.analyse.runner import Runner, Task, key_of, prompt_sha256
from hauslm.analyse.sources import Engine, articles, engine_for
from hauslm.analyse.templates import MAX_QUOTE_CHARACTERS, Template, for_project
from hauslm.analyse.windows import Window, quotable, uncovered, windows
from hauslm.base import files
from hauslm.base.errors import DataError, Interrupted, MissingError, RefusedError, UsageError
from hauslm.base.files import Journal, ProjectFolder, sha256_bytes
from hauslm.base.progress import Progress, Silent
from hauslm.base.quantity import measured
from hauslm.base.words import Sentence, as_text, say
from hauslm.lm import schema as schemas
from hauslm.lm.interface import BASE, LanguageModel, Request
from hauslm.records import Analysis, Corpus, Failed, OutputFile, Run, Said
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.data.document import Document

SHARD_DOCUMENTS = 64
WINDOW_TOKENS = 1500  # longest stretch read at once: more dilutes what a row says about its place
PROMPT_MARGIN = 48  # tokens for the chat template around instruction and text
MOST_QUOTES = 64
MOST_MERGED = 24  # section texts rewritten into one at a time
MOST_LISTED = 200  # failures named in the record; the rest is counted
DECODING = {"temperature": 0.0, "retry": 1}


@dataclass
class Tally:
    """What the record counts."""

    documents: int = 0
    failed: list[Failed] = field(default_factory=list)
    uncovered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    found: int = 0
    missing: int = 0
    flagged: int = 0
    retried: int = 0
    sections: int = 0


def analyse(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run | None,
    corpus: Corpus | None,
    model: LanguageModel | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Rows for every article that `analysis` names (default: the held-out test documents).

    Without `model` the project's base is loaded with the adapter of `run`. Running it again goes on
    where it stopped. Errors: H830-H831 template or schema, H832 adapter and base do not belong
    together, H833-H834 canary, H835 no documents, H836 text left out (a defect), H837 context too
    short, H838 interrupted.
    """
    progress = progress or Silent()
    template = for_project(scenario)
    work = folder.work / "analysis"
    with files.lock(work, "analyse"):
        engine = engine_for(scenario, folder, run, model, progress)
        try:
            journal = Journal(work / "journal.jsonl")
            with journal:
                return _Job(scenario, folder, template, engine, journal, progress).run()
        except KeyboardInterrupt as error:
            raise Interrupted(
                "H838",
                say("The analysis was stopped; every finished section is kept."),
                next_step=say("Run the same command again: it goes on from there."),
            ) from error
        finally:
            engine.close()


# ---------------------------------------------------------------- the job


@dataclass
class _Share:
    """How far the current shard is: `rows` of `tasks`, for so many documents."""

    documents: int = 0
    tasks: int = 0
    rows: int = 0

    def documents_done(self) -> float:
        return self.documents * min(1.0, self.rows / self.tasks) if self.tasks else 0.0


class _Job:
    def __init__(
        self,
        scenario: Scenario,
        folder: ProjectFolder,
        template: Template,
        engine: Engine,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.scenario, self.folder, self.template = scenario, folder, template
        self.engine, self.progress = engine, progress
        self.tally = Tally()
        self.started = time.monotonic()
        self.runner = Runner(
            engine.model, journal, batch_size=scenario.analysis.batch_size, on_rows=self._on_rows
        )
        self.max_new_tokens = scenario.analysis.max_new_tokens
        self.budget = self._budget()
        self.total: int | None = None
        self.share_done = _Share()

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
        return min(budget, WINDOW_TOKENS)

    # ------------------------------------------------------------ all of it

    def run(self) -> Analysis:
        documents, rejected, self.total = articles(self.scenario, self.folder)
        schema = self.template.row_schema((), bind_quote=False)
        with RowWriter(self.folder.analysis, schema) as writer:
            for shard in _shards(documents):
                writer.write(self._shard(shard))
            if self.tally.documents == 0:
                raise self._no_documents(rejected)
            digest = writer.close()
            return self._record(writer, digest, rejected)

    def _no_documents(self, rejected: Sequence[Any]) -> DataError:
        step: Sentence | str = say("Name articles under analysis: paths.")
        if rejected:
            step = say(
                "{file}: {reason}", file=rejected[0].file, reason=rejected[0].reason.sentence()
            )
        return DataError("H835", say("There is no article to analyse."), next_step=step)

    def _shard(self, documents: Sequence[Document]) -> list[dict[str, Any]]:
        plans = [(d, self._windows(d)) for d in documents]
        tasks = [
            [self._task(d, w, q) for q in self.template.questions or ("",) for w in parts]
            for d, parts in plans
        ]
        self.tally.sections += sum(map(len, tasks))
        self.share_done = _Share(len(documents), sum(map(len, tasks)))
        rows = iter(self.runner.run([t for group in tasks for t in group]))
        sections = [[next(rows) for _ in group] for group in tasks]
        articles = self._articles(documents, sections)
        self.share_done = _Share()
        result = []
        for document, own, merged in zip(documents, sections, articles, strict=True):
            result += [*own, *merged]
            self._count(document, own, merged)
        return result

    # ------------------------------------------------------------ sections

    def _windows(self, document: Document) -> list[Window]:
        parts = windows(document, self.budget, self.engine.model.count_tokens)
        left_out = uncovered(document.text, parts)
        self.tally.uncovered += left_out
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
            "article_sha256": document.sha256 or sha256_bytes(document.text.encode()),
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
            merged.append([merge.article_row(group, kind) for group in by_question.values()])
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
                row = merge.article_row(part, "first") if task is None else next(results)
                following.setdefault(i, []).append(row)
            for i, rows_of_level in following.items():
                written[i] += rows_of_level[:-1] if len(rows_of_level) == 1 else rows_of_level
            open_rows = {i: rows for i, rows in following.items() if len(rows) > 1}
            for i, rows_of_level in following.items():
                if len(rows_of_level) == 1:
                    written[i].append({**rows_of_level[0], "level": "article"})
        for i, rows_of_document in enumerate(sections):
            if len(rows_of_document) == 1:
                written[i] = [merge.article_row(rows_of_document, "first")]
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
            parts[-2] += parts.pop()
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

    # ------------------------------------------------------------ counting and telling

    def _count(
        self, document: Document, own: Sequence[dict[str, Any]], merged: Sequence[dict[str, Any]]
    ) -> None:
        tally = self.tally
        tally.documents += 1
        for row in [*own, *merged]:
            tally.prompt_tokens += row["prompt_tokens"]
            tally.completion_tokens += row["completion_tokens"]
            tally.retried += row["attempts"] > 1
            tally.flagged += bool(row["untrusted"])
            if row["status"] == "valid":
                tally.found += row["quote_found"]
                tally.missing += not row["quote_found"]
            elif row["attempts"]:
                place = f"{document.id} [{row['start']}:{row['end']}]"
                tally.failed.append(Failed(document=place, reason=Said.of(row["reason"])))

    def _on_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.share_done.rows += len(rows)
        done = self.tally.documents + self.share_done.documents_done()
        per_second = done / max(1e-9, time.monotonic() - self.started)
        remaining = None if self.total is None else (self.total - done) / max(per_second, 1e-9)
        self.progress.step(
            say("Analysing articles"),
            done,
            self.total,
            documents_per_hour=round(3600 * per_second),
            remaining_s=None if remaining is None else round(max(0.0, remaining)),
            failed=len(self.tally.failed),
        )

    def _record(self, writer: RowWriter, digest: str, rejected: Sequence[Any]) -> Analysis:
        tally = self.tally
        seconds = time.monotonic() - self.started
        today = datetime.date.today().isoformat()
        tokens = tally.prompt_tokens + tally.completion_tokens
        unread = [Failed(document=r.file, reason=r.reason) for r in rejected]
        failed = [*unread, *tally.failed]
        how = as_text(say("measured over the whole job, reading and writing included"))
        return Analysis(
            documents=tally.documents,
            rows=writer.rows,
            failed=tuple(failed[:MOST_LISTED]),
            truncated=_none_left_out(tally.uncovered),
            tokens=tokens,
            seconds=round(seconds, 3),
            tokens_per_second=measured(tokens / max(seconds, 1e-9), "tokens/s", today, how),
            documents_per_hour=measured(
                3600 * tally.documents / max(seconds, 1e-9), "documents/h", today, how
            ),
            output=OutputFile(
                path=self.folder.relative(writer.jsonl),
                parquet=self.folder.relative(writer.parquet),
                sha256=digest,
            ),
            template=self.template.id,
            engine=self.scenario.analysis.engine,
            model={k: str(v) for k, v in self.engine.facts.items()},
            quotes_verified=tally.found,
            quotes_missing=tally.missing,
            resumed=self.runner.resumed > 0,
            sections=tally.sections,
            flagged=tally.flagged,
            retried=tally.retried,
            notices=tuple(Said.of(s) for s in self._notices(len(failed), len(unread))),
        )

    def _notices(self, failed: int, unread: int) -> list[Sentence | str]:
        tally, runner = self.tally, self.runner
        found: list[Sentence | str] = list(getattr(self.engine.model, "notices", ()))
        if self.scenario.analysis.max_documents == tally.documents:
            found.append(
                say("Only the first {count:,} articles were analysed (analysis: max_documents).",
                    count=tally.documents)
            )  # fmt: skip
        if self.engine.adapter == BASE and self.scenario.analysis.engine == "transformers":
            found.append(say("There is no adapter: the base model alone answered."))
        if runner.resumed:
            found.append(
                say("{count:,} sections were already done and were not computed again.",
                    count=runner.resumed)
            )  # fmt: skip
        if runner.differing:
            found.append(
                say("{count:,} sections came out differently when computed again; the first answer was "
                    "kept.", count=runner.differing)
            )  # fmt: skip
        if unread:
            found.append(say("{count:,} files could not be read.", count=unread))
        if failed > unread:
            found.append(
                say("{count:,} rows failed; they are in the output with their reason.",
                    count=failed - unread)
            )  # fmt: skip
        if failed > MOST_LISTED:
            found.append(
                say("The record names the first {shown} of {count:,} failures.",
                    shown=MOST_LISTED, count=failed)
            )  # fmt: skip
        if tally.missing:
            found.append(
                say("{count:,} quotes do not stand in their article; do not rely on those rows.",
                    count=tally.missing)
            )  # fmt: skip
        if tally.flagged:
            found.append(
                say("{count:,} rows come from text with hidden characters or with orders to the reader; "
                    "look at them (column untrusted).", count=tally.flagged)
            )  # fmt: skip
        return found


def _line(row: Mapping[str, Any]) -> str:
    """One section's text for the merge, with its sentence."""
    answer = row["answer"] or {}
    text = " ".join(str(v) for v in answer.values())
    section = f"{row['section']}: " if row.get("section") else ""
    return f'{section}{text} ("{row["quote"]}")' if row["quote_found"] else f"{section}{text}"


def _none_left_out(characters: int) -> Any:
    """The record's `truncated`: computed, and zero or there is no record."""
    if characters:
        raise MissingError("H836", say("{count:,} characters were not read.", count=characters))
    return characters


def _shards(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while shard := list(itertools.islice(iterator, SHARD_DOCUMENTS)):
        yield shard
