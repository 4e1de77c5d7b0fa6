"""The process that analyses one dropped article: `python -m hauslm.web.worker FOLDER ARTICLE LANGUAGE`.

It is guarded like the command `hauslm analyse`: the network is shut before anything is read.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from hauslm.base import egress, words
from hauslm.base.errors import HauslmError
from hauslm.base.fault import own_fault
from hauslm.base.words import Sentence, as_text, number, say

EVERY_S = 1.0


class Lines:
    """Progress as lines of the job's log."""

    def __init__(self) -> None:
        self._last = 0.0

    def say(self, sentence: Sentence | str) -> None:
        print(as_text(sentence), flush=True)

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        finished = total is not None and done >= total
        if time.monotonic() - self._last < EVERY_S and not finished:
            return
        self._last = time.monotonic()
        of = f"/{number(total, ',')}" if total else ""
        print(f"{as_text(title)} {number(done, ',')}{of}", flush=True)


def main(arguments: list[str]) -> int:
    folder, article, language = arguments
    words.use_language(language)
    from hauslm import flow

    try:
        project = flow.Project.load(Path(folder))
        # An endpoint that the project file names is outside the kernel's filter, as in the command.
        egress.shut("strict", kernel=project.scenario.analysis.engine != "openai")
        from hauslm.views import articles

        record = articles.analyse_one(project, article, Lines())
        print(say("{rows:,} rows", rows=record.rows).text(), flush=True)
        return 0
    except HauslmError as error:
        print(error.text(), flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 75
    except Exception as error:
        told = own_fault(error, Path(folder) / "logs", f"web.worker {article}")
        print(told.text(), flush=True)
        return told.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
