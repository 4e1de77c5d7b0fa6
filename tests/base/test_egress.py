"""The door: what each mode lets through, tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

ATTEMPTS = {
    "tcp": "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "tcp6": "import socket; s=socket.socket(socket.AF_INET6); s.settimeout(1); s.connect(('2001:db8::1', 80))",
    "dns": "import socket; socket.getaddrinfo('example.org', 80)",
    "udp": "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.1', 53))",
    "urllib": "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
}
LOOPBACK = (
    "import socket; s=socket.create_server(('127.0.0.1', 0)); "
    "c=socket.create_connection(s.getsockname(), timeout=2)"
)


def _run(mode: str, code: str, kernel: bool = False) -> str:
    script = (
        "from hauslm.base import egress\n"
        f"egress.shut({mode!r}, kernel={kernel})\n"
        f"try:\n    exec({code!r})\n    print('went out')\n"
        "except egress.EgressBlocked as e:\n    print('blocked', len(egress.attempts()))\n"
        "except OSError as e:\n"
        # the kernel's filter refuses before Python's hook hears of it
        "    kernel = e.errno in (1, 13)\n"
        "    print('blocked' if kernel or egress.attempts() else 'other', len(egress.attempts()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("mode", ["strict", "loopback", "cloud:api.example.org"])
@pytest.mark.parametrize("way", sorted(ATTEMPTS))
def test_python_level_attempts_are_blocked_and_recorded(mode: str, way: str, kernel: bool) -> None:
    assert _run(mode, ATTEMPTS[way], kernel).startswith("blocked")


def test_loopback_is_for_serving_only() -> None:
    """Listening works in the serving mode; strict has no inet socket at all."""
    listening = "import socket; socket.create_server(('127.0.0.1', 0))"
    assert _run("loopback", listening) == "went out"
    assert _run("strict", LOOPBACK).startswith("blocked")


def test_switches_are_set_by_importing_the_package() -> None:
    code = "import os, hauslm; print(os.environ['HF_HUB_OFFLINE'], os.environ['DO_NOT_TRACK'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
