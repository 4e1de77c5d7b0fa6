"""Articles in, schema-valid rows out: the room's whole way, from the project file to its record.

Documents come one after the other and are worked off in shards, so that memory does not grow with
their number: rows of a shard (`sections.py`) by this process or by others (`cluster.py`), known rows
and new ones (`journal.py`), files (`output.py`). Before the first row the adapter's canary is checked;
nothing is cut off, which is computed, not assumed.
"""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hauslm.analyse.expected import Expected, expected
from hauslm.analyse.journal import RowJournal
from hauslm.analyse.output import RowWriter
from hauslm.analyse.parts import WHOLE, Part, Place
from hauslm.analyse.ready import ready
from hauslm.analyse.runner import why
from hauslm.analyse.sections import MOST_QUOTES, SHARD_DOCUMENTS, WINDOW_TOKENS, Done, Sections
from hauslm.analyse.sources import Engine, Placed, articles, engine_for
from hauslm.analyse.templates import Template, for_project
from hauslm.base import files
from hauslm.base.errors import DataError, Interrupted, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress, Silent
from hauslm.base.quantity import measured
from hauslm.base.words import Sentence, as_text, say
from hauslm.lm.interface import LanguageModel
from hauslm.records import Analysis, Corpus, Failed, OutputFile, Plan, Run, Said
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.analyse.cluster import Spread

__all__ = ["MOST_QUOTES", "SHARD_DOCUMENTS", "WINDOW_TOKENS", "analyse"]

MOST_LISTED = 200  # failures named in the record; the rest is counted


class Workforce(Protocol):
    """Who turns shards into rows: this process, or actors on a cluster."""

    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def notices(self) -> Sequence[Sentence | str]: ...

    def work(
        self, shards: Iterator[list[Placed]], journal: RowJournal, told: Told
    ) -> Iterator[tuple[list[Placed], Done]]:
        """The shards in their order, each with its rows; new rows are in the journal by then."""


class Told(Protocol):
    """Who is told how far a shard is: sections it has, sections that are done."""

    def tasks(self, shard: int, documents: int, count: int) -> None: ...
    def rows(self, shard: int, count: int) -> None: ...


@dataclass
class Tally:
    """What the record counts."""

    documents: int = 0
    failed: list[Failed] = field(default_factory=list)  # the first MOST_LISTED
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    found: int = 0
    missing: int = 0
    flagged: int = 0
    retried: int = 0
    sections: int = 0
    resumed: int = 0
    differing: int = 0


def analyse(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run | None,
    corpus: Corpus | None,
    plan: Plan | None = None,
    model: LanguageModel | None = None,
    progress: Progress | None = None,
    part: Part = WHOLE,
    engine: str = "",
    workers: int | None = None,
    ray_address: str = "",
) -> Analysis:
    """Rows for every article that `analysis` names (default: the held-out test documents).

    Without `model` the project's base is loaded with the adapter of `run`. `part` is the share of the
    articles that this process takes (parts.py). `engine` is used in place of the project file's; "ray"
    spreads the work over `workers` processes (cluster.py) of the cluster at `ray_address`, or of this
    machine. Running it again goes on where it stopped.

    Errors: H830-H831 template or schema, H832 adapter and base do not belong together, H833-H834
    canary, H835 no documents, H836 text left out (a defect), H837 context too short, H838 interrupted,
    H839 a damaged journal, H840 parts, H841-H844 the cluster.
    """
    progress = progress or Silent()
    scenario = ready(scenario, part=part, engine=engine, workers=workers, ray_address=ray_address)
    template = for_project(scenario)
    place = Place(folder, part)
    with files.lock(place.work, "analyse"):
        try:
            with _workforce(
                scenario, folder, template, run, model, progress, workers, ray_address
            ) as workforce, RowJournal(place.work / "journal.jsonl") as journal:  # fmt: skip
                expect = expected(scenario, plan)
                return _Job(scenario, place, template, workforce, journal, progress, expect).run()
        except UsageError as error:
            if error.code == "H802":  # the maker of grammars does not know whose schema it is
                error.where = error.where or "analysis.json_schema"
            raise
        except KeyboardInterrupt as error:
            raise Interrupted(
                "H838",
                say("The analysis was stopped; every finished section is kept."),
                next_step=say("Run the same command again: it goes on from there."),
            ) from error


def _workforce(
    scenario: Scenario,
    folder: ProjectFolder,
    template: Template,
    run: Run | None,
    model: LanguageModel | None,
    progress: Progress,
    workers: int | None,
    ray_address: str,
) -> closing[Here] | closing[Spread]:
    if scenario.analysis.spread == "ray" and model is None:
        from hauslm.analyse import cluster

        return closing(
            cluster.Spread(scenario, folder, run, progress, workers=workers, address=ray_address)
        )
    return closing(Here(scenario, template, engine_for(scenario, folder, run, model, progress)))


class Here:
    """This process does the work itself."""

    def __init__(self, scenario: Scenario, template: Template, engine: Engine) -> None:
        self.scenario, self.template, self.engine = scenario, template, engine
        self.facts = engine.facts

    @property
    def notices(self) -> Sequence[Sentence | str]:
        return list(getattr(self.engine.model, "notices", ()))

    def work(
        self, shards: Iterator[list[Placed]], journal: RowJournal, told: Told
    ) -> Iterator[tuple[list[Placed], Done]]:
        current = (0, 0)  # shard and its documents
        sections = Sections(
            self.scenario,
            self.template,
            self.engine,
            keep=journal.append,
            on_rows=lambda rows: told.rows(current[0], len(rows)),
            on_tasks=lambda count: told.tasks(current[0], current[1], count),
            window_tokens=WINDOW_TOKENS,
        )
        for number, shard in enumerate(shards):
            current = (number, len(shard))
            known = journal.known(p.identity for p in shard)
            yield shard, sections.shard([p.document for p in shard], known)

    def close(self) -> None:
        self.engine.close()


# ---------------------------------------------------------------- the job


@dataclass
class _Share:
    """How far a shard is: `rows` of `tasks`, for so many documents."""

    documents: int
    tasks: int
    rows: int = 0

    def documents_done(self) -> float:
        return self.documents * min(1.0, self.rows / self.tasks) if self.tasks else 0.0


class _Job:
    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        template: Template,
        workforce: Workforce,
        journal: RowJournal,
        progress: Progress,
        expect: Expected,
    ) -> None:
        self.scenario, self.place, self.template = scenario, place, template
        self.workforce, self.journal, self.progress = workforce, journal, progress
        self.expect = expect
        self.engine = scenario.analysis.engine
        self.tally = Tally()
        self.started = time.monotonic()
        self.total: int | None = None
        self.open: dict[int, _Share] = {}  # shards that are being worked on
        self.taken = 0  # shards whose rows are written

    # ------------------------------------------------------------ all of it

    def run(self) -> Analysis:
        scenario, place = self.scenario, self.place
        documents, rejected, self.total = articles(scenario, place.folder, place.part)
        schema = self.template.row_schema((), bind_quote=False)
        with (
            RowWriter(place.output, schema, place.name) as writer,
            place.order_writer() as order,
        ):
            for shard, done in self.workforce.work(_shards(documents), self.journal, self):
                self._take(shard, done, writer, order)
            if self.tally.documents == 0 and not place.part.several:
                raise self._no_documents(rejected)
            digest = writer.close()
            record = self._record(writer, digest, rejected)
            place.finish(order, record, self._asked())
            return record

    def _asked(self) -> str:
        """What all parts of one analysis must have in common, as a hash."""
        asked = {k: str(v) for k, v in self.workforce.facts.items()}
        return files.sha256_bytes(
            files.canonical_json([self.template.sha256, asked, self.scenario.analysis.paths])
        )

    def _no_documents(self, rejected: Sequence[Any]) -> DataError:
        step: Sentence | str = say("Name articles under analysis: paths.")
        if rejected:
            step = say(
                "{file}: {reason}", file=rejected[0].file, reason=rejected[0].reason.sentence()
            )
        return DataError("H835", say("There is no article to analyse."), next_step=step)

    def _take(self, shard: Sequence[Placed], done: Done, writer: RowWriter, order: Any) -> None:
        """A shard is done: its rows to the files, its figures to the tally."""
        self.open.pop(self.taken, None)
        self.taken += 1
        self.tally.sections += done.sections
        self.tally.resumed += done.resumed
        self.tally.differing += done.differing
        for placed, (own, merged) in zip(shard, done.documents, strict=True):
            rows = [*own, *merged]
            writer.write(rows)
            order.write(placed, len(rows))
            self._count(placed, rows)
        self._show()

    def _count(self, placed: Placed, rows: Sequence[Mapping[str, Any]]) -> None:
        tally = self.tally
        tally.documents += 1
        for row in rows:
            tally.prompt_tokens += row["prompt_tokens"]
            tally.completion_tokens += row["completion_tokens"]
            tally.retried += row["attempts"] > 1
            tally.flagged += bool(row["untrusted"])
            if row["status"] == "valid":
                tally.found += row["quote_found"]
                tally.missing += not row["quote_found"]
            elif row["attempts"]:
                tally.failures += 1
                if len(tally.failed) < MOST_LISTED:
                    spot = f"{placed.document.id} [{row['start']}:{row['end']}]"
                    if row["question"]:
                        spot += f" {row['question']}"
                    tally.failed.append(Failed(document=spot, reason=Said.of(why(row["reason"]))))

    # ------------------------------------------------------------ telling

    def tasks(self, shard: int, documents: int, count: int) -> None:
        self.open[shard] = _Share(documents, count)

    def rows(self, shard: int, count: int) -> None:
        if shard in self.open:
            self.open[shard].rows += count
        self._show()

    def _show(self) -> None:
        shares = list(self.open.values())  # other threads add to it meanwhile
        done = self.tally.documents + sum(s.documents_done() for s in shares)
        seconds = time.monotonic() - self.started
        per_second = done / max(1e-9, seconds)
        remaining = None if self.total is None else (self.total - done) / max(per_second, 1e-9)
        figures = {
            "documents_per_hour": round(3600 * per_second),
            "planned_documents_per_hour": self.expect.per_hour,
            "remaining_seconds": None if remaining is None else round(max(0.0, remaining)),
            "energy_kwh": self.expect.energy_kwh(seconds),
            "cost_so_far_eur": self.expect.cost_eur(seconds),
            "failed": self.tally.failures,
        }
        shown = {k: v for k, v in figures.items() if v is not None}
        self.progress.step(say("Analysing articles"), done, self.total, **shown)

    # ------------------------------------------------------------ the record

    def _record(self, writer: RowWriter, digest: str, rejected: Sequence[Any]) -> Analysis:
        tally, folder = self.tally, self.place.folder
        seconds = time.monotonic() - self.started
        today = datetime.date.today().isoformat()
        tokens = tally.prompt_tokens + tally.completion_tokens
        unread = [
            Failed(document=r.file, reason=r.reason)
            for r in itertools.islice(rejected, MOST_LISTED)
        ]
        failed = [*unread, *tally.failed]
        how = as_text(say("measured over the whole job, reading and writing included"))
        count = len(rejected) + tally.failures
        return Analysis(
            documents=tally.documents,
            rows=writer.rows,
            failed=tuple(failed[:MOST_LISTED]),
            failures=count,
            truncated=0,  # a single character that no window holds ends the job: H836
            tokens=tokens,
            seconds=round(seconds, 3),
            tokens_per_second=measured(tokens / max(seconds, 1e-9), "tokens/s", today, how),
            documents_per_hour=measured(
                3600 * tally.documents / max(seconds, 1e-9), "documents/h", today, how
            ),
            energy_kwh=self.expect.energy(seconds),
            cost=self.expect.cost(seconds),
            planned_documents_per_hour=self.expect.documents_per_hour,
            output=OutputFile(
                path=folder.relative(writer.jsonl),
                parquet=folder.relative(writer.parquet),
                sha256=digest,
            ),
            template=self.template.id,
            engine=self.engine,
            model={k: str(v) for k, v in self.workforce.facts.items()},
            quotes_verified=tally.found,
            quotes_missing=tally.missing,
            resumed=tally.resumed > 0,
            sections=tally.sections,
            flagged=tally.flagged,
            retried=tally.retried,
            notices=tuple(Said.of(s) for s in self._notices(count, len(rejected))),
        )

    def _notices(self, failed: int, unread: int) -> list[Sentence | str]:
        tally = self.tally
        found: list[Sentence | str] = list(self.workforce.notices)
        if self.scenario.analysis.max_documents == tally.documents:
            found.append(
                say("Only the first {count:,} articles were analysed (analysis: max_documents).",
                    count=tally.documents)
            )  # fmt: skip
        if not self.workforce.facts["adapter"] and self.engine == "transformers":
            found.append(say("There is no adapter: the base model alone answered."))
        if tally.resumed:
            found.append(
                say("{count:,} sections were already done and were not computed again.",
                    count=tally.resumed)
            )  # fmt: skip
        if tally.differing:
            found.append(
                say("{count:,} sections came out differently when computed again; the first answer was "
                    "kept.", count=tally.differing)
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


def _shards(documents: Iterator[Placed]) -> Iterator[list[Placed]]:
    while shard := list(itertools.islice(documents, SHARD_DOCUMENTS)):
        yield shard
