"""What must be carried to a machine without network? Everything: wheels, lock, base model, bundle.

The wheels are made from what is installed and works here (`wheels.py`), pinned with their hashes; the
installer checks every file before it touches anything and asks no network. Instructions in English and
German. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.base.files import ProjectFolder, disk_error, fsync_folder, write_sealed
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import find_base
from hauslm.records import Bundle
from hauslm.scenario import Scenario
from hauslm.share import wheels
from hauslm.share.verify import verify

ROOT = "hauslm"
SUMS = "SHA256SUMS"
_GUIDES = {"en": "INSTALL.md", "de": "INSTALLIEREN.md"}


def pack(
    scenario: Scenario,
    folder: ProjectFolder,
    target: Path,
    *,
    bundle: Bundle | None,
    packages: Sequence[str] | None = None,
    with_base: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the folder `target`. `packages`: only these (with what they need), for tests and parts.

    H734 if it is not empty; H765 and H766 for packages; the errors of `find_base` and `verify`.
    """
    progress = progress or Silent()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(
            "H734",
            say("There is something in {path} already.", path=str(target)),
            next_step=say("Name another folder, or empty this one."),
        )
    notes: list[Sentence] = []
    staged = target.with_name(f".{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        (staged / "wheels").mkdir(parents=True)
        made = _wheels(staged / "wheels", packages, progress)
        write_sealed(staged / "requirements.txt", _lock(made))
        if with_base:
            notes += _base(scenario, folder, staged, progress)
        name = _bundle(folder, bundle, staged, notes)
        if folder.file.is_file():
            write_sealed(staged / "hauslm.yaml", folder.file.read_bytes())
        write_sealed(staged / "install.sh", _installer(), mode=0o755)
        for code, file in _GUIDES.items():
            write_sealed(staged / file, _guide(code, name))
        size = _sums(staged)
        if target.exists():
            target.rmdir()
        staged.rename(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return {
        "path": str(target), "wheels": len(made), "bytes": size, "python": _python(),
        "platform": platform.machine(), "notes": [n.text() for n in notes],
    }  # fmt: skip


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _wheels(target: Path, packages: Sequence[str] | None, progress: Progress) -> list[wheels.Wheel]:
    chosen = {
        d.metadata["Name"]: d for root in packages or (ROOT,) for d in wheels.closure(root)
    }  # fmt: skip
    made = []
    for i, name in enumerate(sorted(chosen, key=str.lower)):
        progress.step(say("Wheels"), i, len(chosen), package=name)
        made.append(wheels.write(chosen[name], target))
    progress.step(say("Wheels"), len(chosen), len(chosen))
    return made


def _lock(made: Sequence[wheels.Wheel]) -> str:
    return "".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in made)


def _base(
    scenario: Scenario, folder: ProjectFolder, staged: Path, progress: Progress
) -> list[Sentence]:
    model = scenario.model
    base = find_base(model.base, model.path, model.revision, folder.root)
    if base.source == "embedded":
        return [say("The embedded base model travels inside the hauslm wheel.")]
    target = staged / "models" / base.path.name
    if base.source == "hf-cache":  # a snapshot's folder is named by its commit
        target = staged / "models" / base.id.split("/")[-1]
    target.mkdir(parents=True)
    files = [p for p in sorted(base.path.iterdir()) if p.is_file()]
    for i, file in enumerate(files):
        progress.step(say("Base model"), i, len(files), file=file.name)
        shutil.copyfile(file, target / file.name)
    progress.step(say("Base model"), len(files), len(files))
    return [say("Set in hauslm.yaml there: model: {{path: {path}}}", path=f"models/{target.name}")]


def _bundle(
    folder: ProjectFolder, bundle: Bundle | None, staged: Path, notes: list[Sentence]
) -> str:
    """The verified bundle's name in the pack; '' if there is none, said so."""
    if bundle is None or not (folder.root / bundle.path).is_file():
        notes.append(say("No bundle is included: hauslm bundle makes one."))
        return ""
    source = folder.root / bundle.path
    verify(source)
    shutil.copyfile(source, staged / source.name)
    return source.name


def _sums(staged: Path) -> int:
    """`SHA256SUMS` over every file, as `sha256sum -c` reads it; the size of all in bytes."""
    lines, size = [], 0
    for file in sorted(p for p in staged.rglob("*") if p.is_file()):
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        size += file.stat().st_size
        lines.append(f"{digest.hexdigest()}  {file.relative_to(staged).as_posix()}\n")
    write_sealed(staged / SUMS, "".join(lines))
    return size


def _installer() -> str:
    version = _python()
    return f"""#!/bin/sh
# hauslm, offline: sh install.sh [FOLDER]      (default: ./hauslm-venv)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${{1:-hauslm-venv}}
python=${{PYTHON:-python{version}}}
if ! "$python" -c 'import platform, sys
sys.exit((f"{{sys.version_info[0]}}.{{sys.version_info[1]}}", platform.machine()) != ("{version}", "{platform.machine()}"))' 2>/dev/null
then
  echo "Python {version} on {platform.machine()} is needed; set PYTHON=/path/to/python{version}." >&2
  echo "Python {version} auf {platform.machine()} wird gebraucht; PYTHON=/pfad/zu/python{version} setzen." >&2
  exit 5
fi
(cd "$here" && sha256sum --quiet -c {SUMS})
"$python" -m venv "$target"
# No pip settings of this machine: another index or wheel folder would bring other builds.
PIP_CONFIG_FILE=/dev/null "$target/bin/python" -m pip --isolated install --quiet \\
  --disable-pip-version-check --no-index --no-cache-dir \\
  --find-links "$here/wheels" --require-hashes -r "$here/requirements.txt"
echo "$target/bin/hauslm"
"""


def _guide(code: str, bundle: str) -> str:
    steps = [
        say("Copy this whole folder to the machine without network (a USB stick will do)."),
        say(
            "Python {version} must be there, with its venv module, on {platform}. Nothing else is needed.",
            version=_python(),
            platform=platform.machine(),
        ),
        say("Install: {command}", command="`sh install.sh hauslm-venv`"),
        say(
            "The script first checks every file against {sums}, then installs from this folder alone; each package is checked by its hash again.",
            sums=SUMS,
        ),
        say("Look at the machine: {command}", command="`hauslm-venv/bin/hauslm check`"),
    ]
    if bundle:
        steps.append(
            say("Check the bundle: {command}", command=f"`hauslm-venv/bin/hauslm verify {bundle}`")
        )
        steps.append(
            say(
                "Take the adapter into a project (the folder with hauslm.yaml): {command}",
                command=f"`hauslm-venv/bin/hauslm adapters import {bundle}`",
            )
        )
    steps.append(
        say(
            "The base model lies in models/, if it is not the embedded one; name it in hauslm.yaml."
        )
    )
    title = say("# Installing hauslm without network").text(code)
    rows = [f"{i}. {s.text(code)}" for i, s in enumerate(steps, 1)]
    return "\n".join([title, "", *rows, ""])
