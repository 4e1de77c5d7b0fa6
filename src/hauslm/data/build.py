"""The parts of preparing that worker processes do: facts of a shard, examples of a shard.

Each function takes and returns small values and leaves its bulk in files of its own, so that it can run
in any process and again after an interruption. A shard whose `.done.json` exists is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauslm.base.errors import DataError
from hauslm.base.files import read_json, write_json
from hauslm.data.document import Document
from hauslm.data.examples import chat_examples, task_examples, text_examples
from hauslm.data.facts import Facts, facts_of
from hauslm.data.ngrams import PERMUTATIONS, signature_values
from hauslm.data.quick import Disagreement
from hauslm.data.split import SPLITS
from hauslm.data.spool import Shard, digest, read_shard
from hauslm.data.store import ExampleStore, Run, StoreWriter, deal
from hauslm.data.task import Task, TaskItem
from hauslm.data.tokens import Tokenizer

# Texts tokenized in one call: where the library has all cores, enough to keep them busy; where it has one,
# so little that its memory is taken again and again instead of from the system each time.
BATCH_CHARACTERS, BATCH_OF_ONE_CORE = 2_000_000, 200_000


@dataclass(frozen=True)
class Job:
    """What every worker needs to know; the same for all shards of one run."""

    spool: Path
    folder: Path
    base: Path
    seq_len: int
    use_text: bool
    batch_characters: int = BATCH_CHARACTERS
    quick: bool = False  # texts by kitoken, which has passed its trial


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, quick: bool) -> Tokenizer:
    return Tokenizer(folder, quick=quick)


def ready() -> None:
    """Nothing; but a process that has called it has everything of this module in memory."""


# ------------------------------------------------------------------ facts


def facts_of_shard(job: Job, shard: Shard) -> list[Facts]:
    """Facts of the shard's documents; their word hashes go to `words-<n>.bin`, their MinHash signatures
    to `signatures-<n>.bin`."""
    found = []
    with (
        (job.folder / f"words-{shard.number:05d}.bin").open("wb") as stream,
        (job.folder / f"signatures-{shard.number:05d}.bin").open("wb") as signatures,
    ):
        for document in read_shard(job.spool, shard):
            facts, words = facts_of(document)
            stream.write(words.astype("<u4").tobytes())
            signatures.write(signature_values(words).astype("<u4").tobytes())
            found.append(facts)
    return found


def signatures_of(folder: Path, shards: int) -> NDArray[np.uint32]:
    """The signatures of all documents, one row each, mapped from one file."""
    whole = folder / "signatures.bin"
    with whole.open("wb") as target:
        for number in range(shards):
            with (folder / f"signatures-{number:05d}.bin").open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    if not whole.stat().st_size:
        return np.empty((0, PERMUTATIONS), dtype=np.uint32)
    return np.memmap(whole, dtype="<u4", mode="r").reshape(-1, PERMUTATIONS)


def words_of_shard(
    folder: Path, number: int, facts: Sequence[Facts]
) -> Iterator[tuple[Facts, NDArray[np.uint64]]]:
    """The word hashes of each document of a shard, in order."""
    with (folder / f"words-{number:05d}.bin").open("rb") as stream:
        for one in facts:
            raw = stream.read(4 * one.words)
            yield one, np.frombuffer(raw, dtype="<u4").astype(np.uint64)


# ------------------------------------------------------------------ examples


def shard_name(shard: Shard) -> str:
    return f"shard-{shard.number:05d}"


def part(job: Job, name: str, split: str) -> Path:
    return job.folder / f"{name}.{split}"


def examples_of_shard(job: Job, shard: Shard) -> dict[str, Any]:
    """Tokenize a shard into one store, whatever the splits will be; returns counts (also when it was done
    before, from the same documents).

    Result, per document in order: documents (tokens), examples (how many) and meta (bytes of their meta
    rows); for the shard: characters, control (documents that spell control tokens) and the digest of
    what was read.
    """
    name = shard_name(shard)
    done = job.folder / f"{name}.done.json"
    read = digest(job.spool, shard)
    if done.is_file():
        finished: dict[str, Any] = read_json(done)
        if finished["digest"] == read and _is_whole(job.folder / name):
            return finished
    tokenizer = _tokenizer(job.base, job.quick)
    lengths: list[int] = []
    examples: list[int] = []
    meta: list[int] = []
    control = characters = 0
    with StoreWriter(job.folder / name) as writer:
        for batch in _batches(read_shard(job.spool, shard), job.batch_characters):
            try:
                encoded = tokenizer.encode_texts([d.text for d in batch])
            except Disagreement as found:  # by its id: no text of a document belongs in a record
                raise Disagreement(batch[int(found.name)].id) from found
            for document, one in zip(batch, encoded, strict=True):
                before, bytes_before = len(writer), writer.meta_bytes
                if document.messages:
                    for example in chat_examples(document, tokenizer, job.seq_len):
                        writer.append(example)
                elif job.use_text:
                    writer.extend(text_examples(document, one, tokenizer, job.seq_len))
                lengths.append(len(one.ids))
                examples.append(len(writer) - before)
                meta.append(writer.meta_bytes - bytes_before)
                characters += len(document.text)
                control += int(tokenizer.spells_control(document.text))
    result = {"digest": read, "characters": characters, "control": control, "documents": lengths,
              "examples": examples, "meta": meta}  # fmt: skip
    write_json(done, result)
    return result


def _is_whole(part: Path) -> bool:
    try:
        ExampleStore.open(part)
    except DataError:  # the disk lost something of it: it is made again
        return False
    return True


def deal_shard(
    job: Job,
    shard: Shard,
    counts: Mapping[str, Any],
    splits: Sequence[str],
    writers: Mapping[str, StoreWriter],
) -> None:
    """The examples of a tokenized shard into the stores of their splits (one split per document)."""
    runs: list[tuple[Run, StoreWriter]] = []
    first = meta_first = begun = 0
    for place, split in enumerate(splits):
        if place + 1 < len(splits) and splits[place + 1] == split:
            continue  # neighbours of one split are copied together
        last = first + sum(counts["examples"][begun : place + 1])
        meta_last = meta_first + sum(counts["meta"][begun : place + 1])
        if last > first:
            runs.append((Run(first, last, meta_first, meta_last), writers[split]))
        first, meta_first, begun = last, meta_last, place + 1
    deal(job.folder / shard_name(shard), runs)


def _batches(documents: Iterator[Document], characters: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def examples_of_items(job: Job, number: int, task: Task, items: Sequence[TaskItem]) -> int:
    """Examples of labelled items, one store per split; returns how many rows are longer than one window."""
    name = f"task-{number:05d}"
    done = job.folder / f"{name}.done.json"
    if done.is_file():
        return int(read_json(done)["split"])
    tokenizer = _tokenizer(job.base, job.quick)
    several = 0
    with ExitStack() as stack:
        writers = {s: stack.enter_context(StoreWriter(part(job, name, s))) for s in SPLITS}
        for item in items:
            count = 0
            for example in task_examples(task, [item], tokenizer, job.seq_len):
                writers[item.split].append(example)
                count += 1
            several += count > 1
    write_json(done, {"split": several})
    return several
