"""The instruments: processes that are killed at a chosen call, small disks, and the standard run."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hauslm.base.errors import HauslmError
from hauslm.train import seal
from tests.train.conftest import Project

ADAPTER = {"lora_dropout": 0.1}
TRAINING = {"max_steps": 6, "checkpoint_every_steps": 2, "validate_every_steps": 3}
CALLS = ("write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
FAILED = 99  # exit status of a child for what is no error of the family


@dataclass(frozen=True)
class Trial:
    """One fault that was caused: was the promise kept?"""

    kept: bool
    what: str


class Lab:
    """A folder for the trials; `whole` is the adapter of the uninterrupted run."""

    def __init__(self, root: Path) -> None:
        import torch

        torch.set_num_threads(1)
        self.root = root
        self._numbers = itertools.count()
        self.template = Project(root / "template")
        started = time.monotonic()
        run = self.project().run(TRAINING, ADAPTER)
        self.seconds = time.monotonic() - started
        self.whole = run.adapter.sha256

    def folder(self) -> Path:
        path = self.root / f"t{next(self._numbers)}"
        path.mkdir()
        return path

    def project(self, of: Project | None = None) -> Project:
        """A fresh project, or a copy of one in whatever state it is."""
        source = (of or self.template).folder.root
        target = self.root / f"p{next(self._numbers)}"
        shutil.copytree(source, target)
        project = Project.__new__(Project)
        project.__dict__.update((of or self.template).__dict__)
        project.folder = type(self.template.folder)(target)
        return project

    def drop(self, project: Project) -> None:
        shutil.rmtree(project.folder.root, ignore_errors=True)

    def checkpoints(self, project: Project) -> list[Path]:
        return project.checkpoints

    def finishes(self, project: Project) -> bool:
        """Resumed, does it end with the adapter of the uninterrupted run?"""
        run = project.run(TRAINING, ADAPTER, resume=True)
        return run.adapter.sha256 == self.whole and run.determinism == "bitwise"


def newest(project: Project) -> tuple[int, bool]:
    """(newest sound step or -1, is every checkpoint that claims to be one sound?)."""
    sound, all_sound = -1, True
    for path in project.checkpoints:
        try:
            manifest, _ = seal.verify(path)
            sound = int(manifest["step"])
        except seal.DamagedCheckpoint:
            all_sound = False
    return sound, all_sound


# ---------------------------------------------------------------- children


def fork(action: Callable[[], Any]) -> int:
    """Run `action` in a child; it exits with an error's code, 0, or FAILED. Saves importing torch."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = FAILED
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        if not os.environ.get("CAMPAIGN_LOUD"):
            os.dup2(null, 2)
        action()
        code = 0
    except HauslmError as error:
        code = error.exit_code
    except BaseException:
        if os.environ.get("CAMPAIGN_LOUD"):
            import traceback

            traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int, seconds: float = 120) -> int:
    """Exit status of a child, negative for a signal; one that hangs is killed and FAILED."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return FAILED


@contextmanager
def at_call(number: int, action: Callable[[], None], names: tuple[str, ...] = CALLS) -> Iterator[list[str]]:  # fmt: skip
    """Do `action` before the n-th of these calls, in whatever thread; yields the calls so far."""
    calls: list[str] = []
    guard = threading.Lock()

    def hooked(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with guard:
                calls.append(name)
                mine = len(calls)
            if mine == number:
                action()
            return real(*args, **kwargs)

        return call

    with mock.patch.multiple(os, **{n: hooked(n) for n in names}):
        yield calls


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(number: int, action: Callable[[], Any]) -> int:
    """Exit status of a child that is killed at the n-th call: -9, or 0 if it made fewer."""

    def child() -> None:
        with at_call(number, die):
            action()

    return ended(fork(child))


# ---------------------------------------------------------------- small disks

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """In a child: a user and mount namespace of its own, so that it may mount. OSError if forbidden."""
    uid, gid = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    with suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), str(target).encode(), kind.encode() or None)
    if _libc().mount(*arguments, flags, options.encode() or None):
        raise OSError(ctypes.get_errno(), "mount", str(target))


def small_disk(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mount("none", folder, "tmpfs", 0, options)


def grow(folder: Path, options: str) -> None:
    mount("none", folder, "tmpfs", _MS_REMOUNT, options)


def read_only(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mount(str(folder), folder, "", _MS_BIND)
    mount("none", folder, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def may_mount() -> bool:
    """May a child have mounts of its own here?"""
    return ended(fork(own_mounts)) == 0
