"""Which canary travels with an adapter? Made once, on the machine that trained it.

It goes into the bundle and beside the adapter, so that every later start can ask the same prompts.
"""

from __future__ import annotations

import json
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.files import ProjectFolder, write_sealed
from hauslm.base.words import Sentence
from hauslm.catalog.local import base_of
from hauslm.records import Run
from hauslm.scenario import Scenario

NAME = "adapter"


def make(scenario: Scenario, folder: ProjectFolder, run: Run) -> dict[str, Any] | Sentence:
    """The canary, also written to `adapter/canary.json`; or why there is none."""
    from hauslm.lm.canary import make_canary
    from hauslm.lm.local import LocalModel

    base = base_of(scenario.model, folder.root)
    adapter = folder.root / run.adapter.path
    (adapter / "canary.json").unlink(missing_ok=True)
    model = LocalModel.load(base.path, {NAME: adapter})
    try:
        canary = make_canary(model, NAME)
    except RefusedError as error:
        return error.what if isinstance(error.what, Sentence) else Sentence(str(error.what))
    write_sealed(adapter / "canary.json", json.dumps(canary, ensure_ascii=False) + "\n")
    return canary
