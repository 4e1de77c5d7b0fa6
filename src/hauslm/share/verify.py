"""May this bundle or adapter folder be loaded? Size, structure, hashes, schema, tensors, base, licence.

The order is from cheap to dear, and nothing is loaded before all of it passed. Each refusal says which
check failed. A plain PEFT folder has no manifest: it is checked for safety, and the answer says that
its origin is not proven.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.words import Sentence, say
from hauslm.lm.checks import adapter_config_problem
from hauslm.share import archive, tensors

FORMAT = "hauslm-bundle/1"
_MANIFEST_KEYS = {
    "format": str, "name": str, "base": dict, "template_sha256": str, "data_fingerprint": str,
    "rights": dict, "licence": dict, "evaluated": bool, "memorisation_passed": bool, "files": dict,
}  # fmt: skip
_PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".so")


def verify(path: Path, *, base: Path | None = None) -> dict[str, Any]:
    """The checks that passed, in order, and the manifest. RefusedError H702-H719 with the reason.

    `base` is the base model's folder; without it, shapes are checked against the adapter's own
    configuration only, and the answer says so.
    """
    config = _base_config(base) if base is not None else None
    result = _folder(path, config) if path.is_dir() else _bundle(path, config)
    if base is None:
        result["checks"].append(say("widths and layers: not compared, no base model given").text())
    result["path"] = str(path)
    return result


def _base_config(base: Path) -> dict[str, Any]:
    file = base / "config.json"
    if not file.is_file():
        raise DataError(
            "H707", say("This is no base model: config.json is missing."), where=str(base),
            next_step=say("Give the folder of the base model."),
        )  # fmt: skip
    return _json_object(file.read_bytes(), "config.json", file)


def _json_object(raw: bytes, name: str, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise archive.refused("H704", say("{file} is not valid JSON.", file=name), where) from error
    if not isinstance(value, dict):
        raise archive.refused("H704", say("{file} is not a JSON object.", file=name), where)
    return value


def _bundle(path: Path, base: dict[str, Any] | None) -> dict[str, Any]:
    checks: list[str] = []
    with archive.open_checked(path) as opened:
        checks.append(
            say(
                "structure: {count} stored entries, nothing hidden", count=len(opened.infolist())
            ).text()
        )
        manifest = _manifest(opened, path)
        checks.append(say("manifest: complete").text())
        _hashes(opened, manifest, path)
        checks.append(say("hashes: every entry is as it was packed, none is unlisted").text())
        config = _json_object(
            _read(opened, "adapter_config.json", path), "adapter_config.json", path
        )
        _refuse("H712", adapter_config_problem(config), path)
        checks.append(say("configuration: plain LoRA, rank {rank}", rank=config.get("r")).text())
        if archive.TENSORS not in opened.namelist():
            raise archive.refused("H705", say("{file} is missing.", file=archive.TENSORS), path)
        info = opened.getinfo(archive.TENSORS)
        with opened.open(info) as stream:
            _refuse("H713", tensors.problem(_seekable(stream), info.file_size, config, base), path)
        checks.append(say("tensors: complete, right shapes, all finite").text())
        _licence(manifest, path)
        checks.append(
            say(
                "licence: {licence}, duties carried", licence=manifest["licence"].get("id") or "–"
            ).text()
        )
        if manifest["evaluated"]:
            checks.append(say("evaluation: included").text())
        else:
            checks.append(say("evaluation: none was made").text())
        if not manifest["memorisation_passed"]:
            checks.append(say("memorisation: not shown to be within the limit").text())
        checks.append(say("signature: none, the origin is not proven").text())
    return {"checks": checks, "manifest": manifest, "kind": "bundle"}


def _seekable(stream: Any) -> Any:
    """Stored entries can seek; a buffered reader keeps small reads cheap."""
    return io.BufferedReader(stream)


def _refuse(code: str, problem: Sentence | None, path: Path) -> None:
    if problem is not None:
        raise archive.refused(code, problem, path)


def _read(opened: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        return opened.read(name)
    except KeyError as error:
        raise archive.refused("H705", say("{file} is missing.", file=name), path) from error
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise archive.refused("H706", say("{file} is damaged.", file=name), path) from error


def _manifest(opened: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    manifest = _json_object(_read(opened, "manifest.json", path), "manifest.json", path)
    sound = set(manifest) == set(_MANIFEST_KEYS) and all(
        isinstance(manifest[k], kind) for k, kind in _MANIFEST_KEYS.items()
    )
    if not sound or manifest["format"] != FORMAT:
        raise archive.refused(
            "H708", say("The manifest does not have the form {form}.", form=FORMAT), path
        )
    return manifest


def _hashes(opened: zipfile.ZipFile, manifest: dict[str, Any], path: Path) -> None:
    listed = manifest["files"]
    present = {i.filename for i in opened.infolist()} - {"manifest.json"}
    for name in sorted(present - set(listed)):
        raise archive.refused(
            "H709", say("The entry '{name}' is not in the manifest.", name=name), path
        )
    for name, expected in sorted(listed.items()):
        if name not in present:
            raise archive.refused("H705", say("{file} is missing.", file=str(name)[:80]), path)
        digest = hashlib.sha256()
        try:
            with opened.open(name) as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
            raise archive.refused("H706", say("{file} is damaged.", file=name), path) from error
        if digest.hexdigest() != expected:
            raise archive.refused(
                "H706", say("{file} does not have the hash of the manifest.", file=name), path
            )


def _licence(manifest: dict[str, Any], path: Path) -> None:
    licence = manifest["licence"]
    for name in licence.get("files", []):
        if name not in manifest["files"]:
            raise archive.refused(
                "H714", say("The licence file {file} is missing.", file=str(name)[:80]), path
            )
    prefix = str(licence.get("name_prefix", ""))
    name = manifest["name"].replace("-", " ").replace("_", " ").lower()
    if prefix and not name.startswith(prefix.lower()):
        raise archive.refused(
            "H714",
            say(
                "The base model's licence asks for a name that begins with '{prefix}'.",
                prefix=prefix,
            ),
            path,
        )


def _folder(path: Path, base: dict[str, Any] | None) -> dict[str, Any]:
    """A plain PEFT folder, made by hauslm or elsewhere."""
    for file in sorted(path.iterdir()):
        if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
            raise archive.refused(
                "H715", say("{file} points outside the folder.", file=file.name), path
            )
        if file.suffix in _PICKLE:
            raise archive.refused(
                "H716", say("{file} could run code when loaded.", file=file.name), path
            )
    raw = path / "adapter_config.json"
    weights = path / archive.TENSORS
    for file in (raw, weights):
        if not file.is_file():
            raise archive.refused("H705", say("{file} is missing.", file=file.name), path)
    if raw.stat().st_size > archive.MAX_TEXT_BYTES:
        raise archive.refused(
            "H703", say("The entry '{name}' is larger than 16 MiB.", name=raw.name), path
        )
    config = _json_object(raw.read_bytes(), raw.name, path)
    _refuse("H712", adapter_config_problem(config), path)
    with weights.open("rb") as stream:
        _refuse("H713", tensors.problem(stream, weights.stat().st_size, config, base), path)
    return {
        "checks": [
            say("configuration: plain LoRA, rank {rank}", rank=config.get("r")).text(),
            say("tensors: complete, right shapes, all finite").text(),
            say("manifest: none, hashes and origin are not proven").text(),
        ],
        "manifest": None,
        "kind": "folder",
    }


__all__ = ["RefusedError", "verify"]
