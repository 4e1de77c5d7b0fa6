"""How do prepared examples lie on the disk? As four flat files per split that are mapped, not loaded.

    <prefix>.tokens.bin    uint32 little-endian token ids of all examples, one after the other
    <prefix>.trained.bin   uint8, 1 where the token is a label that counts in the loss
    <prefix>.offsets.bin   int64, n + 1 positions: example i is tokens[offsets[i] : offsets[i + 1]]
    <prefix>.meta.jsonl    one JSON object per example: id, document, kind, language

Writing streams: memory does not grow with the corpus. The files appear together under their names when
all are complete and on the disk (offsets last, which is what `open` looks for).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hauslm.base.errors import DataError
from hauslm.base.files import canonical_json, disk_error, fsync_folder
from hauslm.base.words import say

SUFFIXES = (".tokens.bin", ".trained.bin", ".meta.jsonl", ".offsets.bin")
_BUFFER = (
    1 << 18
)  # bytes; examples are small, and handing each to the system takes longer than making it
_TOKEN, _FLAG = np.dtype("<u4"), np.dtype("u1")


@dataclass(frozen=True)
class Example:
    """Token ids, which of them are trained (same length), and what the example is."""

    tokens: NDArray[np.uint32]
    trained: NDArray[np.bool_]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Several examples in one piece, as the store keeps them: a corpus has millions, each of which would cost
    three arrays and three writes. Tokens and labels one after the other, `lengths` in tokens, and a line
    of canonical JSON for each (`meta`)."""

    tokens: NDArray[np.uint32]
    trained: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    meta: bytes

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Example]:
        ends = np.cumsum(self.lengths).tolist()
        for line, length, end in zip(
            self.meta.splitlines(), self.lengths.tolist(), ends, strict=True
        ):
            chosen = slice(end - length, end)
            yield Example(self.tokens[chosen], self.trained[chosen], json.loads(line))


class ExampleStore:
    """Random access to prepared examples: `len(store)`, `store[i]`, `store.lengths()`."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        paths = {s: with_suffix(prefix, s) for s in SUFFIXES}
        try:
            self._offsets: NDArray[np.int64] = np.fromfile(paths[".offsets.bin"], dtype="<i8")
            self._tokens = _mapped(paths[".tokens.bin"], np.dtype("<u4"))
            self._trained = _mapped(paths[".trained.bin"], np.dtype("u1"))
            self._meta_path = paths[".meta.jsonl"]
            if not self._meta_path.is_file():
                raise FileNotFoundError(self._meta_path)
        except OSError as error:
            raise _damaged(self.prefix, str(error)) from error
        if (
            len(self._offsets) == 0
            or self._offsets[0] != 0
            or bool(np.any(np.diff(self._offsets) < 0))
            or int(self._offsets[-1]) != len(self._tokens)
            or len(self._tokens) != len(self._trained)
        ):
            raise _damaged(self.prefix, "lengths differ")
        self._meta: NDArray[np.uint8] | None = None
        self._meta_starts: NDArray[np.int64] | None = None

    @classmethod
    def open(cls, prefix: Path) -> ExampleStore:
        """H330 if the files are missing or do not fit each other."""
        return cls(prefix)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        return Example(
            np.array(self._tokens[start:end], dtype=np.uint32),
            np.array(self._trained[start:end], dtype=np.bool_),
            self.meta(index),
        )

    def __iter__(self) -> Iterator[Example]:
        for index in range(len(self)):
            yield self[index]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example."""
        return np.diff(self._offsets)

    @property
    def tokens(self) -> int:
        return int(self._offsets[-1])

    def trained_tokens(self) -> int:
        """How many tokens are labels that count."""
        return int(np.count_nonzero(self._trained)) if len(self._trained) else 0

    def label_counts(self) -> NDArray[np.int64]:
        """Labels that count, per example; the first token of an example is nobody's label."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        running = np.concatenate(([0], np.cumsum(self._trained, dtype=np.int64)))
        starts = self._offsets[:-1]
        counts = running[self._offsets[1:]] - running[starts]
        filled = np.diff(self._offsets) > 0
        counts[filled] -= self._trained[starts[filled]]
        return np.asarray(counts, dtype=np.int64)

    def meta(self, index: int) -> dict[str, Any]:
        """Id, document, kind and language of an example."""
        if self._meta_starts is None:
            self._find_meta()
        assert self._meta_starts is not None and self._meta is not None  # noqa: S101 - just found
        row: dict[str, Any] = json.loads(
            self._meta[int(self._meta_starts[index]) : int(self._meta_starts[index + 1])].tobytes()
        )
        return row

    def _find_meta(self) -> None:
        meta = _mapped(self._meta_path, np.dtype("u1"))
        block = 1 << 24
        ends = [
            np.flatnonzero(meta[start : start + block] == 0x0A) + start + 1
            for start in range(0, len(meta), block)
        ]
        starts = np.concatenate([np.zeros(1, dtype=np.int64), *ends]).astype(np.int64)
        if len(starts) - 1 != len(self):
            raise _damaged(self.prefix, "rows of meta.jsonl")
        self._meta, self._meta_starts = meta, starts


def _damaged(prefix: Path, reason: str) -> DataError:
    return DataError(
        "H330",
        say("The prepared examples are missing or damaged ({reason}).", reason=reason),
        where=str(prefix),
        next_step=say("hauslm prepare makes them again."),
    )


def with_suffix(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _mapped(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    size = path.stat().st_size
    if size % kind.itemsize:
        raise OSError(f"{path.name}: {size} bytes")
    if size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")


class StoreWriter:
    """Append examples, then `seal`. Used as a context manager: an exception leaves nothing behind.

    Until then they lie in `staging` (default: the folder of the prefix; otherwise one on the same disk,
    where somebody sweeps up what a killed process left).
    """

    def __init__(self, prefix: Path, staging: Path | None = None) -> None:
        self.prefix = prefix
        self._staging = staging or prefix.parent
        self._token = secrets.token_hex(4)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, IO[bytes]] = {
            s: self._staged(s).open("xb", buffering=_BUFFER)
            for s in SUFFIXES
            if s != ".offsets.bin"
        }
        self._offsets = array("q", [0])
        self.meta_bytes = 0

    def _staged(self, suffix: str) -> Path:
        return self._staging / f".{self.prefix.name}{suffix}.{self._token}.tmp"

    def append(self, example: Example) -> None:
        if len(example.tokens) != len(example.trained):
            raise ValueError("tokens and trained differ in length")
        try:
            self._files[".tokens.bin"].write(np.asarray(example.tokens, dtype=_TOKEN).tobytes())
            self._files[".trained.bin"].write(np.asarray(example.trained, dtype=_FLAG).tobytes())
            self.meta_bytes += self._files[".meta.jsonl"].write(
                canonical_json(example.meta) + b"\n"
            )
        except OSError as error:
            raise disk_error(error, self.prefix) from error
        self._offsets.append(self._offsets[-1] + len(example.tokens))

    def extend(self, examples: Examples) -> None:
        if not len(examples.tokens) == len(examples.trained) == int(examples.lengths.sum()):
            raise ValueError("tokens, trained and lengths do not fit")
        if examples.meta.count(b"\n") != len(examples):
            raise ValueError("not one line of meta for each example")
        try:
            self._files[".tokens.bin"].write(np.asarray(examples.tokens, dtype=_TOKEN).data)
            self._files[".trained.bin"].write(np.asarray(examples.trained, dtype=_FLAG).data)
            self.meta_bytes += self._files[".meta.jsonl"].write(examples.meta)
        except OSError as error:
            raise disk_error(error, self.prefix) from error
        self._shifted(np.concatenate(([0], np.cumsum(examples.lengths))))

    def append_store(self, part: Path) -> None:
        """Append all examples of a finished store, file by file."""
        offsets = np.fromfile(with_suffix(part, ".offsets.bin"), dtype="<i8")
        try:
            for suffix, stream in self._files.items():
                with with_suffix(part, suffix).open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
        except OSError as error:
            raise disk_error(error, self.prefix) from error
        self._shifted(offsets)

    def append_run(
        self, part: Path, offsets: NDArray[np.int64], run: Run, files: Mapping[str, IO[bytes]]
    ) -> None:
        """Append consecutive examples of a finished store, whose `offsets` and open `files` are given."""
        chosen = offsets[run.first : run.last + 1]
        start, end = int(chosen[0]), int(chosen[-1])
        spans = {
            ".tokens.bin": (_TOKEN.itemsize * start, _TOKEN.itemsize * end),
            ".trained.bin": (_FLAG.itemsize * start, _FLAG.itemsize * end),
            ".meta.jsonl": (run.meta_first, run.meta_last),
        }
        try:
            for suffix, (begin, stop) in spans.items():
                files[suffix].seek(begin)
                raw = files[suffix].read(stop - begin)
                if len(raw) != stop - begin:
                    raise _damaged(part, f"{suffix} is too short")
                self._files[suffix].write(raw)
        except OSError as error:
            raise disk_error(error, self.prefix) from error
        self._shifted(chosen)

    def _shifted(self, offsets: NDArray[np.int64]) -> None:
        shifted = offsets[1:] - offsets[0] + self._offsets[-1]
        self._offsets.frombytes(shifted.astype(np.int64).tobytes())

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def tokens(self) -> int:
        return self._offsets[-1]

    def seal(self) -> None:
        """Put all files under their names, durably; the old set stays until this very moment."""
        try:
            offsets = np.array(self._offsets, dtype="<i8")
            self._staged(".offsets.bin").write_bytes(offsets.tobytes())
            for stream in self._files.values():
                stream.flush()
                os.fsync(stream.fileno())
                stream.close()
            with self._staged(".offsets.bin").open("rb") as stream:
                os.fsync(stream.fileno())
            with_suffix(self.prefix, ".offsets.bin").unlink(missing_ok=True)
            for suffix in SUFFIXES:
                self._staged(suffix).replace(with_suffix(self.prefix, suffix))
            fsync_folder(self.prefix.parent)
        except OSError as error:
            raise disk_error(error, self.prefix) from error

    def discard(self) -> None:
        for stream in self._files.values():
            with suppress(OSError):
                stream.close()
        for suffix in SUFFIXES:
            with suppress(OSError):
                self._staged(suffix).unlink()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.seal()
        else:
            self.discard()


class Run(NamedTuple):
    """Consecutive examples of a store, `first` to before `last`, and the bytes of their meta rows."""

    first: int
    last: int
    meta_first: int
    meta_last: int


def deal(part: Path, runs: Iterable[tuple[Run, StoreWriter]]) -> None:
    """Hand the examples of a finished store out to several, run by run. Memory: one run."""
    offsets = np.fromfile(with_suffix(part, ".offsets.bin"), dtype="<i8")
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {
            s: stack.enter_context(with_suffix(part, s).open("rb"))
            for s in SUFFIXES
            if s != ".offsets.bin"
        }
        for run, writer in runs:
            writer.append_run(part, offsets, run, files)


def write_store(prefix: Path, examples: Iterable[Example]) -> int:
    """Stream examples into a sealed store; returns how many."""
    with StoreWriter(prefix) as writer:
        for example in examples:
            writer.append(example)
        return len(writer)
