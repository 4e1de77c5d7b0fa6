"""Does the exported file answer as base plus adapter do? llama.cpp is asked, token by token.

llama-cpp-python is an optional extra that pip builds from source for half an hour. It runs in a child
process: in this Python, or in the one named by `HAUSLM_LLAMA_PYTHON`. Where there is none, the answer
is "not verified, because", never silence.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say

PYTHON_VARIABLE = "HAUSLM_LLAMA_PYTHON"
_CHILD = Path(__file__).with_name("llama_child.py")
TIMEOUT_S = 3600


def python() -> str | None:
    """A Python that has llama-cpp-python, or None."""
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return named
    return sys.executable if importlib.util.find_spec("llama_cpp") else None


def missing() -> Sentence:
    return say(
        "not verified in llama.cpp: llama-cpp-python is not installed (pip install \"hauslm[llamacpp]\", or name a Python that has it in {variable})",
        variable=PYTHON_VARIABLE,
    )  # fmt: skip


def ask(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job of `llama_child.py`. H737 if it fails."""
    program = python()
    if program is None:
        raise RuntimeError("no llama-cpp-python here; callers look first")
    done = subprocess.run(
        [program, str(_CHILD)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RefusedError(
            "H737",
            say(
                "llama.cpp could not work with the exported file ({reason}).",
                reason=(done.stderr.strip().splitlines() or ["?"])[-1][:200],
            ),
            where=str(job["model"]),
            next_step=say("Do not use the file; report it with the base model's config.json."),
        )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def agreement(
    model: Path,
    prompts: Sequence[Sequence[int]],
    ours: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    exact_cache: bool = False,
) -> dict[str, Any]:
    """How many prompts get the same tokens as `ours`, and where the first difference is."""
    job = {
        "model": str(model), "prompts": [list(p) for p in prompts], "new_tokens": new_tokens,
        "exact_cache": exact_cache,
    }  # fmt: skip
    found = ask(job)
    same = [list(a) == list(b) for a, b in zip(found["answers"], ours, strict=True)]
    first = [
        next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        for a, b in zip(found["answers"], ours, strict=True)
        if list(a) != list(b)
    ]
    return {
        "llama_cpp": found["version"],
        "prompts": len(prompts),
        "equal": sum(same),
        "first_difference": min(first) if first else None,
    }
