"""Paths in, documents out: every usable file as documents, every other file named with its reason.

    documents, rejected = read_documents(["articles"], root, Limits())
    for document in documents: ...      # rejected fills while this runs

Nothing a file contains may stop the others: damaged, hostile, encrypted and empty files end in
`rejected`. PDFs run ahead in parallel, because each is a process of its own; the order of the documents
is that of the sorted paths regardless.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hauslm.base.errors import DataError, did_you_mean
from hauslm.base.files import utf8_name
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, say
from hauslm.data.document import (
    UNKNOWN_LANGUAGE,
    Document,
    Limits,
    Refusal,
    UnreadableError,
    encodable,
)
from hauslm.data.hidden import with_hidden
from hauslm.data.language import detect
from hauslm.data.readers import Reader, reader_for, suffixes
from hauslm.records import Rejected, Said

# Files that accompany documents; a folder is full of them and nobody means them.
_COMPANIONS = ("readme", "license", "licence", "lizenz", "notice", "attribution", "manifest", "sha256sums",
               "changelog", "contributing", "citation")  # fmt: skip
_LISTED = 3  # damaged lines of one file listed one by one; the rest is counted per reason
_AHEAD = 2  # files read ahead per core


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read: where it is, how it is called in records, whether the user named it itself."""

    path: Path
    shown: str
    named: bool

    @property
    def size_bytes(self) -> int:
        """-1 for a link to nowhere."""
        return int(self.stamp()[1])

    def stamp(self) -> list[str | int]:
        """Name, size in bytes and time in ns: what changes with the file. A link to nowhere has neither."""
        try:
            status = self.path.stat()
        except OSError:
            return [self.shown, -1, -1]
        return [self.shown, status.st_size, status.st_mtime_ns]


def find_files(paths: Sequence[str], root: Path) -> list[Source]:
    """The files that files, folders and globs stand for, sorted, each once.

    Raises `DataError` H301 for a path that does not exist or a glob that finds nothing.
    """
    found: dict[Path, Source] = {}
    for text in paths:
        for path, named in _expand(text, root):
            # Not `Path.resolve`, which raises for a link that leads to itself.
            resolved = Path(os.path.realpath(path))
            if resolved not in found or named:
                found[resolved] = Source(path, _shown(path, root), named)
    return sorted(found.values(), key=lambda s: s.shown)


def _expand(text: str, root: Path) -> list[tuple[Path, bool]]:
    path = root / Path(text).expanduser()
    if path.is_dir():
        return [(p, False) for p in _walk(path)]
    if path.exists() or path.is_symlink():
        return [(path, True)]
    if glob.has_magic(text):
        hits = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - absolute
        if hits:
            return [(p, True) for p in hits if not p.is_dir()]
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(
        "H301",
        say("There are no documents at '{path}'.", path=text),
        where=str(path),
        next_step=did_you_mean(path.name, siblings)
        or say("Put the documents there, or name another path under documents: paths."),
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, sorted; hidden ones are left out. A linked folder is not entered, because it may
    lead back here; it is given like a file, so that its refusal is told."""
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        linked = [f for f in folders if (Path(current) / f).is_symlink()]
        for name in sorted([*files, *linked]):
            if not name.startswith("."):
                yield Path(current) / name


def _shown(path: Path, root: Path) -> str:
    absolute = Path(os.path.normpath(path))
    base = root.resolve()
    shown = (
        absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else str(absolute)
    )
    return utf8_name(shown)


def read_documents(
    paths: Sequence[str],
    root: Path,
    limits: Limits | None = None,
    text_field: str = "text",
    progress: Progress | None = None,
    *,
    minimum_characters: int = 0,
    workers: int | None = None,
    keep: Callable[[Source], bool] | None = None,
) -> tuple[Iterator[Document], list[Rejected]]:
    """All documents behind `paths`, and the list that names what was not used (fills meanwhile).

    Files that `keep` says no to are neither read nor named: another process has them. Documents have a unique `id`, their `source_file`, a language (declared, else detected) and their
    `sha256`. A document shorter than `minimum_characters` is rejected.
    """
    sources = [s for s in find_files(paths, root) if keep is None or keep(s)]
    limits = replace(limits or Limits(), text_field=text_field)
    rejected: list[Rejected] = []
    return (
        _documents(sources, limits, rejected, progress or Silent(), minimum_characters, workers),
        rejected,
    )


def _documents(
    sources: list[Source],
    limits: Limits,
    rejected: list[Rejected],
    progress: Progress,
    minimum_characters: int,
    workers: int | None,
) -> Iterator[Document]:
    seen: Counter[str] = Counter()
    count = 0
    for done, (source, found) in enumerate(_results(sources, limits, workers)):
        same: dict[str, list[Sentence]] = {}
        for item in found:
            if isinstance(item, Refusal):
                place = f"{source.shown}:{item.place}" if item.place else source.shown
                alike = same.setdefault(item.reason.text("en"), [])
                alike.append(item.reason)
                if len(alike) <= _LISTED:
                    rejected.append(Rejected(file=place, reason=Said.of(item.reason)))
                continue
            document = _finish(item, source, seen)
            unfit = _unfit(document, minimum_characters)
            if unfit is not None:
                rejected.append(
                    Rejected(file=f"{source.shown} ({document.id})", reason=Said.of(unfit))
                )
                continue
            count += 1
            yield document
        for alike in same.values():
            if len(alike) > _LISTED:
                further = say(
                    "Further lines with the same trouble: {count:,}. {reason}",
                    count=len(alike) - _LISTED,
                    reason=alike[0],
                )
                rejected.append(Rejected(file=source.shown, reason=Said.of(further)))
        progress.step(
            say("Reading documents"),
            done + 1,
            len(sources),
            documents=count,
            rejected=len(rejected),
        )


def _results(
    sources: list[Source], limits: Limits, workers: int | None
) -> Iterator[tuple[Source, Iterator[Document | Refusal]]]:
    """Each source with its findings, in order; PDFs are read ahead by a few threads."""
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: deque[tuple[Source, Future[list[Document | Refusal]] | None]] = deque()
        rest = iter(sources)

        def refill() -> None:
            while len(waiting) < workers * _AHEAD:
                source = next(rest, None)
                if source is None:
                    return
                slow = source.path.suffix.lower() == ".pdf"
                waiting.append((source, pool.submit(_whole, source, limits) if slow else None))

        refill()
        while waiting:
            source, future = waiting.popleft()
            refill()
            yield source, iter(future.result()) if future is not None else _one_file(source, limits)


def _whole(source: Source, limits: Limits) -> list[Document | Refusal]:
    return list(_one_file(source, limits))


def _one_file(source: Source, limits: Limits) -> Iterator[Document | Refusal]:
    """Findings of one file; whatever goes wrong in it becomes a refusal."""
    try:
        reader = _reader(source)
        if isinstance(reader, Sentence):
            yield Refusal(reader)
            return
        any_document = False
        for item in reader.read(source.path, limits):
            any_document = True
            yield item
        if not any_document:
            yield Refusal(say("The file contains no document."))
    except UnreadableError as error:
        yield Refusal(error.reason)
    except (MemoryError, RecursionError):
        yield Refusal(say("The file is nested too deeply or too large to be read."))
    except OSError as error:
        yield Refusal(_not_opened(error))
    except Exception as error:  # a reader met something nobody foresaw: this file only
        yield Refusal(
            say(
                "The file cannot be understood ({kind}: {reason}).",
                kind=type(error).__name__,
                reason=str(error)[:200],
            )
        )


def _not_opened(error: OSError) -> Sentence:
    """Why a file could not be opened: the usual causes in words, the rest as the system says it."""
    if error.errno == errno.ELOOP:
        return say("The file is a link that leads to itself.")
    if error.errno == errno.ENOENT:
        return say("The file is not there, or a link to one that is not there.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return say("The file may not be read by you.")
    return say("The file cannot be opened: {reason}.", reason=error.strerror or str(error))


def _reader(source: Source) -> Reader | Sentence:
    mode = source.path.stat().st_mode
    if stat.S_ISDIR(mode):
        return say(
            "This is a linked folder, which is not entered; name it under documents: paths to use it."
        )
    if not stat.S_ISREG(mode):
        return say("This is not an ordinary file.")
    stem = source.path.stem.lower()
    if not source.named and any(stem.startswith(c) for c in _COMPANIONS):
        return say(
            "It accompanies the documents; name the file itself under documents: paths to use it."
        )
    reader = reader_for(source.path)
    if reader is None:
        if source.path.suffix.lower() in (".xml", ".nxml", ".tei"):
            return say("The XML is neither JATS nor TEI.")
        return say(
            "Files of this kind are not read; known are {suffixes}.", suffixes=", ".join(suffixes())
        )
    return reader


def _finish(document: Document, source: Source, seen: Counter[str]) -> Document:
    """Unique id, source file, language and hash."""
    id_ = encodable(document.id)
    seen[id_] += 1
    unique = id_ if seen[id_] == 1 else f"{id_}#{seen[id_]}"
    named = replace(
        document,
        id=unique,
        title=encodable(document.title) or unique,
        licence=encodable(document.licence),
        doi=encodable(document.doi),
        source_file=source.shown,
        language=document.language
        if document.language not in ("", UNKNOWN_LANGUAGE)
        else detect(document.text),
    )
    return with_hidden(named).with_hash()


def _unfit(document: Document, minimum_characters: int) -> Sentence | None:
    if not document.text.strip():
        return say("The document has no text.")
    if len(document.text) < minimum_characters and not document.messages:
        return say(
            "The document has {characters:,} characters, fewer than the {minimum:,} of documents: "
            "minimum_characters.",
            characters=len(document.text),
            minimum=minimum_characters,
        )
    return None


__all__ = ["Limits", "Source", "find_files", "read_documents"]
