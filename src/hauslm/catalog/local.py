"""Where on this machine do the weights of a base model lie? Nothing is ever fetched.

`find_base` looks into the package (the embedded model), a named folder, the project's `models/`
and the offline Hugging Face cache, and returns a folder that is complete and cannot run code
(`config`). What the model then does is for `lm`; what it costs in memory for `estimate`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from hauslm.base.errors import HauslmError, MissingError, UsageError, did_you_mean
from hauslm.base.files import ProjectFolder, sha256_bytes, sha256_file, write_json
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.added import extended
from hauslm.catalog.config import architecture_of, read_config, refuse_code
from hauslm.catalog.schema import Model
from hauslm.embedded import MODEL as EMBEDDED_MODEL

__all__ = [
    "AskedModel",
    "BaseFolder",
    "architecture_of",
    "base_of",
    "find_base",
    "usable_folders",
    "weights_sha256",
]

Origin = Literal["embedded", "path", "project", "hf-cache"]
MODELS_FOLDER = "models"


@dataclass(frozen=True)
class BaseFolder:
    """A base model on this disk: complete, harmless, ready to be loaded from `path`.

    `config` is its config.json; `catalog_id` its entry in the catalog if it was asked for by one;
    `revision` the commit, where a Hugging Face cache knows it.
    """

    id: str
    path: Path
    config: dict[str, Any]
    catalog_id: str | None
    source: Origin
    revision: str | None = None
    notes: tuple[Sentence, ...] = ()
    added_ids: tuple[int, ...] = ()  # of model.added_tokens


class AskedModel(Protocol):
    """What a project file says of its base model (section `model`); `catalog` stands below `scenario`."""

    @property
    def base(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def added_tokens(self) -> Sequence[str]: ...


def base_of(
    asked: AskedModel,
    project_root: Path,
    *,
    need_weights: bool = True,
    tell: Callable[[Sentence], None] = lambda _: None,
) -> BaseFolder:
    """The base model of a project, its added tokens among it; errors as in `find_base`.

    `tell` hears of work that takes a while: a longer base is made once per project.
    """
    return find_base(
        asked.base,
        asked.path,
        asked.revision,
        project_root,
        need_weights=need_weights,
        added=asked.added_tokens,
        tell=tell,
    )


def find_base(
    base: str,
    path: str | None,
    revision: str | None,
    project_root: Path,
    *,
    need_weights: bool = True,
    added: Sequence[str] = (),
    tell: Callable[[Sentence], None] = lambda _: None,
) -> BaseFolder:
    """The folder of the base model that the project file names, with the tokens that it adds.

    `base` is "embedded", a catalog id, a Hugging Face name (org/name), or a folder relative to the
    project or absolute; `path` overrides where to look. Without `need_weights` a folder with
    config.json is enough. With `added` (model.added_tokens) the folder is one with longer tokenizer and
    embeddings, made in the project's work folder (`added.py`).

    Errors: H447, H448 tokens that cannot be added; H120 a name that the catalog does not know; H121 an API model, which has no weights;
    H530 nothing usable is here (lists what is, and the next step); H440-H446 the folder is refused.
    """
    if added:
        plain = find_base(base, path, revision, project_root, need_weights=need_weights)
        longer = extended(plain.path, added, ProjectFolder(project_root).work, need_weights, tell)
        config = read_config(longer.path)
        return replace(plain, path=longer.path, config=config, added_ids=longer.ids)
    catalog_id = base if base in load.ids("models") else catalog_id_of(base)
    if path:
        return _from_folder(
            base, project_root / path, catalog_id, revision, need_weights, project_root
        )
    if base == "embedded":
        if not (EMBEDDED_MODEL / "config.json").is_file():
            raise _nothing_usable(
                base, say("The package's embedded model is missing."), project_root
            )
        return _checked(base, EMBEDDED_MODEL, None, "embedded", None, need_weights, project_root)
    folder = project_root / base
    if (folder / "config.json").is_file():
        return _from_folder(base, folder, catalog_id, revision, need_weights, project_root)
    if catalog_id is None:
        return _outside_catalog(base, folder, revision, need_weights, project_root)
    return _from_catalog(catalog_id, revision, need_weights, project_root)


def check_name(base: str, path: str | None, project_root: Path) -> None:
    """Refuse a base model that is neither in the catalog nor a folder (H120), or is an API (H121).

    Whether its files are here is not asked: a decision and a plan need only the catalog.
    """
    try:
        find_base(base, path, None, project_root, need_weights=False)
    except UsageError:
        raise
    except HauslmError:
        return


def catalog_id_of(base: str) -> str | None:
    """The catalog id of the model with this Hugging Face name."""
    if base.count("/") != 1:
        return None
    hits = [m.id for m in load.models() if m.hf_id and m.hf_id.lower() == base.lower()]
    return hits[0] if hits else None


# ---------------------------------------------------------------- the places


def _from_folder(
    base: str,
    folder: Path,
    catalog_id: str | None,
    revision: str | None,
    need_weights: bool,
    project_root: Path,
) -> BaseFolder:
    folder = folder.expanduser().resolve()
    if not (folder / "config.json").is_file():
        what = say("{folder} is not a model folder: it has no config.json.", folder=str(folder))
        raise _nothing_usable(base, what, project_root)
    notes: tuple[Sentence, ...] = ()
    if revision:
        notes = (
            say(
                "A folder does not tell its revision; {revision} is not checked.", revision=revision
            ),
        )
    return _checked(base, folder, catalog_id, "path", None, need_weights, project_root, notes)


def _from_catalog(
    catalog_id: str, revision: str | None, need_weights: bool, project_root: Path
) -> BaseFolder:
    model = load.model(catalog_id)
    if model.kind == "api":
        step = say("Its open weights are in the catalog as {name}.", name=model.serves or "")
        raise UsageError(
            "H121",
            say("{model} is an API model; it has no weights to load.", model=catalog_id),
            next_step=step if model.serves else say("hauslm catalog models lists open models."),
        )
    in_project = project_root / MODELS_FOLDER / catalog_id
    if (in_project / "config.json").is_file():
        return _checked(
            catalog_id,
            in_project.resolve(),
            catalog_id,
            "project",
            None,
            need_weights,
            project_root,
        )
    if model.hf_id:
        snapshot = _snapshot(model.hf_id, revision, project_root)
        if snapshot is not None:
            return _checked(
                catalog_id,
                snapshot,
                catalog_id,
                "hf-cache",
                snapshot.name,
                need_weights,
                project_root,
            )
    what = say("The weights of {model} are not on this machine.", model=catalog_id)
    raise _nothing_usable(
        catalog_id, what, project_root, _how_to_fetch(model, revision, project_root)
    )


def _outside_catalog(
    base: str, folder: Path, revision: str | None, need_weights: bool, project_root: Path
) -> BaseFolder:
    if base.count("/") == 1 and not base.startswith((".", "/")):
        snapshot = _snapshot(base, revision, project_root)
        if snapshot is not None:
            return _checked(
                base, snapshot, None, "hf-cache", snapshot.name, need_weights, project_root
            )
    if "/" in base or folder.exists():
        what = say("{folder} is not a model folder: it has no config.json.", folder=str(folder))
        raise _nothing_usable(base, what, project_root)
    raise UsageError(
        "H120",
        say("'{name}' is neither a model of the catalog nor a folder here.", name=base),
        next_step=did_you_mean(
            base, ("embedded", *(m.id for m in load.models() if m.kind == "open"))
        ),
    )


def hub_cache() -> Path:
    """The Hugging Face cache folder, by the rules of huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def _snapshot(hf_id: str, revision: str | None, project_root: Path) -> Path | None:
    """The cached snapshot of a repository: the named revision, else main, else the only one."""
    repository = hub_cache() / ("models--" + hf_id.replace("/", "--"))
    snapshots = repository / "snapshots"
    found = sorted(p for p in snapshots.iterdir() if p.is_dir()) if snapshots.is_dir() else []
    if not found:
        return None
    by_name = {p.name: p for p in found}
    reference = _reference(repository, revision or "main")
    if reference in by_name:
        return by_name[reference]
    if revision:
        matching = [
            p for name, p in by_name.items() if len(revision) >= 7 and name.startswith(revision)
        ]
        if len(matching) == 1:
            return matching[0]
        what = say(
            "Revision {revision} of {model} is not in the cache.", revision=revision, model=hf_id
        )
        step = say("Cached revisions: {names}", names=", ".join(by_name))
        raise _nothing_usable(hf_id, what, project_root, step)
    if len(found) == 1:
        return found[0]
    what = say(
        "{n} revisions of {model} are in the cache, none of them is main.",
        n=len(found),
        model=hf_id,
    )
    step = say("Name one as model.revision: {names}", names=", ".join(by_name))
    raise _nothing_usable(hf_id, what, project_root, step)


def _reference(repository: Path, name: str) -> str:
    """The commit that a branch or tag stands for; the name itself if it is a commit."""
    refs = (repository / "refs").resolve()
    path = (refs / name).resolve()
    if not path.is_relative_to(refs) or not path.is_file():
        return name
    return path.read_text(encoding="utf-8", errors="replace").strip()


# ---------------------------------------------------------------- complete and harmless?


def _checked(
    identity: str,
    folder: Path,
    catalog_id: str | None,
    source: Origin,
    revision: str | None,
    need_weights: bool,
    project_root: Path,
    notes: tuple[Sentence, ...] = (),
) -> BaseFolder:
    config = read_config(folder)
    refuse_code(folder, config)
    absent = missing_weights(folder) if need_weights else []
    if absent:
        what = say(
            "{folder} is incomplete: {names} missing.",
            folder=str(folder),
            names=", ".join(absent[:5]),
        )
        raise _nothing_usable(
            identity, what, project_root, say("Copy the folder again, completely.")
        )
    return BaseFolder(identity, folder, config, catalog_id, source, revision, notes)


def missing_weights(folder: Path) -> list[str]:
    """The weight files that a model folder lacks: shards named by its index, or any at all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return [index.name]
        return sorted(str(name) for name in shards if not _present(folder, name))
    found = any(p.stat().st_size > 0 for p in folder.glob("*.safetensors") if p.exists())
    return [] if found else ["model.safetensors"]


def _present(folder: Path, name: Any) -> bool:
    return isinstance(name, str) and "/" not in name and (folder / name).is_file()


def usable_folders(project_root: Path) -> list[str]:
    """Base models that are on this machine: their names as `model.base` takes them."""
    found = ["embedded"] if (EMBEDDED_MODEL / "config.json").is_file() else []
    found += [p.name for p in _model_folders(project_root / MODELS_FOLDER)]
    cache = hub_cache()
    if cache.is_dir():
        found += sorted(
            p.name.removeprefix("models--").replace("--", "/")
            for p in cache.glob("models--*")
            if any(_model_folders(p / "snapshots"))
        )
    return found


def _model_folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        for folder in sorted(parent.iterdir()):
            if (folder / "config.json").is_file() and not missing_weights(folder):
                yield folder


def _how_to_fetch(model: Model, revision: str | None, project_root: Path) -> Sentence:
    target = project_root / MODELS_FOLDER / model.id
    if not model.hf_id:
        return say(
            "Copy its folder (config.json, tokenizer, safetensors) to {target}.", target=str(target)
        )
    command = f"hf download {model.hf_id}" + (f" --revision {revision}" if revision else "")
    return say(
        "On a machine with network: {command} --local-dir {name}; copy that folder to {target}.",
        command=command,
        name=model.id,
        target=str(target),
    )


def _nothing_usable(
    identity: str, what: Sentence, project_root: Path, step: Sentence | None = None
) -> MissingError:
    usable = ", ".join(usable_folders(project_root)) or "-"
    here = say("Usable here: {names}.", names=usable)
    advice = step or say("Name a folder with config.json and safetensors as model.path.")
    return MissingError(
        "H530", what, where=identity, next_step=say("{step} {here}", step=advice, here=here)
    )


# ---------------------------------------------------------------- identity


def weights_sha256(folder: Path, cache_file: Path | None = None) -> str:
    """One SHA-256 over the folder's safetensors: over the sorted (name, file hash) lines.

    Hashing tens of gigabytes takes minutes; file hashes are kept in `cache_file` and reused while a
    file's size and modification time (ns) stay the same. H531 if there are none.
    """
    known = _read_cache(cache_file)
    fresh: dict[str, list[Any]] = {}
    lines = []
    for path in sorted(folder.glob("*.safetensors")):
        real = path.resolve()
        status = real.stat()
        entry = known.get(str(real))
        if entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
            entry = [status.st_size, status.st_mtime_ns, sha256_file(real)]
        fresh[str(real)] = entry
        lines.append(f"{path.name}\0{entry[2]}\n")
    if cache_file is not None and any(known.get(name) != entry for name, entry in fresh.items()):
        write_json(cache_file, known | fresh)
    if not lines:
        raise MissingError(
            "H531",
            say("There are no safetensors files in this folder."),
            where=str(folder),
            next_step=say("Copy the folder again, completely."),
        )
    return sha256_bytes("".join(lines).encode())


def _read_cache(cache_file: Path | None) -> dict[str, list[Any]]:
    """The remembered hashes; a damaged cache is worth nothing and is written anew."""
    if cache_file is None or not cache_file.is_file():
        return {}
    try:
        data = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {k: v for k, v in data.items() if isinstance(v, list) and len(v) == 3}
