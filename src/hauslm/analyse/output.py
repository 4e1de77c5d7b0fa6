"""Where do the rows end up? One JSONL and one Parquet file, written as they come, sealed at the end.

The Parquet file opens in DuckDB and pandas: scalar answer fields are columns of their own
(`answer_label`), anything nested is JSON text. Both files appear under their names only when they are
complete and on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hauslm.base.files import canonical_json, disk_error, fsync_folder

# Rows of one group of the Parquet file. Its table of contents grows with the groups and is held in
# memory to the end: 70 million rows are 4,300 groups.
GROUP_ROWS = 1 << 14
_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "article": pa.string(),
    "article_sha256": pa.string(),
    "title": pa.string(),
    "language": pa.string(),
    "level": pa.string(),
    "section": pa.string(),
    "start": pa.int64(),
    "end": pa.int64(),
    "question": pa.string(),
    "status": pa.string(),
    "reason": pa.string(),
    "schema_valid": pa.bool_(),
    "answer": pa.string(),
    "quote": pa.string(),
    "quote_found": pa.bool_(),
    "quote_start": pa.int64(),
    "quote_end": pa.int64(),
    "untrusted": pa.list_(pa.string()),
    "rests_on": pa.list_(pa.string()),
    "sections_failed": pa.int64(),
    "finish_reason": pa.string(),
    "attempts": pa.int64(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "seconds": pa.float64(),
    "model": pa.string(),
    "model_sha256": pa.string(),
    "adapter": pa.string(),
    "adapter_sha256": pa.string(),
    "template": pa.string(),
    "template_version": pa.int64(),
    "template_sha256": pa.string(),
    "engine": pa.string(),
    "prompt_sha256": pa.string(),
    "raw": pa.string(),
}
_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


def answer_columns(schema: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """Answer fields that become columns: name -> Arrow type."""
    columns = {}
    for name, field in schema.get("properties", {}).items():
        kind = field.get("type") if isinstance(field, Mapping) else None
        values = field.get("enum", []) if isinstance(field, Mapping) else []
        if values and all(isinstance(v, str) for v in values):
            kind = "string"
        if isinstance(kind, str) and kind in _SCALARS and name != "quote":
            columns[name] = _SCALARS[kind]
    return columns


class RowWriter:
    """Both files at once. Use as a context manager; `close` seals them and returns the sha256 of the
    JSONL file. If the block is left by an exception, neither file appears."""

    def __init__(self, folder: Path, schema: Mapping[str, Any], name: str = "rows") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.jsonl, self.parquet = folder / f"{name}.jsonl", folder / f"{name}.parquet"
        mark = secrets.token_hex(4)
        self._staged = [folder / f".{p.name}.{mark}.tmp" for p in (self.jsonl, self.parquet)]
        self._answers = answer_columns(schema)
        fields = _COLUMNS | {f"answer_{n}": t for n, t in self._answers.items()}
        self._schema = pa.schema(list(fields.items()))
        self._digest = hashlib.sha256()
        self.rows = 0
        self._waiting: list[pa.Table] = []  # until they make a row group
        self._waiting_rows = 0
        try:
            self._lines = self._staged[0].open("wb")
            self._table = pq.ParquetWriter(self._staged[1], self._schema, compression="zstd")
        except OSError as error:
            raise disk_error(error, folder) from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        data = b"".join(canonical_json(row) + b"\n" for row in rows)
        try:
            self._lines.write(data)
            self._waiting.append(
                pa.Table.from_pylist([self._flat(r) for r in rows], schema=self._schema)
            )
            self._waiting_rows += len(rows)
            if self._waiting_rows >= GROUP_ROWS:
                self._write_group()
        except OSError as error:
            raise disk_error(error, self.jsonl) from error
        self._digest.update(data)
        self.rows += len(rows)

    def _write_group(self) -> None:
        if self._waiting:
            self._table.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._waiting_rows = [], 0

    def _flat(self, row: Mapping[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {n: row.get(n) for n in _COLUMNS}
        answer = row.get("answer")
        flat["answer"] = None if answer is None else json.dumps(answer, ensure_ascii=False)
        for name in self._answers:
            flat[f"answer_{name}"] = answer.get(name) if isinstance(answer, Mapping) else None
        return flat

    def close(self) -> str:
        try:
            self._write_group()
            self._table.close()
            self._lines.flush()
            os.fsync(self._lines.fileno())
            self._lines.close()
            descriptor = os.open(self._staged[1], os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            for staged, target in zip(self._staged, (self.jsonl, self.parquet), strict=True):
                staged.replace(target)
            fsync_folder(self.jsonl.parent)
        except OSError as error:
            raise disk_error(error, self.jsonl) from error
        return self._digest.hexdigest()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        with suppress(OSError, ValueError):
            self._table.close()
        with suppress(OSError):
            self._lines.close()
        for staged in self._staged:
            staged.unlink(missing_ok=True)


def read_rows(path: Path) -> Iterable[dict[str, Any]]:
    """The rows of a finished JSONL file, one by one."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
