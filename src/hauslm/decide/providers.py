"""What do providers promise about documents? Their terms, each with source and date.

The rules ask about a provider's training use, retention, EU processing and ground for transfers;
`providers.yaml` answers for the providers that were looked up. A provider that is not in the file is
unknown in every respect, and unknown counts as the stricter case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Answer = str  # yes | no | unknown


@dataclass(frozen=True)
class Terms:
    """A provider's terms. `retention_days` None: not known; all answers yes, no or unknown."""

    id: str
    name: str
    us: Answer = "unknown"
    training: Answer = "unknown"
    retention_days: float | None = None
    eu: Answer = "unknown"
    transfer_ground: Answer = "unknown"
    note: str = ""
    source: str = ""
    date: str = ""


@cache
def _table() -> dict[str, Terms]:
    import yaml

    text = (Path(__file__).parent / "providers.yaml").read_text(encoding="utf-8")
    data: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {name: Terms(id=name, **_plain(entry)) for name, entry in data.items()}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """YAML reads a bare yes and no as true and false."""
    return {k: ("yes" if v else "no") if isinstance(v, bool) else v for k, v in entry.items()}


def terms(provider: str) -> Terms:
    """The terms of a provider; everything unknown if nobody looked it up."""
    known = _table()
    return known.get(provider) or Terms(id=provider, name=provider)


def all_terms() -> tuple[Terms, ...]:
    return tuple(_table().values())
