"""The command line: arguments -> flow, one short file per group of commands.

`main` is the entry point. It shuts the network door, loads only the command that was asked for, and
turns every error into sentences on standard error and an exit code; tracebacks go to `logs/`.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from hauslm.cli.entry import entry

    sys.exit(entry(arguments))
