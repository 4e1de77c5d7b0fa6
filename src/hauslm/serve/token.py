"""Who may ask? Whoever can read the token: 256 random bits in a file of mode 0600, or HAUSLM_TOKEN.

The token appears in no argument, log, record or message; only where it lies is said.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.files import write_sealed
from hauslm.base.words import say

VARIABLE = "HAUSLM_TOKEN"
FILE_NAME = "serve.token"
SHORTEST = 32
_SOUND = re.compile(r"[!-~]{32,512}\Z")


def token_for(work: Path) -> tuple[str, Path | None]:
    """(the token, the file it stands in; None if the environment gave it).

    A sound file is used again, so that clients keep working after a restart. H852: the environment's
    token is too short or holds blanks; H857: the file is a link or others may read it.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        if not _SOUND.match(given):
            raise UsageError(
                "H852",
                say(
                    "{name} must be at least {count} printable characters without blanks.",
                    name=VARIABLE,
                    count=SHORTEST,
                ),
                next_step=say("Unset it, and a random token is made for you."),
            )
        return given, None
    path = work / FILE_NAME
    found = _read(path)
    if found is None:
        found = secrets.token_urlsafe(32)
        write_sealed(path, found + "\n", mode=0o600)
    return found, path


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path) from error
    try:
        status = os.fstat(descriptor)
        foreign = status.st_uid != os.getuid()
        if not stat.S_ISREG(status.st_mode) or foreign or status.st_mode & 0o077:
            raise _refused(path)
        text = os.read(descriptor, 1024).decode("ascii", errors="replace").strip()
    finally:
        os.close(descriptor)
    if not _SOUND.match(text):
        raise _refused(path)
    return text


def _refused(path: Path) -> RefusedError:
    return RefusedError(
        "H857",
        say("The token file is damaged, a link, or open to others."),
        where=str(path),
        next_step=say("Delete the file; a new token is made at the next start."),
    )
