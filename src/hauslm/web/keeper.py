"""Who notes how a process ended when its page, or the whole web server, is gone? This small process.

    python -m hauslm.web.keeper [--with-parent] EXIT_FILE COMMAND...

Runs the command, passes on the wish to stop (SIGTERM, SIGINT), and writes the exit code into EXIT_FILE.
With `--with-parent` the command is stopped when the process that started the keeper is gone: for a
server that nobody else would end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

LOOK_EVERY_S = 1.0


def keep(exit_file: Path, command: list[str], *, with_parent: bool) -> int:
    parent = os.getppid()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def pass_on(_signum: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)

    for wish in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wish, pass_on)
    while True:
        try:
            code = child.wait(LOOK_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            if with_parent and os.getppid() != parent:
                child.terminate()
    code = 128 - code if code < 0 else code  # as shells say it: 128 + signal
    staged = exit_file.with_suffix(".tmp")
    staged.write_text(f"{code}\n", encoding="ascii")
    staged.replace(exit_file)
    return code


def main(arguments: list[str]) -> int:
    with_parent = arguments[:1] == ["--with-parent"]
    file, *command = arguments[1:] if with_parent else arguments
    return keep(Path(file), command, with_parent=with_parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
