"""How do the threads wait for each other, and how much do the kernels remember? Asleep, and little.

By default the threads of a product spin at its end until all have come. On a machine that does anything
else, one of them is often not running, and the others burn the very processor it waits for: measured on
2 busy cores (load 9, 6 M parameters, bfloat16) 140 to 340 tokens/s with two spinning threads, 1,150 to
1,430 with sleeping ones. OpenMP reads the setting once, when torch is loaded.

On a processor oneDNN and torch's wrapper around it keep a thousand compiled kernels each, with their
workspace, one for every shape they met. Packed documents never have the same shape twice: a run of 12
steps of the embedded model grew to 2.0 GiB and went on growing. The layers of one row share their shapes,
about thirty of them, so thirty-two of each are enough: per second of processor time 8, 32, 128 kept gave
1,732, 2,104, 2,035 tokens (embedded model, bfloat16, rows of 2,048 tokens) at 0.78, 0.92, 0.92 GiB; one run
each, on a busy machine, so the first is told from the others and the others not from each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
FORGETTING = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}
WAITING = SLEEPING | FORGETTING


def settle(switches: Mapping[str, str] = WAITING) -> bool:
    """Let threads sleep while they wait and kernels be forgotten, unless the user has said otherwise;
    False: too late for this process, torch is loaded already. For answering, whose shapes come
    again and again, `SLEEPING` alone."""
    for name, value in switches.items():
        os.environ.setdefault(name, value)
    return "torch" not in sys.modules
