"""What is on the disk after a power cut? A model of a file system that keeps only what it must.

`Recorder` notes every create, write, fsync, rename and removal below a folder. `Disk` replays the first n
of them and then loses power: file contents survive if the file was fsynced (else: nothing, or a torn half),
names survive if their folder was fsynced; of the changes of names that nobody fsynced, any prefix and any
single one may have reached the disk, for file systems reorder them. Stricter than ext4 or XFS are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Operation = tuple[Any, ...]


class Recorder:
    """The operations below `root` since `recording` began."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Operation] = []
        self._open: dict[int, str] = {}

    def _inside(self, path: Any) -> str | None:
        try:
            return str(Path(os.fspath(path)).resolve(strict=False).relative_to(self.root.resolve()))
        except (ValueError, TypeError):
            return None

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        real = {n: getattr(os, n) for n in ("open", "close", "write", "fsync", "mkdir", "rmdir", "unlink", "rename", "replace")}  # fmt: skip

        def at(path: Any, dir_fd: int | None) -> str | None:
            if dir_fd is not None:  # shutil.rmtree works relative to an open folder
                return str(Path(self._open.get(dir_fd, "?")) / os.fspath(path))
            return self._inside(path)

        def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            name = at(path, kwargs.get("dir_fd"))
            new = bool(flags & os.O_CREAT) and name is not None and not (self.root / name).exists()
            descriptor: int = real["open"](path, flags, *args, **kwargs)
            if name is not None:
                self._open[descriptor] = name
                if new:
                    self.log.append(("create", name))
            return descriptor

        def close(descriptor: int) -> None:
            self._open.pop(descriptor, None)
            real["close"](descriptor)

        def write(descriptor: int, data: Any) -> int:
            count: int = real["write"](descriptor, data)
            if descriptor in self._open:
                self.log.append(("write", self._open[descriptor], bytes(data)[:count]))
            return count

        def fsync(descriptor: int) -> None:
            real["fsync"](descriptor)
            if descriptor in self._open:
                self.log.append(("fsync", self._open[descriptor]))

        def one(kind: str) -> Callable[..., Any]:
            def call(path: Any, *args: Any, **kwargs: Any) -> Any:
                name = at(path, kwargs.get("dir_fd"))
                result = real[kind](path, *args, **kwargs)
                if name is not None:
                    self.log.append((kind, name))
                return result

            return call

        def two(kind: str) -> Callable[..., Any]:
            def call(source: Any, target: Any, **kwargs: Any) -> Any:
                old, new = self._inside(source), self._inside(target)
                result = real[kind](source, target, **kwargs)
                if old is not None and new is not None:
                    self.log.append(("rename", old, new))
                return result

            return call

        changed = {"open": open_, "close": close, "write": write, "fsync": fsync}
        changed |= {n: one(n) for n in ("mkdir", "rmdir", "unlink")}
        changed |= {n: two(n) for n in ("rename", "replace")}
        with mock.patch.multiple(os, **changed):
            yield self


@dataclass
class Node:
    """A file (contents) or a folder (names -> nodes), now and on the disk."""

    folder: bool
    now: Any = None
    durable: Any = None
    changes: list[Change] = field(default_factory=list)  # of a folder: not fsynced yet


@dataclass
class Change:
    """Of names, all at once: (folder, name, node or None)."""

    steps: list[tuple[Node, str, Node | None]]


class Disk:
    """Starts as a copy of `root`, all of it durable."""

    def __init__(self, root: Path) -> None:
        self.root = self._load(root)
        self.pending: list[Change] = []

    def _load(self, path: Path) -> Node:
        if path.is_dir():
            inside = {p.name: self._load(p) for p in path.iterdir()}
            return Node(True, inside, dict(inside))
        data = path.read_bytes()
        return Node(False, data, data)

    def _find(self, name: str) -> Node:
        node = self.root
        for part in Path(name).parts:
            node = node.now[part]
        return node

    def _parent(self, name: str) -> tuple[Node, str]:
        path = Path(name)
        return self._find(str(path.parent)), path.name

    def _change(self, *steps: tuple[Node, str, Node | None]) -> None:
        for folder, name, node in steps:
            if node is None:
                del folder.now[name]
            else:
                folder.now[name] = node
        self.pending.append(Change(list(steps)))

    def apply(self, operation: Operation) -> None:
        kind, name, *rest = operation
        if kind in ("create", "mkdir"):
            folder = kind == "mkdir"
            node = Node(folder, {} if folder else b"", {} if folder else b"")
            self._change((*self._parent(name), node))
        elif kind in ("unlink", "rmdir"):
            self._change((*self._parent(name), None))
        elif kind == "rename":
            node = self._find(name)
            self._change((*self._parent(name), None), (*self._parent(rest[0]), node))
        elif kind == "write":
            self._find(name).now += rest[0]
        else:
            node = self._find(name)
            if not node.folder:
                node.durable = node.now
                return
            kept = []
            for change in self.pending:
                if any(folder is node for folder, _, _ in change.steps):
                    _settle(change)
                else:
                    kept.append(change)
            self.pending = kept

    def crashes(self) -> Iterator[tuple[list[int], bool]]:
        """Which pending changes reached the disk, and whether unsynced contents are torn or gone."""
        count = len(self.pending)
        chosen = [list(range(n)) for n in range(count + 1)] + [[i] for i in range(1, count)]
        for one in chosen:
            for torn in (False, True):
                yield one, torn

    def write_to(self, target: Path, reached: list[int], torn: bool) -> None:
        """What is there after the power comes back."""
        extra: dict[int, dict[str, Node | None]] = {}
        for index in reached:
            for folder, name, node in self.pending[index].steps:
                extra.setdefault(id(folder), {})[name] = node
        _write(self.root, target, extra, torn)


def _settle(change: Change) -> None:
    for folder, name, node in change.steps:
        if node is None:
            folder.durable.pop(name, None)
        else:
            folder.durable[name] = node


def _write(node: Node, target: Path, extra: dict[int, dict[str, Node | None]], torn: bool) -> None:
    if not node.folder:
        lost = node.now[len(node.durable) :]
        target.write_bytes(node.durable + (lost[: len(lost) // 2] if torn else b""))
        return
    target.mkdir(parents=True, exist_ok=True)
    names = {**node.durable, **extra.get(id(node), {})}
    for name, inside in names.items():
        if inside is not None:
            _write(inside, target / name, extra, torn)
