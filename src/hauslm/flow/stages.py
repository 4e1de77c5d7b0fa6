"""What does a stage need, and is its record up to date? Stages by name on a project folder.

A stage takes the project file and the records before it, and leaves one record. It is up to date when
its record's `inputs` (sha256 of the sections of the project file that it reads, of the records it was
made from, and of the documents) are what they would be now. So: delete a record and that stage and
those that build on it run again, nothing else.

    compare                       (stands alone)
    decide -> plan -> prepare -> train -> evaluate -> bundle -> analyse
    report                        (needs nothing but the folder)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base import files
from hauslm.base.errors import DataError, UsageError, did_you_mean
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import N_, say, translate

if TYPE_CHECKING:  # records and scenario need pydantic; annotations do not
    from hauslm.scenario import Scenario


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


def as_project(project: Project | Path | str, progress: Progress | None = None) -> Project:
    if isinstance(project, Project):
        return project
    return Project.load(project, progress)


def section(scenario: Scenario, dotted: str) -> Any:
    node: Any = scenario
    for part in dotted.split("."):
        node = getattr(node, part)
    return node.model_dump(mode="json") if hasattr(node, "model_dump") else node


def expected_inputs(project: Project, stage: Stage) -> dict[str, str]:
    """sha256 by name of everything `stage` would read now; a missing record reads as 'missing'."""
    inputs = {
        f"hauslm.yaml:{s}": files.sha256_bytes(files.canonical_json(section(project.scenario, s)))
        for s in stage.sections
    }
    for record in stage.needs:
        path = project.folder.record(record)
        inputs[f"records/{record}.json"] = files.sha256_file(path) if path.is_file() else "missing"
    glossary = project.scenario.evaluation.glossary
    if stage.name == "evaluate" and glossary:
        path = project.folder.root / glossary
        inputs["glossary"] = files.sha256_file(path) if path.is_file() else "missing"
    tasks = project.scenario.evaluation.lm_eval
    if stage.name == "evaluate" and tasks.tasks and tasks.include_path:
        inputs["lm_eval"] = _files_hash(project, [tasks.include_path])
    if stage.documents:
        inputs["documents"] = _documents_hash(project, stage.documents)
    return inputs


def _documents_hash(project: Project, dotted: str) -> str:
    """`_files_hash` of the documents that a setting names, and of the task's files."""
    node: Any = project.scenario
    for part in dotted.split("."):
        node = getattr(node, part)
    paths = [str(p) for p in node]
    task = project.scenario.evaluation.task
    if dotted.startswith("documents"):
        paths += [p for p in (task.file, task.train_file, task.test_file) if p]
    return _files_hash(project, paths)


def _files_hash(project: Project, paths: list[str]) -> str:
    """One hash over the contents of all files below the paths; file hashes are cached by size, mtime."""
    cache_file = project.folder.work / "file-hashes.json"
    cache: dict[str, list[Any]] = {}
    if cache_file.is_file():
        try:
            cache = files.read_json(cache_file)
        except DataError:
            cache = {}
    fresh: dict[str, list[Any]] = {}
    lines = []
    for path in files_below(project.folder.root, paths):
        stat = path.stat()
        key, stamp = files.utf8_name(str(path)), [stat.st_size, stat.st_mtime_ns]
        known = cache.get(key)
        try:
            digest = known[2] if known and known[:2] == stamp else files.sha256_file(path)
        except OSError:  # the stage itself tells which file it could not read
            digest = "unreadable"
        else:
            fresh[key] = [*stamp, digest]
        lines.append(f"{files.utf8_name(project.folder.relative(path))}\0{digest}\n")
    if fresh and any(cache.get(k) != v for k, v in fresh.items()):
        files.write_json(cache_file, cache | fresh)
    return files.sha256_bytes("".join(sorted(lines)).encode())


def files_below(root: Path, paths: list[str]) -> list[Path]:
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


def if_sound(project: Project, record: str) -> Any:
    """A later record as a measured figure for an earlier stage; damaged ones are simply not used."""
    try:
        return load_record(project, record)
    except DataError:
        return None


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


def needs_of(project: Project, stage: Stage) -> tuple[str, ...]:
    """The records that `stage` needs in this project. Articles can be analysed by the base alone: a
    project that names them and has nothing to train on needs no training."""
    trained = project.folder.record("run").is_file()
    if stage.name == "analyse" and project.scenario.analysis.paths and not trained:
        section, task = project.scenario.documents, project.scenario.evaluation.task
        paths = [*section.paths, *(p for p in (task.file, task.train_file) if p)]
        if not files_below(project.folder.root, paths):
            project.progress.say(
                say("There is nothing to train on; the base model itself analyses the articles.")
            )
            return ()
    return stage.needs


def stage_title(stage: Stage) -> str:
    return translate(stage.title)
