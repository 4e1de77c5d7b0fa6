"""The stages for programs: `hauslm.decide(...)` and the others, on a folder, a project or a scenario."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base import files
from hauslm.base.errors import UsageError
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import say
from hauslm.flow.order import run, run_stage
from hauslm.flow.rooms import analyse_part
from hauslm.flow.stages import Project, Stage, as_project

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import Analysis, Bundle, Comparison, Corpus, Decision, Evaluation, Plan, Run
    from hauslm.scenario import Scenario


def _api(name: str, project: Any, progress: Progress | None, **options: Any) -> Any:
    from hauslm.scenario import Scenario

    if isinstance(project, Scenario):
        # A scenario without a folder: nothing is read from or written to the disk.
        loose = Project(files.ProjectFolder("."), project, progress or Silent())
        return _without_folder(name, loose)
    return run_stage(as_project(project, progress), name, options=options)


def _without_folder(name: str, project: Project) -> Any:
    if name == "compare":
        from hauslm.decide.comparison import compare as compare_room

        return compare_room(project.scenario)
    if name == "decide":
        from hauslm.decide.verdict import decide as decide_room

        return decide_room(project.scenario)
    if name == "plan":
        from hauslm.plan.search import plan as plan_room

        return plan_room(project.scenario, None, None, project_root=project.folder.root)
    raise UsageError(
        "H102",
        say("'{name}' works on a project folder, not on a scenario alone.", name=name),
        next_step=say("Give the path of the project folder."),
    )


def compare(
    project: Project | Scenario | Path | str = ".", *, progress: Progress | None = None
) -> Comparison:
    """Cloud/API against local open-weight models, criterion by criterion."""
    result: Comparison = _api("compare", project, progress)
    return result


def decide(
    project: Project | Scenario | Path | str = ".", *, progress: Progress | None = None
) -> Decision:
    """Gates, cost over the horizon, verdict with reasons, and what would flip it."""
    result: Decision = _api("decide", project, progress)
    return result


def plan(
    project: Project | Scenario | Path | str = ".",
    *,
    progress: Progress | None = None,
    evidence: str = "formula",
) -> Plan:
    """Memory, time, energy, cost; the settings that fit and are fastest."""
    result: Plan = _api("plan", project, progress, evidence=evidence)
    return result


def prepare(project: Project | Path | str = ".", *, progress: Progress | None = None) -> Corpus:
    """Documents -> checked, split, tokenized examples."""
    result: Corpus = _api("prepare", project, progress)
    return result


def train(
    project: Project | Path | str = ".",
    *,
    progress: Progress | None = None,
    resume: bool = True,
    accept_change: bool = False,
    processes: int = 1,
    strategy: str = "ddp",
) -> Run:
    """The adapter. Resumes from the newest sound checkpoint unless `resume` is False.

    `processes` on this machine share the work, one for each GPU; `strategy` "ddp": each holds the
    base, "fsdp": they share it. Several machines: the command line (`hauslm train --nnodes`).
    """
    shape = {"processes": processes, "strategy": strategy} if processes > 1 else None
    result: Run = _api(
        "train", project, progress, resume=resume, accept_change=accept_change, shape=shape
    )
    return result


def evaluate(
    project: Project | Path | str = ".", *, progress: Progress | None = None
) -> Evaluation:
    """Base against adapter, paired, with intervals over documents, and a verdict in words."""
    result: Evaluation = _api("evaluate", project, progress)
    return result


def bundle(
    project: Project | Path | str = ".", *, progress: Progress | None = None, **options: Any
) -> Bundle:
    """One verified file with adapter, tokenizer, records and licence duties."""
    result: Bundle = _api("bundle", project, progress, **options)
    return result


def analyse(
    project: Project | Path | str = ".", *, progress: Progress | None = None, **options: Any
) -> Analysis:
    """Articles -> schema-valid rows; resumes by content.

    `options`: engine ("transformers", "vllm", "openai", or "ray" to spread the work), workers,
    ray_address; part ("3/16": this share alone) or merge=True (all parts as one).
    """
    part = options.pop("part", None)
    if part is not None:
        return analyse_part(as_project(project, progress), part, **options)
    result: Analysis = _api("analyse", project, progress, **options)
    return result


def demo(
    root: Path | str = "demo",
    *,
    language: str = "en",
    until: str | None = None,
    progress: Progress | None = None,
    on_stage: Callable[[Stage, str, float], None] | None = None,
) -> Path:
    """The whole way on the embedded model and sample documents; returns the report's path."""
    from hauslm.start import write_demo

    folder = write_demo(Path(root), language)
    project = Project.load(folder, progress)
    run(project, until=until, on_stage=on_stage)
    return project.folder.report / "report.html"
