"""What does a user see of a fault of ours? A sentence and the path of a file; the traceback is in that file.

Both the file and the sentence are redacted (`secret`): a message may quote what it was working on.
"""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from hauslm.base import secret
from hauslm.base.errors import HauslmError
from hauslm.base.version import __version__
from hauslm.base.words import say


def own_fault(error: Exception, logs: Path, doing: str) -> HauslmError:
    """`error`, which nobody expected, as sentences; its traceback goes to a new file in `logs`.

    `doing`: the command or page, written at the head of the file. Where no file can be written, none
    is named.
    """
    path = logs / f"error-{time.strftime('%Y%m%d-%H%M%S')}.log"
    told = "".join(traceback.format_exception(error))
    try:
        logs.mkdir(parents=True, exist_ok=True)
        path.write_text(secret.redact(f"hauslm {__version__} {doing}\n{told}"), encoding="utf-8")
        where = str(path)
    except OSError:
        where = ""
    return HauslmError(
        "H900",
        say(
            "hauslm met a fault of its own ({kind}: {reason}).",
            kind=type(error).__name__,
            reason=secret.redact(str(error))[:200],
        ),
        where=where,
        next_step=say("Please report it with the file named above; your records are unharmed."),
    )
