"""Which facts need no YAML parser? One JSON file with each fact file as JSON, made when hauslm is built.

Parsing 300 small YAML files costs a third of a second, JSON some milliseconds. Every entry carries
the SHA-256 of the file that it was parsed from; a file with other bytes (edited, added) is parsed
as YAML, so the packed file can be absent or old but never wrong. Meaning and checks are for `build`.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKED = Path(__file__).parent / "facts.json"


def digest(raw: bytes) -> str:
    """SHA-256 of a fact file, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


@cache
def _packed() -> dict[str, Any]:
    try:
        found = json.loads(PACKED.read_bytes())
    except (OSError, ValueError):  # not built, or half written: the YAML files have everything
        return {}
    return found if isinstance(found, dict) else {}


def plain(raw: bytes) -> dict[str, Any] | None:
    """The parsed content of a fact file with these bytes, if it was packed; a fresh object."""
    entry = _packed().get(digest(raw))
    return json.loads(entry) if isinstance(entry, str) else None


def pack(facts: Path, to: Path = PACKED) -> int:
    """Write the packed file for all fact files under `facts`; how many went in.

    A file that JSON cannot hold exactly (or that is malformed) is left out.
    """
    from hauslm.base.errors import HauslmError
    from hauslm.catalog.reader import plain_yaml

    found: dict[str, Any] = {}
    for path in sorted(facts.glob("*/*.yaml")):
        raw = path.read_bytes()
        try:
            data = plain_yaml(raw, path.name)
        except HauslmError:
            continue
        if json.loads(json.dumps(data)) == data:
            found[digest(raw)] = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    to.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return len(found)
