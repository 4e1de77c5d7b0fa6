"""What is a base model with more tokens? The same folder with a longer tokenizer and longer embeddings.

`model.added_tokens` names texts that shall each be one token: control marks such as <GEN>, or words of
the field that the tokenizer cuts into many pieces. A folder is made from the base's own, once, in the
project's work folder: the tokenizer knows the texts, and each gets a row in the embeddings (and in the
output head, where that is a matrix of its own): the mean of the rows of the pieces that it was cut into
before. Nothing in it is drawn by chance, so the same base and the same tokens give the same bytes on
every machine, and hashes compare. All that comes later sees an ordinary base folder; which rows learn is
the trainer's matter.

The copy costs the disk space of those weight files that hold the embeddings or the head; the others
are linked.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.files import canonical_json, disk_error, read_json, sha256_bytes, sha256_file
from hauslm.base.words import Sentence, say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FOLDER = "base-with-tokens"
SOURCE = "hauslm-source.json"  # of what the folder was made
MATRICES = ("embed_tokens.weight", "lm_head.weight")
TYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2)}
CHUNK_BYTES = 1 << 24
LONGEST = 100  # characters of a token
MOST = 10_000


@dataclass(frozen=True)
class Added:
    """The longer folder and the ids of its new tokens, in the order of the project file."""

    path: Path
    ids: tuple[int, ...]


def extended(
    base: Path,
    tokens: Sequence[str],
    work: Path,
    need_weights: bool = True,
    tell: Callable[[Sentence], None] = lambda _: None,
) -> Added:
    """`base` with `tokens`, made below `work` if it is not there already.

    Without weights in `base` (and `need_weights` off) tokenizer and config only. DataError H447 for
    tokens that are none, RefusedError H448 for a base that cannot be made longer.
    """
    names = _checked(tokens)
    whole = any(base.glob("*.safetensors"))
    if need_weights and not whole:
        raise _cannot(say("There are no weights here (no .safetensors file)."), base)
    stamp = _stamp(base, names, whole)
    target = work / FOLDER / sha256_bytes(canonical_json(stamp["identity"]))[:16]
    kept = _kept(target)
    if kept is None or kept["stamp"] != stamp:
        tell(
            say(
                "Making a base model with {count:,} more tokens; its embeddings are copied once.",
                count=len(names),
            )
        )
        _make(base, names, target, stamp, whole)
        kept = _kept(target) or {}
    return Added(target, tuple(int(i) for i in kept["ids"]))


def _checked(tokens: Sequence[str]) -> list[str]:
    for token in tokens:
        if not token.strip() or token != token.strip() or len(token) > LONGEST:
            raise _no_token(
                say(
                    "'{token}' cannot become a token: no blanks at its ends, 1 to {most} characters.",
                    token=token[:60],
                    most=LONGEST,
                )
            )
    twice = next((t for i, t in enumerate(tokens) if t in tokens[:i]), None)
    if twice is not None:
        raise _no_token(say("'{token}' is named twice.", token=twice[:60]))
    if len(tokens) > MOST:
        raise _no_token(say("More than {most:,} tokens cannot be added.", most=MOST))
    return list(tokens)


def _no_token(what: Sentence) -> DataError:
    return DataError(
        "H447", what, where="model.added_tokens",
        next_step=say("Change model.added_tokens in the project file."),
    )  # fmt: skip


def _cannot(what: Sentence, base: Path) -> RefusedError:
    return RefusedError(
        "H448", what, where=str(base), next_step=say("Leave model.added_tokens empty.")
    )


def _stamp(base: Path, names: list[str], whole: bool) -> dict[str, Any]:
    tokenizer = base / "tokenizer.json"
    if not tokenizer.is_file():
        raise _cannot(say("The base model has no tokenizer.json."), base)
    files = [(p.name, p.resolve().stat()) for p in sorted(base.glob("*.safetensors"))]
    return {
        "identity": {
            "tokens": names,
            "tokenizer": sha256_file(tokenizer),
            "config": sha256_file(base / "config.json"),
        },
        "weights": [[n, s.st_size, s.st_mtime_ns] for n, s in files] if whole else [],
    }


def _kept(target: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(target / SOURCE)
    except (DataError, OSError):
        return None
    return found if {"stamp", "ids"} <= set(found) else None


def _make(base: Path, names: list[str], target: Path, stamp: dict[str, Any], whole: bool) -> None:
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        for path in sorted(base.iterdir()):
            skipped = path.suffix == ".safetensors" or path.name.startswith(".")
            if path.is_file() and not skipped and path.suffix not in (".bin", ".pt", ".pth"):
                shutil.copyfile(path, staged / path.name)
        ids, pieces = _tokenizer(base, names, staged)
        rows = _config(base, ids, staged)
        if whole:
            _weights(base, staged, ids, pieces, rows)
        (staged / SOURCE).write_bytes(canonical_json({"stamp": stamp, "ids": ids}) + b"\n")
        shutil.rmtree(target, ignore_errors=True)
        staged.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _tokenizer(base: Path, names: list[str], staged: Path) -> tuple[list[int], list[list[int]]]:
    """(new ids, the pieces that each token was before); the longer tokenizer.json is written."""
    from tokenizers import AddedToken, Tokenizer

    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    old.no_truncation()
    old.no_padding()
    known = next((n for n in names if old.token_to_id(n) is not None), None)
    if known is not None:
        raise _no_token(say("'{token}' is a token of the base already.", token=known[:60]))
    pieces = [list(old.encode(n, add_special_tokens=False).ids) for n in names]
    empty = next((n for n, p in zip(names, pieces, strict=True) if not p), None)
    if empty is not None:
        raise _no_token(say("The base's tokenizer reads nothing in '{token}'.", token=empty[:60]))
    new = Tokenizer.from_file(str(base / "tokenizer.json"))
    new.add_tokens([AddedToken(n, normalized=False, special=False) for n in names])
    ids = [i for n in names if (i := new.token_to_id(n)) is not None]
    if len(ids) != len(names):
        raise _cannot(say("The base's tokenizer does not take these tokens."), base)
    new.save(str(staged / "tokenizer.json"))
    return ids, pieces


def _config(base: Path, ids: list[int], staged: Path) -> int:
    """Rows of the longer embeddings; config.json is written. Spare rows of the base are used first."""
    config = read_json(base / "config.json")
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    size = inner.get("vocab_size")
    if not isinstance(size, int):
        raise _cannot(say("config.json does not say how many tokens the base has."), base)
    if config.get("quantization_config"):
        raise _cannot(say("The base's files are quantised; rows are not added to them."), base)
    rows = max(size, max(ids) + 1)
    inner["vocab_size"] = rows
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    (staged / "config.json").write_text(text, encoding="utf-8")
    return rows


# ---------------------------------------------------------------- the weights


def _weights(base: Path, staged: Path, ids: list[int], pieces: list[list[int]], rows: int) -> None:
    found = 0
    for path in sorted(base.glob("*.safetensors")):
        header, start = _header(path)
        longer = [n for n in header if n != "__metadata__" and n.endswith(MATRICES)]
        if not longer:
            _link(path.resolve(), staged / path.name)
            continue
        found += len(longer)
        _rewrite(path, staged / path.name, header, start, longer, ids, pieces, rows)
    if not found:
        raise _cannot(say("The base's files hold no embeddings by their usual name."), base)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise _cannot(say("The weights file is not a sound safetensors file."), path) from error
    return header, 8 + length


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(source, target)


def _rewrite(
    source: Path, target: Path, header: dict[str, Any], start: int, longer: list[str],
    ids: list[int], pieces: list[list[int]], rows: int,
) -> None:  # fmt: skip
    """The file with the named matrices longer; everything else byte for byte."""
    order = sorted(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][0]
    )
    grown: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    if "__metadata__" in header:
        entries["__metadata__"] = header["__metadata__"]
    position = 0
    with source.open("rb") as stream:
        for name in order:
            begin, end = header[name]["data_offsets"]
            entry = dict(header[name])
            size = end - begin
            if name in longer:
                grown[name] = _tail(stream, start + begin, entry, ids, pieces, rows, source)
                entry["shape"] = [rows, entry["shape"][1]]
                size = rows * entry["shape"][1] * TYPES[entry["dtype"]][1]
            entry["data_offsets"] = [position, position + size]
            position += size
            entries[name] = entry
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with target.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                begin, end = header[name]["data_offsets"]
                kept = end - begin
                tail = grown.get(name, b"")
                if name in grown:  # the tail begins at the first new row
                    new = entries[name]["data_offsets"]
                    kept = new[1] - new[0] - len(tail)
                _copy(stream, start + begin, kept, out)
                out.write(tail)
            out.flush()
            os.fsync(out.fileno())


def _copy(stream: Any, at: int, count: int, out: Any) -> None:
    stream.seek(at)
    while count > 0:
        part = stream.read(min(CHUNK_BYTES, count))
        if not part:
            raise OSError(5, os.strerror(5))
        out.write(part)
        count -= len(part)


def _tail(
    stream: Any, at: int, entry: dict[str, Any], ids: list[int], pieces: list[list[int]],
    rows: int, source: Path,
) -> bytes:  # fmt: skip
    """The rows from the first new one to the last: the means of the pieces' rows, in the file's format."""
    import numpy as np

    if entry["dtype"] not in TYPES or len(entry["shape"]) != 2:
        raise _cannot(say("The base's embeddings are stored in a format without rows."), source)
    kind, each = TYPES[entry["dtype"]]
    have, width = entry["shape"]
    first = min(ids)
    if first > have:
        raise _cannot(
            say("The base's tokenizer has more tokens than its embeddings have rows."), source
        )

    def row(number: int) -> npt.NDArray[np.float32]:
        stream.seek(at + number * width * each)
        raw = np.frombuffer(stream.read(width * each), dtype=kind)
        if entry["dtype"] == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)

    values = np.zeros((rows - first, width), dtype=np.float32)
    for number in range(first, have):  # spare rows beyond the new tokens stay
        values[number - first] = row(number)
    for id_, parts in zip(ids, pieces, strict=True):
        values[id_ - first] = np.mean([row(p) for p in parts], axis=0, dtype=np.float32)
    if entry["dtype"] == "BF16":
        return _bfloat16(values).tobytes()
    return values.astype(kind).tobytes()


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper half of a float32, rounded to the nearest even."""
    import numpy as np

    bits = values.view(np.uint32)
    rounding = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    return ((bits + rounding) >> np.uint32(16)).astype("<u2")
