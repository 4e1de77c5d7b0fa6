"""Can this analysis end well, as far as that is known without a model? Asked before anything it builds on.

Training for hours and then hearing that a template is misspelt helps nobody: `flow` asks here before
it runs the stages that an analysis needs, and the room asks again.
"""

from __future__ import annotations

from hauslm.analyse.parts import WHOLE, Part
from hauslm.analyse.templates import for_project
from hauslm.base.errors import UsageError
from hauslm.base.words import say
from hauslm.scenario import Scenario


def ready(
    scenario: Scenario,
    *,
    part: Part = WHOLE,
    engine: str = "",
    workers: int | None = None,
    ray_address: str = "",
) -> Scenario:
    """The scenario as the command line changes it. What could not end well is said here, without a
    model and before anything that the analysis builds on is made: H830-H831, H840, H844."""
    scenario = _with_engine(scenario, engine)
    _refuse_contradictions(scenario, part, workers, ray_address)
    for_project(scenario)
    return scenario


def _with_engine(scenario: Scenario, engine: str) -> Scenario:
    """The project's settings with another engine; the project file stays as it is."""
    if not engine:
        return scenario
    section = scenario.analysis
    spread = "ray" if engine == "ray" or section.spread == "ray" else "none"
    inner = section.engine if engine == "ray" else engine
    changed = section.model_copy(update={"engine": inner, "spread": spread})
    return scenario.model_copy(update={"analysis": changed})


def _refuse_contradictions(
    scenario: Scenario, part: Part, workers: int | None, ray_address: str
) -> None:
    section = scenario.analysis
    if (workers or ray_address) and section.spread != "ray":
        raise UsageError(
            "H844",
            say("--workers and --ray-address belong to --engine ray."),
            next_step=say("Add --engine ray, or leave them out."),
        )
    if part.several and section.max_documents is not None:
        raise UsageError(
            "H840",
            say("A part of the articles and analysis: max_documents do not go together."),
            where="analysis.max_documents",
            next_step=say("Leave max_documents out, or analyse without --shard."),
        )


__all__ = ["ready"]
