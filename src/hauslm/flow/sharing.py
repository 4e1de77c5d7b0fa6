"""What leaves the project folder or comes into it, and the server: each on explicit demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.words import say
from hauslm.flow.rooms import refuse_a_whole_model
from hauslm.flow.stages import Project, as_project, if_sound, load_record


def verify(path: Path | str, *, base: Path | str | None = None, **options: Any) -> dict[str, Any]:
    """Check a stranger's bundle or adapter folder without loading it. RefusedError with the reason.

    `options`: `keyring`, `key` (files) and `remember` (trust on first use), see `share/verify.py`.
    """
    from hauslm.share.verify import verify as room

    return room(Path(path), base=Path(base) if base else None, **options)


def export(
    project: Project | Path | str, kind: str, target: Path | None = None, **options: Any
) -> dict[str, Any]:
    """A way out: merge, gguf, gguf-lora, ollama, vllm, or script (the training without hauslm).

    `options`: `type` (number format of GGUF), `prompts` (how many are compared in llama.cpp).
    """
    from hauslm.share.export import export as room
    from hauslm.train.recipe import recipe

    project = as_project(project)
    run_record = load_record(project, "run")
    if kind == "merge" and run_record is not None:
        refuse_a_whole_model(project, run_record)
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

    project = as_project(project)
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

    project = as_project(project)
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

    project = as_project(project)
    return room(
        project.scenario,
        project.folder,
        target,
        bundle=if_sound(project, "bundle"),
        progress=project.progress,
        **options,
    )


def serve(project: Project | Path | str = ".", **options: Any) -> None:
    """The OpenAI-compatible server on this machine; returns when it is stopped."""
    from hauslm.serve.app import serve as room

    project = as_project(project)
    room(project.scenario, project.folder, run=load_record(project, "run"), **options)
