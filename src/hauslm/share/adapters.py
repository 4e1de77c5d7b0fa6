"""Which adapters does the team have? Kept ones, imported ones, combined ones, side by side.

The project's own adapter lies in `adapter/`. Every other one has a folder `adapters/NAME/` with the
plain PEFT files, `origin.json` (where it came from, its hash) and the records it was made with. Before
a training replaces the own adapter, flow keeps it here, so `roll_back` can bring it back.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, RefusedError, UsageError, did_you_mean
from hauslm.base.files import (
    ProjectFolder,
    fsync_folder,
    read_json,
    sha256_file,
    write_json,
    write_sealed,
)
from hauslm.base.words import say
from hauslm.catalog.local import base_of
from hauslm.records import now
from hauslm.scenario import Scenario
from hauslm.share import archive, foreign

ORIGIN = "origin.json"
CURRENT = "current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_RECORDS = ("decision", "plan", "corpus", "run", "evaluation", "bundle")


def place(folder: ProjectFolder, name: str) -> Path:
    """`adapters/NAME`; H750-range: H751 for a name that is none."""
    if not _NAME.match(name) or name == CURRENT:
        raise UsageError(
            "H751",
            say("'{name}' is not a possible name of an adapter.", name=name[:80]),
            next_step=say("Use letters, digits and the signs . _ -"),
        )
    return folder.root / "adapters" / name


def _existing(folder: ProjectFolder, name: str) -> Path:
    """The folder of an adapter by name; `current` is the project's own. H752 if there is none."""
    path = folder.adapter if name == CURRENT else place(folder, name)
    if not (path / archive.TENSORS).is_file():
        raise UsageError(
            "H752",
            say("There is no adapter called '{name}'.", name=name),
            where=str(path),
            next_step=did_you_mean(name, names(folder)),
        )
    return path


def names(folder: ProjectFolder) -> list[str]:
    root = folder.root / "adapters"
    kept = [p.name for p in sorted(root.iterdir()) if (p / archive.TENSORS).is_file()] if root.is_dir() else []  # fmt: skip
    own = [CURRENT] if (folder.adapter / archive.TENSORS).is_file() else []
    return own + kept


# ---------------------------------------------------------------- keeping and bringing back


def keep(folder: ProjectFolder) -> str | None:
    """Copy the own adapter with its records to `adapters/`, if it is not there; its name, or None.

    Copied under a name that its hash gives, so keeping twice keeps once.
    """
    run_file = folder.record("run")
    weights = folder.adapter / archive.TENSORS
    if not weights.is_file() or not run_file.is_file():
        return None
    digest = sha256_file(weights)
    run = read_json(run_file)
    if not isinstance(run, dict) or run.get("adapter", {}).get("sha256") != digest:
        return None  # not the adapter of this record: nothing that could be brought back
    name = f"{str(run.get('created', ''))[:10]}-{digest[:8]}"
    target = folder.root / "adapters" / name
    if target.exists():
        return name
    staged = _staged(target)
    _copy(folder.adapter, staged)
    for record in _RECORDS:
        file = folder.record(record)
        if file.is_file():
            _write(staged / "records" / file.name, file.read_bytes())
    if folder.file.is_file():
        _write(staged / "hauslm.yaml", folder.file.read_bytes())
    write_json(staged / ORIGIN, {"kind": "trained", "created": run.get("created", ""), "sha256": digest})  # fmt: skip
    _arrive(staged, target)
    return name


def roll_back(folder: ProjectFolder, name: str | None, *, settings: bool = False) -> dict[str, Any]:
    """Make a kept adapter (by default the last one before this) the project's own, records included.

    The present one is kept first. `settings` also puts the project file of that time back, the present
    one is kept beside it. H753 if there is nothing to go back to, H754 if it was not trained here.
    """
    kept = keep(folder)
    earlier = [n for n in _trained(folder) if n != kept]
    wanted = name or (earlier[-1] if earlier else None)
    if wanted is None:
        raise DataError(
            "H753",
            say("There is no earlier adapter."),
            where=str(folder.root / "adapters"),
            next_step=say("hauslm train keeps the adapter that it replaces."),
        )
    source = _existing(folder, wanted)
    if not (source / "records" / "run.json").is_file():
        raise RefusedError(
            "H754",
            say("'{name}' was not trained in this project, so it has no records to go with it.", name=wanted),
            where=str(source),
            next_step=say("hauslm adapters combine and compare take it as it is."),
        )  # fmt: skip
    staged = _staged(folder.adapter)
    _copy(source, staged)
    old = folder.root / ".adapter.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.adapter.exists():
        folder.adapter.rename(old)
    staged.rename(folder.adapter)
    fsync_folder(folder.root)
    shutil.rmtree(old, ignore_errors=True)
    for record in _RECORDS:
        file = source / "records" / f"{record}.json"
        if file.is_file():
            write_sealed(folder.record(record), file.read_bytes())
        else:
            folder.record(record).unlink(missing_ok=True)
    then = source / "hauslm.yaml"
    changed = then.is_file() and then.read_bytes() != folder.file.read_bytes()
    notes = []
    if changed and settings:
        write_sealed(folder.root / "hauslm.yaml.before", folder.file.read_bytes())
        write_sealed(folder.file, then.read_bytes())
        notes.append(say("The project file of that time is back; the other is hauslm.yaml.before.").text())  # fmt: skip
    elif changed:
        notes.append(
            say(
                "The project file has changed since: with other settings the next stage trains again; --settings puts the old file back ({path}).",
                path=folder.relative(then),
            ).text()
        )
    return {"name": wanted, "kept": kept, "path": str(folder.adapter), "notes": notes}


def _trained(folder: ProjectFolder) -> list[str]:
    """Kept trained adapters, oldest first."""
    found = []
    for name in names(folder):
        file = folder.root / "adapters" / name / ORIGIN
        if name != CURRENT and file.is_file():
            origin = read_json(file)
            if origin.get("kind") == "trained":
                found.append((str(origin.get("created", "")), name))
    return [name for _, name in sorted(found)]


def _staged(target: Path) -> Path:
    """An empty folder beside the target: what is in it arrives by one rename."""
    staged = target.with_name(f".{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def _arrive(staged: Path, target: Path) -> None:
    staged.rename(target)
    fsync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    """The adapter's plain files: no links, no folders, no records."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.is_symlink() and file.name not in (ORIGIN, "hauslm.yaml"):
            _write(target / file.name, file.read_bytes())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(path, data)


# ---------------------------------------------------------------- looking


def listing(folder: ProjectFolder) -> list[dict[str, Any]]:
    """One row per adapter: name, origin, rank, base, data, evaluation; None where it is not known."""
    return [_row(folder, name) for name in names(folder)]


def _row(folder: ProjectFolder, name: str) -> dict[str, Any]:
    path = _existing(folder, name)
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    origin = read_json(path / ORIGIN) if (path / ORIGIN).is_file() else {"kind": "trained"}
    records = folder.records if name == CURRENT else path / "records"
    run, corpus, evaluation = (_record(records / f"{r}.json") for r in ("run", "corpus", "evaluation"))  # fmt: skip
    settings = run.get("settings", {})
    row: dict[str, Any] = {
        "name": name,
        "origin": origin.get("kind", "imported"),
        "created": run.get("created") or origin.get("created"),
        "sha256": sha256_file(path / archive.TENSORS),
        "base": run.get("base", {}).get("id") or config.get("base_model_name_or_path"),
        "r": config.get("r"),
        "lora_alpha": config.get("lora_alpha"),
        "target_modules": sorted(config.get("target_modules") or []),
        "variant": settings.get("adapter", {}).get("variant"),
        "learning_rate": settings.get("learning_rate"),
        "steps": run.get("steps"),
        "tokens": run.get("tokens"),
        "loss_last": run.get("loss", {}).get("last"),
        "loss_validation": run.get("loss", {}).get("validation"),
        "data_fingerprint": corpus.get("fingerprint"),
        "verdict": evaluation.get("verdict"),
    }
    for system in evaluation.get("systems", []):
        if system.get("kind") == "adapter":
            row |= {f"metric:{k}": v for k, v in system.get("metrics", {}).items()}
    return row


def _record(file: Path) -> dict[str, Any]:
    value = read_json(file) if file.is_file() else {}
    return value if isinstance(value, dict) else {}


def compare(folder: ProjectFolder, first: str, second: str) -> list[dict[str, Any]]:
    """What differs between two adapters: key, value of the first, value of the second."""
    left, right = _row(folder, first), _row(folder, second)
    keys = list(dict.fromkeys([*left, *right]))
    return [
        {"key": k, first: left.get(k), second: right.get(k), "same": left.get(k) == right.get(k)}
        for k in keys
        if k != "name"
    ]


# ---------------------------------------------------------------- from elsewhere, and together


def take_in(
    scenario: Scenario, folder: ProjectFolder, source: Path, name: str | None
) -> dict[str, Any]:
    """Import a bundle or any PEFT folder as `adapters/NAME`, under the checks of `verify`."""
    model = scenario.model
    base = base_of(model, folder.root)
    files, notes, tool = foreign.read(source, base.path, model.base)
    wanted = name or _slug(source.resolve().name.removesuffix(archive.SUFFIX))
    target = place(folder, wanted)
    _must_be_free(target, wanted)
    staged = _staged(target)
    for file, data in files.items():
        _write(staged / file, data)
    digest = foreign.copy_weights(source, staged / archive.TENSORS)
    write_json(
        staged / ORIGIN,
        {"kind": "imported", "tool": tool, "created": now(), "sha256": digest, "notes": [n.text("en") for n in notes]},
    )  # fmt: skip
    _arrive(staged, target)
    return {"name": wanted, "path": str(target), "sha256": digest, "tool": tool, "notes": [n.text() for n in notes]}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:64] or "imported"


def _must_be_free(target: Path, name: str) -> None:
    if target.exists():
        raise UsageError(
            "H755",
            say("There is an adapter called '{name}' already.", name=name),
            where=str(target),
            next_step=say("Give another name with --name."),
        )


def combine(
    scenario: Scenario, folder: ProjectFolder, parts: list[tuple[str, float]], name: str, method: str
) -> dict[str, Any]:  # fmt: skip
    """The weighted combination of adapters by name, as `adapters/NAME`. H756 for fewer than two."""
    from hauslm.lm.combine import combine as room

    if len(parts) < 2:
        raise UsageError(
            "H756",
            say("Combining takes at least two adapters."),
            next_step=say("Write them as NAME=WEIGHT, for example current=0.7 other=0.3"),
        )
    target = place(folder, name)
    _must_be_free(target, name)
    folders = [(_existing(folder, n), w) for n, w in parts]
    model = scenario.model
    base = base_of(model, folder.root)
    staged = _staged(target)
    try:
        made = room(base.path, folders, staged, method)
        for extra in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (folders[0][0] / extra).is_file():
                _write(staged / extra, (folders[0][0] / extra).read_bytes())
        config = json.loads((staged / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = model.base
        write_json(staged / "adapter_config.json", config)
        digest = sha256_file(staged / archive.TENSORS)
        write_json(
            staged / ORIGIN,
            {"kind": "combined", "created": now(), "sha256": digest, "parts": dict(parts), **made},
        )
        _arrive(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return {"name": name, "path": str(target), "sha256": digest, **made}
