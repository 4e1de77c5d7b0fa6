"""From the team's documents to examples that can be trained on: the whole way, in six steps.

1. read every file into a spool, name what is unusable;  2. learn the facts of each document;
3. group documents into works and place each work in train, validation or test;  4. measure what test
and train share;  5. tokenize and cut into examples;  6. look before you spend, and write the record.

Memory does not grow with the text: the spool and everything after it is streamed, word hashes wait in
files, examples are written as they come. Interrupted runs go on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from hauslm import __version__
from hauslm.base.errors import DataError, HauslmError
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
from hauslm.catalog.local import BaseFolder, architecture_of, find_base
from hauslm.data.build import (
    Job,
    examples_of_items,
    examples_of_shard,
    facts_of_shard,
    part,
    words_of_shard,
)
from hauslm.data.check import Findings, check, histogram
from hauslm.data.document import Document, Limits
from hauslm.data.examples import sample
from hauslm.data.facts import Facts, identities
from hauslm.data.gather import Gathered, gather
from hauslm.data.ngrams import NearDuplicates, Overlap, word_hashes
from hauslm.data.reading import find_files
from hauslm.data.split import SPLITS, TEST, TRAIN, Assignment, Member, assign
from hauslm.data.spool import Shard
from hauslm.data.store import ExampleStore, concatenate
from hauslm.data.task import Task, TaskItem, load_task
from hauslm.data.tokens import Tokenizer
from hauslm.estimate import shape
from hauslm.records import Corpus, Documents, Plan, Rejected, Said, Sample, Split, sentences
from hauslm.scenario import Scenario

FORMAT_VERSION = 1  # of the prepared files; part of the key that decides whether work can go on
DEFAULT_SEQ_LEN = 512
PARALLEL_ABOVE = 24 << 20  # bytes of spool; less is done sooner in this process
TASK_CHUNK = 2000
LEAK = 0.5  # share of a task text's 13-grams in one document: then it is the same work

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class _TaskParts:
    """The labelled task, or its absence."""

    task: Task | None = None
    items: list[TaskItem] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notices: list[Sentence] = field(default_factory=list)


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
    the task), `MissingError` H530 (no base model).
    """
    with lock(folder.work, "prepare"):
        return _Preparation(scenario, folder, plan, progress or Silent()).run()


class _Preparation:
    """One run. Each method is one step; the fields are what the steps hand on."""

    def __init__(
        self, scenario: Scenario, folder: ProjectFolder, plan: Plan | None, progress: Progress
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.plan = plan
        self.progress = progress
        self.prepared = folder.work / "prepared"
        self.building = self.prepared / ".build"
        self.started = time.monotonic()

    def run(self) -> Corpus:
        base = self._base()
        self.tokenizer = Tokenizer(base.path)
        self.seq_len = sequence_length(self.scenario, self.plan)
        labelled = self._load_task()
        self._open_building(base)
        gathered = self._gather(labelled)
        facts = self._facts(gathered)
        assignment, near = self._place(facts, labelled)
        items = self._place_items(labelled, assignment)
        overlap = self._overlap(gathered, facts, items, assignment)
        counts = self._examples(gathered, facts, assignment, labelled.task, items)
        self._write_documents(gathered, assignment)
        self._write_items(items)
        corpus = self._record(
            base, gathered, facts, labelled, items, assignment, near, overlap, counts
        )
        shutil.rmtree(self.building, ignore_errors=True)
        return corpus

    # -------------------------------------------------------------- before reading

    def _base(self) -> BaseFolder:
        model = self.scenario.model
        return find_base(
            model.base, model.path, model.revision, self.folder.root, need_weights=False
        )

    def _load_task(self) -> _TaskParts:
        section = self.scenario.evaluation.task
        if not (section.file or section.train_file or section.test_file):
            return _TaskParts()
        task, items, rejected, notices = load_task(section, self.folder.root)
        if section.test_file:  # then no other file holds test items
            items = [i if i.split else replace(i, split=TRAIN) for i in items]
        return _TaskParts(task, items, rejected, notices)

    def _open_building(self, base: BaseFolder) -> None:
        """Keep the unfinished work of an interrupted run if it was made from the same things."""
        key = self._key()
        marker = self.building / "key.json"
        if marker.is_file():
            try:
                if read_json(marker) == {"key": key}:
                    self.progress.say(say("Going on with the preparation that was interrupted."))
                    return
            except HauslmError:
                pass
        shutil.rmtree(self.building, ignore_errors=True)
        write_json(marker, {"key": key})

    def _key(self) -> str:
        """Everything the prepared files depend on."""
        files = []
        for source in self._sources():
            status = source.stat()
            files.append([str(source), status.st_size, status.st_mtime_ns])
        section = self.scenario.evaluation.task
        task_files = [n for n in (section.file, section.train_file, section.test_file) if n]
        return sha256_bytes(
            canonical_json(
                {
                    "format": FORMAT_VERSION,
                    "version": __version__,
                    "files": files,
                    "documents": self.scenario.documents.model_dump(),
                    "copyright": self.scenario.scenario.data.copyright,
                    "task": section.model_dump(),
                    "task_files": [
                        sha256_file(self.folder.root / Path(n).expanduser()) for n in task_files
                    ],
                    "tokenizer": self.tokenizer.sha256,
                    "seq_len": self.seq_len,
                    "use": [self.scenario.training.use_text, self.scenario.training.use_task],
                }
            )
        )

    def _sources(self) -> list[Path]:
        try:
            return [s.path for s in find_files(self.scenario.documents.paths, self.folder.root)]
        except DataError:
            if self._only_task():
                return []
            raise

    def _only_task(self) -> bool:
        """No documents were named and the default folder is absent, but there is a task."""
        section = self.scenario.evaluation.task
        default = type(self.scenario.documents)().paths
        return bool(section.file or section.train_file) and self.scenario.documents.paths == default

    # -------------------------------------------------------------- 1. read

    def _gather(self, labelled: _TaskParts) -> Gathered:
        gathered = gather(
            self.scenario,
            self.folder.root,
            self.building,
            self.progress,
            paths=bool(self._sources()),
        )
        if not gathered.count and not labelled.items:
            first = gathered.rejected[0] if gathered.rejected else None
            raise DataError(
                "H302",
                say(
                    "None of the files can be used; {count:,} were rejected.",
                    count=len(gathered.rejected),
                ),
                where=first.file if first else "",
                next_step=first.reason.sentence()
                if first
                else say("Name other paths under documents: paths."),
            )
        return gathered

    # -------------------------------------------------------------- 2. facts

    def _job(self) -> Job:
        return Job(
            spool=self.building / "spool.jsonl",
            folder=self.building,
            base=self.tokenizer.folder,
            seq_len=self.seq_len,
            use_text=self.scenario.training.use_text,
        )

    def _facts(self, gathered: Gathered) -> list[list[Facts]]:
        """Facts of all documents, by shard."""
        job = self._job()
        title = say("Looking at the documents")
        return list(self._map(facts_of_shard, [(job, s) for s in gathered.shards], gathered, title))

    def _map(
        self,
        function: Callable[..., R],
        arguments: Sequence[tuple[Any, ...]],
        gathered: Gathered,
        title: Sentence,
    ) -> Iterator[R]:
        """The function over all arguments, in order: here, or in one process per core."""
        size = sum(s.end - s.start for s in gathered.shards)
        with _workers(size, len(arguments)) as pool:
            if pool is None:
                results: Iterator[R] = (function(*a) for a in arguments)
            else:
                results = pool.map(_call, [(function, a) for a in arguments])
            for done, result in enumerate(results, 1):
                self.progress.step(title, done, len(arguments))
                yield result

    # -------------------------------------------------------------- 3. split

    def _place(
        self, facts: list[list[Facts]], labelled: _TaskParts
    ) -> tuple[Assignment, list[tuple[str, str]]]:
        """Every document and every task document in its split; and the near-duplicate pairs."""
        index = NearDuplicates()
        near: list[tuple[str, str]] = []
        members: list[Member] = []
        for one in (f for shard in facts for f in shard):
            if one.signature is not None and one.words >= 20:
                near += [(other, one.id) for other, _ in index.add(one.id, one.signature)]
            members.append(Member(one.id, one.doi, one.title, one.sha256, one.identities))
        task_members = _task_members(labelled.items)
        contained = self._contained(facts, labelled.items)
        section = self.scenario.documents
        assignment = assign(
            [*members, *task_members],
            [*near, *contained],
            salt=section.split_salt,
            validation_share=section.validation_share,
            test_share=section.test_share,
        )
        return assignment, near

    def _contained(
        self, facts: list[list[Facts]], items: Sequence[TaskItem]
    ) -> list[tuple[str, str]]:
        """Documents that contain the text of a task document: the same work under another name."""
        if not items:
            return []
        texts = _task_texts(items)
        owner: dict[int, list[str]] = {}
        sizes: dict[str, int] = {}
        probe = Overlap()
        for document, text in texts.items():
            probe.add_test(document, word_hashes(text))
        probe.seal()
        for document in texts:
            grams = probe.grams_of(document)
            sizes[document] = len(grams)
            for gram in grams.tolist():
                owner.setdefault(gram, []).append(document)
        pairs: list[tuple[str, str]] = []
        for number, shard in enumerate(facts):
            for one, words in words_of_shard(self.building, _shard(number), shard):
                hits: Counter[str] = Counter()
                for gram in probe.shared_with(words).tolist():
                    hits.update(owner[gram])
                pairs += [(one.id, task_id(d)) for d, n in hits.items() if n >= LEAK * sizes[d]]
        return pairs

    def _place_items(self, labelled: _TaskParts, assignment: Assignment) -> list[TaskItem]:
        """Items with their split. Training items of documents that a test file also holds are left out."""
        placed, dropped = [], 0
        for item in labelled.items:
            split = assignment.split_of[task_id(item.document)]
            if item.split == TRAIN and split == TEST:
                dropped += 1
                continue
            placed.append(replace(item, split=split))
        if dropped:
            labelled.notices.append(
                say(
                    "{count:,} items of the train_file belong to documents of the test_file and were left out.",
                    count=dropped,
                )
            )
        return placed

    # -------------------------------------------------------------- 4. overlap

    def _overlap(
        self,
        gathered: Gathered,
        facts: list[list[Facts]],
        items: Sequence[TaskItem],
        assignment: Assignment,
    ) -> Overlap:
        """What the test part (documents and items) shares with the training part, in 13-word runs."""
        overlap = Overlap()
        texts = _task_texts(items)
        split_of_text = {i.document: i.split for i in items}
        for shard, found in zip(gathered.shards, facts, strict=True):
            for one, words in words_of_shard(self.building, shard, found):
                if assignment.split_of[one.id] == TEST:
                    overlap.add_test(one.id, words)
        for document, text in texts.items():
            if split_of_text[document] == TEST:
                overlap.add_test(task_id(document), word_hashes(text))
        overlap.seal()
        for shard, found in zip(gathered.shards, facts, strict=True):
            for one, words in words_of_shard(self.building, shard, found):
                if assignment.split_of[one.id] == TRAIN:
                    overlap.add_train(one.id, words)
        for document, text in texts.items():
            if split_of_text[document] == TRAIN:
                overlap.add_train(task_id(document), word_hashes(text))
        return overlap

    # -------------------------------------------------------------- 5. examples

    def _examples(
        self,
        gathered: Gathered,
        facts: list[list[Facts]],
        assignment: Assignment,
        task: Task | None,
        items: Sequence[TaskItem],
    ) -> dict[str, Any]:
        job = self._job()
        shard_arguments = [
            (job, shard, {one.id: assignment.split_of[one.id] for one in found})
            for shard, found in zip(gathered.shards, facts, strict=True)
        ]
        lengths: list[int] = []
        characters = control = 0
        for result in self._map(
            examples_of_shard, shard_arguments, gathered, say("Tokenizing the documents")
        ):
            lengths += result["documents"]
            characters += result["characters"]
            control += result["control"]
        chunks: list[Sequence[TaskItem]] = []
        several = 0
        if task is not None and self.scenario.training.use_task:
            chunks = [items[i : i + TASK_CHUNK] for i in range(0, len(items), TASK_CHUNK)]
            arguments = [(job, n, task, chunk) for n, chunk in enumerate(chunks)]
            several = sum(
                self._map(examples_of_items, arguments, gathered, say("Writing the task examples"))
            )
        names = [f"shard-{s.number:05d}" for s in gathered.shards]
        names += [f"task-{n:05d}" for n in range(len(chunks))]
        for split in SPLITS:
            concatenate(self.prepared / split, [part(job, name, split) for name in names])
        return {
            "lengths": lengths,
            "characters": characters,
            "control": control,
            "several": several,
        }

    # -------------------------------------------------------------- 6. files and record

    def _write_documents(self, gathered: Gathered, assignment: Assignment) -> None:
        from hauslm.data.spool import read_shard, to_row

        with _sealed_lines(self.prepared / "documents.jsonl") as write:
            for shard in gathered.shards:
                for document in read_shard(self.building / "spool.jsonl", shard):
                    row = to_row(document)
                    write(
                        {
                            **row,
                            "split": assignment.split_of[document.id],
                            "work": assignment.work_of[document.id],
                        }
                    )

    def _write_items(self, items: Sequence[TaskItem]) -> None:
        path = self.prepared / "task.jsonl"
        if not items:
            path.unlink(missing_ok=True)
            return
        with _sealed_lines(path) as write:
            for item in items:
                write(item.to_json())

    def _record(
        self,
        base: BaseFolder,
        gathered: Gathered,
        facts: list[list[Facts]],
        labelled: _TaskParts,
        items: list[TaskItem],
        assignment: Assignment,
        near: list[tuple[str, str]],
        overlap: Overlap,
        counts: dict[str, Any],
    ) -> Corpus:
        every = [one for shard in facts for one in shard]
        stores = {s: ExampleStore.open(self.prepared / s) for s in SPLITS}
        in_split = Counter(assignment.split_of[one.id] for one in every)
        tokens = {s: stores[s].tokens for s in SPLITS}
        languages = Counter(one.language for one in every)
        rights = Counter(one.licence_class for one in every)
        per_token = counts["characters"] / max(1, sum(counts["lengths"]))
        hints: Counter[str] = Counter()
        for one in every:
            hints.update(one.hints)
        findings = Findings(
            documents=in_split,
            tokens=tokens,
            document_tokens=counts["lengths"],
            languages=languages,
            rights=rights,
            hints=hints,
            documents_with_hints=sum(bool(one.hints) for one in every),
            near_duplicates=len(near),
            exact_duplicates=len(gathered.copies),
            overlap=overlap.share,
            worst_overlap=overlap.worst(),
            lent=len(assignment.lent),
            adapter_parameters=self._adapter_parameters(base),
            vocab_size=self.tokenizer.vocab_size,
            seq_len=self.seq_len,
            expected_languages=self.scenario.scenario.workload.languages,
            licence_gate=self.scenario.documents.licence_gate,
            control_spellings=counts["control"],
            characters_per_token=per_token,
        )
        files = {s: f"work/prepared/{s}" for s in SPLITS} | {
            "documents": "work/prepared/documents.jsonl"
        }
        if items:
            files["task"] = "work/prepared/task.jsonl"
        return Corpus(
            documents=Documents(
                read=len(every),
                rejected=tuple([*gathered.rejected, *labelled.rejected]),
                by_format=dict(sorted(Counter(one.format for one in every).items())),
                by_language=dict(sorted(languages.items())),
                characters=sum(one.characters for one in every),
            ),
            documents_split=Split(**{s: in_split.get(s, 0) for s in SPLITS}),
            examples=Split(**{s: len(stores[s]) for s in SPLITS}),
            tokens=Split(**tokens),
            duplicates=tuple([*gathered.copies, *near]),
            overlap_13gram=overlap.share,
            fingerprint=fingerprint(every, items, assignment),
            rights=dict(sorted(rights.items())),
            token_histogram=histogram(counts["lengths"]),
            tokenizer_sha256=self.tokenizer.sha256,
            characters_per_token=per_token,
            samples=self._samples(stores),
            checks=sentences(check(findings, labelled.task, items)),
            files=files,
            task=_task_summary(labelled.task, items),
            seconds=time.monotonic() - self.started,
            notices=sentences(
                [*gathered.notices(), *labelled.notices, *self._own_notices(counts, assignment)]
            ),
        )

    def _own_notices(self, counts: dict[str, Any], assignment: Assignment) -> list[Sentence]:
        found: list[Sentence] = []
        training = self.scenario.training
        if not training.use_text:
            found.append(
                say(
                    "The texts are not trained on (training: use_text is off); they serve evaluation."
                )
            )
        if not training.use_task:
            found.append(
                say("The task is not trained on (training: use_task is off); it serves evaluation.")
            )
        if counts["several"]:
            found.append(
                say("{count:,} labelled texts are longer than the sequence length and were split into overlapping "
                    "parts with their answers.", count=counts["several"])
            )  # fmt: skip
        if not self.tokenizer.has_own_template:
            found.append(
                say(
                    "The base model has no chat template; the plain one with 'Instruction' and 'Response' is used."
                )
            )
        if assignment.clashes:
            found.append(
                say("{count:,} documents stand in the train_file and in the test_file of the task; they count as test.",
                    count=len(assignment.clashes))
            )  # fmt: skip
        return found

    def _adapter_parameters(self, base: BaseFolder) -> int | None:
        adapter = self.scenario.adapter
        if self.scenario.training.method == "full":
            return None
        rank = adapter.r or _planned(self.plan, "r") or 16
        targets = adapter.target_modules or (
            "attention" if adapter.preset == "lab" else "all-linear"
        )
        try:
            return shape.adapter_parameters(architecture_of(base.config), targets, int(rank))
        except HauslmError:
            return None  # a layout that the formula does not know: no figure, no warning

    def _samples(self, stores: dict[str, ExampleStore]) -> tuple[Sample, ...]:
        """Three training examples with their loss mask, of as many kinds as there are."""
        store = (
            stores[TRAIN]
            if len(stores[TRAIN])
            else next((s for s in stores.values() if len(s)), None)
        )
        if store is None:
            return ()
        step = max(1, len(store) // 1000)
        by_kind: dict[str, list[int]] = {}
        for index in range(0, len(store), step):
            by_kind.setdefault(store.meta(index)["kind"], []).append(index)
        chosen: list[int] = []
        while len(chosen) < 3 and any(by_kind.values()):
            for indices in by_kind.values():
                if indices and len(chosen) < 3:
                    chosen.append(indices.pop(len(indices) // 2))
        return tuple(sample(store[i], self.tokenizer) for i in chosen)


# ------------------------------------------------------------------ helpers


def sequence_length(scenario: Scenario, plan: Plan | None) -> int:
    """training.seq_len, else the plan's, else 512."""
    return int(scenario.training.seq_len or _planned(plan, "seq_len") or DEFAULT_SEQ_LEN)


def _planned(plan: Plan | None, name: str) -> Any:
    setting = plan.settings.get(name) if plan is not None else None
    return setting.value if setting is not None else None


def _shard(number: int) -> Shard:
    return Shard(number, 0, 0, 0, 0)


def task_id(document: str) -> str:
    """The member id of a task document (never that of a corpus document)."""
    return f"task\0{document}"


def _task_members(items: Sequence[TaskItem]) -> list[Member]:
    """One member per task document, with the split that its file prescribes."""
    members: dict[str, Member] = {}
    for item in items:
        known = members.get(item.document)
        forced = item.split
        if known is not None and known.forced != forced and TEST in (known.forced, forced):
            members[item.document] = replace(known, forced=TEST)
        elif known is None:
            members[item.document] = Member(
                id=task_id(item.document),
                doi=str(item.extra.get("doi", "")) or item.document,
                title=str(item.extra.get("title", "")),
                identities=identities(item.document),
                forced=forced,
                in_corpus=False,
            )
    return list(members.values())


def _task_texts(items: Sequence[TaskItem]) -> dict[str, str]:
    """The text of each task document, put together from its items."""
    texts: dict[str, list[str]] = {}
    for item in items:
        texts.setdefault(item.document, []).append(item.text)
    return {document: " ".join(parts) for document, parts in texts.items()}


def fingerprint(facts: Sequence[Facts], items: Sequence[TaskItem], assignment: Assignment) -> str:
    """One hash of the whole corpus: texts, splits and labelled items, whatever their order."""
    lines = sorted(f"{one.sha256} {assignment.split_of[one.id]}" for one in facts)
    lines += sorted(sha256_bytes(canonical_json(item.to_json())) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _task_summary(task: Task | None, items: Sequence[TaskItem]) -> dict[str, Any]:
    if task is None:
        return {}
    by_split = Counter(item.split for item in items)
    documents = {s: len({i.document for i in items if i.split == s}) for s in SPLITS}
    labels = Counter(
        str(i.label) for i in items if i.split == TRAIN and not isinstance(i.label, list)
    )
    return {
        **task.to_json(),
        "items": {s: by_split.get(s, 0) for s in SPLITS},
        "documents": documents,
        "train_labels": dict(sorted(labels.items())),
    }


@contextmanager
def _workers(size: int, jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool with one process per core for large corpora; None: do it here (all cores in the library)."""
    cores = os.cpu_count() or 1
    if size < PARALLEL_ABOVE or jobs < 2 or cores < 2:
        yield None
        return
    before = os.environ.get("RAYON_NUM_THREADS")
    os.environ["RAYON_NUM_THREADS"] = "1"  # read by the tokenizer library in the children
    try:
        with ProcessPoolExecutor(min(cores, jobs), mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        if before is None:
            os.environ.pop("RAYON_NUM_THREADS", None)
        else:
            os.environ["RAYON_NUM_THREADS"] = before


def _call(work: tuple[Callable[..., R], tuple[Any, ...]]) -> R:
    function, arguments = work
    return function(*arguments)


@contextmanager
def _sealed_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write a JSONL file of any size; it appears under its name when complete and durable."""
    staged = path.with_name(f".{path.name}.tmp")
    try:
        with staged.open("wb") as stream:
            yield lambda row: _write(stream.write, row)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, path)
        fsync_folder(path.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def _write(write: Callable[[bytes], object], row: dict[str, Any]) -> None:
    write(canonical_json(row) + b"\n")


__all__ = ["Document", "Limits", "Said", "prepare", "sequence_length"]
