"""From the team's documents to examples that can be trained on: the whole way, in six steps.

1. read every file into a spool, name what is unusable;  2. learn the facts of each document;
3. group documents into works and place each work in train, validation or test;  4. measure what test
and train share;  5. tokenize and cut into examples;  6. look before you spend, and write the record.

With processes, 2 and 5 begin while 1 still reads: what a document becomes does not depend on its place,
so its examples are made at once and dealt out to their splits afterwards.

Memory does not grow with the text: the spool and everything after it is streamed, word hashes wait in
files, examples are written as they come. An interrupted run goes on with the shards that are missing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, HauslmError, Interrupted
from hauslm.base.files import (
    ProjectFolder,
    canonical_json,
    disk_error,
    fsync_folder,
    lock,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
)
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import base_of
from hauslm.data import placing, workers
from hauslm.data.build import Job, deal_shard, examples_of_items, part
from hauslm.data.gather import Gathered, gather
from hauslm.data.quick import Disagreement
from hauslm.data.reading import Source, find_files
from hauslm.data.shards import ShardWork
from hauslm.data.split import SPLITS, TRAIN, Assignment
from hauslm.data.spool import placed_lines, read_shard
from hauslm.data.store import ExampleStore, StoreWriter
from hauslm.data.summary import Prepared, planned, record
from hauslm.data.task import Task, TaskItem
from hauslm.data.task_files import load_task
from hauslm.data.tokenizers import characters_per_token, offline_tokenizers
from hauslm.data.tokens import Tokenizer
from hauslm.records import Corpus, Plan, Rejected
from hauslm.scenario import Scenario

FORMAT_VERSION = 4  # of the prepared files; part of the key that decides whether work can go on
DEFAULT_SEQ_LEN = 512
TASK_CHUNK = 2000  # items per unit of work


def prepare(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Prepare the project's documents and task; writes `work/prepared/` and returns the record.

    The sequence length is training.seq_len, else the plan's, else 512. Raises `DataError` H301 (a path
    without documents), H302 (nothing usable at all), H340-H343 (the task), H332 (seq_len too short for
    the task), `MissingError` H530 (no base model), H521 (no tokenizer), `RefusedError` H410 (already
    running here), `Interrupted` H350 (Ctrl-C), `DataError` H351 (one of its processes was ended, and again).
    """
    with lock(folder.work, "prepare"):
        try:
            return _Preparation(scenario, folder, plan, progress or Silent()).run()
        except KeyboardInterrupt as stop:
            raise Interrupted(
                "H350",
                say("Preparing was interrupted; the finished parts are kept."),
                next_step=say("hauslm prepare goes on with what is missing."),
            ) from stop
        except BrokenProcessPool as error:
            raise DataError(
                "H351",
                say(
                    "A process of the preparation ended by itself; often there is too little memory."
                ),
                where=str(folder.work / "prepared"),
                next_step=say(
                    "Free some memory and start hauslm prepare again; if it ends once more, give half of "
                    "documents: paths at a time to find the file."
                ),
            ) from error


def sequence_length(scenario: Scenario, plan: Plan | None) -> int:
    """training.seq_len, else the plan's, else 512."""
    return int(scenario.training.seq_len or planned(plan, "seq_len") or DEFAULT_SEQ_LEN)


class _Preparation:
    """One run: the steps in order, and what all of them need."""

    def __init__(
        self, scenario: Scenario, folder: ProjectFolder, plan: Plan | None, progress: Progress
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.plan = plan
        self.progress = progress
        self.prepared = folder.work / "prepared"
        self.building = self.prepared / ".build"
        self.seq_len = sequence_length(scenario, plan)

    def run(self) -> Corpus:
        started = time.monotonic()
        try:
            return self._run(started, quick=True)
        except (Disagreement, BrokenProcessPool) as error:
            if not self.work.quick:
                raise
            notice = _library_alone(error)
        self.progress.say(notice)
        return self._run(started, quick=False, told=[notice])

    def _run(self, started: float, *, quick: bool, told: Sequence[Sentence] = ()) -> Corpus:
        model = self.scenario.model
        base = base_of(model, self.folder.root, need_weights=False, tell=self.progress.say)
        self.tokenizer = Tokenizer(base.path)
        task, labelled, task_rejected, notices = self._load_task()
        notices += told
        self._open_building(quick=quick)
        with workers.team() as self.team, ExitStack() as stack:
            tokenizer = self.tokenizer if quick else None
            self.work = ShardWork(self.team, self._job(), self.progress, tokenizer)
            stack.callback(self.work.end)
            self.work.expect(self._likely_text())
            gathered = self._gather(has_items=bool(labelled))
            self.work.all(gathered.shards)
            corpus = placing.Corpus(self.building, list(self.work.facts()))
            assignment, near = placing.place(corpus, labelled, self.scenario.documents, self.team)
            items = self._place_items(labelled, assignment, notices)
            overlap = placing.measure_overlap(corpus, items, assignment)
            lengths, counts, split_items = self._examples(gathered, corpus, assignment, task, items)
            self.team.dismiss()
            self._write_items(items)
            spool = self.work.job.spool
            documents = chain.from_iterable(read_shard(spool, s) for s in gathered.shards)
            counted = characters_per_token(documents, offline_tokenizers())
            made = record(
                Prepared(
                    scenario=self.scenario,
                    plan=self.plan,
                    base=base,
                    tokenizer=self.tokenizer,
                    seq_len=self.seq_len,
                    gathered=gathered,
                    facts=corpus.all(),
                    task=task,
                    items=items,
                    task_rejected=task_rejected,
                    task_notices=notices,
                    assignment=assignment,
                    near=near,
                    overlap=overlap,
                    stores={s: ExampleStore.open(self.prepared / s) for s in SPLITS},
                    document_tokens=lengths,
                    characters=counts["characters"],
                    control_spellings=counts["control"],
                    split_items=split_items,
                    tokenizers=counted,
                    seconds=time.monotonic() - started,
                )
            )
        shutil.rmtree(self.building, ignore_errors=True)
        return made

    def _place_items(
        self, labelled: Sequence[TaskItem], assignment: Assignment, notices: list[Sentence]
    ) -> list[TaskItem]:
        items, dropped = placing.place_items(labelled, assignment)
        if dropped:
            notices.append(
                say(
                    "Items of the train_file that belong to documents of the test part: {count:,}. They were "
                    "left out of training.",
                    count=dropped,
                )
            )
        return items

    # -------------------------------------------------------------- what there is to prepare

    def _load_task(self) -> tuple[Task | None, list[TaskItem], list[Rejected], list[Sentence]]:
        section = self.scenario.evaluation.task
        if not (section.file or section.train_file or section.test_file):
            return None, [], [], []
        task, items, rejected, notices = load_task(section, self.folder.root)
        if section.test_file:  # then no other file holds test items
            items = [item if item.split else replace(item, split=TRAIN) for item in items]
        return task, items, rejected, notices

    def _open_building(self, *, quick: bool) -> None:
        """Keep the unfinished work of an interrupted run if it was made from the same things."""
        key = self._key(quick=quick)
        marker = self.building / "key.json"
        try:
            if marker.is_file() and read_json(marker) == {"key": key}:
                self.progress.say(say("Going on with the preparation that was interrupted."))
                return
        except HauslmError:
            pass  # a damaged marker: begin anew
        shutil.rmtree(self.building, ignore_errors=True)
        write_json(marker, {"key": key})

    def _key(self, *, quick: bool) -> str:
        """Everything the prepared files depend on."""
        files = [source.stamp() for source in self._sources()]
        section = self.scenario.evaluation.task
        names = [n for n in (section.file, section.train_file, section.test_file) if n]
        training = self.scenario.training
        value = {
            "format": FORMAT_VERSION,
            "files": files,
            "documents": self.scenario.documents.model_dump(),
            "copyright": self.scenario.scenario.data.copyright,
            "task": section.model_dump(),
            "task_files": [sha256_file(self.folder.root / Path(n).expanduser()) for n in names],
            "tokenizer": self.tokenizer.sha256,
            "seq_len": self.seq_len,
            "use": [training.use_text, training.use_task],
            **({} if quick else {"tokenized_by": "library"}),
        }
        return sha256_bytes(canonical_json(value))

    def _sources(self) -> list[Source]:
        """The document files; none if the default folder is absent and there is a task."""
        section = self.scenario.evaluation.task
        default = type(self.scenario.documents)().paths
        try:
            return find_files(self.scenario.documents.paths, self.folder.root)
        except DataError:
            if (section.file or section.train_file) and self.scenario.documents.paths == default:
                return []
            raise

    def _likely_text(self) -> int:
        """Bytes of the files whose bytes are mostly text."""
        pages = (".pdf", ".docx")
        texts = (s for s in self._sources() if s.path.suffix.lower() not in pages)
        return sum(max(0, s.size_bytes) for s in texts)

    # -------------------------------------------------------------- the steps

    def _job(self) -> Job:
        return Job(
            spool=self.building / "spool.jsonl",
            folder=self.building,
            base=self.tokenizer.folder,
            seq_len=self.seq_len,
            use_text=self.scenario.training.use_text,
        )

    def _gather(self, *, has_items: bool) -> Gathered:
        gathered = gather(
            self.scenario,
            self.folder.root,
            self.building,
            self.progress,
            paths=bool(self._sources()),
            closed=self.work.closed,
        )
        if not gathered.count and not has_items:
            first = gathered.rejected[0] if gathered.rejected else None
            raise DataError(
                "H302",
                say(
                    "None of the files can be used; {count:,} were rejected.",
                    count=len(gathered.rejected),
                ),
                where=first.file if first else str(self.folder.root),
                next_step=first.reason.sentence()
                if first
                else say("Name other paths under documents: paths."),
            )
        return gathered

    def _examples(
        self,
        gathered: Gathered,
        corpus: placing.Corpus,
        assignment: Assignment,
        task: Task | None,
        items: Sequence[TaskItem],
    ) -> tuple[list[int], Counter[str], int]:
        """Everything into the three stores, and the documents beside them, while other processes still
        tokenize. Returns tokens per document, counts of the texts, and split items."""
        job = self.work.job
        lengths: list[int] = []
        counts: Counter[str] = Counter()
        with ExitStack() as stack:
            writers = {
                s: stack.enter_context(StoreWriter(self.prepared / s, staging=self.building))
                for s in SPLITS
            }
            write = stack.enter_context(
                _sealed_lines(self.prepared / "documents.jsonl", self.building)
            )
            for shard, facts in zip(gathered.shards, corpus.shards, strict=True):
                placed = [(assignment.split_of[f.id], assignment.work_of[f.id]) for f in facts]
                for line in placed_lines(job.spool, shard, placed):
                    write(line)
                made = self.work.examples(shard)
                lengths += made["documents"]
                counts.update({k: made[k] for k in ("characters", "control")})
                deal_shard(job, shard, made, [split for split, _ in placed], writers)
            chunks: list[tuple[Any, ...]] = []
            if task is not None and self.scenario.training.use_task:
                starts = range(0, len(items), TASK_CHUNK)
                chunks = [(job, n, task, items[s : s + TASK_CHUNK]) for n, s in enumerate(starts)]
            title = say("Writing the task examples")
            split_items = 0
            for number, several in enumerate(
                self.team.each(examples_of_items, chunks, self.progress, title)
            ):
                split_items += several
                for split, writer in writers.items():
                    writer.append_store(part(job, f"task-{number:05d}", split))
        return lengths, counts, split_items

    def _write_items(self, items: Sequence[TaskItem]) -> None:
        path = self.prepared / "task.jsonl"
        if not items:
            path.unlink(missing_ok=True)
            return
        with _sealed_lines(path, self.building) as write:
            for item in items:
                write(canonical_json(item.to_json()) + b"\n")


def _library_alone(error: Exception) -> Sentence:
    """Why the quick tokenizer did not do, in words."""
    if isinstance(error, Disagreement):
        return say(
            "kitoken and the tokenizer library differ on '{document}'; everything is tokenized again by the "
            "library alone.",
            document=error.name,
        )
    return say(
        "A process of the preparation ended by itself (kitoken, or too little memory); everything is done again "
        "with the tokenizer library alone."
    )


@contextmanager
def _sealed_lines(path: Path, staging: Path) -> Iterator[Callable[[bytes], object]]:
    """Write a JSONL file of any size; it appears under its name when complete and durable.

    Until then it lies in `staging`, and what an interrupted run left there is written over.
    """
    staged = staging / path.name
    try:
        with staged.open("wb") as stream:
            yield stream.write
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise disk_error(error, path) from error
