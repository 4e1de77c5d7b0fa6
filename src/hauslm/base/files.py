"""How does anything get onto the disk without being half there? Sealed writes, journals, locks.

A sealed write is staged beside its target, fsynced, renamed over it, and the folder is fsynced: a
reader sees the old file or the new one, never half of either. A journal is an append-only JSONL file
whose torn last line (a crash in mid-write) is dropped on reading and said so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, MissingError, RefusedError, UsageError
from hauslm.base.words import say

CHUNK_BYTES = 1 << 20
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_tree(folder: Path, names: Iterable[str] | None = None) -> str:
    """One hash for a folder: over the sorted (relative name, file hash) pairs."""
    digest = hashlib.sha256()
    wanted = None if names is None else set(names)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if wanted is None or relative in wanted:
            digest.update(f"{relative}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def utf8_name(name: str) -> str:
    """The name of a file as records can hold it: on Linux a name may be any bytes, in UTF-8 it may not."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that hashes are taken of."""
    return _CANONICAL.encode(value).encode()


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError, path: Path) -> MissingError:
    """A full disk, a read-only mount or a missing right, told as a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = say("The disk is full: {path} could not be written.", path=str(path))
        step = say("Free some space and run the same command again; nothing sealed was lost.")
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        what = say("{path} may not be written here.", path=str(path))
        step = say("Choose a folder that you may write to with -C DIR.")
    else:
        what = say("{path} could not be written: {reason}.", path=str(path), reason=error.strerror)
        step = say("Check the disk and run the same command again.")
    return MissingError("H510", what, next_step=step)


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """What the disk refuses inside the block is told as H510, whichever library met it."""
    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    try:
        yield
    except OSError as error:
        if error.errno not in refusals:
            raise
        raise disk_error(error, Path(str(error.filename or folder))) from error


def write_sealed(path: Path, data: bytes | str, *, mode: int = 0o644) -> str:
    """Write `data` to `path` atomically and durably; returns its sha256.

    Raises `MissingError` (H510) when the disk refuses; the old file is then untouched.
    """
    raw = data.encode() if isinstance(data, str) else data
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(staged, flags, mode)
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        staged.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            staged.unlink()
        raise disk_error(error, path) from error
    return sha256_bytes(raw)


def write_json(path: Path, value: Any) -> str:
    return write_sealed(
        path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
    )


def read_json(path: Path) -> Any:
    """The JSON value in `path`; `DataError` H310 if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also numbers beyond Python's limit, bad UTF-8
        raise DataError(
            "H310",
            say("This file is not valid JSON ({reason}).", reason=str(error)),
            where=str(path),
            next_step=say("Delete the file; the stage that writes it will run again."),
        ) from error


class Journal:
    """An append-only JSONL file: every `append` is on the disk when it returns."""

    def __init__(self, path: Path, *, fsync_every: int = 1) -> None:
        self.path = path
        self.torn_bytes = 0
        self._fsync_every = fsync_every
        self._unsynced = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rows = list(self._read_and_mend())
            self._stream = path.open("ab")
        except OSError as error:
            raise disk_error(error, path) from error

    def _read_and_mend(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        self.torn_bytes = len(raw) - len(whole)
        if self.torn_bytes:
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))
                os.fsync(stream.fileno())
        for line_number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                yield row
            except (ValueError, RecursionError) as error:
                raise DataError(
                    "H311",
                    say("Line {line} of the journal is damaged.", line=line_number),
                    where=str(self.path),
                    next_step=say(
                        "Move the file away; the finished work before it is kept elsewhere."
                    ),
                ) from error

    def append(self, row: dict[str, Any]) -> None:
        try:
            self._stream.write(canonical_json(row) + b"\n")
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._unsynced += 1
        if self._unsynced >= self._fsync_every:
            self.sync()

    def sync(self) -> None:
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error
        self._unsynced = 0

    def close(self) -> None:
        if not self._stream.closed:
            self.sync()
            self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def lock(folder: Path, what: str, doing: str = "") -> Iterator[None]:
    """Only one process does `what` in `folder`; a second one is refused (H410), not queued.

    `doing`: what the process that holds the lock is told to be running; else `what`.

    The lock is the kernel's (flock), so a killed process leaves no stale lock behind.
    """
    import fcntl

    path = folder / f".{what}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner, _, running = os.pread(descriptor, 64, 0).decode(errors="replace").partition(" ")
            raise RefusedError(
                "H410",
                say(
                    "Process {pid} is already running '{what}' in this folder.",
                    pid=owner.strip() or "?",
                    what=running.strip() or what,
                ),
                where=str(folder),
                next_step=say("Wait for it to finish, or choose another folder with -C DIR."),
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {doing or what}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class ProjectFolder:
    """The user's folder: one place for every path that hauslm reads or writes."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()

    @property
    def file(self) -> Path:
        return self.root / "hauslm.yaml"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def work(self) -> Path:
        """Everything that can be made again: packed examples, checkpoints, caches."""
        return self.root / "work"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def trained_model(self) -> Path:
        """Where training.method full writes: a whole model, not an adapter."""
        return self.root / "trained_model"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def analysis(self) -> Path:
        return self.root / "analysis"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def record(self, name: str) -> Path:
        return self.records / f"{name}.json"

    def relative(self, path: Path) -> str:
        """The path as records show it: relative inside the project, absolute outside."""
        path = path.resolve()
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    def inside(self, name: str | Path, *, where: str = "") -> Path:
        """A path to write to: must stay inside the project folder (H110 otherwise)."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise UsageError(
                "H110",
                say("{path} lies outside the project folder.", path=str(name)),
                where=where,
                next_step=say("Give a path below {root}.", root=str(self.root)),
            )
        return path
