"""Where may a secret come from, and how does it stay out of everything that is written?

A secret (the key of an endpoint) is looked for when it is used: in the environment (`NAME`), in a file of
mode 0600 that the environment names (`NAME_FILE`), in the system's keyring (service "hauslm", if the
package `keyring` is installed). Never in an argument, a project file, a record. It is not kept. `redact`
is the net below: text that goes to a log loses every value of the environment that is called a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hauslm.base.errors import MissingError, UsageError
from hauslm.base.listen import refuse_open_secret
from hauslm.base.words import say

SERVICE = "hauslm"
MOST_BYTES = 4096
_SOUND = re.compile(r"[!-~]{1,4096}\Z")
_NAMED = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE|SIGNING)_?KEY|_KEY\Z", re.I
)
_SHORTEST = 8  # shorter values are words ("true", a user name) that stand everywhere


def find(name: str) -> str:
    """The secret called `name`, or '' if there is none.

    H114 if it holds blanks or line ends (a header would break, and an error would repeat it), H413 if
    others can read its file, H553 if the named file is missing.
    """
    found = os.environ.get(name, "")
    if not found and os.environ.get(f"{name}_FILE"):
        found = _from_file(Path(os.environ[f"{name}_FILE"]).expanduser(), name)
    found = (found or _from_keyring(name)).strip()
    if found and not _SOUND.match(found):
        raise UsageError(
            "H114",
            say("The secret {name} holds blanks or characters that no key has.", name=name),
            next_step=say("Set it again, without quotes and line ends."),
        )
    return found


def _from_file(path: Path, name: str) -> str:
    try:
        refuse_open_secret(path)
        with path.open("rb") as stream:
            return stream.read(MOST_BYTES + 1).decode("utf-8", errors="replace")
    except OSError as error:
        raise MissingError(
            "H553",
            say("The file of the secret {name} cannot be read ({reason}).",
                name=name, reason=error.strerror or type(error).__name__),
            where=str(path),
            next_step=say("Correct {name}_FILE.", name=name),
        ) from error  # fmt: skip


def _from_keyring(name: str) -> str:
    try:
        import keyring
    except ImportError:
        return ""
    try:
        return str(keyring.get_password(SERVICE, name) or "")
    except Exception:  # no keyring service here, locked, or refused: as good as none
        return ""


def values(environment: Mapping[str, str] | None = None) -> list[str]:
    """Values of the environment whose names say that they are secrets, longest first."""
    given = os.environ if environment is None else environment
    found = {v.strip() for k, v in given.items() if _NAMED.search(k) and not k.endswith("_FILE")}
    return sorted((v for v in found if len(v) >= _SHORTEST), key=len, reverse=True)


def redact(text: str, more: Iterable[str] = ()) -> str:
    """`text` without any secret of the environment, and without `more`."""
    for value in (*values(), *more):
        if value:
            text = text.replace(value, "***")
    return text
