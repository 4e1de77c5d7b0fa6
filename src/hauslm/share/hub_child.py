"""Run by `push.py` as a process of its own: upload one folder to one hub, guard first.

Only here is the hub's client loaded with the network open, to the permitted hosts alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from hauslm.base import egress


def main() -> int:
    job: dict[str, Any] = json.load(sys.stdin)
    with egress.permitted(job["host"], int(job["port"]), also=tuple(job["also"])):
        os.environ["HF_HUB_OFFLINE"] = (
            "0"  # the guard sets every offline switch; this one must be off
        )
        try:
            print(json.dumps({"files": _upload(job)}))
            return 0
        except Exception as error:
            blocked = next((a["target"] for a in reversed(egress.attempts())), "")
            token = os.environ.get("HF_TOKEN") or "\0"
            reason = str(error).split("\n")[0].replace(token, "***")
            print(json.dumps({"error": f"{type(error).__name__}: {reason}", "blocked": blocked}))
            return 1


def _upload(job: dict[str, Any]) -> list[str]:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=job["endpoint"])
    api.create_repo(job["repo"], private=bool(job["private"]), exist_ok=True)
    api.upload_folder(repo_id=job["repo"], folder_path=job["folder"], commit_message=job["message"])
    return sorted(p.name for p in Path(job["folder"]).iterdir())


if __name__ == "__main__":
    sys.exit(main())
