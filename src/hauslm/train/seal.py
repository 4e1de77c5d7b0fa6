"""How does a run survive anything? Checkpoints that are whole or not there at all.

A checkpoint is a folder `step-NNNNNN`: tensors in safetensors, the rest in JSON, no pickle. It is staged
under another name, every file fsynced, described by a manifest (sha256 of each file, identity of the run,
hash of the parent's manifest), the staged folder fsynced, renamed, the parent folder fsynced, read again
and compared; only then are older ones removed, and at least two always stay. Reading verifies every byte
and falls back to the next older sound one, naming the bad one.

The fault catalogue this answers to: SIGKILL at any write, fsync or rename; power loss; a full disk;
truncated, flipped or missing files; another data set, configuration, seed or base.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import RefusedError
from hauslm.base.files import canonical_json, disk_error, fsync_folder, sha256_bytes, sha256_file
from hauslm.base.words import Sentence, say

if TYPE_CHECKING:
    import torch

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
NAME = re.compile(r"step-(\d{6,})")
TENSORS = ".safetensors"

Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Identity:
    """What a run is made of; a checkpoint is continued only under the same identity."""

    settings: dict[str, Any]
    data: dict[str, str]
    base: dict[str, str]

    def sha256(self) -> str:
        return sha256_bytes(canonical_json(self.plain()))

    def plain(self) -> dict[str, Any]:
        return {"settings": self.settings, "data": self.data, "base": self.base}


@dataclass
class Snapshot:
    """A run at the end of a step: named groups of tensors, and everything else as JSON."""

    step: int
    tensors: dict[str, Tensors]
    state: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A verified checkpoint."""

    path: Path
    snapshot: Snapshot
    identity: Identity
    versions: dict[str, str]
    manifest_sha256: str
    damaged: tuple[tuple[str, Sentence], ...] = field(default=())  # newer ones that were not sound


class DamagedCheckpoint(Exception):
    """Why a checkpoint cannot be used."""

    def __init__(self, why: Sentence) -> None:
        super().__init__(why)
        self.why = why


class Checkpoints:
    """The sealed checkpoints of one run, in one folder. The caller holds the folder's lock."""

    def __init__(
        self, folder: Path, identity: Identity, versions: dict[str, str], keep: int = 2
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.versions = versions
        self.keep = max(2, keep)
        self.parent = ""  # manifest hash of the checkpoint before, across resumes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        for staged in folder.glob(".step-*.tmp"):  # left by a killed process
            shutil.rmtree(staged, ignore_errors=True)

    # ------------------------------------------------------------ writing

    def save(self, snapshot: Snapshot) -> Path:
        """Seal a checkpoint; when this returns it is on the disk and verified. MissingError H510 when
        the disk refuses; every older checkpoint is then untouched. A step that is sealed already stays
        as it is: taking a sound one away, even for its equal, would leave a moment without it."""
        final = self.folder / f"step-{snapshot.step:06d}"
        if final.exists():
            with suppress(DamagedCheckpoint):
                sealed, digest = verify(final)
                if sealed["identity_sha256"] == self.identity.sha256():
                    self.parent = digest
                    return final
        staged = self.folder / f".{final.name}.{secrets.token_hex(4)}.tmp"
        try:
            staged.mkdir()
            manifest = self._write(staged, snapshot)
            fsync_folder(staged)
            if final.exists():  # a damaged one, passed over
                shutil.rmtree(final)
            staged.rename(final)
            fsync_folder(self.folder)
        except OSError as error:
            raise disk_error(error, final) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        try:
            verify(final)
        except DamagedCheckpoint as error:
            raise RefusedError(
                "H610",
                say(
                    "The checkpoint of step {step} did not read back: {why}",
                    step=snapshot.step,
                    why=error.why,
                ),
                where=str(final),
                next_step=say(
                    "Check this disk; older checkpoints are untouched, --resume uses them."
                ),
            ) from error
        self.parent = manifest
        self._prune()
        return final

    def _write(self, folder: Path, snapshot: Snapshot) -> str:
        """All files and the manifest; returns the manifest's sha256."""
        from safetensors.torch import save as to_bytes

        files: dict[str, dict[str, Any]] = {}

        def put(name: str, data: bytes) -> None:
            write_synced(folder / name, data)
            files[name] = {"sha256": sha256_bytes(data), "bytes": len(data)}

        for name, tensors in snapshot.tensors.items():
            packed = {k: t.detach().to("cpu").contiguous() for k, t in tensors.items()}
            put(name + TENSORS, to_bytes(packed))
        put(STATE, json.dumps(snapshot.state, sort_keys=True).encode())
        manifest = canonical_json(
            {
                "format": FORMAT,
                "step": snapshot.step,
                "files": files,
                "identity": self.identity.plain(),
                "identity_sha256": self.identity.sha256(),
                "versions": self.versions,
                "parent": self.parent,
            }
        )
        # The manifest carries its own hash, so that a flipped bit in it is seen too.
        sealed = canonical_json(
            {"sha256": sha256_bytes(manifest), "manifest": json.loads(manifest)}
        )
        write_synced(folder / MANIFEST, sealed)
        return sha256_bytes(manifest)

    def _prune(self) -> None:
        for path in self.all()[: -self.keep]:
            # First out of the names that count, for good: killed half-way, none of those is half there.
            leaving = self.folder / f".{path.name}.{secrets.token_hex(4)}.tmp"
            with suppress(OSError):
                path.rename(leaving)
                fsync_folder(self.folder)
            shutil.rmtree(leaving, ignore_errors=True)

    # ------------------------------------------------------------ reading

    def all(self) -> list[Path]:
        """The folders that claim to be checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        named = [(NAME.fullmatch(p.name), p) for p in self.folder.iterdir() if p.is_dir()]
        return [p for _, p in sorted((int(m[1]), p) for m, p in named if m)]

    def newest_sound(self) -> Found | None:
        """The newest checkpoint whose every byte is as sealed, with the damaged newer ones named."""
        damaged: list[tuple[str, Sentence]] = []
        for path in reversed(self.all()):
            try:
                manifest, digest = verify(path)
                snapshot = _read(path, manifest)
            except DamagedCheckpoint as error:
                damaged.append((path.name, error.why))
                continue
            identity = Identity(**manifest["identity"])
            return Found(
                path, snapshot, identity, manifest["versions"], digest, damaged=tuple(damaged)
            )
        if damaged:
            name, why = damaged[0]
            raise RefusedError(
                "H611",
                say("No checkpoint is sound; {name}: {why}", name=name, why=why),
                where=str(self.folder),
                next_step=say("Start again with --fresh; the folder is kept beside the new one."),
            )
        return None

    def set_aside(self) -> None:
        """Make room for a new run; the old checkpoints stay as `<folder>.previous`."""
        if not self.all():
            return
        previous = self.folder.with_name(self.folder.name + ".previous")
        try:
            if previous.exists():
                shutil.rmtree(previous)
            self.folder.rename(previous)
            self.folder.mkdir()
            fsync_folder(self.folder.parent)
        except OSError as error:
            raise disk_error(error, self.folder) from error


def write_synced(path: Path, data: bytes) -> None:
    """A new file, all of it, on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(path: Path) -> tuple[dict[str, Any], str]:
    """Read a checkpoint's manifest and compare every file; returns the manifest and its sha256."""
    try:
        sealed = json.loads((path / MANIFEST).read_bytes())
        manifest, claimed = sealed["manifest"], sealed["sha256"]
        files = manifest["files"]
        digest = sha256_bytes(canonical_json(manifest))
    except FileNotFoundError as error:
        raise DamagedCheckpoint(say("the manifest is missing.")) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(say("the manifest cannot be read.")) from error
    if digest != claimed:
        raise DamagedCheckpoint(say("the manifest was changed."))
    if manifest.get("format") != FORMAT:
        raise DamagedCheckpoint(say("it was written by another version of hauslm."))
    for name, expected in files.items():
        try:
            found = sha256_file(path / name)
        except OSError as error:
            raise DamagedCheckpoint(say("{file} is missing.", file=name)) from error
        if found != expected["sha256"]:
            raise DamagedCheckpoint(say("{file} was changed.", file=name))
    return manifest, digest


def _read(path: Path, manifest: dict[str, Any]) -> Snapshot:
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensors] = {
            name.removesuffix(TENSORS): load_file(path / name)
            for name in manifest["files"]
            if name.endswith(TENSORS)
        }
        state = json.loads((path / STATE).read_bytes())
    except Exception as error:  # hashes fit, contents do not: made by something else
        raise DamagedCheckpoint(say("its contents cannot be read.")) from error
    return Snapshot(int(manifest["step"]), tensors, state)


# ---------------------------------------------------------------- identity


def data_hashes(prefix: Path) -> dict[str, str]:
    """sha256 of the prepared files of a split, by suffix."""
    from hauslm.data.store import SUFFIXES, with_suffix

    return {
        f"{prefix.name}{suffix}": sha256_file(with_suffix(prefix, suffix))
        for suffix in SUFFIXES
        if with_suffix(prefix, suffix).is_file()
    }


def differences(before: Identity, now: Identity) -> list[Sentence]:
    """What changed, one sentence each; empty when nothing did."""
    said: list[Sentence] = []
    for key, (old, new) in _leaves_that_differ(before.settings, now.settings):
        said.append(
            say("{key}: {old} before, {new} now", key=key, old=_short(old), new=_short(new))
        )
    changed = sorted(k for k in {*before.data, *now.data} if before.data.get(k) != now.data.get(k))
    if changed:
        said.append(say("prepared examples: {files}", files=", ".join(changed)))
    if before.base != now.base:
        said.append(
            say(
                "base model: {old} before, {new} now",
                old=_base(before.base),
                new=_base(now.base),
            )
        )
    return said


def _leaves_that_differ(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _leaves_that_differ(a, b, f"{prefix}{key}.")
        elif a != b:
            yield prefix + key, (a, b)


def _short(value: Any) -> str:
    return (
        "–"
        if value is None
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def _base(base: Mapping[str, str]) -> str:
    return f"{base.get('id', '?')} ({base.get('sha256', '')[:12]})"


def check_identity(found: Found, now: Identity, accept_change: bool) -> list[Sentence]:
    """Refuse to continue something else (H612, with the differences) unless the user accepts them."""
    changed = differences(found.identity, now)
    if changed and not accept_change:
        raise RefusedError(
            "H612",
            say(
                "The checkpoint of step {step} belongs to another run: {changes}.",
                step=found.snapshot.step,
                changes=joined(changed),
            ),
            where=str(found.path),
            next_step=say(
                "Put it back as it was, start anew with --fresh, or start from its adapter with --accept-change."
            ),
        )
    return changed


def joined(parts: list[Sentence]) -> Sentence:
    """Sentences in one line, still translatable."""
    if len(parts) == 1:
        return parts[0]
    return say("{first}; {rest}", first=parts[0], rest=joined(parts[1:]))


# ---------------------------------------------------------------- optimizer without pickle


def optimizer_state(optimizer: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and JSON."""
    import torch

    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, entry in state["state"].items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    groups = [{k: _plain(v) for k, v in group.items()} for group in state["param_groups"]]
    return tensors, {"groups": groups, "scalars": scalars}


def load_optimizer_state(optimizer: Any, tensors: Tensors, plain: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain["scalars"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [
        {k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in plain["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return float(value)  # a tensor learning rate (capturable optimizers)


def tensors_sha256(tensors: Tensors) -> str:
    """One hash over named tensors, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        with suppress(RuntimeError):
            import torch

            tensor = (
                tensor.view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)
            )
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
