"""JSON Lines (also gzipped): texts, prompt/completion pairs or conversations, one per line, streamed.

A damaged line is refused by its number and the rest of the file goes on.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document, Limits, Refusal, UnreadableError
from hauslm.data.readers import _row

NAME = "jsonl"
SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz")


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    if path.stat().st_size == 0:
        raise UnreadableError(say("The file is empty."))
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield from _lines(stream, path, limits, limits.gzip_bytes)
    else:
        with path.open("rb") as stream:
            yield from _lines(stream, path, limits, None)


def _lines(
    stream: IO[bytes], path: Path, limits: Limits, most: int | None
) -> Iterator[Document | Refusal]:
    number = total = 0
    while True:
        try:
            line = stream.readline(limits.line_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            yield Refusal(say("The file breaks off or is damaged: {reason}.", reason=str(error)), f"{number + 1}")
            return
        if not line:
            return
        number += 1
        total += len(line)
        place = str(number)
        if most is not None and total > most:
            yield Refusal(say("The unpacked file is larger than {limit:,} MB; the rest was not read.", limit=most / 1e6), place)
            return
        if len(line) > limits.line_bytes:
            yield Refusal(say("The line is longer than {limit:,} MB.", limit=limits.line_bytes / 1e6), place)
            _skip_line(stream, limits.line_bytes)
            continue
        if not line.strip():
            continue
        found = _document(line, number, limits)
        yield Refusal(found, place) if isinstance(found, Sentence) else found


def _skip_line(stream: IO[bytes], step: int) -> None:
    while chunk := stream.readline(step):
        if chunk.endswith(b"\n"):
            return


def _document(line: bytes, number: int, limits: Limits) -> Document | Sentence:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return say("The line is not UTF-8 text (byte {position:,}).", position=error.start)
    except (json.JSONDecodeError, RecursionError) as error:
        return say("The line is not valid JSON: {reason}.", reason=str(error)[:120])
    except ValueError as error:  # an integer with more digits than Python converts
        return say("The line is not valid JSON: {reason}.", reason=str(error)[:120])
    if not isinstance(row, dict):
        return say("The line is not a JSON object.")
    return _row.document(row, format_=NAME, number=number, text_field=limits.text_field)
