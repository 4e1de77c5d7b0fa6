"""Does anything leave? The only door to the network, shut unless somebody opens it.

`shut()` is the first thing that happens in a hauslm process. It sets the offline and telemetry
switches of every dependency, installs a Python audit hook, and on Linux asks the kernel for a filter
(`seccomp.py`), which also holds for native code, child processes and shells. In mode ``strict`` no
name is looked up and no connection is opened; ``loopback`` is for serving: listening on this machine;
``cloud:<host>`` allows that one host, and only `lm/remote.py` asks for it, with a Permit. Every
attempt that the hook refuses is kept with its caller in `attempts()`.

The kernel's filter cannot be taken off again. It is therefore left out (`kernel=False`) where a
permitted host may be asked later, and `layers()` says so: a layer that is missing is never green.
Whether all layers together hold is measured by `hauslm prove-privacy`, not claimed here.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hauslm.base import seccomp
from hauslm.base.errors import MissingError
from hauslm.base.words import N_, Sentence, say

# If set: a file to which the refused attempts of a process and its Python children are appended.
LOG_VARIABLE = "HAUSLM_EGRESS_LOG"

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
        "socket.__new__",
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
_no_filter: Sentence = say("not asked for in this process")  # why the kernel's filter is missing


@dataclass(frozen=True)
class Layer:
    """One layer of the guard in this process: is it in force, and what does it do or why not."""

    name: str
    active: bool
    said: Sentence


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
    if event == "socket.__new__":
        return _may_be_made(*args[1:3])
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


_INTERNET = {2: "AF_INET", 10: "AF_INET6", 30: "AF_INET6"}  # 30: macOS
_DATAGRAM_OR_RAW = (2, 3)


def _may_be_made(family: int, kind: int) -> tuple[bool, str]:
    """The kernel's filter refuses these sockets with a bare errno; here the caller is kept as well."""
    name = _INTERNET.get(family)
    if name is None or _mode.startswith("cloud:"):
        return True, ""
    return _mode == "loopback" and (kind & 0xF) not in _DATAGRAM_OR_RAW, name


_resolved: set[str] = set()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _WATCHED or _mode == "open":
        return
    allowed, target = _allowed(event, args)
    if not allowed:
        frame = traceback.extract_stack(limit=6)[:-1]
        caller = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frame))
        _attempts.append({"event": event, "target": target, "caller": caller})
        _write_down(_attempts[-1])
        raise EgressBlocked(target)


def _write_down(attempt: dict[str, str]) -> None:
    """Append the attempt to the file named by `LOG_VARIABLE`; whether that works changes nothing."""
    path = os.environ.get(LOG_VARIABLE)
    if not path:
        return
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, json.dumps(attempt).encode() + b"\n")
        finally:
            os.close(descriptor)


def shut(new_mode: str = "strict", *, kernel: bool = True) -> None:
    """Shut the door: ``strict``, ``loopback`` or ``cloud:<host>``.

    The audit hook is installed once and its mode can be changed. With `kernel`, ``strict`` and
    ``loopback`` also install the kernel's filter, for the rest of the process's life; where that is
    not possible nothing is raised, and `layers()` tells the reason. H522 if a filter that is in
    force already (this process's own or an inherited one) is narrower than the mode asked for.
    """
    global _mode, _hook_installed, _no_filter
    if new_mode not in ("strict", "loopback") and not new_mode.startswith("cloud:"):
        raise ValueError(f"unknown egress mode {new_mode!r}")
    switch_off_telemetry()
    if new_mode != "strict":
        _refuse_if_narrower(new_mode)
    _mode = new_mode
    if not _hook_installed:
        sys.addaudithook(_hook)
        _hook_installed = True
    if kernel and new_mode in ("strict", "loopback"):
        profile: seccomp.Profile = "strict" if new_mode == "strict" else "loopback"
        if seccomp.state() not in ("strict", profile):
            _no_filter = seccomp.install(profile) or _no_filter


def _refuse_if_narrower(new_mode: str) -> None:
    """Tell at once what would otherwise end in a bare 'permission denied' somewhere below."""
    closed = seccomp.state()
    if closed == "strict" or (closed == "loopback" and new_mode.startswith("cloud:")):
        raise MissingError(
            "H522",
            say(
                "The kernel's filter of this process is '{closed}' and cannot be opened to '{mode}'.",
                closed=closed,
                mode=new_mode,
            ),
            next_step=say("Run this command by itself in a terminal, not from within another one."),
        )


def layers() -> list[Layer]:
    """The guard of this process, layer by layer, as found and not as planned."""
    return [_switches(), _audit_hook(), _kernel_filter(), _inherited()]


def _switches() -> Layer:
    missing = [n for n, v in SWITCHES.items() if os.environ.get(n) != v]
    said = (
        say("not proven: changed since ({names})", names=", ".join(missing))
        if missing
        else say("active: {count} offline and telemetry switches are set", count=len(SWITCHES))
    )
    return Layer(N_("Switches of the dependencies"), not missing, said)


def _audit_hook() -> Layer:
    on = _hook_installed and _mode != "open"
    said = (
        say("active in mode {mode}: sees Python code of this process only", mode=_mode)
        if on
        else say("not proven: the hook is not installed in this process")
    )
    return Layer(N_("Audit hook of Python"), on, said)


def _kernel_filter() -> Layer:
    name = N_("Filter of the kernel (seccomp)")
    closed = seccomp.state()
    if closed == "strict":
        return Layer(
            name,
            True,
            say("active: no Internet socket can be made, also by native code and children"),
        )
    if closed == "loopback":
        return Layer(
            name,
            True,
            say("active: this process can listen, but call nobody, nor can its children"),
        )
    return Layer(name, False, say("not proven: {reason}", reason=_no_filter))


def _inherited() -> Layer:
    name = N_("Connections opened before the guard")
    if not sys.platform.startswith("linux"):
        return Layer(name, False, say("not proven: they cannot be listed on this system"))
    count = len(seccomp.open_internet_sockets())
    if count and _mode != "loopback":
        return Layer(name, False, say("not proven: {count} Internet sockets are open", count=count))
    said = (
        say("{count} Internet sockets are open, as a server has them", count=count)
        if count
        else say("active: no Internet socket is open")
    )
    return Layer(name, True, said)


@contextmanager
def permitted(host: str, port: int = 443, *, also: tuple[str, ...] = ()) -> Iterator[None]:
    """Open the door to exactly one host inside the block. Callers hold a Permit (`lm/remote.py`).

    `also`: further hosts that the caller has a Permit for (the storage behind a model hub).
    """
    global _mode
    before = _mode
    shut(f"cloud:{host}", kernel=False)
    try:
        import socket

        _resolved.update(also)
        for name in (host, *also):
            _resolved.update(_host(info[4]) for info in socket.getaddrinfo(name, port))
        yield
    finally:
        _mode = before
        _resolved.clear()
