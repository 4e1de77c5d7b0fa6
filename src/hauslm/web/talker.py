"""The process that holds the chat page's model: `python -m hauslm.web.talker FOLDER LANGUAGE`.

Questions on standard input, pieces of answers on standard output (`views/chat.py`). It ends when its
standard input does, so no model stays in memory after the web server. The network is shut.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from hauslm.base import egress, words
from hauslm.base.errors import HauslmError


def main(arguments: list[str]) -> int:
    folder, language = arguments
    egress.shut("strict")
    words.use_language(language)
    # Whatever a library prints goes to the log: standard output belongs to the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(event: dict[str, Any]) -> None:
        answers.write(json.dumps(event, ensure_ascii=False) + "\n")
        answers.flush()

    from hauslm import flow
    from hauslm.views import chat

    try:
        return chat.talk(flow.Project.load(Path(folder)), sys.stdin, tell)
    except HauslmError as error:
        tell({"event": "failed", "code": error.code, "text": error.text()})
        return error.exit_code
    except (BrokenPipeError, KeyboardInterrupt):
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
