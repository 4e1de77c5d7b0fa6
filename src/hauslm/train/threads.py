"""How do the threads wait for each other? Asleep, not spinning.

By default the threads of a product spin at its end until all have come. On a machine that does anything
else, one of them is often not running, and the others burn the very processor it waits for: measured on
2 busy cores (load 9, 6 M parameters, bfloat16) 140 to 340 tokens/s with two spinning threads, 1,150 to
1,430 with sleeping ones. OpenMP reads the setting once, when torch is loaded.
"""

from __future__ import annotations

import os
import sys

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


def settle() -> bool:
    """Let threads sleep while they wait, unless the user has said otherwise; False: too late for this
    process, torch is loaded already."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    return "torch" not in sys.modules
