"""How does one leave hauslm? A merged model for any other tool, or a plain training script.

Nobody is locked in: the adapter itself is a plain PEFT folder, `merge` writes a transformers folder
without PEFT, `script` writes the training as a file that needs neither hauslm nor its project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, UsageError
from hauslm.base.files import ProjectFolder, write_sealed
from hauslm.base.words import say
from hauslm.catalog.local import find_base
from hauslm.records import Run
from hauslm.scenario import Scenario

PROMPTS = (
    "The samples were taken from",
    "Die Proben wurden entnommen und",
    "In this study we measured the",
)


def export(
    scenario: Scenario,
    folder: ProjectFolder,
    kind: str,
    target: Path | None,
    *,
    run: Run | None,
    script: str = "",
) -> dict[str, Any]:
    """`kind` merge or script. Returns `path` and what was checked. H732 without an adapter."""
    if kind == "script":
        path = target or folder.root / "export" / "lora_training.py"
        write_sealed(path, script)
        return {"path": str(path)}
    if kind != "merge":
        raise UsageError(
            "H733",
            say("There is no way out called '{kind}'.", kind=kind),
            next_step=say("Known names: {names}", names="merge, script"),
        )
    if run is None:
        raise DataError(
            "H732",
            say("There is no adapter yet."),
            where=str(folder.root),
            next_step=say("Run: {command}", command="hauslm train"),
        )
    path = target or folder.root / "export" / "merged"
    if path.exists() and any(path.iterdir()):
        raise UsageError(
            "H734",
            say("There is something in {path} already.", path=str(path)),
            next_step=say("Name another folder, or empty this one."),
        )
    from hauslm.lm.merge import merge

    model = scenario.model
    base = find_base(model.base, model.path, model.revision, folder.root)
    return merge(base.path, folder.root / run.adapter.path, path, PROMPTS)
