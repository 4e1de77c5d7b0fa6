"""Packs the catalog's facts when hauslm is built or installed (see hauslm/catalog/packed.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackFacts(BuildHookInterface):  # type: ignore[type-arg]
    """Writes src/hauslm/catalog/facts.json, for a wheel and for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root) / "src"
        sys.path.insert(0, str(source))
        try:
            from hauslm.catalog.packed import pack

            number = pack(source / "hauslm" / "catalog" / "facts")
        finally:
            sys.path.remove(str(source))
        self.app.display_info(f"packed {number} facts")
