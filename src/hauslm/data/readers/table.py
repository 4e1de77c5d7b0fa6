"""CSV, TSV and Parquet: one document per row, read in batches by pyarrow.

The text column is named in the project file (documents: text_field). CSV is read as text throughout: a
column of identifiers keeps its leading zeros.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document, Limits, Refusal, UnreadableError
from hauslm.data.readers import _row
from hauslm.data.readers._decode import decode

NAME = "table"
SUFFIXES = (".csv", ".tsv", ".parquet")

_BATCH_ROWS = 256
_HEAD_BYTES = 1 << 20


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    for number, row in rows(path, limits):
        if isinstance(row, Sentence):
            yield Refusal(row, str(number))
            continue
        found = _row.document(row, format_=NAME, number=number, text_field=limits.text_field)
        yield Refusal(found, str(number)) if isinstance(found, Sentence) else found


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
    with path.open("rb") as raw:
        head = raw.read(_HEAD_BYTES)
    cut = head.rfind(b"\n") + 1 if len(head) == _HEAD_BYTES else len(head)
    text, _ = decode(head[:cut] or head)
    encoding = _encoding(head, text)
    csv.field_size_limit(min(limits.line_bytes, sys.maxsize))
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(
            text[:64_000], delimiters=",;\t|"
        )
    except csv.Error:
        dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
    if path.suffix.lower() == ".tsv":
        dialect = csv.excel_tab
    with path.open(encoding=encoding, newline="") as stream:
        reader = csv.DictReader(stream, dialect=dialect, strict=False)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader, None)
            except (csv.Error, UnicodeDecodeError) as error:
                yield number, say("The row is damaged: {reason}.", reason=_first_line(error))
                if isinstance(error, UnicodeDecodeError):
                    return
                continue
            if row is None:
                return
            if None in row:
                yield number, say("The row has more cells than the header.")
                continue
            yield number, dict(row)


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
