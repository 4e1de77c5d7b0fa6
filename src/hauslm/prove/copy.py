"""On what do the stages run? A copy of the project (or the demo's), shortened to a few steps, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError
from hauslm.base.files import ProjectFolder
from hauslm.base.words import Sentence, say
from hauslm.prove.stages import environment, hauslm

# A run long enough to pass through every piece of code, and no longer.
_SHORT: dict[str, int] = {
    "training.max_steps": 3,
    "evaluation.max_items": 12,
    "evaluation.max_documents": 2,
    "analysis.max_documents": 1,
    "analysis.max_new_tokens": 24,
}
_PATHS = (
    "documents", "documents.paths", "analysis.paths", "evaluation.task.file",
    "evaluation.task.train_file", "evaluation.task.test_file", "evaluation.glossary",
    "model", "model.base", "model.path",
)  # fmt: skip
_OUTPUTS = frozenset(("records", "work", "adapter", "bundles", "analysis", "report", "logs"))
LINKED_ABOVE_BYTES = 16 << 20  # weights are linked, not copied: no stage writes to its inputs


@contextlib.contextmanager
def workplace(folder: ProjectFolder) -> Iterator[Path]:
    """A folder that is gone afterwards; inside the project, so that weights can be linked."""
    parent = None
    if folder.file.is_file():
        folder.work.mkdir(parents=True, exist_ok=True)
        parent = folder.work
    with tempfile.TemporaryDirectory(
        prefix="proof-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def prepare_copy(folder: ProjectFolder, copy: Path) -> list[Sentence]:
    """The project (or the demo's) in `copy`, shortened; returns what the reader must know of it."""
    if folder.file.is_file():
        copy_project(folder.root, copy)
        shorten(copy / "hauslm.yaml", folder.root)
        return []
    command = [*hauslm("demo", copy), "--until", "compare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if not (copy / "hauslm.yaml").is_file():
        raise MissingError(
            "H551",
            say(
                "The demo's project could not be made ({reason}).",
                reason=done.stderr.strip()[-300:],
            ),
            next_step=say("hauslm check shows what is missing."),
        )
    shorten(copy / "hauslm.yaml", copy)
    return [say("There is no project file here: the demo's project was run.")]


def copy_project(root: Path, copy: Path) -> None:
    copy.mkdir()
    for entry in sorted(root.iterdir()):
        if entry.name in _OUTPUTS or entry.name.startswith("."):
            continue
        if entry.is_dir():
            shutil.copytree(
                entry, copy / entry.name, copy_function=_copy_or_link, ignore_dangling_symlinks=True
            )
        elif entry.is_file():
            _copy_or_link(str(entry), str(copy / entry.name))


def _copy_or_link(source: str, target: str) -> str:
    if Path(source).stat().st_size > LINKED_ABOVE_BYTES:
        with contextlib.suppress(OSError):
            os.link(os.path.realpath(source), target)
            return target
    return str(shutil.copy2(source, target))


def shorten(file: Path, root: Path) -> None:
    """Few steps, and relative paths out of the project made absolute; everything else stays."""
    from ruamel.yaml import YAML

    writer = YAML(typ="rt", pure=True)
    data = writer.load(file.read_text(encoding="utf-8")) or {}
    for dotted in _PATHS:
        _change(data, dotted, lambda value: _anchored(value, root))
    if isinstance(data.get("documents"), (str, list)):  # the short forms of Scenario
        data["documents"] = {"paths": data["documents"]}
    for dotted, most in _SHORT.items():
        section, field = dotted.split(".")
        node = data.get(section)
        if not isinstance(node, dict):
            node = data[section] = {}
        given = node.get(field)
        node[field] = min(given, most) if isinstance(given, int) else most
    with file.open("w", encoding="utf-8") as stream:
        writer.dump(data, stream)


def _change(data: Any, dotted: str, change: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        data = data.get(parent) if isinstance(data, dict) else None
    if isinstance(data, dict) and last in data:
        data[last] = change(data[last])


def _anchored(value: Any, root: Path) -> Any:
    if isinstance(value, list):
        return [_anchored(v, root) for v in value]
    if isinstance(value, str) and Path(os.path.normpath(value)).parts[:1] == ("..",):
        return str(root / value)
    return value
