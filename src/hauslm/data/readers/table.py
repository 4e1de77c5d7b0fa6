"""CSV, TSV and Parquet: one document per row, read in batches by pyarrow.

The text column is named in the project file (documents: text_field). CSV is read as text throughout: a
column of identifiers keeps its leading zeros.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document, Limits, Refusal, UnreadableError
from hauslm.data.readers import _row
from hauslm.data.readers._decode import damaged_utf8, decode

NAME = "table"
SUFFIXES = (".csv", ".tsv", ".parquet")

_BATCH_ROWS = 256
_HEAD_BYTES = 1 << 20


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    assumed = None if path.suffix.lower() == ".parquet" else _head(path)[2]
    for number, row in rows(path, limits):
        if isinstance(row, Sentence):
            yield Refusal(row, str(number))
            continue
        found = _row.document(row, format_=NAME, number=number, text_field=limits.text_field)
        if isinstance(found, Sentence):
            yield Refusal(found, str(number))
        else:
            yield found if assumed is None else replace(found, notices=(*found.notices, assumed))


def rows(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | Sentence]]:
    """Numbered rows (the first data row is 1) as dictionaries, or why a row is damaged."""
    if path.stat().st_size == 0:
        raise UnreadableError(say("The file is empty."))
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path, limits)
    else:
        yield from _csv(path, limits)


def _parquet(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | Sentence]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            largest = max((g.total_byte_size for g in groups), default=0)
            if largest > 4 * limits.unpacked_bytes:
                raise UnreadableError(
                    say("A row group of the file unpacks to {size:,} MB; the limit is {limit:,} MB.",
                        size=largest / 1e6, limit=4 * limits.unpacked_bytes / 1e6)
                )  # fmt: skip
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError) as error:
        if number:
            yield (
                number + 1,
                say("The file breaks off or is damaged: {reason}.", reason=_first_line(error)),
            )
            return
        raise UnreadableError(
            say("The file is not valid Parquet: {reason}.", reason=_first_line(error))
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _csv(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | Sentence]]:
    text, encoding, _ = _head(path)
    csv.field_size_limit(min(limits.line_bytes, sys.maxsize))
    delimiter, announced = _delimiter(text, path.suffix.lower())
    # Bytes that do not fit the encoding cost their own row, not the rest of the file.
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
        if announced:
            stream.readline()
        # Strict: a stray or unclosed quotation mark would otherwise change the text or swallow rows.
        reader = csv.DictReader(stream, dialect="excel", delimiter=delimiter, strict=True)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader, None)
            except UnicodeError:
                yield number, say("From this row on the file is damaged; the rest was not read.")
                return
            except csv.Error as error:
                yield number, _damage(error)
                continue
            if row is None:
                return
            if None in row:
                yield number, say("The row has more cells than the header.")
            elif any(v and _ESCAPED.search(v) for v in row.values()):
                yield number, say("The row is not {encoding} text.", encoding=_shown(encoding))
            else:
                yield number, dict(row)


_ESCAPED = re.compile("[\udc80-\udcff]")  # how `surrogateescape` keeps a byte that does not fit
_ANNOUNCED = re.compile(r"sep=(.)\r?\n")  # Excel's first line of a file with another separator


def _damage(error: csv.Error) -> Sentence:
    reason = _first_line(error)
    if "unexpected end of data" in reason:
        return say(
            "A quotation mark that opens in this row is never closed; from here on nothing was read."
        )
    if "expected after" in reason:
        return say("A quotation mark stands inside a quoted cell; it has to be doubled there.")
    return say("The row is damaged: {reason}.", reason=reason)


def _head(path: Path) -> tuple[str, str, Sentence | None]:
    """The beginning of the file as text, its encoding, and what had to be assumed for it."""
    with path.open("rb") as raw:
        head = raw.read(_HEAD_BYTES)
    cut = head.rfind(b"\n") + 1 if len(head) == _HEAD_BYTES else len(head)
    head = head[:cut] or head
    if damaged_utf8(head):
        return head.decode("utf-8", "surrogateescape").removeprefix("\ufeff"), "utf-8-sig", None
    text, notice = decode(head)
    return text, _encoding(head, text), notice


def _delimiter(text: str, suffix: str) -> tuple[str, bool]:
    """The separator, and whether the first line only announces it.

    It is the one that stands most often in the header outside quotation marks: names of columns hold no
    commas by chance, as sentences do.
    """
    announced = _ANNOUNCED.match(text)
    if announced:
        return announced.group(1), True
    if suffix == ".tsv":
        return "\t", False
    header = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").split("\n", 1)[0])
    most = max(",;\t|", key=header.count)
    return (most if most in header else ","), False


def _shown(encoding: str) -> str:
    return "Windows-1252" if encoding == "cp1252" else encoding.removesuffix("-sig").upper()


def _encoding(head: bytes, text: str) -> str:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        try:
            if head[:4096].decode(encoding, "strict" if len(head) <= 4096 else "ignore")[
                :200
            ].strip("\ufeff") == text[:200].strip("\ufeff"):
                return encoding
        except UnicodeDecodeError:
            continue
    return "cp1252"
