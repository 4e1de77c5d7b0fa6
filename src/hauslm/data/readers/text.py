"""Plain text: the whole file is one document; a short first line is its title."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hauslm.data.document import Document, Limits, Refusal, hidden_characters, tidy
from hauslm.data.readers._decode import decode, whole_file
from hauslm.data.rights import classify, statement_at_ends

NAME = "text"
SUFFIXES = (".txt", ".text")


def read(path: Path, limits: Limits) -> Iterator[Document | Refusal]:
    text, notice = decode(whole_file(path, limits))
    hidden = hidden_characters(text)
    text = tidy(text)
    first = text.split("\n", 1)[0].strip()
    title = first if 0 < len(first) <= 200 else path.stem
    statement = statement_at_ends(text)
    rights = classify(statement)
    yield Document(
        id=path.stem,
        title=title,
        text=text,
        licence=rights.label,
        licence_class=rights.licence_class,
        format=NAME,
        left_out={"invisible characters": hidden} if hidden else {},
        metadata={"licence_statement": statement},
        notices=() if notice is None else (notice,),
    )
