"""How do installed packages become wheels again, without any network? File by file, by their RECORD.

A wheel is a zip of what pip unpacks, and RECORD says what that was, with hashes. So the very versions
that run here can be carried to a machine without network, including a torch build that no public index
offers under that name. A file that differs from its RECORD stops the packing: nothing altered travels.
Format: packaging.python.org/specifications/binary-distribution-format.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.words import say

_DATE = (1980, 1, 1, 0, 0, 0)  # the same on every day: same packages, same bytes
_NOT_CARRIED = ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json")
_LEVEL = 1  # weights and compiled code hardly shrink; speed counts


@dataclass(frozen=True)
class Wheel:
    name: str
    version: str
    file: str
    sha256: str


def closure(root: str) -> list[metadata.Distribution]:
    """The installed distributions that `root` needs on this machine, itself included, by name.

    H765 if one that is called for is not installed.
    """
    from packaging.requirements import Requirement

    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        name, extra = waiting.pop()
        key = _normal(name)
        if (key, extra) in done:
            continue
        done.add((key, extra))
        dist = found.get(key) or _distribution(name)
        found[key] = dist
        for line in dist.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not marker.evaluate({"extra": extra}):
                continue
            waiting += [(requirement.name, e) for e in ("", *sorted(requirement.extras))]
    return [found[k] for k in sorted(found)]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise MissingError(
            "H765",
            say("The package {name} is called for and not installed here.", name=name),
            next_step=say("Install hauslm completely (make install), then pack again."),
        ) from error


def write(dist: metadata.Distribution, folder: Path) -> Wheel:
    """The distribution as a wheel in `folder`. H766 if an installed file is not as RECORD says."""
    name, version = dist.metadata["Name"], dist.version
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    path = folder / f"{stem}-{_tags(dist, name)}.whl"
    record: list[tuple[str, str, int]] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        info_folder = f"{stem}.dist-info"
        for inside, data, mode in sorted(_files(dist, stem, info_folder), key=lambda f: f[0]):
            _add(archive, inside, data, mode)
            record.append((inside, _urlsafe(hashlib.sha256(data).digest()), len(data)))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows((n, f"sha256={h}", s) for n, h, s in record)
        writer.writerow((f"{info_folder}/RECORD", "", ""))
        _add(archive, f"{info_folder}/RECORD", text.getvalue().encode(), 0o644)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return Wheel(name, version, path.name, digest.hexdigest())


def _add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    archive.writestr(info, data, compresslevel=_LEVEL)


def _urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _tags(dist: metadata.Distribution, name: str) -> str:
    """`cp311-cp311-manylinux_2_17_x86_64`, from the WHEEL file that pip kept."""
    text = dist.read_text("WHEEL") or ""
    rows = [line.split(":", 1)[1].strip().split("-") for line in text.splitlines() if line.startswith("Tag:")]  # fmt: skip
    if not rows or any(len(r) != 3 for r in rows):
        raise MissingError(
            "H765",
            say("The package {name} was not installed from a wheel.", name=name),
            next_step=say("Install hauslm completely (make install), then pack again."),
        )
    return "-".join(".".join(dict.fromkeys(column)) for column in zip(*rows, strict=True))


def _files(
    dist: metadata.Distribution, stem: str, info_folder: str
) -> Iterator[tuple[str, bytes, int]]:
    """(name in the wheel, bytes, mode) of every file that an installer would need again."""
    editable = _editable_root(dist)
    if editable is not None:
        yield from _tree(editable)
    scripts = {e.name for e in dist.entry_points if e.group in ("console_scripts", "gui_scripts")}
    for file in dist.files or ():
        parts = PurePosixPath(file.as_posix()).parts
        if "__pycache__" in parts or file.suffix == ".pyc":
            continue
        own_info = len(parts) > 1 and parts[0].endswith(".dist-info")
        if own_info and parts[-1] in _NOT_CARRIED:
            continue
        if editable is not None and not own_info:
            continue  # the .pth file and finder of an editable install
        path = Path(str(dist.locate_file(file)))
        if parts[0] == "..":
            outside = [p for p in parts if p != ".."]
            if outside[0] in ("bin", "Scripts") and outside[-1] in scripts:
                continue  # pip makes it anew from the entry points
            yield _outside(dist, file, path, outside, stem)
            continue
        inside = "/".join((info_folder, *parts[1:])) if own_info else "/".join(parts)
        yield inside, _checked(dist, file, path), path.stat().st_mode & 0o777


def _outside(
    dist: metadata.Distribution, file: metadata.PackagePath, path: Path, parts: list[str], stem: str
) -> tuple[str, bytes, int]:
    """What was installed beside site-packages: scripts (first line made neutral) and data."""
    data, mode = _checked(dist, file, path), path.stat().st_mode & 0o777
    if parts[0] in ("bin", "Scripts"):
        line, newline, rest = data.partition(b"\n")
        if line.startswith(b"#!") and b"python" in line:
            data = b"#!python" + newline + rest
        return "/".join((f"{stem}.data", "scripts", *parts[1:])), data, mode
    return "/".join((f"{stem}.data", "data", *parts)), data, mode


def _checked(dist: metadata.Distribution, file: metadata.PackagePath, path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _changed(dist, path) from error
    known = file.hash
    digest = _urlsafe(hashlib.sha256(data).digest())
    if known is not None and known.mode == "sha256" and digest != known.value:
        raise _changed(dist, path)
    return data


def _changed(dist: metadata.Distribution, path: Path) -> RefusedError:
    return RefusedError(
        "H766",
        say(
            "A file of the installed package {name} is missing or was changed.",
            name=dist.metadata["Name"],
        ),
        where=str(path),
        next_step=say("Install the package again, then pack."),
    )


def _editable_root(dist: metadata.Distribution) -> Path | None:
    """The package folder of an editable install (a developer's own), else None."""
    about = json.loads(dist.read_text("direct_url.json") or "{}")
    if not about.get("dir_info", {}).get("editable"):
        return None
    import importlib

    module = importlib.import_module(re.sub(r"[-.]+", "_", dist.metadata["Name"]))
    return Path(module.__path__[0])


def _tree(root: Path) -> Iterator[tuple[str, bytes, int]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            inside = path.relative_to(root.parent).as_posix()
            yield inside, path.read_bytes(), path.stat().st_mode & 0o777
