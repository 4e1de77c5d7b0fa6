"""How does a bundle get onto a shelf that others read? A folder, or a model hub; only when told to.

What is put there is the verified bundle, file by file, so that it verifies on the shelf too. A folder
(a share, a USB stick, a directory that a web server shows) needs no network. A hub (Hugging Face, or
one of your own) needs three things besides the command: a Permit for the host from the project file's
answers, a memorisation test within its limit, and, if not all documents are openly licensed, the word
that the rights have been cleared. No adapter is ever sent on the way by another command.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.base.words import say
from hauslm.lm.permit import permit_for
from hauslm.scenario import Scenario
from hauslm.share.bundle import unpack
from hauslm.share.verify import verify

HUB = "https://huggingface.co"
_CHILD = "hauslm.share.hub_child"
TIMEOUT_S = 3600


def to_folder(bundle: Path, target: Path) -> dict[str, Any]:
    """Write the verified bundle's files to the new folder `target`; it is absent or whole. H734."""
    if target.exists():
        raise UsageError(
            "H734",
            say("There is something in {path} already.", path=str(target)),
            next_step=say("Name another folder, or empty this one."),
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    unpack(bundle, staged)
    result = verify(staged)
    staged.rename(target)
    return {"path": str(target), "files": sorted(p.name for p in target.iterdir()), "checks": result["checks"]}  # fmt: skip


def to_hub(
    scenario: Scenario,
    bundle: Path,
    repo: str,
    *,
    endpoint: str = HUB,
    storage_hosts: tuple[str, ...] = (),
    private: bool = True,
    rights_cleared: bool = False,
) -> dict[str, Any]:
    """Upload the bundle's files to `repo` (owner/name). H760-H764 and H811 say what is in the way.

    The upload runs in a child process whose network guard lets it reach the hub (and the storage hosts
    that were named) and nobody else. The token is the hub client's own (HF_TOKEN or its login).
    """
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UsageError(
            "H760",
            say("'{repo}' is no repository name.", repo=repo[:80]),
            next_step=say("Write it as owner/name."),
        )
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    for one in (host, *storage_hosts):
        permit_for(scenario, one)  # refuses with the rule that stands in the way
    result = verify(bundle)
    _may_leave(result["manifest"], rights_cleared)
    with tempfile.TemporaryDirectory(prefix="hauslm-push-") as scratch:
        folder = unpack(bundle, Path(scratch) / "bundle")
        job = {
            "folder": str(folder), "repo": repo, "endpoint": endpoint, "private": private,
            "host": host, "port": parts.port or (443 if parts.scheme == "https" else 80),
            "also": list(storage_hosts), "message": f"hauslm bundle {scenario.name}",
        }  # fmt: skip
        answer = _child(job)
    return {"path": f"{endpoint}/{repo}", "files": answer["files"], "checks": result["checks"]}


def _may_leave(manifest: dict[str, Any], rights_cleared: bool) -> None:
    """Weights can hold training text (LG München I, 42 O 14139/24, not final): rule C5 asks for both."""
    if not manifest["memorisation_passed"]:
        raise RefusedError(
            "H761",
            say("It was not shown that the adapter does not repeat training text."),
            next_step=say(
                "Run hauslm evaluate, then hauslm bundle; or hand it on inside the team."
            ),
        )
    closed = sorted(set(manifest["rights"]) - {"open"})
    if closed and not rights_cleared:
        raise RefusedError(
            "H762",
            say("Not all training documents are openly licensed ({rights}).", rights=", ".join(closed)),
            next_step=say("Ask the rightholders or counsel; --rights-cleared says that they agreed."),
        )  # fmt: skip


def _child(job: dict[str, Any]) -> dict[str, Any]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": job["endpoint"],
        "HF_HUB_DISABLE_XET": "1",  # a native client that the guard of this process cannot see
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [sys.executable, "-m", _CHILD],
        input=json.dumps(job), capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False, env=environment,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if done.returncode == 0 and "files" in answer:
        return answer
    blocked = answer.get("blocked", "")
    if blocked:
        raise RefusedError(
            "H763",
            say("The hub wants the files to go to another host ({host}).", host=blocked[:200]),
            next_step=say("If that is its storage, allow it: --storage-host {host}", host=blocked[:200]),
        )  # fmt: skip
    raise MissingError(
        "H764",
        say("The hub did not take the files ({reason}).", reason=str(answer.get("error") or "?")[:300]),
        where=job["endpoint"],
        next_step=say("Check the token (HF_TOKEN), the repository's name and the connection."),
    )  # fmt: skip
