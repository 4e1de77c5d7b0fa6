"""Which rows are there already? An append-only file of rows, found again by article, in bounded memory.

A group of rows is on the disk when `append` returns, and each key is there once. The rows themselves stay
on the disk; where the rows of an article begin is kept in an index file beside the journal (SQLite, a
few tens of bytes a row, its cache bounded), which is made from the journal at every opening: it can be
lost, but never be wrong. A torn last line, from a crash in mid-write, is taken off.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.files import canonical_json, disk_error
from hauslm.base.words import say

Row = dict[str, Any]

INDEX_CACHE_KIB = 65536
READ_BYTES = 1 << 20
BATCH_ROWS = 20_000  # rows put into the index at once when it is made


class RowJournal:
    """The rows of one analysis. May be used by several threads; one process alone holds it (its lock
    is the caller's)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_bytes = 0
        self.rows = 0
        self._lock = threading.RLock()
        self._index_path = path.with_suffix(".index")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._index = self._new_index()
            self._size = self._mend()
            self._read_all()
        except OSError as error:
            raise disk_error(error, path) from error

    def _new_index(self) -> sqlite3.Connection:
        """An empty index. It needs no safety of its own: it is made anew at every opening."""
        self._index_path.unlink(missing_ok=True)
        index = sqlite3.connect(
            self._index_path, isolation_level=None, check_same_thread=False, cached_statements=8
        )
        for setting in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            f"cache_size=-{INDEX_CACHE_KIB}",
        ):
            index.execute(f"PRAGMA {setting}")
        index.execute(
            "CREATE TABLE places (article INTEGER, key INTEGER, start INTEGER, size INTEGER, "
            "PRIMARY KEY (article, key)) WITHOUT ROWID"
        )
        return index

    def _mend(self) -> int:
        """Take a torn last line off; the bytes that stay."""
        size = os.fstat(self._file).st_size
        end = size
        while end > 0:
            start = max(0, end - READ_BYTES)
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            self.torn_bytes = size - end
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        return end

    def _read_all(self) -> None:
        found = []
        for number, (start, line) in enumerate(self._lines(), 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                if "key" in row:
                    found.append((*_place(row), start, len(line)))
            except (ValueError, RecursionError, KeyError, TypeError) as error:
                raise DataError(
                    "H839",
                    say("Line {line} of the journal of this analysis is damaged.", line=number),
                    where=str(self.path),
                    next_step=say("Move the file away; its sections are then computed again."),
                ) from error
            if len(found) >= BATCH_ROWS:
                self._enter(found)
                found = []
        self._enter(found)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb", buffering=READ_BYTES) as stream:
            start = 0
            for line in stream:
                yield start, line
                start += len(line)

    def _enter(self, places: Sequence[tuple[int, int, int, int]]) -> None:
        if not places:
            return
        self._index.execute("BEGIN")
        # One after the other: a key that is there twice counts, and is found, once.
        before = self._index.total_changes
        self._index.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", places)
        self._index.execute("COMMIT")
        self.rows += self._index.total_changes - before

    # ------------------------------------------------------------ reading and writing

    def known(self, articles: Iterable[tuple[str, str]]) -> dict[str, Row]:
        """The rows of these articles (id, sha256), by key."""
        found: dict[str, Row] = {}
        with self._lock:
            for article, digest in articles:
                places = self._index.execute(
                    "SELECT start, size FROM places WHERE article = ? ORDER BY start",
                    (_article(article, digest),),
                ).fetchall()
                for start, size in places:
                    row = json.loads(os.pread(self._file, size, start))
                    if row.get("article") == article:
                        found[row["key"]] = row
        return found

    def append(self, rows: Sequence[Row]) -> int:
        """Put those rows that are not there yet on the disk, as one write; how many these were."""
        with self._lock:
            data, places = b"", list[tuple[int, int, int, int]]()
            for row in rows:
                place = _place(row)
                if any(place == p[:2] for p in places) or self._is_there(place):
                    continue
                line = canonical_json(row) + b"\n"
                places.append((*place, self._size + len(data), len(line)))
                data += line
            if data:
                try:
                    self._write(data)
                except OSError as error:
                    with suppress(OSError):  # a full disk must not leave half a row in the middle
                        os.ftruncate(self._file, self._size)
                    raise disk_error(error, self.path) from error
                self._size += len(data)
                self._enter(places)
            return len(places)

    def _is_there(self, place: tuple[int, int]) -> bool:
        return (
            self._index.execute(
                "SELECT 1 FROM places WHERE article = ? AND key = ?", place
            ).fetchone()
            is not None
        )

    def _write(self, data: bytes) -> None:
        view, start = memoryview(data), self._size
        while view:
            written = os.pwrite(self._file, view, start)
            view, start = view[written:], start + written
        os.fsync(self._file)

    def close(self) -> None:
        with self._lock:
            if self._file < 0:
                return
            self._index.close()
            self._index_path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> RowJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _number(text: str) -> int:
    """64 bits as SQLite keeps them, signed."""
    return int.from_bytes(bytes.fromhex(text[:16]), "big", signed=True)


def _article(identity: str, digest: str) -> int:
    return _number(sha256(f"{identity}\0{digest}".encode("utf-8", "surrogatepass")).hexdigest())


def _place(row: Row) -> tuple[int, int]:
    """Where a row stands in the index: by article, then by the first 64 bits of its key."""
    return _article(str(row.get("article", "")), str(row.get("article_sha256", ""))), _number(
        str(row["key"])
    )
