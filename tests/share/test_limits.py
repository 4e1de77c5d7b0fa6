"""Hostile input is refused in under 2 s and 256 MiB: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.share.making import config
from tests.share.test_bundle import ARCHIVES, HOSTILE, _entries

_CHILD = """
import json, sys, time
from pathlib import Path
from hauslm.base.errors import HauslmError
from hauslm.share.verify import verify
result = {}
for path in json.load(sys.stdin):
    began = time.perf_counter()
    try:
        verify(Path(path))
        code = "accepted"
    except HauslmError as error:
        code = error.code
    result[path] = (code, time.perf_counter() - began)
# VmHWM begins anew with the program; ru_maxrss still carries the size of the process that forked.
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
print(json.dumps({"peak_mib": peak, "result": result}))
"""


def _huge(kind: str, target: Path) -> Path:
    """Files that claim or are much: sparse, so that making them costs nothing."""
    if kind == "four gigabytes of nothing":
        with target.open("wb") as stream:
            stream.truncate(4 << 30)
    elif kind == "header of eight mebibytes":
        body = b'{"a":' + b"[" * (8 << 20)
        target.write_bytes(len(body).to_bytes(8, "little") + body)
    elif kind == "manifest of fifteen mebibytes":
        target.write_bytes(b'{"files": {' + b'"x": "y", ' * (15 << 17) + b'"z": ""}}')
    return target


def test_every_hostile_case_is_quick_and_small(packed: Path, tmp_path: Path) -> None:
    paths: dict[str, str] = {}
    entries = _entries(packed)
    for number, (case, make) in enumerate(sorted(HOSTILE.items())):
        file = tmp_path / f"h{number}.hlm"
        file.write_bytes(make(dict(entries)))
        paths[str(file)] = case
    for number, (case, build) in enumerate(sorted(ARCHIVES.items())):
        paths[str(build(list(entries.items()), tmp_path / f"a{number}.hlm"))] = case
    paths[str(_huge("four gigabytes of nothing", tmp_path / "big.hlm"))] = "huge file"
    for kind, name in (
        ("header of eight mebibytes", "adapter_model.safetensors"),
        ("manifest of fifteen mebibytes", "manifest.json"),
    ):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config()))
        _huge(kind, folder / name)
        paths[str(folder)] = kind
    deep = tmp_path / "deep"
    deep.mkdir()
    for number in range(5000):
        (deep / f"f{number}").touch()
    paths[str(deep)] = "five thousand files"

    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(list(paths)), capture_output=True,
        text=True, timeout=300, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    accepted = [paths[p] for p, (code, _) in answer["result"].items() if code == "accepted"]
    assert accepted == []
    slowest = max(answer["result"].items(), key=lambda i: i[1][1])
    assert slowest[1][1] < 2, (paths[slowest[0]], slowest[1])
    assert answer["peak_mib"] < 256
    assert len(paths) >= 53


def test_the_measure_can_fail(packed: Path) -> None:
    """A sound bundle is accepted by the same process: the refusals above are no accident."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps([str(packed)]), capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["result"][str(packed)][0] == "accepted"
