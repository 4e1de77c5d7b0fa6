"""How does a process give itself network devices without `ip`? Five requests to the kernel.

Only what the trap (`trap.py`) needs: a pair of connected devices, switching a device on, an address, a
default route. Each request waits for the kernel's answer and raises its error as `OSError`.
Formats: Linux `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,veth}.h`.
"""

from __future__ import annotations

import os
import socket
import struct

_REQUEST_ACK, _CREATE_NEW = 0x01 | 0x04, 0x400 | 0x200  # NLM_F_REQUEST|ACK, NLM_F_CREATE|EXCL
_ERROR = 2  # NLMSG_ERROR: the answer, with 0 for "done"
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_NAME, _LINKINFO, _KIND, _DATA, _PEER = 3, 18, 1, 2, 1
_UP, _NOARP = 0x1, 0x80
_NO_DUPLICATE_CHECK = 0x02  # IFA_F_NODAD: no packet of the kernel's own about a new address
_TABLE_MAIN, _STATIC, _SCOPE_LINK, _UNICAST, _OUT_DEVICE = 254, 4, 253, 1, 4


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _device(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _ask(kind: int, body: bytes, flags: int = 0) -> None:
    head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(5)
        link.sendto(head + body, (0, 0))
        answer = link.recv(1 << 16)
    if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))


def make_pair(name: str, other: str) -> None:
    """Two virtual Ethernet devices: what one sends, the other receives."""
    peer = _attribute(_PEER, _device() + _attribute(_NAME, other.encode() + b"\0"))
    info = _attribute(_KIND, b"veth\0") + _attribute(_DATA, peer)
    body = _device() + _attribute(_NAME, name.encode() + b"\0") + _attribute(_LINKINFO, info)
    _ask(_NEWLINK, body, _CREATE_NEW)


def switch_on(name: str, *, ask_for_neighbours: bool = True) -> None:
    """Set a device up; without neighbours, every packet leaves at once (no ARP, no discovery)."""
    flags = _UP | (0 if ask_for_neighbours else _NOARP)
    _ask(_NEWLINK, _device(socket.if_nametoindex(name), flags))


def _family(address: str) -> tuple[socket.AddressFamily, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def add_address(name: str, address: str, prefix: int) -> None:
    """Give the device an IPv4 or IPv6 address."""
    family, raw = _family(address)
    flags = _NO_DUPLICATE_CHECK if family == socket.AF_INET6 else 0
    body = struct.pack("=BBBBI", family, prefix, flags, 0, socket.if_nametoindex(name))
    body += _attribute(1, raw) + _attribute(2, raw)
    _ask(_NEWADDR, body, _CREATE_NEW)


def add_default_route(name: str, family: socket.AddressFamily) -> None:
    """Everything without a better route leaves through the device."""
    scope = _SCOPE_LINK if family == socket.AF_INET else 0
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _TABLE_MAIN, _STATIC, scope, _UNICAST, 0)
    body += _attribute(_OUT_DEVICE, struct.pack("=I", socket.if_nametoindex(name)))
    _ask(_NEWROUTE, body, _CREATE_NEW)
