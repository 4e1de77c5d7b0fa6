"""Cloud or own machine? The options, the rules before them, their cost, the verdict and its reasons.

`decide` and `compare` are the entrances; `note` writes the decision down, `diff` tells two apart.
They are imported on first use, so that asking for help loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hauslm.decide.comparison import compare
    from hauslm.decide.diff import diff
    from hauslm.decide.note import note
    from hauslm.decide.verdict import decide, why

__all__ = ["compare", "decide", "diff", "note", "why"]

_HOME = {
    "compare": "comparison",
    "decide": "verdict",
    "diff": "diff",
    "note": "note",
    "why": "verdict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
