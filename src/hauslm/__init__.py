"""hauslm: the tool with which a team brings its language model in-house.

    import hauslm
    decision = hauslm.decide("my-project")     # or: hauslm.decide() in the project folder

The stages of the command line as functions that return the records (`hauslm.records`). Everything is
loaded on first use; importing the package sets the offline and telemetry switches of its dependencies
and does nothing else.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from hauslm.base.egress import switch_off_telemetry
from hauslm.base.version import __version__

switch_off_telemetry()

_FROM_FLOW = (
    "analyse",
    "bundle",
    "chapter",
    "compare",
    "decide",
    "evaluate",
    "plan",
    "plan_free",
    "prepare",
    "report",
    "run",
    "train",
    "verify",
)

__all__ = [*_FROM_FLOW, "HauslmError", "Scenario", "__version__", "load_scenario"]


class _Room(ModuleType):
    """A room's package that can be called like its stage: `hauslm.decide` is both."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from hauslm import flow

        return getattr(flow, self.__name__.rpartition(".")[2])(*arguments, **options)


class _Package(ModuleType):
    """Importing a room binds its package to the stage's name here; make that package callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FROM_FLOW and type(value) is ModuleType:
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    # On first use: `import hauslm` must stay cheap (no pydantic, no torch).
    if name in _FROM_FLOW:
        from hauslm import flow

        return getattr(flow, name)
    if name == "HauslmError":
        from hauslm.base.errors import HauslmError

        return HauslmError
    if name == "Scenario":
        from hauslm.scenario import Scenario

        return Scenario
    if name == "load_scenario":
        from hauslm.scenario import load

        return load
    raise AttributeError(f"module 'hauslm' has no attribute {name!r}")
