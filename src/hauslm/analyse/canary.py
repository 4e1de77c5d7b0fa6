"""The adapter's canary as this room uses it; it lives in `lm`, where `serve` can reach it too."""

from hauslm.lm.canary import check_canary, make_canary, read_canary

__all__ = ["check_canary", "make_canary", "read_canary"]
