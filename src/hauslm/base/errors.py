"""What can go wrong, and how is it told? One family of errors.

Every error says what happened, where, and what to do next, one sentence each, in the reader's
language, under a stable code; it knows the exit code of the process. Nothing else may reach a user:
`hauslm.cli` catches everything and puts tracebacks into `logs/`.

To add an error: raise the class whose exit code fits, with the next free code of its room, and list
the code in `docs/errors.md` (a test compares). Code ranges: H1xx usage, H2xx project file, H3xx
documents and data, H4xx does not fit / refused, H5xx environment, H6xx training and evaluation,
H7xx sharing, H8xx serving and analysis, H9xx internal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hauslm.base.words import Sentence, as_text, say


class HauslmError(Exception):
    """Base of the family. `what`, `where`, `next_step` are sentences; `exit_code` ends the process."""

    exit_code = 70

    def __init__(
        self,
        code: str,
        what: Sentence | str,
        *,
        where: str = "",
        next_step: Sentence | str = "",
    ) -> None:
        super().__init__(code, what, where, next_step)
        self.code = code
        self.what = what
        self.where = where
        self.next_step = next_step

    def text(self, language: str | None = None) -> str:
        """The whole message: `where: what` and the next step, in `language`."""
        lines = [f"{self.where}: " if self.where else ""]
        lines[0] += f"{as_text(self.what, language)} [{self.code}]"
        if self.next_step:
            lines.append(
                say("Next step: {step}", step=as_text(self.next_step, language)).text(language)
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


class UsageError(HauslmError):
    """The command line or the project file is wrong."""

    exit_code = 2


class ProjectFileError(UsageError):
    """One or more mistakes in `hauslm.yaml`; each carries its own file:line:column."""

    def __init__(self, mistakes: list[UsageError]) -> None:
        first = mistakes[0]
        super().__init__(first.code, first.what, where=first.where, next_step=first.next_step)
        self.mistakes = mistakes

    def text(self, language: str | None = None) -> str:
        return "\n".join(UsageError.text(m, language) for m in self.mistakes)


class DataError(HauslmError):
    """The documents or tasks cannot be used as they are."""

    exit_code = 3


class RefusedError(HauslmError):
    """It does not fit, a rule forbids it, or an integrity check failed."""

    exit_code = 4


class MissingError(HauslmError):
    """The environment lacks something: a package, a GPU, a base model, the network."""

    exit_code = 5


class Interrupted(HauslmError):
    """Stopped on request; what was done is saved and can be resumed."""

    exit_code = 75


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that a mistyped `name` most likely meant, best first."""
    pool = list(candidates)
    folded = {c.lower(): c for c in pool}
    close = difflib.get_close_matches(name.lower(), list(folded), n=count, cutoff=0.5)
    inside = [c for c in folded if name.lower() in c and c not in close] if len(name) > 2 else []
    return [folded[c] for c in (close + inside)[:count]]


def did_you_mean(name: str, candidates: Iterable[str]) -> Sentence | str:
    """'Did you mean a, b?' or the list of what there is, as a next step."""
    pool = sorted(candidates)
    close = nearest(name, pool)
    if close:
        return say("Did you mean {names}?", names=", ".join(close))
    if not pool:
        return ""
    shown = ", ".join(pool[:12]) + (" ..." if len(pool) > 12 else "")
    return say("Known names: {names}", names=shown)
