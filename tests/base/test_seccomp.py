"""The table path x layer: each way out, tried under each layer, its packets counted in a trap.

What the kernel answers is tried without the trap as well, so that machines without user namespaces
test the filter too; its form for the other architecture runs in a small interpreter of filters.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.base import seccomp
from tests.security import ways_out

POSSIBLE = seccomp.unavailable() is None
needs_seccomp = pytest.mark.skipif(not POSSIBLE, reason=f"seccomp: {seccomp.unavailable()}")


@pytest.fixture(scope="module")
def packets() -> dict[str, int]:
    """Packets by 'path under layer', counted in one trap."""
    counted = ways_out.count()
    if isinstance(counted, str):
        pytest.skip(f"no private network here: {counted}")
    return counted


@pytest.mark.parametrize("layer", ways_out.LAYERS)
@pytest.mark.parametrize("path", ways_out.PATHS)
def test_each_way_out_under_each_layer(path: str, layer: str, packets: dict[str, int]) -> None:
    if layer not in ways_out.usable_layers():
        pytest.skip(f"seccomp: {seccomp.unavailable()}")
    count = packets[f"{path} under {layer}"]
    if path == "native io_uring" and packets["native io_uring under none"] == 0:
        pytest.skip("this kernel has io_uring switched off")
    assert count > 0 if ways_out.leaves(path, layer) else count == 0


@pytest.mark.parametrize(
    ("layer", "reached"),
    [("none", True), ("hook strict", True), ("filter strict", True), ("filter loopback", False)],
)
def test_services_on_this_machine_over_af_unix(layer: str, reached: bool, tmp_path: Any) -> None:
    """Commands need AF_UNIX (multiprocessing, PyTorch), which SECURITY.md says; a server does not."""
    if layer not in ways_out.usable_layers():
        pytest.skip(f"seccomp: {seccomp.unavailable()}")
    import socket

    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "s"))
        service.listen()
        code = ways_out.LAYERS[layer] + (
            "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
            "try: s.connect(sys.argv[1]); print('reached')\n"
            "except PermissionError: print('refused')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "s")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stdout.strip() == ("reached" if reached else "refused")


# ---------------------------------------------------------------- what the kernel answers


def _python(code: str, **options: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


@needs_seccomp
@pytest.mark.parametrize("profile", ["strict", "loopback"])
def test_the_kernel_answers_eacces_and_children_inherit_it(profile: str) -> None:
    code = (
        "import errno, subprocess, sys; from hauslm.base import seccomp\n"
        f"print(seccomp.install({profile!r}), seccomp.state())\n"
        "ask = 'import socket\\ntry: socket.socket(2, 2)\\nexcept OSError as e: print(e.errno)'\n"
        "print(subprocess.run([sys.executable, '-I', '-c', ask], capture_output=True, text=True).stdout)\n"
        "state = 'from hauslm.base import seccomp; print(seccomp.state())'\n"
        "print(subprocess.run([sys.executable, '-c', state], capture_output=True, text=True).stdout)\n"
    )
    assert _python(code).split() == ["None", profile, "13", profile]


@needs_seccomp
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("profile", ["strict", "loopback"])
def test_queues_and_foreign_descriptors_are_refused(profile: str) -> None:
    code = (
        "import ctypes; from hauslm.base import seccomp; c = ctypes.CDLL(None, use_errno=True)\n"
        f"seccomp.install({profile!r})\n"
        "for n in (425, 426, 427, 438):\n"
        "    ctypes.set_errno(0); print(c.syscall(n, -1, 0, 0), ctypes.get_errno())\n"
    )
    assert _python(code).split() == ["-1", "1"] * 4


@needs_seccomp
def test_threads_that_ran_before_get_the_filter_too() -> None:
    code = (
        "import socket, threading; from hauslm.base import seccomp\n"
        "go = threading.Event()\n"
        "def late():\n"
        "    go.wait()\n"
        "    try: socket.socket(); print('made')\n"
        "    except PermissionError: print('refused')\n"
        "t = threading.Thread(target=late); t.start(); seccomp.install('strict'); go.set(); t.join()\n"
    )
    assert _python(code) == "refused"


@needs_seccomp
def test_a_server_under_loopback_answers_and_cannot_call() -> None:
    code = (
        "import socket, sys; from hauslm.base import egress\n"
        "egress.shut('loopback')\n"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "c, _ = s.accept(); c.sendall(c.recv(9)[::-1]); c.close()\n"
        "try: socket.create_connection(s.getsockname())\n"
        "except PermissionError: print('refused')\n"
    )
    import socket

    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"abc")
            assert client.recv(9) == b"cba"
        assert server.stdout.read().strip() == "refused"


@needs_seccomp
def test_worker_processes_and_shared_tensors_work_under_strict(tmp_path: Any) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import torch\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from torch.utils.data import DataLoader\n"
        "from hauslm.base import egress\n"
        "if __name__ == '__main__':\n"
        "    egress.shut('strict')\n"
        "    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:\n"
        "        print(pool.submit(pow, 2, 5).result())\n"
        "    data = torch.arange(6).float()\n"
        "    print(sum(float((b @ b)) for b in DataLoader(data, batch_size=3, num_workers=1)))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.split() == ["32", "55.0"], done.stderr


# ---------------------------------------------------------------- the door on top of it


@needs_seccomp
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("strict", "egress.shut('loopback')"),
        ("strict", "egress.permitted('127.0.0.1').__enter__()"),
        ("loopback", "egress.permitted('api.example.org').__enter__()"),
    ],
)
def test_what_the_filter_forbids_is_told_at_once(first: str, then: str) -> None:
    code = (
        f"from hauslm.base import egress; egress.shut({first!r})\n"
        f"try:\n    {then}\nexcept Exception as e: print(getattr(e, 'code', e))\n"
    )
    assert _python(code) == "H522"


def test_a_layer_that_is_missing_is_never_green() -> None:
    code = (
        "from hauslm.base import egress; egress.shut('strict', kernel=False)\n"
        "print([l.active for l in egress.layers()], egress.layers()[2].said)\n"
        "import os; os.environ['HF_HUB_OFFLINE'] = '0'; print(egress.layers()[0].said)\n"
    )
    first, second = _python(code, env=os.environ | {"LANGUAGE": "en"}).splitlines()
    assert first.startswith("[True, True, False, True] not proven: not asked for")
    assert second.startswith("not proven: changed since (HF_HUB_OFFLINE)")


@needs_seccomp
def test_all_layers_are_active_in_a_command() -> None:
    code = (
        "from hauslm.base import egress; egress.shut(); print([l.active for l in egress.layers()])"
    )
    assert _python(code) == "[True, True, True, True]"


def test_sockets_from_before_are_listed() -> None:
    code = (
        "import socket; s = socket.socket(); from hauslm.base import egress, seccomp\n"
        "egress.shut('strict'); print(seccomp.open_internet_sockets() == [s.fileno()],"
        "egress.layers()[3].active, s.fileno() > 0)"
    )
    if sys.platform == "linux":
        assert _python(code) == "True False True"


def test_refused_attempts_are_written_down_for_the_proof(tmp_path: Any) -> None:
    from hauslm.base.egress import LOG_VARIABLE

    log = tmp_path / "attempts.jsonl"
    code = (
        "from hauslm.base import egress; egress.shut('strict', kernel=False)\n"
        "import socket\n"
        "try: socket.getaddrinfo('example.org', 80)\n"
        "except OSError: pass\n"
    )
    _python(code, env=os.environ | {LOG_VARIABLE: str(log)})
    (row,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert row["target"] == "example.org" and row["caller"]


# ---------------------------------------------------------------- the programme itself

ALLOW, DENY, FORBID = 0x7FFF0000, 0x0005000D, 0x00050001


def run_filter(code: bytes, machine: str, nr: int, args: tuple[int, ...], arch: int = 0) -> int:
    """Classic BPF as the kernel runs it, for the few operations in use."""
    words = [nr, arch or seccomp._MACHINES[machine].audit, 0, 0]
    for argument in (*args, *[0] * (6 - len(args))):
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    steps = list(struct.iter_unpack("=HBBI", code))
    at = accumulator = 0
    while True:
        operation, true, false, k = steps[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = words[k // 4]
            case 0x54:
                accumulator &= k
            case 0x15:
                at += true if accumulator == k else false
            case 0x45:
                at += true if accumulator & k else false
            case 0x05:
                at += k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(operation)


word = st.integers(0, 2**64 - 1)


@given(
    st.sampled_from(["x86_64", "aarch64"]), st.sampled_from(["strict", "loopback"]),
    st.integers(0, 600), st.tuples(word, word, word, word, word, word),
)  # fmt: skip
def test_the_filter_judges_what_it_names_and_nothing_else(
    machine: str, profile: Any, nr: int, args: tuple[int, ...]
) -> None:
    calls = {n: name for name, n in seccomp._MACHINES[machine].calls.items()}
    answer = run_filter(seccomp.program(profile, machine), machine, nr, args)
    name = calls.get(nr, "")
    low = [a & 0xFFFFFFFF for a in args]
    if name.startswith("io_uring") or name == "pidfd_getfd":
        expected = FORBID
    elif name == "socketpair" or (name == "socket" and profile == "strict"):
        expected = ALLOW if low[0] == 1 else DENY
    elif profile == "strict" or name in ("", "seccomp"):
        expected = ALLOW
    elif name == "socket":
        tcp = low[0] in (2, 10) and low[1] & 0xF == 1 and low[2] in (0, 6)
        expected = ALLOW if low[0] == 1 or tcp else DENY
    elif name == "sendto":
        expected = DENY if low[3] & 0x20000000 or args[4] else ALLOW
    elif name == "sendmsg":
        expected = DENY if low[2] & 0x20000000 else ALLOW
    elif name == "setsockopt":
        expected = DENY if low[1] == 6 and low[2] == 30 else ALLOW
    else:
        expected = DENY  # connect, sendmmsg
    assert answer == expected


@given(st.sampled_from(["x86_64", "aarch64"]), st.integers(0, 600), st.integers(1, 2**32 - 1))
def test_other_entry_points_of_the_kernel_are_closed(machine: str, nr: int, arch: int) -> None:
    code = seccomp.program("strict", machine)
    if arch != seccomp._MACHINES[machine].audit:
        assert run_filter(code, machine, nr, (), arch) == DENY
    if machine == "x86_64":
        assert run_filter(code, machine, nr | 0x40000000, ()) == DENY


@pytest.mark.parametrize("name", ["connect", "sendto", "socket", "setsockopt", "sendmmsg"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_rule_is_reached(machine: str, name: str) -> None:
    """Random numbers rarely hit a call; here each is hit with an argument that must be refused."""
    args = {
        "connect": (3, 1, 16), "sendto": (3, 1, 1, 0, 1 << 32, 16), "socket": (2, 2, 0),
        "setsockopt": (3, 6, 30, 0, 4), "sendmmsg": (3, 1, 1, 0),
    }[name]  # fmt: skip
    nr = seccomp._MACHINES[machine].calls[name]
    assert run_filter(seccomp.program("loopback", machine), machine, nr, args) == DENY
