"""The table path x layer: every way out that is known, every layer of the guard, and what is expected.

Used by the tests and by `scripts/security.py`, which writes the counted packets into docs/security.md.
Each cell is one process in the trap (`hauslm.base.trap`): first the layer, then the attempt. Addresses
are those of the trap itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from hauslm.base import seccomp, trap

POSSIBLE = seccomp.unavailable() is None
V4, V6 = trap.TARGET, trap.TARGET6

_C = (
    "import ctypes, struct, socket, subprocess, sys; c = ctypes.CDLL(None, use_errno=True)\n"
    f"a = struct.pack('=H', 2) + struct.pack('!H', 443) + socket.inet_aton('{V4}') + bytes(8)\n"
    "b = struct.pack('=H', 10) + struct.pack('!H', 443) + bytes(4)"
    f" + socket.inet_pton(10, '{V6}') + bytes(4)\n"
    # struct msghdr: name, its length, one iovec, no control data, no flags
    "keep = [ctypes.create_string_buffer(a, 16), ctypes.create_string_buffer(b'x', 1)]\n"
    "iov = ctypes.create_string_buffer(struct.pack('=QQ', ctypes.addressof(keep[1]), 1), 16)\n"
    "msg = struct.pack('=QI4xQQQQi4x', ctypes.addressof(keep[0]), 16, ctypes.addressof(iov), 1, 0, 0, 0)\n"
)
_TCP = f"import socket; socket.create_connection(('{V4}', 443), 0.1)"

# io_uring by hand: the queue makes a socket (45) and connects it (16) without a system call of that
# name. Layouts: include/uapi/linux/io_uring.h.
_RING = (
    _C
    + """
import mmap, platform
parameters = ctypes.create_string_buffer(120)
ring = c.syscall(425, 4, parameters)
if ring < 0: sys.exit('no ring')
sq = struct.unpack_from('=IIIIIII', parameters, 40); cq = struct.unpack_from('=IIIIIII', parameters, 80)
entries = struct.unpack_from('=I', parameters, 0)[0]
rings = mmap.mmap(ring, max(sq[6] + 4 * entries, cq[5] + 32 * entries) + 4096, offset=0)
steps = mmap.mmap(ring, 64 * entries, offset=0x10000000)
def word(at, value=None):
    if value is not None: struct.pack_into('=I', rings, at, value)
    return struct.unpack_from('=I', rings, at)[0]
def do(code, fd, address, length, offset, wait=1):
    steps[0:64] = struct.pack('=BBHiQQII', code, 0, 0, fd, offset, address, length, 0).ljust(64, b'\\0')
    word(sq[6], 0); word(sq[1], word(sq[1]) + 1)
    if c.syscall(426, ring, 1, wait, wait, None, 0) < 0: sys.exit('no entry')
    head = word(cq[0]); answer = struct.unpack_from('=Qi', rings, cq[5] + 16 * (head & word(cq[2])))[1]
    word(cq[0], head + 1)
    return answer
made = do(45, 2, 0, 0, 1 | 2048)
target = ctypes.create_string_buffer(a, 16)
if made >= 0: do(16, made, ctypes.addressof(target), 0, 16, 0)  # an answer never comes
"""
)

PATHS = {
    "python tcp": _TCP,
    "python ipv6": f"import socket; socket.create_connection(('{V6}', 443), 0.1)",
    "python udp": f"import socket; socket.socket(2, 2).sendto(b'x', ('{V4}', 53))",
    "python udp sendmsg": f"import socket; socket.socket(2, 2).sendmsg([b'x'], [], 0, ('{V4}', 53))",
    "python fast open": "import socket; s = socket.socket(); s.setblocking(False)\n"
    f"s.sendto(b'x', 0x20000000, ('{V4}', 443))",
    "python dns": "import socket; socket.getaddrinfo('control.example', 443)",
    "native tcp": _C + "c.connect(c.socket(2, 1 | 2048, 0), a, 16)",
    "native ipv6": _C + "c.connect(c.socket(10, 1 | 2048, 0), b, 28)",
    "native udp": _C + "c.sendto(c.socket(2, 2, 0), b'x', 1, 0, a, 16)",
    "native udp sendmsg": _C + "c.sendmsg(c.socket(2, 2, 0), msg, 0)",
    "native udp sendmmsg": _C + "c.sendmmsg(c.socket(2, 2, 0), msg + bytes(8), 1, 0)",
    "native fast open": _C + "c.sendto(c.socket(2, 1 | 2048, 0), b'x', 1, 0x20000000, a, 16)",
    "native fast open sendmsg": _C + "c.sendmsg(c.socket(2, 1 | 2048, 0), msg, 0x20000000)",
    "native fast open option": _C + "f = c.socket(2, 1 | 2048, 0); o = struct.pack('=i', 1)\n"
    "c.setsockopt(f, 6, 30, o, 4); c.connect(f, a, 16); c.send(f, b'x', 1, 0)",
    "native dns": _C + "c.gethostbyname(b'control.example')",
    "native io_uring": _RING,
    "child python": f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {_TCP!r}])",
    "shell": "import subprocess; subprocess.run(['timeout', '0.2', 'bash', '-c', "
    f"'exec 3<>/dev/tcp/{V4}/443'])",
    "shell udp": "import subprocess; subprocess.run(['timeout', '0.2', 'bash', '-c', "
    f"'echo x > /dev/udp/{V4}/53'])",
}

_HOOK = "from hauslm.base import egress; egress.shut({!r}, kernel=False)\n"
_FILTER = "from hauslm.base import seccomp; assert seccomp.install({!r}) is None\n"
# The permitted host of `cloud` is not the one that is tried here.
LAYERS = {
    "none": "",
    "hook strict": _HOOK.format("strict"),
    "hook loopback": _HOOK.format("loopback"),
    "hook cloud": _HOOK.format("cloud:permitted.example"),
    "filter strict": _FILTER.format("strict"),
    "filter loopback": _FILTER.format("loopback"),
}


def leaves(path: str, layer: str) -> bool:
    """Is a packet expected? The hook sees Python of its own process; the filter sees everything."""
    return layer == "none" or (layer.startswith("hook") and not path.startswith("python"))


def usable_layers() -> list[str]:
    return [n for n in LAYERS if POSSIBLE or not n.startswith("filter")]


def count() -> dict[str, int] | str:
    """Packets by 'path under layer', or why no private network can be made here."""
    commands = [
        {"name": f"{path} under {layer}", "argv": [sys.executable, "-c", LAYERS[layer] + code]}
        for path, code in PATHS.items()
        for layer in usable_layers()
    ]
    done = subprocess.run(
        [sys.executable, "-m", "hauslm.base.trap"],
        input=json.dumps({"commands": commands, "settle_s": 0.05}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if not answers or answers[0]["event"] == "impossible":
        return str(answers or done.stderr[-200:])
    return {a["name"]: int(a["packets"]) for a in answers if a["event"] == "ended"}
