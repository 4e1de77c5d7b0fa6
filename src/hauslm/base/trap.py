"""What tries to leave? A private network whose only way out is a device that counts and forgets.

    python -m hauslm.base.trap < request.json      (answers are JSON lines on standard output)

The process moves itself into a new user and network namespace (no root needed), makes a pair of virtual
devices, and routes everything to one of them: whatever any programme in there sends to any address is
counted by the kernel and read at the other end. It then runs the commands of the request one after the
other, and tells for each how it ended and what it sent. It knows nothing of stages or models.

Request: {"commands": [{"name", "argv", "cwd", "env"}, ...], "settle_s"}. `env` is added to the
environment; `settle_s` seconds (default 0.2) pass after each command before its packets are counted.
Answers: {"event": "ready", ...}, then {"event": "started" | "ended", "name", ...} for each command, or
{"event": "impossible", "reason"} where the kernel does not permit it.

The kernel's own housekeeping on IPv6 (neighbours, multicast groups) is recognised and not counted.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from hauslm.base import netlink

DEVICE, OTHER_END = "trap0", "trap1"
# Addresses for documentation (RFC 5737, RFC 3849): nobody has them.
OWN, OWN6 = "192.0.2.1", "2001:db8::1"
TARGET, TARGET6 = "192.0.2.2", "2001:db8::2"  # addresses of the trap itself, for the control

_NEW_USER, _NEW_NET, _NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
# Sockets through which a daemon outside would look up a name or send something on request.
DAEMONS = (
    "/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/var/run/nscd/socket",
    "/run/dbus/system_bus_socket", "/run/docker.sock", "/run/podman/podman.sock",
    "/run/containerd/containerd.sock", "/run/avahi-daemon/socket",
)  # fmt: skip
_HOUSEKEEPING = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))  # ICMPv6, RFC 4861, 3810
_OUTGOING = 4  # PACKET_OUTGOING
_SETTLE_S = 0.2
_PATIENCE = 10  # times 10 ms
_TAIL_CHARACTERS = 20_000


def _check(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Trap:
    """This process in its private network. Making one changes the process for good."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.mounts = self._leave()
        netlink.switch_on("lo")
        netlink.make_pair(DEVICE, OTHER_END)
        netlink.switch_on(OTHER_END, ask_for_neighbours=False)
        netlink.switch_on(DEVICE, ask_for_neighbours=False)
        netlink.add_address(DEVICE, OWN, 24)
        netlink.add_default_route(DEVICE, socket.AF_INET)
        self.ipv6 = self._try_ipv6()
        self.names_lead_here = self.mounts and self._redirect_names()
        self.covered = self._cover_daemons() if self.mounts else []
        self._ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._ear.bind((OTHER_END, 3))
        self._ear.setblocking(False)
        time.sleep(1.0)  # the kernel's own packets about new devices
        self._counted_before = self._sent()
        self.heard()

    def _leave(self) -> bool:
        """Into new namespaces, as the same user; False if the mounts could not be made private."""
        uid, gid = os.geteuid(), os.getegid()
        mounts: bool = self._libc.unshare(_NEW_USER | _NEW_NET | _NEW_MOUNTS) == 0
        if not mounts:
            _check(self._libc.unshare(_NEW_USER | _NEW_NET), "unshare")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
        return mounts

    def _try_ipv6(self) -> bool:
        try:
            netlink.add_address(DEVICE, OWN6, 64)
            netlink.add_default_route(DEVICE, socket.AF_INET6)
        except OSError:
            return False  # switched off in this kernel: then nothing can leave that way either
        return True

    def _bind_over(self, source: str, target: str) -> bool:
        answer: int = self._libc.mount(source.encode(), target.encode(), None, _MS_BIND, None)
        return answer == 0

    def _redirect_names(self) -> bool:
        """Name servers become addresses of the trap, so that a look-up is a packet to be seen."""
        self._libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        target = os.path.realpath("/etc/resolv.conf")
        if not Path(target).is_file():
            return False
        with tempfile.NamedTemporaryFile("w", prefix="hauslm-names-", encoding="ascii") as stream:
            stream.write(f"nameserver {TARGET}\noptions timeout:1 attempts:1\n")
            stream.flush()
            return self._bind_over(stream.name, target)

    def _cover_daemons(self) -> list[str]:
        with tempfile.NamedTemporaryFile(prefix="hauslm-nothing-") as nothing:
            return [d for d in DAEMONS if Path(d).exists() and self._bind_over(nothing.name, d)]

    def _sent(self) -> int:
        """Packets handed to the device since it exists: the kernel's own count."""
        for line in Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines():
            name, _, figures = line.partition(":")
            if name.strip() == DEVICE:
                return int(figures.split()[9]) + int(figures.split()[11])  # sent and dropped
        raise OSError(f"{DEVICE} is gone")

    def heard(self) -> tuple[int, list[str]]:
        """(packets sent since the last call, where to); the kernel's own IPv6 packets left out.

        The device counts a packet a moment before the far end hears it. What is counted and not yet
        heard is therefore waited for; what stays unheard counts as sent, whatever it was.
        """
        own, targets = self._drain()
        for _ in range(_PATIENCE):
            total = self._sent()
            if total - self._counted_before - own <= len(targets):
                break
            time.sleep(0.01)
            more, others = self._drain()
            own += more
            targets += others
        count = total - self._counted_before - own
        self._counted_before = total
        return max(count, len(targets)), targets

    def _drain(self) -> tuple[int, list[str]]:
        """(packets of the kernel's own housekeeping, the targets of all others) that have arrived."""
        own = 0
        targets: list[str] = []
        while True:
            try:
                data, (_, protocol, direction, *_rest) = self._ear.recvfrom(256)
            except BlockingIOError:
                return own, targets
            described = describe(protocol, data)
            if described is None:
                # What the far end itself says is not in the device's count.
                own += direction != _OUTGOING
            else:
                targets.append(described)


def describe(protocol: int, packet: bytes) -> str | None:
    """'tcp 192.0.2.2:443' and the like, from the head of a packet; None for housekeeping."""
    if protocol == 0x0800 and len(packet) >= 20:
        kind, address = packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
        rest = packet[(packet[0] & 0xF) * 4 :]
    elif protocol == 0x86DD and len(packet) >= 40:
        kind, address = packet[6], f"[{socket.inet_ntop(socket.AF_INET6, packet[24:40])}]"
        rest = packet[40:]
        if kind == 0 and len(rest) >= 8:  # hop-by-hop options stand before multicast reports
            kind, rest = rest[0], rest[8 * (rest[1] + 1) :]
        if kind == 58 and rest and rest[0] in _HOUSEKEEPING:
            return None
    else:
        return f"protocol {protocol:#06x}"
    name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}.get(kind, f"protocol {kind}")
    if kind in (6, 17) and len(rest) >= 4:
        return f"{name} {address}:{struct.unpack_from('!H', rest, 2)[0]}"
    return f"{name} {address}"


def _tell(event: str, **what: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **what}) + "\n")
    sys.stdout.flush()


def _run(trap: Trap, command: dict[str, Any], settle_s: float) -> None:
    _tell("started", name=command["name"])
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command["argv"], cwd=command.get("cwd"), stdin=subprocess.DEVNULL, stdout=output,
                stderr=errors, env=os.environ | command.get("env", {}),
            )  # fmt: skip
        except OSError as error:
            _tell("ended", name=command["name"], exit_code=127, packets=0, targets=[],
                  seconds=0.0, output="", errors=str(error))  # fmt: skip
            return
        try:
            exit_code = process.wait()
        except BaseException:
            process.terminate()
            process.wait(30)
            raise
        time.sleep(settle_s)
        packets, targets = trap.heard()
        _tell(
            "ended", name=command["name"], exit_code=exit_code, packets=packets,
            targets=targets[:100], seconds=round(time.monotonic() - began, 2),
            output=_tail(output), errors=_tail(errors),
        )  # fmt: skip


def _tail(stream: Any) -> str:
    stream.seek(0)
    text: str = stream.read().decode("utf-8", errors="replace")
    return text[-_TAIL_CHARACTERS:]


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(75)


def main() -> int:
    """Serve one request; 0 when all commands ran (however they ended), 5 where it is impossible."""
    signal.signal(signal.SIGTERM, _stop)
    request = json.load(sys.stdin)
    try:
        trap = Trap()
    except OSError as error:
        _tell("impossible", reason=str(error))
        return 5
    _tell("ready", ipv6=trap.ipv6, names=trap.names_lead_here, covered=trap.covered)
    with suppress(KeyboardInterrupt):
        for command in request["commands"]:
            _run(trap, command, float(request.get("settle_s", _SETTLE_S)))
        return 0
    return 75


if __name__ == "__main__":
    sys.exit(main())
