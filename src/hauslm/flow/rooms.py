"""Which room answers a stage, and what is it given? A few lines of wiring each.

Rooms are imported when their stage runs: `hauslm --help` and `decide` must not pay for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import Sentence, say, speaking
from hauslm.flow.stages import STAGES, Project, if_sound, load_record, needs_of, state

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import (
        Analysis,
        Bundle,
        Comparison,
        Corpus,
        Decision,
        Evaluation,
        Plan,
        Run,
        Said,
    )


NO_BUNDLE = "H759"  # a whole model was trained


def _compare(project: Project, options: dict[str, Any]) -> Comparison:
    from hauslm.decide.comparison import compare as room

    _check_base(project)
    return room(
        project.scenario,
        evaluation=if_sound(project, "evaluation"),
        measured=_measured(project),
    )


def _decide(project: Project, options: dict[str, Any]) -> Decision:
    from hauslm.decide.verdict import decide as room

    _check_base(project)
    return room(
        project.scenario,
        measured=_measured(project),
        evaluation=if_sound(project, "evaluation"),
    )


def _check_base(project: Project) -> None:
    from hauslm.catalog.local import check_name

    model = project.scenario.model
    check_name(model.base, model.path, project.folder.root)


def _measured(project: Project) -> dict[str, Any]:
    """The records of this machine and these documents whose figures replace assumptions."""
    names = ("corpus", "plan", "run", "analysis")
    return {n: r for n in names if (r := if_sound(project, n)) is not None}


def _plan(project: Project, options: dict[str, Any]) -> Plan:
    from hauslm.plan.search import plan as room

    result = room(
        project.scenario,
        load_record(project, "decision"),
        if_sound(project, "corpus"),
        project_root=project.folder.root,
        evidence=options.get("evidence", "formula"),
        progress=project.progress,
    )
    return result


def _prepare(project: Project, options: dict[str, Any]) -> Corpus:
    from hauslm.data.prepare import prepare as room

    return room(
        project.scenario,
        project.folder,
        plan=load_record(project, "plan"),
        progress=project.progress,
    )


def _refuse_what_does_not_fit(plan_record: Plan) -> None:
    """H420 before hours are spent; the device that was asked for is the first of `fits`."""
    if next(iter(plan_record.fits.values()), True):
        return
    step: Sentence | str = say("hauslm plan shows the sum by part; change a setting or the GPU.")
    if plan_record.suggestions:
        step = plan_record.suggestions[0].sentence()
    raise RefusedError(
        "H420",
        say(
            "By the plan this training does not fit. {margin}", margin=plan_record.margin.sentence()
        ),
        where="records/plan.json",
        next_step=step,
    )


def _train(project: Project, options: dict[str, Any]) -> Run:
    from hauslm.train.loop import train as room

    plan_record = load_record(project, "plan")
    _refuse_what_does_not_fit(plan_record)
    _keep_adapter(project)
    if options.get("shape") is not None:
        from hauslm.train import cluster

        return cluster.run(
            project.folder,
            cluster.Shape(**options["shape"]),
            resume=bool(options.get("resume", True)),
            accept_change=bool(options.get("accept_change", False)),
            progress=project.progress,
        )
    return room(
        project.scenario,
        project.folder,
        plan=plan_record,
        corpus=load_record(project, "corpus"),
        resume=bool(options.get("resume", True)),
        accept_change=bool(options.get("accept_change", False)),
        progress=project.progress,
        profiled=bool(options.get("profile", False)),
    )


def _keep_adapter(project: Project) -> None:
    """The adapter that a training replaces is kept in `adapters/`, for hauslm adapters rollback."""
    from hauslm.share.adapters import keep

    kept = keep(project.folder)
    if kept is not None:
        project.progress.say(say("The present adapter is kept as adapters/{name}.", name=kept))


def _evaluate(project: Project, options: dict[str, Any]) -> Evaluation:
    from hauslm.evaluate.run import evaluate as room

    return room(
        project.scenario,
        project.folder,
        corpus=load_record(project, "corpus"),
        run=load_record(project, "run"),
        progress=project.progress,
    )


def refuse_a_whole_model(project: Project, run_record: Run) -> None:
    """H759: bundles and merging are about adapters; a whole model is a folder that stands alone."""
    if run_record.method != "full":
        return
    raise RefusedError(
        "H759",
        say("The whole model was trained (training.method full); there is no adapter to pass on."),
        where=run_record.adapter.path,
        next_step=say(
            "Copy that folder: it is a complete model. hauslm evaluate, analyse and serve use it as it is; with training.method lora there is an adapter to bundle."
        ),
    )


def _bundle(project: Project, options: dict[str, Any]) -> Bundle:
    from hauslm.evaluate.verdict import refuse_memorised
    from hauslm.share.bundle import bundle as room
    from hauslm.share.canary import make as make_canary

    accepted = bool(options.pop("accept_memorisation", False))
    memorised = None
    try:
        refuse_memorised(load_record(project, "evaluation").memorisation)
    except RefusedError as error:
        if not accepted:
            raise
        memorised = _said(error.what)
    run_record = load_record(project, "run")
    refuse_a_whole_model(project, run_record)
    return room(
        project.scenario,
        project.folder,
        run=run_record,
        canary=make_canary(project.scenario, project.folder, run_record),
        corpus=load_record(project, "corpus"),
        evaluation=load_record(project, "evaluation"),
        privacy=if_sound(project, "privacy"),
        accepted=memorised,
        progress=project.progress,
        **options,
    )


def _said(what: Sentence | str) -> Said:
    from hauslm.records import Said

    return Said.of(what)


def _analyse(project: Project, options: dict[str, Any]) -> Analysis:
    if options.pop("merge", False):
        from hauslm.analyse.parts import merge_parts

        return merge_parts(project.scenario, project.folder, project.progress)
    from hauslm.analyse.run import analyse as room

    return room(
        project.scenario,
        project.folder,
        run=if_sound(project, "run"),
        corpus=if_sound(project, "corpus"),
        plan=if_sound(project, "plan"),
        progress=project.progress,
        **options,
    )


def _may_analyse(project: Project, options: Mapping[str, Any]) -> None:
    from hauslm.analyse.ready import ready

    if options.get("merge"):
        return
    if ready(project.scenario, **options).analysis.spread == "ray":
        from hauslm.lm.workers import need_ray

        need_ray()


def analyse_part(project: Project, part: str, **options: Any) -> Analysis:
    """The articles of one part ('3/16'), beside others in the same folder; no record is filed until
    `hauslm analyse --merge`. What the analysis builds on must be there: H107 says what is not."""
    from hauslm.analyse.parts import Part

    chosen = Part.parse(part)
    stage = STAGES["analyse"]
    for name in needs_of(project, stage):
        before = next(s for s in STAGES.values() if s.record == name)
        if before.name != "bundle" and state(project, before) != "current":
            raise UsageError(
                "H107",
                say("records/{record}.json is missing or out of date.", record=name),
                where=str(project.folder.records),
                next_step=say("Run hauslm {stage} first, once for all parts.", stage=before.name),
            )
    with speaking(project.scenario.language):
        return _analyse(project, {**options, "part": chosen})


# What a stage can say before the stages that it needs have run, which may take hours.
READY: dict[str, Callable[[Project, Mapping[str, Any]], None]] = {"analyse": _may_analyse}

ROOMS: dict[str, Callable[[Project, dict[str, Any]], Any]] = {
    "compare": _compare,
    "decide": _decide,
    "plan": _plan,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "bundle": _bundle,
    "analyse": _analyse,
}
