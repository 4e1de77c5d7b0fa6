"""What is a `.hlm` file? A flat zip: stored entries, fixed order and times, so equal input gives equal bytes.

Reading is the careful half: names, sizes and structure are checked before a byte is read, nothing is
ever unpacked blindly, and a file that claims more than it holds is refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.words import Sentence, say

SUFFIX = ".hlm"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
MAX_ENTRIES = 32
MAX_FILE_BYTES = (4 << 30) - 1  # zip without its 64-bit extension
MAX_TEXT_BYTES = 16 << 20  # everything but the weights
TENSORS = "adapter_model.safetensors"
TOKENIZER = "tokenizer.json"
_DATE_1980 = 33  # 1980-01-01 as a zip date: the earliest it can say, the same on every day
_FILE_MODE = 0o100644 << 16


def _skeleton(entries: Sequence[tuple[str, int, int]]) -> tuple[list[bytes], bytes]:
    """(name, size, crc) in order -> the header before each entry, and the directory at the end.

    Everything of the file that is not an entry's own bytes. `write` puts it there and `open_checked`
    compares it byte by byte, so nothing can hide between the entries (APPNOTE.TXT 6.3.3, 4.3.7-4.3.16).
    """
    headers, directory, offset = [], b"", 0
    for name, size, crc in entries:
        raw = name.encode("ascii")
        shared = struct.pack("<5H3L2H", 20, 0, 0, 0, _DATE_1980, crc, size, size, len(raw), 0)
        headers.append(b"PK\x03\x04" + shared + raw)
        made_by = struct.pack("<H", 3 << 8 | 20)  # 3: the external attributes are Unix modes
        directory += (
            b"PK\x01\x02"
            + made_by
            + shared
            + struct.pack("<3H2L", 0, 0, 0, _FILE_MODE, offset)
            + raw
        )
        offset += len(headers[-1]) + size
    count = len(entries)
    end = struct.pack("<4H2LH", 0, 0, count, count, len(directory), offset, 0)
    return headers, directory + b"PK\x05\x06" + end


def write(entries: Mapping[str, bytes]) -> bytes:
    """The archive's bytes: names sorted, stored, no times, no comments. Under 4 GiB (no zip64)."""
    for name in entries:
        if not NAME.match(name):
            raise ValueError(f"bad entry name {name!r}")
    ordered = sorted(entries)
    headers, end = _skeleton([(n, len(entries[n]), zlib.crc32(entries[n])) for n in ordered])
    return b"".join(h + entries[n] for h, n in zip(headers, ordered, strict=True)) + end


def refused(code: str, what: Sentence, path: Path | str) -> RefusedError:
    return RefusedError(
        code,
        what,
        where=str(path),
        next_step=say("Do not load it; ask the sender for a new bundle made by hauslm bundle."),
    )


def open_checked(path: Path) -> zipfile.ZipFile:
    """The archive, if its structure is sound (H701-H706); its entries' contents are not read yet."""
    if not path.is_file():
        raise DataError(
            "H700", say("There is no such file."), where=str(path), next_step=say("Check the path.")
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise refused("H701", say("The bundle is larger than 4 GiB."), path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refused("H702", say("This is not a bundle (no readable zip file)."), path) from error
    problem = _structure_problem(archive)
    if problem is None and not _is_canonical(archive, path):
        problem = say("The bundle carries bytes that hauslm bundle does not write.")
    if problem is not None:
        archive.close()
        raise refused("H703", problem, path)
    return archive


def _structure_problem(archive: zipfile.ZipFile) -> Sentence | None:
    infos = archive.infolist()
    if not infos or len(infos) > MAX_ENTRIES:
        return say(
            "The bundle has {count} entries; 1 to {limit} are allowed.",
            count=len(infos),
            limit=MAX_ENTRIES,
        )
    names = [i.filename for i in infos]
    if len({n.lower() for n in names}) != len(names):
        return say("Two entries of the bundle have the same name.")
    for info in infos:
        if not NAME.match(info.filename):
            return say("The entry name '{name}' is not allowed.", name=info.filename[:80])
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            return say(
                "The entry '{name}' is compressed; bundles store their entries as they are.",
                name=info.filename,
            )
        if info.flag_bits & 0x1:
            return say("The entry '{name}' is encrypted.", name=info.filename)
        kind = (info.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000):
            return say("The entry '{name}' is not a plain file.", name=info.filename)
        if info.filename not in (TENSORS, TOKENIZER) and info.file_size > MAX_TEXT_BYTES:
            return say("The entry '{name}' is larger than 16 MiB.", name=info.filename)
    return None


def _is_canonical(archive: zipfile.ZipFile, path: Path) -> bool:
    """Is every byte outside the entries the one that `write` puts there?"""
    infos = archive.infolist()
    if [i.filename for i in infos] != sorted(i.filename for i in infos):
        return False
    headers, end = _skeleton([(i.filename, i.file_size, i.CRC) for i in infos])
    with path.open("rb") as stream:
        for header, info in zip(headers, infos, strict=True):
            if stream.read(len(header)) != header:
                return False
            stream.seek(info.file_size, 1)
        return stream.read(len(end) + 1) == end
