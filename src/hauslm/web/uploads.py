"""What is in a form with a file? The parts of multipart/form-data (RFC 7578), as bytes.

Thirty lines instead of a package: one field with one file is all that the pages send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hauslm.base.errors import UsageError
from hauslm.base.words import say

MOST_PARTS = 16
_BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(r'(?<![a-z])name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    name: str
    filename: str
    data: bytes


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The parts in their order; H248 for what is not such a form."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or not found:
        raise _not_a_form()
    mark = b"--" + found.group(1).encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise _not_a_form()  # also: a body that was cut off
    parts = []
    for piece in pieces[1:-1][:MOST_PARTS]:
        head, blank, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name = _NAME.search(text)
        if not blank or not name:
            raise _not_a_form()
        file = _FILENAME.search(text)
        parts.append(Part(name.group(1), _plain(file.group(1)) if file else "", data))
    return parts


def _plain(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted).replace("%22", '"')


def _not_a_form() -> UsageError:
    return UsageError(
        "H248",
        say("What was sent is not a complete form with a file."),
        next_step=say("Choose the file again."),
    )
