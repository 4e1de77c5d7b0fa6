"""JSON Lines (also gzipped): texts, prompt/completion pairs or conversations, one per line, streamed.

A damaged line is refused by its number and the rest of the file goes on.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document, Limits, Refusal, UnreadableError
from hauslm.data.readers import _row

NAME = "jsonl"
SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz")


class _Lines(Protocol):
    """What a plain and a gzipped file have in common."""

    def readline(self, size: int = ..., /) -> bytes: ...


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    for number, row in rows(path, limits):
        if isinstance(row, Sentence):
            yield Refusal(row, str(number))
            continue
        found = _row.document(row, format_=NAME, number=number, text_field=limits.text_field)
        yield Refusal(found, str(number)) if isinstance(found, Sentence) else found


def rows(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | Sentence]]:
    """Line numbers with the JSON object of the line, or why the line is not one."""
    if path.stat().st_size == 0:
        raise UnreadableError(say("The file is empty."))
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield from _lines(stream, limits, limits.gzip_bytes)
    else:
        with path.open("rb") as stream:
            yield from _lines(stream, limits, None)


def _lines(
    stream: _Lines, limits: Limits, most: int | None
) -> Iterator[tuple[int, dict[str, Any] | Sentence]]:
    number = total = 0
    while True:
        number += 1
        try:
            line = stream.readline(limits.line_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            yield number, say("The file breaks off or is damaged: {reason}.", reason=str(error))
            return
        if not line:
            return
        total += len(line)
        if most is not None and total > most:
            yield (
                number,
                say(
                    "The unpacked file is larger than {limit:,} MB; the rest was not read.",
                    limit=most / 1e6,
                ),
            )
            return
        if len(line) > limits.line_bytes:
            yield (
                number,
                say("The line is longer than {limit:,} MB.", limit=limits.line_bytes / 1e6),
            )
            if not line.endswith(b"\n"):
                _skip_line(stream, limits.line_bytes)
        elif line.strip():
            yield number, _object(line, number)


def _skip_line(stream: _Lines, step: int) -> None:
    while chunk := stream.readline(step):
        if chunk.endswith(b"\n"):
            return


def _object(line: bytes, number: int) -> dict[str, Any] | Sentence:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return say("The line is not UTF-8 text (byte {position:,}).", position=error.start)
    except json.JSONDecodeError as error:
        return say("The line is not valid JSON (character {position:,}).", position=error.pos + 1)
    except (ValueError, RecursionError) as error:  # for instance an integer that is too long
        return say("The line is not valid JSON: {reason}.", reason=str(error)[:120])
    if not isinstance(row, dict):
        return say("The line is not a JSON object.")
    return row
