"""Which commands run in the trap: the stages as a user runs them, the guard tried, the controls."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base import egress, trap
from hauslm.base.words import N_, language

STAGES = ("prepare", "train", "evaluate", "bundle", "analyse", "serve")

# The control, one per way out: plain Python, native code past Python, a shell.
_CONTROLS = {
    N_("Python TCP"): f"import socket; socket.create_connection(('{trap.TARGET}', 443), 0.3)",
    N_(
        "Python TCP, IPv6"
    ): f"import socket; socket.create_connection(('{trap.TARGET6}', 443), 0.3)",
    N_("UDP"): f"import socket; socket.socket(2, 2).sendto(b'control', ('{trap.TARGET}', 53))",
    N_("Name look-up (DNS)"): "import socket; socket.getaddrinfo('control.example', 443)",
}
NATIVE = (
    "import ctypes, struct, socket; c = ctypes.CDLL(None); f = c.socket(2, 1 | 2048, 0); "
    f"a = struct.pack('=H', 2) + struct.pack('!H', 443) + socket.inet_aton('{trap.TARGET}') + bytes(8); "
    "c.connect(f, a, 16)"
)
SHELL = f"timeout 0.3 bash -c 'exec 3<>/dev/tcp/{trap.TARGET}/443'"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1", "LANGUAGE": language()}


def hauslm(stage: str, folder: Path) -> list[str]:
    # -P: a file named torch.py in the project folder must not become a module.
    command = [sys.executable, "-P", "-m", "hauslm", stage, "-C", str(folder), "--quiet"]
    return [*command, "--language", language()]


def commands(copy: Path, stages: Sequence[str], log: Path) -> list[dict[str, Any]]:
    """Stages, then the guard tried from within, then the controls; in the trap's request format."""
    mine = [sys.executable, "-P", "-m", "hauslm.prove.trapped"]
    environment = {egress.LOG_VARIABLE: str(log), "LANGUAGE": language()}
    found = [
        {
            "name": stage,
            "argv": [*mine, "serve", str(copy)] if stage == "serve" else hauslm(stage, copy),
            "env": environment,
        }
        for stage in stages
    ]
    found.append({"name": "guard", "argv": [*mine, "guard"], "env": {"LANGUAGE": "en"}})
    plain = [sys.executable, "-I", "-c"]
    found += [{"name": f"control: {n}", "argv": [*plain, c]} for n, c in _CONTROLS.items()]
    for name, argv in (
        (N_("Native code"), [*plain, NATIVE]),
        (N_("Shell"), ["bash", "-c", SHELL]),
    ):
        found.append({"name": f"control: {name}", "argv": argv})
    return found
