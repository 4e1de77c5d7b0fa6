"""Bytes to text, strictly: UTF-8, a declared UTF-16/32, or Windows-1252 with a notice; never a guess."""

from __future__ import annotations

import codecs
from pathlib import Path

from hauslm.base.words import Sentence, say
from hauslm.data.document import Limits, UnreadableError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def whole_file(path: Path, limits: Limits) -> bytes:
    """The bytes of a file that is read as a whole; refuses empty and oversized ones."""
    size = path.stat().st_size
    if size == 0:
        raise UnreadableError(say("The file is empty."))
    if size > limits.file_bytes:
        raise UnreadableError(
            say(
                "The file has {size:,} MB; files of this format are read up to {limit:,} MB.",
                size=size / 1e6,
                limit=limits.file_bytes / 1e6,
            )
        )
    return path.read_bytes()


def decode(raw: bytes) -> tuple[str, Sentence | None]:
    """Text and, where the encoding had to be inferred, a notice.

    UTF-8 and everything with a byte order mark is certain. Other bytes are read as Windows-1252 (which
    contains Latin-1) only if every byte is defined there and most of the text is letters; otherwise
    the file is refused, because a wrong guess would put garbage into the corpus.
    """
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            try:
                return raw.decode(encoding), None
            except UnicodeDecodeError as error:
                raise UnreadableError(
                    say(
                        "The file says it is {encoding}, but byte {position:,} is not.",
                        encoding=encoding.removesuffix("-sig").upper(),
                        position=error.start,
                    )
                ) from error
    if b"\0" in raw[: 1 << 20]:
        raise UnreadableError(
            say("The file contains NUL bytes: it is binary, or UTF-16 without a mark.")
        )
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        position = error.start
    if damaged_utf8(raw):  # as Windows-1252 its umlauts would turn into two characters each
        raise UnreadableError(
            say("The file is UTF-8 text that is damaged at byte {position:,}.", position=position)
        )
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    sample = text[max(0, position - 5000) : position + 5000]
    letters = sum(c.isalpha() or c.isspace() for c in sample)
    odd = sum(ord(c) > 127 for c in sample)
    if not text or letters < 0.7 * len(sample) or odd > 0.2 * len(sample):
        raise UnreadableError(
            say("The file is not UTF-8 text (byte {position:,}).", position=position)
        )
    return text, say(
        "Read as Windows-1252 because it is not UTF-8 (byte {position:,}).", position=position
    )


def damaged_utf8(raw: bytes) -> bool:
    """Whether bytes that are not UTF-8 are so only here and there: more characters fit than do not."""
    text = raw.decode("utf-8", "surrogateescape")
    unfit = sum("\udc80" <= c <= "\udcff" for c in text)
    return 0 < unfit < sum(c > "\x7f" for c in text) - unfit
