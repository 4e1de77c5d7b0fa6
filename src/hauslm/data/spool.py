"""Where do documents wait between reading and tokenizing? In one JSONL file, found by byte position.

The spool is what makes a corpus larger than memory possible: reading writes it once, every later pass
streams it, and shards of it are given to worker processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hauslm.base.files import canonical_json, disk_error
from hauslm.data.document import Document, Section, encodable


class Shard(NamedTuple):
    """Consecutive documents of the spool: bytes `start` to `end`, of which `first` is the first's number."""

    number: int
    start: int
    end: int
    first: int
    documents: int


_FLAGS = ("invisible_text", "hidden_characters")  # `data.hidden` sets them, `analyse` reads them


def to_row(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "title": document.title,
        "language": document.language,
        "licence": document.licence,
        "licence_class": document.licence_class,
        "doi": document.doi,
        "sha256": document.sha256,
        "format": document.format,
        "source_file": document.source_file,
        "characters": len(document.text),
        "text": document.text,
        "sections": [{"title": s.title, "start": s.start, "end": s.end} for s in document.sections],
        "messages": [dict(m) for m in document.messages],
        "authors": [encodable(str(a)) for a in document.metadata.get("authors", []) or []][:50]
        if isinstance(document.metadata.get("authors"), (list, tuple))
        else [],
        "hidden": {k: int(document.metadata[k]) for k in _FLAGS if document.metadata.get(k)},
    }


def from_row(row: dict[str, Any]) -> Document:
    return Document(
        id=row["id"],
        title=row["title"],
        text=row["text"],
        language=row["language"],
        licence=row.get("licence", ""),
        licence_class=row["licence_class"],
        doi=row["doi"],
        source_file=row.get("source_file", ""),
        format=row["format"],
        sections=tuple(Section(**s) for s in row.get("sections", [])),
        sha256=row["sha256"],
        messages=tuple(row.get("messages", [])),
        metadata=row.get("hidden", {}),
    )


class SpoolWriter:
    """Appends documents and groups them into shards of about `shard_bytes`.

    `closed` is told of every shard as soon as its bytes can be read, the last one included.
    """

    def __init__(
        self, path: Path, shard_bytes: int, closed: Callable[[Shard], object] = bool
    ) -> None:
        self.path = path
        self._closed = closed
        self._shard_bytes = shard_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("wb")
        self._position = 0
        self._count = 0
        self._start = 0
        self._first = 0
        self.shards: list[Shard] = []

    def append(self, document: Document) -> None:
        line = canonical_json(to_row(document)) + b"\n"
        try:
            self._stream.write(line)
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._position += len(line)
        self._count += 1
        if self._position - self._start >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._count > self._first:
            shard = Shard(
                len(self.shards),
                self._start,
                self._position,
                self._first,
                self._count - self._first,
            )
            try:
                self._stream.flush()
            except OSError as error:
                raise disk_error(error, self.path) from error
            self.shards.append(shard)
            self._closed(shard)
        self._start, self._first = self._position, self._count

    def close(self) -> list[Shard]:
        self._close_shard()
        try:
            self._stream.close()
        except OSError as error:
            raise disk_error(error, self.path) from error
        return self.shards


def digest(path: Path, shard: Shard) -> str:
    """What stands in these bytes of the spool: work on a shard is good for exactly this."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(shard.start)
        left = shard.end - shard.start
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest()


def read_shard(path: Path, shard: Shard) -> Iterator[Document]:
    with path.open("rb") as stream:
        stream.seek(shard.start)
        for _ in range(shard.documents):
            yield from_row(json.loads(stream.readline()))


def placed_lines(path: Path, shard: Shard, placed: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """The lines of documents.jsonl: `to_row` of each document, with its `split` and its `work`.

    The rows are not taken apart for this: in canonical JSON the keys are sorted, so that `split` belongs
    before `text` and `work` at the end. A quotation mark inside a string has a backslash before it;
    what is looked for can therefore be nothing but keys. The authors stay behind, as in `from_row`.
    """
    with path.open("rb") as stream:
        stream.seek(shard.start)
        for split, work in placed:
            head, text, tail = stream.readline().partition(b',"text":')
            _, characters, rest = head.partition(b',"characters":')
            yield b"".join(
                (b'{"authors":[]', characters, rest, b',"split":', canonical_json(split), text,
                 tail.removesuffix(b"}\n"), b',"work":', canonical_json(work), b"}\n")
            )  # fmt: skip
