"""What lies in a bundle or in a folder, told the same way: names, sizes, open streams. Read only.

So that a packed bundle, the folder it was unpacked to and a stranger's PEFT folder pass the same
checks. Nothing is followed out of the folder, and nothing is written.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from hauslm.base.words import say
from hauslm.share import archive

MAX_FOLDER_FILES = 4096
_READ_FAULTS = (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError)


class Source(Protocol):
    """Files by name. `path` is what the reader knows the whole by."""

    path: Path

    def names(self) -> list[str]: ...

    def size(self, name: str) -> int: ...

    def stream(self, name: str) -> IO[bytes]: ...


class ZipSource:
    """An archive that `archive.open_checked` let pass."""

    def __init__(self, opened: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._opened = opened
        self._names = opened.namelist()

    def names(self) -> list[str]:
        return self._names

    def size(self, name: str) -> int:
        return self._opened.getinfo(name).file_size

    def stream(self, name: str) -> IO[bytes]:
        # Stored entries can seek; a buffered reader keeps small reads cheap.
        return io.BufferedReader(cast(io.RawIOBase, self._opened.open(name)))


class FolderSource:
    """A folder with everything below it; H715 if a link leads out of it, H703 if it is too much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, Path] = {}
        inside = path.resolve()
        for root, folders, files in os.walk(path, followlinks=False):
            for name in sorted([*files, *folders]):
                file = Path(root) / name
                shown = file.relative_to(path).as_posix()
                if file.is_symlink() and not file.resolve().is_relative_to(inside):
                    raise archive.refused(
                        "H715", say("{file} points outside the folder.", file=shown), path
                    )
                if file.is_dir():
                    continue
                if not file.is_file():
                    raise archive.refused(
                        "H715", say("{file} is no ordinary file.", file=shown), path
                    )
                self._files[shown] = file
                if len(self._files) > MAX_FOLDER_FILES:
                    raise archive.refused(
                        "H703",
                        say("The folder holds more than {limit:,} files.", limit=MAX_FOLDER_FILES),
                        path,
                    )

    def names(self) -> list[str]:
        return sorted(self._files)

    def size(self, name: str) -> int:
        return self._files[name].stat().st_size

    def stream(self, name: str) -> IO[bytes]:
        return self._files[name].open("rb")


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The bundle or folder at `path`, its structure checked. H700-H703, H715."""
    if path.is_dir():
        yield FolderSource(path)
        return
    with archive.open_checked(path) as zipped:
        yield ZipSource(zipped, path)


def read(source: Source, name: str) -> bytes:
    """A small file's bytes. H705 missing, H703 larger than 16 MiB, H706 damaged."""
    if name not in source.names():
        raise archive.refused("H705", say("{file} is missing.", file=name), source.path)
    if source.size(name) > archive.MAX_TEXT_BYTES:
        raise archive.refused(
            "H703", say("The entry '{name}' is larger than 16 MiB.", name=name), source.path
        )
    try:
        with source.stream(name) as stream:
            return stream.read()
    except _READ_FAULTS as error:
        raise archive.refused("H706", say("{file} is damaged.", file=name), source.path) from error


def sha256(source: Source, name: str) -> str:
    """sha256 of a file, read in pieces. H706 if it is damaged."""
    digest = hashlib.sha256()
    try:
        with source.stream(name) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except _READ_FAULTS as error:
        raise archive.refused("H706", say("{file} is damaged.", file=name), source.path) from error
    return digest.hexdigest()
