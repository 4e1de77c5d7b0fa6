"""How do many processes share one analysis without a cluster? Each takes the articles of its part.

    hauslm analyse --shard 3/16     part 3 of 16, on any machine that has the project folder
    hauslm analyse --merge          the sixteen parts as one analysis

Which part an article is of follows from a hash of its file's name (of its text, where a file holds
many): nobody hands out work, and a part that died is started again by the same command. Each part has a
journal, rows and an order file of its own. Merging reads the parts side by side, in the order in which one
process would have read the articles; it may be repeated and gives the same bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hauslm.analyse.output import RowWriter
from hauslm.analyse.templates import for_project
from hauslm.base.errors import DataError, UsageError
from hauslm.base.files import ProjectFolder, canonical_json, read_json, sha256_file, write_json
from hauslm.base.files import lock as file_lock
from hauslm.base.progress import Progress, Silent
from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import Sentence, as_text, say
from hauslm.records import Analysis, OutputFile, Said
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.analyse.sources import Placed

MOST_PARTS = 100_000
WRITE_ROWS = 1024
MOST_LISTED = 200
DONE = "part.json"
ORDER = "order.jsonl"


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 1; 1 of 1 is the whole."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """From '3/16'; H840 if it is not that."""
        number, _, of = text.partition("/")
        if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of) <= MOST_PARTS):
            raise UsageError(
                "H840",
                say("'{text}' is not a part such as 3/16.", text=text),
                where="--shard",
                next_step=say("Parts are counted from 1: 1/16 to 16/16."),
            )
        return cls(int(number), int(of))

    @property
    def several(self) -> bool:
        return self.of > 1

    @property
    def name(self) -> str:
        return f"part-{self.number:05d}-of-{self.of:05d}"

    def holds(self, text: str) -> bool:
        """Does what is called `text` belong to this part? By the first 64 bits of its hash."""
        if not self.several:
            return True
        return _prefix(text) * self.of >> 64 == self.number - 1


WHOLE = Part()


def _prefix(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


class Place:
    """Where the files of a part lie in the project folder."""

    def __init__(self, folder: ProjectFolder, part: Part) -> None:
        self.folder, self.part = folder, part
        whole = folder.work / "analysis"
        self.work = whole / part.name if part.several else whole
        self.output = self.work if part.several else folder.analysis
        self.name = "rows"

    def order_writer(self) -> OrderWriter:
        if self.part.several:
            (self.work / DONE).unlink(missing_ok=True)
        return OrderWriter(self.work / ORDER if self.part.several else None)

    def finish(self, order: OrderWriter, record: Analysis, asked: str) -> None:
        """A part is done: what merging needs to know of it, written last."""
        if not self.part.several:
            return
        order.close()
        value = {
            "part": self.part.number,
            "of": self.part.of,
            "asked": asked,
            "order_sha256": sha256_file(self.work / ORDER),
            "record": record.model_dump(mode="json", by_alias=True),
        }
        write_json(self.work / DONE, value)


class OrderWriter(AbstractContextManager["OrderWriter"]):
    """A line for each article: file, number in it, how many rows it has. Nothing for the whole."""

    def __init__(self, path: Path | None) -> None:
        self._stream = path.open("wb") if path is not None else None

    def write(self, placed: Placed, rows: int) -> None:
        if self._stream is not None:
            line = [placed.file, placed.number, placed.document.id, rows]
            self._stream.write(canonical_json(line) + b"\n")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# ---------------------------------------------------------------- merging


class Finished(NamedTuple):
    """A part that is done."""

    number: int
    folder: Path
    asked: str
    record: Analysis


def merge_parts(
    scenario: Scenario, folder: ProjectFolder, progress: Progress | None = None
) -> Analysis:
    """The parts of this project as one analysis: its rows, Parquet file and record.

    Errors: H840 no parts, parts missing, or parts of different questions or models; H835 no article.
    """
    progress = progress or Silent()
    parts = _complete(folder)
    schema = for_project(scenario).row_schema((), bind_quote=False)
    total = sum(p.record.documents for p in parts)
    articles = 0
    ids = array("Q")
    with (
        file_lock(folder.work / "analysis", "analyse"),
        RowWriter(folder.analysis, schema) as writer,
    ):
        waiting: list[dict[str, Any]] = []
        for _, _, identity, rows in heapq.merge(*[_articles_of(p) for p in parts]):
            articles += 1
            ids.append(_prefix(identity))
            waiting += rows
            if len(waiting) >= WRITE_ROWS:
                writer.write(waiting)
                waiting = []
                progress.step(say("Merging the parts"), articles, total)
        writer.write(waiting)
        if not articles:
            raise DataError("H835", say("There is no article to analyse."))
        digest = writer.close()
    progress.step(say("Merging the parts"), articles, total)
    twice = len(ids) - len(np.unique(np.frombuffer(ids, dtype=np.uint64)))
    return _merged(folder, parts, writer, digest, twice)


def _complete(folder: ProjectFolder) -> list[Finished]:
    """All parts of the one complete set there is, in order."""
    sets: dict[int, list[Finished]] = {}
    for path in sorted((folder.work / "analysis").glob(f"part-*-of-*/{DONE}")):
        found = read_json(path)
        if sha256_file(path.parent / ORDER) != found["order_sha256"]:
            raise _wrong(
                say("The files of part {number} were changed.", number=found["part"]), path
            )
        record = Analysis.model_validate(found["record"])
        one = Finished(found["part"], path.parent, found["asked"], record)
        sets.setdefault(found["of"], []).append(one)
    whole = [of for of, parts in sets.items() if len(parts) == of]
    if len(whole) != 1:
        raise _wrong(_not_one(sets, whole), folder.work / "analysis")
    parts = sets[whole[0]]
    if len({p.asked for p in parts}) > 1:
        raise _wrong(
            say("The parts differ in question, articles or model."), folder.work / "analysis"
        )
    for part in parts:
        if sha256_file(part.folder / "rows.jsonl") != part.record.output.sha256:
            raise _wrong(
                say("The files of part {number} were changed.", number=part.number), part.folder
            )
    return parts


def _not_one(sets: dict[int, list[Finished]], whole: Sequence[int]) -> Sentence:
    if len(whole) > 1:
        shown = ", ".join(map(str, sorted(whole)))
        return say("There are several complete sets of parts: of {counts}.", counts=shown)
    if not sets:
        return say("There is no finished part.")
    of, parts = max(sets.items(), key=lambda item: len(item[1]))
    there = {p.number for p in parts}
    missing = [n for n in range(1, of + 1) if n not in there]
    shown = ", ".join(map(str, missing[:20])) + (" ..." if len(missing) > 20 else "")
    return say(
        "{count:,} of {of:,} parts are missing: {missing}.",
        count=len(missing), of=of, missing=shown,
    )  # fmt: skip


def _wrong(what: Sentence, where: Path) -> DataError:
    return DataError(
        "H840",
        what,
        where=str(where),
        next_step=say(
            "Run hauslm analyse --shard i/n for the parts that are missing; delete the folders of those that are not meant."
        ),
    )


def _articles_of(part: Finished) -> Iterator[tuple[str, int, str, list[dict[str, Any]]]]:
    """The articles of a part in order, each with its rows; both files are read side by side."""
    with (
        (part.folder / ORDER).open(encoding="utf-8") as order,
        (part.folder / "rows.jsonl").open(encoding="utf-8") as rows,
    ):
        for line in order:
            file, number, identity, count = json.loads(line)
            yield file, number, identity, [json.loads(next(rows)) for _ in range(count)]


def _merged(
    folder: ProjectFolder, parts: Sequence[Finished], writer: RowWriter, digest: str, twice: int
) -> Analysis:
    """The record: counts are sums; the time is that of the longest part, as if all ran at once."""
    records = [p.record for p in parts]
    seconds = max(r.seconds for r in records)
    documents, tokens = sum(r.documents for r in records), sum(r.tokens for r in records)
    how = as_text(say("{count:,} parts; the time of the longest one", count=len(parts)))
    failures = sum(r.failures for r in records)
    first = next((r for r in records if r.rows), records[0])
    said = {n.model_dump_json(): n for r in records for n in r.notices}
    notices = list(said.values())
    if twice:
        notices.append(
            Said.of(
                say(
                    "{count:,} articles share their id with another one; article_sha256 tells them apart.",
                    count=twice,
                )
            )
        )
    return Analysis(
        documents=documents,
        rows=writer.rows,
        failed=tuple(f for r in records for f in r.failed)[:MOST_LISTED],
        failures=failures,
        truncated=0,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=derived(tokens / max(seconds, 1e-9), "tokens/s", how),
        documents_per_hour=derived(3600 * documents / max(seconds, 1e-9), "documents/h", how),
        energy_kwh=_sum([r.energy_kwh for r in records]),
        cost=_sum([r.cost for r in records]),
        planned_documents_per_hour=first.planned_documents_per_hour,
        output=OutputFile(
            path=folder.relative(writer.jsonl),
            parquet=folder.relative(writer.parquet),
            sha256=digest,
        ),
        template=first.template,
        engine=first.engine,
        model=first.model,
        quotes_verified=sum(r.quotes_verified for r in records),
        quotes_missing=sum(r.quotes_missing for r in records),
        resumed=any(r.resumed for r in records),
        sections=sum(r.sections for r in records),
        flagged=sum(r.flagged for r in records),
        retried=sum(r.retried for r in records),
        notices=tuple(notices),
    )


def _sum(figures: Sequence[Quantity | None]) -> Quantity | None:
    """The sum, if every part has a figure."""
    known = [f for f in figures if f is not None]
    if not known or len(known) != len(figures):
        return None
    return derived(
        sum(f.value for f in known), known[0].unit, known[0].source,
        sum(f.lowest for f in known), sum(f.highest for f in known),
    )  # fmt: skip
