"""Can native code get out? Linux's own filter on system calls (seccomp), set up without a library.

The audit hook sees Python only. A seccomp filter is kept by the kernel: it holds for C code, child
processes and shells alike, is inherited by everything the process starts, and can never be taken off
again. Two profiles:

``strict``    sockets of the family AF_UNIX only. Multiprocessing and PyTorch need those; no address
              family that reaches another machine can be opened at all.
``loopback``  for a server: TCP sockets can be made and listened on, but nothing is called up. Refused
              are `connect`, `sendto` with an address, `sendmmsg`, TCP Fast Open in all three spellings,
              UDP, raw and every other family. `connect` on AF_UNIX is refused too: the filter sees
              numbers, not the address behind the pointer.

Both refuse io_uring (its queue opens sockets past every filter), taking descriptors out of other
processes (`pidfd_getfd`), and system calls of another architecture (32-bit entry points).

What it is not: a wall against root, against a daemon that sends on request over an AF_UNIX socket, or
for a socket that was open before. `state` therefore tries instead of believing.

Layout of the filter: Linux `Documentation/userspace-api/seccomp_filter.rst`; numbers of system calls:
`arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hauslm.base.words import Sentence, say

if TYPE_CHECKING:
    import ctypes

Profile = Literal["strict", "loopback"]
State = Literal["strict", "loopback", "none"]

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_TYPE_MASK = 1, 2, 0xF
_IPPROTO_TCP, _TCP_FASTOPEN_CONNECT = 6, 30
_MSG_FASTOPEN = 0x20000000
_X32_BIT = 0x40000000

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1  # the other threads of this process get the filter as well
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000

# Offsets in struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6].
_NR, _ARCH = 0, 4


@dataclass(frozen=True)
class _Machine:
    """One architecture: its audit number and its numbers of the system calls that are judged."""

    audit: int
    calls: Mapping[str, int]


_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        {
            "seccomp": 317, "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46,
            "socketpair": 53, "setsockopt": 54, "sendmmsg": 307,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "pidfd_getfd": 438,
        },
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {
            "seccomp": 277, "socket": 198, "socketpair": 199, "connect": 203, "sendto": 206,
            "setsockopt": 208, "sendmsg": 211, "sendmmsg": 269,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "pidfd_getfd": 438,
        },
    ),
}  # fmt: skip


# ---------------------------------------------------------------- a small assembler

# A step is (operation, constant, label if true, label if false); "" is the next step. Operations:
# ld (load the 32-bit word at an offset), and, eq, set (any of these bits), go, ret, and label.
_Step = tuple[str, int | str, str, str]
_OPCODES = {"ld": 0x20, "and": 0x54, "eq": 0x15, "set": 0x45, "go": 0x05, "ret": 0x06}


def _assemble(steps: list[_Step]) -> bytes:
    """Classic BPF (struct sock_filter: u16 code, u8 jt, u8 jf, u32 k) with labels resolved."""
    places: dict[str, int] = {}
    code: list[_Step] = []
    for step in steps:
        if step[0] == "label":
            places[str(step[1])] = len(code)
        else:
            code.append(step)
    words = []
    for here, (operation, constant, true, false) in enumerate(code):
        jump = [places[name] - here - 1 if name else 0 for name in (true, false)]
        if operation == "go":  # the one jump that may be long keeps its distance in k
            words.append(struct.pack("=HBBI", _OPCODES["go"], 0, 0, jump[0]))
        else:
            words.append(struct.pack("=HBBI", _OPCODES[operation], *jump, int(constant)))
    return b"".join(words)


def _low(argument: int) -> int:
    """Offset of the lower half of an argument (both architectures are little-endian)."""
    return 16 + 8 * argument


def _call(number: int, name: str, body: list[_Step]) -> list[_Step]:
    """The body for one system call; it must end with a jump. Falls through for other calls."""
    return [
        ("ld", _NR, "", ""),
        ("eq", number, f"{name}?", f"after {name}"),
        ("label", f"{name}?", "", ""),
        *body,
        ("label", f"after {name}", "", ""),
    ]


_UNIX_ONLY: list[_Step] = [("ld", _low(0), "", ""), ("eq", _AF_UNIX, "allow", "deny")]
_DENY: list[_Step] = [("go", 0, "deny", "")]

_TCP_ONLY: list[_Step] = [
    ("ld", _low(0), "", ""),
    ("eq", _AF_UNIX, "allow", ""),
    ("eq", _AF_INET, "stream?", ""),
    ("eq", _AF_INET6, "stream?", "deny"),
    ("label", "stream?", "", ""),
    ("ld", _low(1), "", ""),
    ("and", _SOCK_TYPE_MASK, "", ""),
    ("eq", _SOCK_STREAM, "", "deny"),
    ("ld", _low(2), "", ""),
    ("eq", 0, "allow", ""),
    ("eq", _IPPROTO_TCP, "allow", "deny"),
]
_NO_ADDRESS: list[_Step] = [  # sendto(fd, buffer, length, flags, address, length)
    ("ld", _low(3), "", ""),
    ("set", _MSG_FASTOPEN, "deny", ""),
    ("ld", _low(4), "", ""),
    ("eq", 0, "", "deny"),
    ("ld", _low(4) + 4, "", ""),
    ("eq", 0, "allow", "deny"),
]
_NO_FAST_OPEN: list[_Step] = [  # sendmsg(fd, message, flags)
    ("ld", _low(2), "", ""),
    ("set", _MSG_FASTOPEN, "deny", "allow"),
]
_NO_FAST_OPEN_OPTION: list[_Step] = [  # setsockopt(fd, level, name, ...)
    ("ld", _low(1), "", ""),
    ("eq", _IPPROTO_TCP, "", "allow"),
    ("ld", _low(2), "", ""),
    ("eq", _TCP_FASTOPEN_CONNECT, "deny", "allow"),
]

_RULES: dict[Profile, dict[str, list[_Step]]] = {
    "strict": {"socket": _UNIX_ONLY, "socketpair": _UNIX_ONLY},
    "loopback": {
        "socket": _TCP_ONLY,
        "socketpair": _UNIX_ONLY,
        "connect": _DENY,
        "sendto": _NO_ADDRESS,
        "sendmsg": _NO_FAST_OPEN,
        "sendmmsg": _DENY,
        "setsockopt": _NO_FAST_OPEN_OPTION,
    },
}
_ALWAYS = ("io_uring_setup", "io_uring_enter", "io_uring_register", "pidfd_getfd")


def program(profile: Profile, machine: str) -> bytes:
    """The filter of `profile` for `machine` (``x86_64`` or ``aarch64``) as BPF instructions."""
    m = _MACHINES[machine]
    steps: list[_Step] = [("ld", _ARCH, "", ""), ("eq", m.audit, "", "deny")]
    if machine == "x86_64":
        steps += [("ld", _NR, "", ""), ("set", _X32_BIT, "deny", "")]
    for name, body in _RULES[profile].items():
        steps += _call(m.calls[name], name, body)
    steps.append(("ld", _NR, "", ""))
    steps += [("eq", m.calls[name], "forbid", "") for name in _ALWAYS]
    steps += [
        ("label", "allow", "", ""), ("ret", _RET_ALLOW, "", ""),
        ("label", "deny", "", ""), ("ret", _RET_ERRNO | errno.EACCES, "", ""),
        # EPERM is what a kernel with io_uring switched off answers; libraries know it.
        ("label", "forbid", "", ""), ("ret", _RET_ERRNO | errno.EPERM, "", ""),
    ]  # fmt: skip
    return _assemble(steps)


# ---------------------------------------------------------------- this process


def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def unavailable() -> Sentence | None:
    """Why no filter can be installed on this kind of machine, or None if one can be tried."""
    if sys.platform != "linux":
        return say("seccomp exists on Linux only; this is {system}", system=sys.platform)
    machine = os.uname().machine
    if machine not in _MACHINES:
        return say("no filter is written for the architecture {machine}", machine=machine)
    return None


def install(profile: Profile) -> Sentence | None:
    """Filter this process, all its threads, and all that it starts, for good.

    Returns None when the filter is in force (tried, not believed), else the reason why it is not.
    Installing a second one is possible; then what either refuses is refused.
    """
    reason = unavailable()
    if reason is not None:
        return reason
    import ctypes

    machine = os.uname().machine
    code = program(profile, machine)
    libc = _libc()
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: u16 length; padding; pointer to the instructions.
    head = ctypes.create_string_buffer(
        struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer)), 16
    )
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return say("the kernel refused no_new_privs ({reason})", reason=_error())
    answer = libc.syscall(
        _MACHINES[machine].calls["seccomp"],
        ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(_SECCOMP_FILTER_FLAG_TSYNC),
        head,
    )
    if answer != 0:
        why = _error() if answer < 0 else f"thread {answer}"
        return say("the kernel refused the filter ({reason})", reason=why)
    if state() not in ("strict", profile):
        return say("the kernel took the filter but does not apply it")
    return None


def _error() -> str:
    import ctypes

    number = ctypes.get_errno()
    return os.strerror(number)


def state() -> State:
    """What the kernel refuses this process, found out by trying, inherited filters included.

    Two harmless calls past Python: making an Internet socket (closed at once), and `connect` on no
    descriptor at all, which fails with EBADF unless a filter answers first.
    """
    if unavailable() is not None:
        return "none"
    import ctypes

    libc = _libc()
    for family in (_AF_INET, _AF_INET6):
        descriptor = libc.socket(family, _SOCK_STREAM, 0)
        if descriptor >= 0:
            os.close(descriptor)
            break
        if ctypes.get_errno() != errno.EACCES:
            break  # this kernel lacks the family: not a refusal
    else:
        return "strict"
    refused = libc.connect(-1, None, 0) != 0 and ctypes.get_errno() == errno.EACCES
    datagram = libc.socket(_AF_INET, _SOCK_DGRAM, 0)
    if datagram >= 0:
        os.close(datagram)
        return "none"
    return "loopback" if refused else "none"


def open_internet_sockets() -> list[int]:
    """Descriptors of this process that are Internet sockets already: no filter reaches these."""
    found: list[int] = []
    try:
        numbers = [int(n) for n in os.listdir("/proc/self/fd")]  # noqa: PTH208 - descriptors, no files
    except OSError:
        return found
    import socket

    for number in numbers:
        try:
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):  # noqa: PTH115
                continue
            duplicate = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with duplicate:
            if duplicate.family in (socket.AF_INET, socket.AF_INET6):
                found.append(number)
    return found
