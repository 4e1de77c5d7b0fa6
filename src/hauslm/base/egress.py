"""Does anything leave? The only door to the network, shut unless somebody opens it.

`shut()` is the first thing that happens in a hauslm process: it sets the offline and telemetry
switches of every dependency and installs a Python audit hook. In mode ``strict`` no name is looked up
and no connection is opened; ``loopback`` allows this machine only (serving); ``cloud:<host>`` allows
that one host, and only `lm/remote.py` asks for it, with a Permit. Every refused attempt is kept with
its caller in `attempts()`.

What this layer cannot see: native code and child processes that are not Python. It is therefore
reported as one layer among others, never as the proof.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hauslm.base.errors import MissingError
from hauslm.base.words import say

# Each switch as its package documents it; `setdefault` would let a stray variable open the door.
SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "VLLM_NO_USAGE_STATS": "1",
    "TRACKIO_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "true",
}

_WATCHED = frozenset(
    (
        "socket.connect",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
    )
)

_mode = "open"
_hook_installed = False
_attempts: list[dict[str, str]] = []


class EgressBlocked(MissingError, OSError):
    """A refused network attempt. Also an `OSError`, so libraries handle it like a dead network."""

    def __init__(self, target: str) -> None:
        MissingError.__init__(
            self,
            "H520",
            say(
                "Network access to {target} was prevented (mode {mode}).", target=target, mode=_mode
            ),
            next_step=say("Work offline with local files, or permit a cloud host in hauslm.yaml."),
        )


def switch_off_telemetry() -> None:
    """Set every offline and telemetry switch in this process and its children."""
    os.environ.update(SWITCHES)


def mode() -> str:
    return _mode


def attempts() -> list[dict[str, str]]:
    """The refused attempts of this process: event, target, caller."""
    return list(_attempts)


def _host(address: Any) -> str:
    if isinstance(address, tuple) and address:
        return str(address[0])
    return str(address)


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "", "None"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _allowed(event: str, args: tuple[Any, ...]) -> tuple[bool, str]:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        target = str(args[0])
    else:
        address = args[1] if len(args) > 1 else None
        if isinstance(address, (str, bytes)):  # AF_UNIX
            return True, str(address)
        if address is None:  # sendmsg on a connected socket: the connect was judged already
            return True, ""
        target = _host(address)
    if _mode == "loopback":
        return _is_loopback(target), target
    if _mode.startswith("cloud:"):
        permitted = _mode.removeprefix("cloud:")
        # After the permitted name was looked up, the connect carries its address: kept in _resolved.
        return target == permitted or target in _resolved or _is_loopback(target), target
    return False, target


_resolved: set[str] = set()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _WATCHED or _mode == "open":
        return
    allowed, target = _allowed(event, args)
    if not allowed:
        frame = traceback.extract_stack(limit=6)[:-1]
        caller = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frame))
        _attempts.append({"event": event, "target": target, "caller": caller})
        raise EgressBlocked(target)


def shut(new_mode: str = "strict") -> None:
    """Shut the door: ``strict``, ``loopback`` or ``cloud:<host>``. Installed once, mode changeable."""
    global _mode, _hook_installed
    if new_mode not in ("strict", "loopback") and not new_mode.startswith("cloud:"):
        raise ValueError(f"unknown egress mode {new_mode!r}")
    switch_off_telemetry()
    _mode = new_mode
    if not _hook_installed:
        sys.addaudithook(_hook)
        _hook_installed = True


@contextmanager
def permitted(host: str, port: int = 443) -> Iterator[None]:
    """Open the door to exactly one host inside the block. Callers hold a Permit (`lm/remote.py`)."""
    global _mode
    before = _mode
    shut(f"cloud:{host}")
    try:
        import socket

        _resolved.update(_host(info[4]) for info in socket.getaddrinfo(host, port))
        yield
    finally:
        _mode = before
        _resolved.clear()
