"""Which stage comes next? Stages by name on a project folder; the only room that knows all rooms.

A stage takes the project file and the records before it, and leaves one record. It is up to date when
its record's `inputs` (sha256 of the sections of the project file that it reads, of the records it was
made from, and of the documents) are what they would be now. So: delete a record and that stage and
those that build on it run again, nothing else.

    compare                       (stands alone)
    decide -> plan -> prepare -> train -> evaluate -> bundle -> analyse
    report                        (needs nothing but the folder)

Rooms are imported when their stage runs: `hauslm --help` and `decide` must not pay for torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base import files
from hauslm.base.errors import DataError, HauslmError, RefusedError, UsageError, did_you_mean
from hauslm.base.progress import Progress, Silent
from hauslm.base.version import __version__
from hauslm.base.words import N_, Sentence, say, speaking, translate

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.records import (
        Analysis,
        Bundle,
        Comparison,
        Corpus,
        Decision,
        Evaluation,
        Plan,
        Privacy,
        Record,
        Run,
        Said,
        Sweep,
    )
    from hauslm.scenario import Scenario


NO_BUNDLE = "H759"  # a whole model was trained
FILED_WITHIN_S = 10.0  # a finished training's record, by the process that ran it


@dataclass(frozen=True)
class Stage:
    """One room's turn: the record it leaves, the records it needs, what it reads of the project file."""

    name: str
    record: str
    title: str
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    documents: str = ""  # dotted field with paths whose contents count as input


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("compare", "comparison", N_("Comparison"), (), ("scenario", "model")),
        Stage("decide", "decision", N_("Decision"), (), ("scenario", "model")),
        Stage(
            "plan", "plan", N_("Plan"), ("decision",), ("scenario", "model", "adapter", "training")
        ),
        Stage(
            "prepare",
            "corpus",
            N_("Preparation"),
            ("plan",),
            ("documents", "model", "training", "evaluation.task", "adapter"),
            "documents.paths",
        ),
        Stage("train", "run", N_("Training"), ("plan", "corpus"), ("model", "adapter", "training")),
        Stage(
            "evaluate", "evaluation", N_("Evaluation"), ("corpus", "run"), ("evaluation", "model")
        ),
        Stage("bundle", "bundle", N_("Bundle"), ("corpus", "run", "evaluation"), ("name", "model")),
        Stage(
            "analyse",
            "analysis",
            N_("Analysis"),
            ("corpus", "run", "bundle"),
            ("analysis", "model"),
            "analysis.paths",
        ),
    )
}


@dataclass
class Project:
    """A project folder with its scenario; `load` reads the project file."""

    folder: files.ProjectFolder
    scenario: Scenario
    progress: Progress = field(default_factory=Silent)

    @classmethod
    def load(cls, root: Path | str = ".", progress: Progress | None = None) -> Project:
        from hauslm.scenario import load

        folder = files.ProjectFolder(root)
        return cls(folder, load(folder.file), progress or Silent())


def _as_project(project: Project | Path | str, progress: Progress | None = None) -> Project:
    if isinstance(project, Project):
        return project
    return Project.load(project, progress)


# ---------------------------------------------------------------- what is up to date?


def _section(scenario: Scenario, dotted: str) -> Any:
    node: Any = scenario
    for part in dotted.split("."):
        node = getattr(node, part)
    return node.model_dump(mode="json") if hasattr(node, "model_dump") else node


def expected_inputs(project: Project, stage: Stage) -> dict[str, str]:
    """sha256 by name of everything `stage` would read now; a missing record reads as 'missing'."""
    inputs = {
        f"hauslm.yaml:{s}": files.sha256_bytes(files.canonical_json(_section(project.scenario, s)))
        for s in stage.sections
    }
    for record in stage.needs:
        path = project.folder.record(record)
        inputs[f"records/{record}.json"] = files.sha256_file(path) if path.is_file() else "missing"
    if stage.documents:
        inputs["documents"] = _documents_hash(project, stage.documents)
    return inputs


def _documents_hash(project: Project, dotted: str) -> str:
    """One hash over the contents of all files below the paths; file hashes are cached by size, mtime."""
    node: Any = project.scenario
    for part in dotted.split("."):
        node = getattr(node, part)
    paths = [str(p) for p in node]
    task = project.scenario.evaluation.task
    if dotted.startswith("documents"):
        paths += [p for p in (task.file, task.train_file, task.test_file) if p]
    cache_file = project.folder.work / "file-hashes.json"
    cache: dict[str, list[Any]] = {}
    if cache_file.is_file():
        try:
            cache = files.read_json(cache_file)
        except DataError:
            cache = {}
    fresh: dict[str, list[Any]] = {}
    lines = []
    for path in _files_below(project.folder.root, paths):
        stat = path.stat()
        key, stamp = str(path), [stat.st_size, stat.st_mtime_ns]
        known = cache.get(key)
        digest = known[2] if known and known[:2] == stamp else files.sha256_file(path)
        fresh[key] = [*stamp, digest]
        lines.append(f"{project.folder.relative(path)}\0{digest}\n")
    if fresh and any(cache.get(k) != v for k, v in fresh.items()):
        files.write_json(cache_file, cache | fresh)
    return files.sha256_bytes("".join(sorted(lines)).encode())


def _files_below(root: Path, paths: list[str]) -> list[Path]:
    found: set[Path] = set()
    for name in paths:
        path = Path(name).expanduser()
        path = path if path.is_absolute() else root / path
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            found.update(p for p in path.rglob("*") if p.is_file())
        elif any(c in name for c in "*?["):
            pattern = path.relative_to(path.anchor) if path.is_absolute() else Path(name)
            base = Path(path.anchor) if Path(name).is_absolute() else root
            found.update(p for p in base.glob(str(pattern)) if p.is_file())
    return sorted(found)


def load_record(project: Project, record: str) -> Any:
    """The record, or None if the file is not there. H312 if it is damaged."""
    from hauslm.records import RECORDS

    path = project.folder.record(record)
    return RECORDS[record].load(path) if path.is_file() else None


def state(project: Project, stage: Stage) -> str:
    """'current', 'missing' or 'outdated' (its inputs changed, or the record is damaged)."""
    if not project.folder.record(stage.record).is_file():
        return "missing"
    try:
        record = load_record(project, stage.record)
    except DataError:
        return "outdated"
    if record.inputs != expected_inputs(project, stage):
        return "outdated"
    if stage.name == "train" and not (project.folder.root / record.adapter.path).exists():
        return "outdated"
    return "current"


def stage_named(name: str) -> Stage:
    if name not in STAGES:
        raise UsageError(
            "H101",
            say("There is no stage '{name}'.", name=name),
            next_step=did_you_mean(name, STAGES),
        )
    return STAGES[name]


# ---------------------------------------------------------------- running stages


def run_stage(
    project: Project,
    name: str,
    *,
    prerequisites: bool = True,
    options: Mapping[str, Any] | None = None,
    force: bool = True,
) -> Record:
    """Run one stage (and, first, whatever it needs that is missing or out of date); save its record."""
    stage = stage_named(name)
    if prerequisites:
        for name_needed in needs_of(project, stage):
            needed = next(s for s in STAGES.values() if s.record == name_needed)
            if state(project, needed) != "current":
                _run_needed(project, needed, stage)
    if not force and state(project, stage) == "current":
        record: Record = load_record(project, stage.record)
        return record
    return _execute(project, stage, dict(options or {}))


def needs_of(project: Project, stage: Stage) -> tuple[str, ...]:
    """The records that `stage` needs in this project. Articles can be analysed by the base alone: a
    project that names them and has nothing to train on needs no training."""
    trained = project.folder.record("run").is_file()
    if stage.name == "analyse" and project.scenario.analysis.paths and not trained:
        section, task = project.scenario.documents, project.scenario.evaluation.task
        paths = [*section.paths, *(p for p in (task.file, task.train_file) if p)]
        if not _files_below(project.folder.root, paths):
            project.progress.say(
                say("There is nothing to train on; the base model itself analyses the articles.")
            )
            return ()
    return stage.needs


def _run_needed(project: Project, needed: Stage, wanted: Stage) -> None:
    project.progress.say(
        say(
            "'{wanted}' needs records/{record}.json, which is missing or out of date: '{needed}' runs first.",
            wanted=wanted.name,
            record=needed.record,
            needed=needed.name,
        )
    )
    try:
        run_stage(project, needed.name, force=False)
    except RefusedError as error:
        if error.code == NO_BUNDLE:
            _without_bundle(project, error)
            return
        # Whoever asks for a plan or an adapter has decided already; the refusal stays visible.
        if needed.name != "decide":
            raise
        project.progress.say(
            say(
                "No decision was recorded ({reason}); '{wanted}' goes on without it.",
                reason=error.what,
                wanted=wanted.name,
            )
        )


def _without_bundle(project: Project, error: RefusedError) -> None:
    """A whole model has no bundle; what comes after does without."""
    project.progress.say(say("No bundle was made: {reason}", reason=error.what))


def _execute(project: Project, stage: Stage, options: dict[str, Any]) -> Record:

    with speaking(project.scenario.language), files.lock(project.folder.work, "stage"):
        inputs = expected_inputs(project, stage)
        record: Record = _ROOMS[stage.name](project, options)
        done = record.model_copy(
            update={
                "inputs": inputs,
                "hauslm_version": __version__,
                "language": project.scenario.language,
            }
        )
        done.save(project.folder.records)
    return done


def run(
    project: Project | Path | str = ".",
    *,
    until: str | None = None,
    progress: Progress | None = None,
    on_stage: Callable[[Stage, str, float], None] | None = None,
) -> dict[str, Record]:
    """Every stage that is missing or out of date, in order, then the report.

    `until` names the last stage. `on_stage(stage, 'running'|'current'|'done', seconds)` is told.
    Returns the records by name. Errors of a stage end the run; what was finished stays.
    """
    project = _as_project(project, progress)
    if until is not None and until != "report":
        stage_named(until)
    records: dict[str, Record] = {}
    for stage in STAGES.values():
        tell = on_stage or (lambda *_: None)
        if state(project, stage) == "current":
            tell(stage, "current", 0.0)
            records[stage.record] = load_record(project, stage.record)
        else:
            tell(stage, "running", 0.0)
            started = time.monotonic()
            try:
                records[stage.record] = run_stage(project, stage.name, prerequisites=False)
            except RefusedError as error:
                if error.code != NO_BUNDLE:
                    raise
                _without_bundle(project, error)
                continue
            tell(stage, "done", time.monotonic() - started)
        if stage.name == until:
            return records
    report(project)
    return records


# ---------------------------------------------------------------- the rooms, one line of wiring each


def _compare(project: Project, options: dict[str, Any]) -> Comparison:
    from hauslm.decide.comparison import compare as room

    _check_base(project)
    return room(
        project.scenario,
        evaluation=_if_sound(project, "evaluation"),
        measured=_measured(project),
    )


def _decide(project: Project, options: dict[str, Any]) -> Decision:
    from hauslm.decide.verdict import decide as room

    _check_base(project)
    return room(
        project.scenario,
        measured=_measured(project),
        evaluation=_if_sound(project, "evaluation"),
    )


def _check_base(project: Project) -> None:
    from hauslm.catalog.local import check_name

    model = project.scenario.model
    check_name(model.base, model.path, project.folder.root)


def _measured(project: Project) -> dict[str, Any]:
    """The records of this machine and these documents whose figures replace assumptions."""
    names = ("corpus", "plan", "run", "analysis")
    return {n: r for n in names if (r := _if_sound(project, n)) is not None}


def _if_sound(project: Project, record: str) -> Any:
    """A later record as a measured figure for an earlier stage; damaged ones are simply not used."""
    try:
        return load_record(project, record)
    except DataError:
        return None


def _plan(project: Project, options: dict[str, Any]) -> Plan:
    from hauslm.plan.search import plan as room

    result = room(
        project.scenario,
        load_record(project, "decision"),
        _if_sound(project, "corpus"),
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


def refuse_profile() -> None:
    """H641: --profile beside --attach, --detach or --nproc."""
    from hauslm.train.profile import refuse

    refuse()


def profile_page(project: Project) -> Path:
    """report/profile.html, from what `hauslm train --profile` measured. H659 if it measured nothing."""
    from hauslm.report.profile import write
    from hauslm.train.profile import PARTS, read

    return write(project.folder, read(project.folder), PARTS, project.scenario.language)


def _keep_adapter(project: Project) -> None:
    """The adapter that a training replaces is kept in `adapters/`, for hauslm adapters rollback."""
    from hauslm.share.adapters import keep

    kept = keep(project.folder)
    if kept is not None:
        project.progress.say(say("The present adapter is kept as adapters/{name}.", name=kept))


def train_detached(
    project: Project,
    *,
    resume: bool = True,
    accept_change: bool = False,
    shape: dict[str, Any] | None = None,
) -> int:
    """Start the training as a process of its own; its pid. H410 if one is running."""
    from hauslm.train import launch

    return launch.start(project.folder, resume=resume, accept_change=accept_change, several=shape)


def train_node(
    project: Project, shape: Mapping[str, Any], *, resume: bool = True, accept_change: bool = False
) -> None:
    """The processes of a machine other than the first; that one's `train` files the record.

    Nothing is prepared or written here: H107 if what the training reads is not there.
    """
    from hauslm.train import cluster

    for name in STAGES["train"].needs:
        before = next(s for s in STAGES.values() if s.record == name)
        if state(project, before) != "current":
            raise UsageError(
                "H107",
                say("records/{record}.json is missing or out of date.", record=name),
                where=str(project.folder.records),
                next_step=say(
                    "Run hauslm {stage} once before the machines start, and give all the same folder.",
                    stage=before.name,
                ),
            )
    with speaking(project.scenario.language):
        cluster.join(
            project.folder, cluster.Shape(**shape), resume=resume, accept_change=accept_change,
            progress=project.progress,
        )  # fmt: skip


def sweep(
    project: Project | Path | str = ".",
    *,
    learning_rates: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    targets: tuple[str, ...] = (),
    steps: int | None = None,
    parallel: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Short trainings over a grid of settings, compared on the validation split; records/sweep.json and
    report/sweep.svg. The project file is not changed."""
    from hauslm.report.chapters.sweep import drawing
    from hauslm.train.sweep import Grid
    from hauslm.train.sweep import sweep as room

    project = _as_project(project, progress)
    for name in STAGES["train"].needs:
        before = next(s for s in STAGES.values() if s.record == name)
        if state(project, before) != "current":
            _run_needed(project, before, STAGES["train"])
    with speaking(project.scenario.language):
        record = room(
            project.scenario,
            project.folder,
            plan=load_record(project, "plan"),
            corpus=load_record(project, "corpus"),
            grid=Grid(learning_rates, ranks, targets, steps),
            parallel=parallel,
            progress=project.progress,
        )
        done = record.model_copy(
            update={
                "inputs": expected_inputs(project, STAGES["train"]),
                "hauslm_version": __version__,
                "language": project.scenario.language,
            }
        )
        done.save(project.folder.records)
        files.write_sealed(project.folder.report / "sweep.svg", drawing(done))
    return done


def train_followed(project: Project) -> tuple[Any, Run | None]:
    """Show the training of this folder until it ends: its `Status`, and the record if it is done.

    H651 if there was none.
    """
    from hauslm.train import launch

    found = launch.follow(project.folder, project.progress)
    if found.state not in ("none", "done"):
        return found, None
    run_record = launch.result(project.folder)
    end = time.monotonic() + FILED_WITHIN_S
    while time.monotonic() < end:  # its own process files it, a moment after the room is done
        filed = _if_sound(project, "run")
        if filed is not None and filed.created >= run_record.created:
            return found, filed
        time.sleep(0.1)
    return found, run_record


def train_status(project: Project) -> Any:
    """How the training of this folder stands, as a `Status`."""
    from hauslm.train import launch

    return launch.status(project.folder)


@contextmanager
def telling_how_training_ended(root: Path) -> Iterator[None]:
    """For `--detach`: also what fails before the training itself begins reaches process.json."""
    from hauslm.train import process

    try:
        yield
    except HauslmError as error:
        process.failed(files.ProjectFolder(root), error)
        raise


def _evaluate(project: Project, options: dict[str, Any]) -> Evaluation:
    from hauslm.evaluate.run import evaluate as room

    return room(
        project.scenario,
        project.folder,
        corpus=load_record(project, "corpus"),
        run=load_record(project, "run"),
        progress=project.progress,
    )


def _refuse_a_whole_model(project: Project, run_record: Run) -> None:
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
    _refuse_a_whole_model(project, run_record)
    return room(
        project.scenario,
        project.folder,
        run=run_record,
        canary=make_canary(project.scenario, project.folder, run_record),
        corpus=load_record(project, "corpus"),
        evaluation=load_record(project, "evaluation"),
        privacy=_if_sound(project, "privacy"),
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
        run=_if_sound(project, "run"),
        corpus=_if_sound(project, "corpus"),
        plan=_if_sound(project, "plan"),
        progress=project.progress,
        **options,
    )


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


_ROOMS: dict[str, Callable[[Project, dict[str, Any]], Any]] = {
    "compare": _compare,
    "decide": _decide,
    "plan": _plan,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "bundle": _bundle,
    "analyse": _analyse,
}


# ---------------------------------------------------------------- the Python API


def _api(name: str, project: Any, progress: Progress | None, **options: Any) -> Any:
    from hauslm.scenario import Scenario

    if isinstance(project, Scenario):
        # A scenario without a folder: nothing is read from or written to the disk.
        loose = Project(files.ProjectFolder("."), project, progress or Silent())
        return _without_folder(name, loose)
    return run_stage(_as_project(project, progress), name, options=options)


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
        return analyse_part(_as_project(project, progress), part, **options)
    result: Analysis = _api("analyse", project, progress, **options)
    return result


def report(
    project: Project | Path | str = ".",
    *,
    template: str = "full",
    formats: tuple[str, ...] = ("html", "md", "json"),
    language: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """`report/` from whatever records the folder holds; returns the files by format."""
    from hauslm.records import RECORDS
    from hauslm.report.build import build

    project = _as_project(project, progress)
    records = {name: load_record(project, name) for name in RECORDS}
    code = language or project.scenario.language
    with speaking(code):
        return build(
            project.scenario,
            project.folder,
            {n: r for n, r in records.items() if r is not None},
            template=template,
            formats=formats,
            language=code,
        )


def verify(path: Path | str, *, base: Path | str | None = None, **options: Any) -> dict[str, Any]:
    """Check a stranger's bundle or adapter folder without loading it. RefusedError with the reason.

    `options`: `keyring`, `key` (files) and `remember` (trust on first use), see `share/verify.py`.
    """
    from hauslm.share.verify import verify as room

    return room(Path(path), base=Path(base) if base else None, **options)


# ---------------------------------------------------------------- free-standing questions


def plan_free(**question: Any) -> Plan:
    """`hauslm plan --model M --method ... --gpu G`: does it fit, without a project."""
    from hauslm.plan.search import plan_free as room

    return room(**question)


def plan_table(kind: str, **question: Any) -> dict[str, Any]:
    """`hauslm plan --table models|gpus`: which models fit a card, which cards hold a model."""
    from hauslm.plan.search import table as room

    return room(kind, **question)


def catalog(kind: str, identifier: str | None = None) -> dict[str, Any]:
    """The facts with sources and dates, as a listing or one entry in full."""
    from hauslm.catalog import show

    return show.answer(kind, identifier)


def schema(language: str | None = None) -> dict[str, Any]:
    from hauslm.scenario import json_schema

    return json_schema(language)


def summary(record: Record | dict[str, Any], language: str | None = None) -> Any:
    """The record for a person at a terminal: a `rich` renderable."""
    from hauslm.report.terminal import render

    return render(record, language)


def chapter(record: Record, language: str | None = None, *, brief: bool = True) -> Any:
    """The record told to a person, for notebooks: `.markdown` and `.figures` (SVG), both displayable."""
    from hauslm.base.words import language as current_language
    from hauslm.report.build import chapter

    return chapter(record, language or current_language(), brief=brief)


def why_option(project: Project | Path | str, option: str) -> list[Sentence]:
    """Why an option was cut, refused, or ranks where it does. H120 for an unknown one."""
    from hauslm.decide.why import why

    project = _as_project(project)
    return list(why(load_record(project, "decision"), option))


def decision_diff(old: Path, new: Decision) -> list[Sentence]:
    """What changed against an older decision, and why."""
    from hauslm.decide.diff import diff
    from hauslm.records import Decision as DecisionRecord

    return [said.sentence() for said in diff(DecisionRecord.load(old), new)]


def decision_note(decision: Decision, language: str | None = None) -> str:
    """The decision as a Markdown note in MADR form, with revisit date and triggers."""
    from hauslm.decide.note import note

    return note(decision, language)


def export(
    project: Project | Path | str, kind: str, target: Path | None = None, **options: Any
) -> dict[str, Any]:
    """A way out: merge, gguf, gguf-lora, ollama, vllm, or script (the training without hauslm).

    `options`: `type` (number format of GGUF), `prompts` (how many are compared in llama.cpp).
    """
    from hauslm.share.export import export as room
    from hauslm.train.recipe import recipe

    project = _as_project(project)
    run_record = load_record(project, "run")
    if kind == "merge" and run_record is not None:
        _refuse_a_whole_model(project, run_record)
    return room(
        project.scenario,
        project.folder,
        kind,
        target,
        run=run_record,
        training=lambda path: recipe(project.folder, run_record, path),
        **options,
    )


def keys(action: str, **options: Any) -> Any:
    """The team's signing keys: new, list, show, trust, export (see `share/keys.py`)."""
    from hauslm.share import keyring

    return keyring.answer(action, **options)


def adapters(project: Project | Path | str, action: str, **options: Any) -> Any:
    """The team's adapters: list, compare, combine, rollback, import (see `share/adapters.py`)."""
    from hauslm.share import adapters as room

    project = _as_project(project)
    folder = project.folder
    if action == "list":
        return room.listing(folder)
    if action == "compare":
        return room.compare(folder, options["first"], options["second"])
    if action == "combine":
        return room.combine(
            project.scenario, folder, options["parts"], options["name"], options["method"]
        )
    if action == "import":
        return room.take_in(project.scenario, folder, options["source"], options.get("name"))
    return room.roll_back(folder, options.get("name"), settings=bool(options.get("settings")))


def push(
    project: Project | Path | str, where: str, target: str, bundle: Path | None = None, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """Put the bundle into a folder (`where` folder), an OCI store (oci) or a model hub (hf), when asked to."""
    from hauslm.share import push as room

    project = _as_project(project)
    record = load_record(project, "bundle")
    if bundle is None and record is None:
        raise DataError(
            "H106",
            say("There is no bundle yet."),
            where=str(project.folder.bundles),
            next_step=say("Run: {command}", command="hauslm bundle"),
        )
    path = bundle or project.folder.root / record.path
    if where == "folder":
        return room.to_folder(path, Path(target))
    if where == "oci":
        from hauslm.share import oci

        return oci.put(path, Path(target), **options)
    return room.to_hub(project.scenario, path, target, **options)


def pack(project: Project | Path | str, target: Path, **options: Any) -> dict[str, Any]:
    """Everything a machine without network needs, in one folder (see `share/offline.py`)."""
    from hauslm.share.offline import pack as room

    project = _as_project(project)
    return room(
        project.scenario,
        project.folder,
        target,
        bundle=_if_sound(project, "bundle"),
        progress=project.progress,
        **options,
    )


def serve(project: Project | Path | str = ".", **options: Any) -> None:
    """The OpenAI-compatible server on this machine; returns when it is stopped."""
    from hauslm.serve.app import serve as room

    project = _as_project(project)
    room(project.scenario, project.folder, run=load_record(project, "run"), **options)


def questions() -> Any:
    """The questions of `hauslm init`, each with default, choices and why it is asked."""
    from hauslm.start import QUESTIONS

    return QUESTIONS


def init(root: Path | str, answers: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write a commented hauslm.yaml from the answers (what is not answered takes the lab's default)."""
    from hauslm.start import write_project_file

    return write_project_file(Path(root), answers, overwrite=overwrite)


def scenario_form(
    project: Project, answers: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The questions of `init` with the project's values (or what was just typed), for a form."""
    from hauslm.start import QUESTIONS

    rows = []
    for question in QUESTIONS:
        value = (answers or {}).get(question.field, _section(project.scenario, question.field))
        choices = question.choices or (("true", "false") if isinstance(value, bool) else ())
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, float) and value.is_integer():
            shown = str(int(value))
        rows.append(
            {
                "field": question.field,
                "prompt": question.prompt,
                "why": question.why,
                "value": shown,
                "choices": choices,
            }
        )
    return rows


def change_scenario(root: Path, answers: Mapping[str, str]) -> None:
    """Write changed answers into hauslm.yaml, keeping its comments. Faulty ones change nothing."""
    from hauslm.start import change_project_file

    change_project_file(root, answers)


def stage_html(project: Project, stage: Stage, language: str) -> str:
    """The record of a stage as a piece of HTML; '' if there is none."""
    from hauslm.report.build import fragment

    if not project.folder.record(stage.record).is_file():
        return ""
    return fragment(load_record(project, stage.record), language)


def prove_privacy(
    root: Path | str = ".", *, until: str | None = None, progress: Progress | None = None
) -> Privacy:
    """The stages (up to `until`) in a network trap; leaves `records/privacy.json`."""
    from hauslm.prove import DEFAULT, prove

    if until is not None and until not in DEFAULT:
        raise UsageError(
            "H101",
            say("There is no stage '{name}'.", name=until),
            next_step=did_you_mean(until, DEFAULT),
        )
    stages = DEFAULT if until is None else DEFAULT[: DEFAULT.index(until) + 1]
    return prove(Path(root), stages=stages, progress=progress)


def privacy_verdict(record: Privacy) -> None:
    """Nothing if the proof passed; else the error that says why not."""
    from hauslm.prove import verdict

    verdict(record)


def check(root: Path | str = ".") -> list[Any]:
    """Machine, GPU, packages, base model, network guard: rows with title, ok, detail, next command."""
    from hauslm.start import check as rows

    return rows(Path(root))


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


def stage_title(stage: Stage) -> str:
    return translate(stage.title)
