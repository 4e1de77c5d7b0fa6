"""Which formats can be read? The folder is the registry: one module per format.

Each module has `NAME`, `SUFFIXES` and `read(path, limits)`, a generator of `Document` and `Refusal`
(a line or row that was not used) that raises `UnreadableError` when the whole file cannot be used. Where
two formats share a suffix (.xml), `accepts(head)` looks at the first bytes. Modules whose name begins
with an underscore are shared parts. To add a format: one file here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

from hauslm.data.document import Document, Limits, Refusal

HEAD_BYTES = 64 << 10


class Reader(Protocol):
    NAME: str
    SUFFIXES: tuple[str, ...]

    def read(self, path: Path, limits: Limits) -> Iterator[Document | Refusal]: ...


@lru_cache(maxsize=1)
def readers() -> dict[str, Reader]:
    """Every reader of this folder by its name."""
    found: dict[str, Reader] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            loaded = cast(Reader, importlib.import_module(f"{__name__}.{module.name}"))
            found[loaded.NAME] = loaded
    return dict(sorted(found.items()))


def suffixes() -> tuple[str, ...]:
    return tuple(sorted({s for reader in readers().values() for s in reader.SUFFIXES}))


def reader_for(path: Path) -> Reader | None:
    """The reader for a file by suffix, and by its beginning where several share one; else None."""
    name = path.name.lower()
    fitting = [r for r in readers().values() if any(name.endswith(s) for s in r.SUFFIXES)]
    if len(fitting) <= 1:
        return fitting[0] if fitting else None
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    for reader in fitting:
        if getattr(reader, "accepts", lambda _: True)(head):
            return reader
    return None
