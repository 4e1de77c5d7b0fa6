"""A launched vLLM can be reached under the guard that the command line sets; other commands stay shut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from hauslm.cli.entry import _shut_the_door
from hauslm.base import egress
_shut_the_door(sys.argv[1:])
from hauslm.lm import vllm
port = vllm.free_port()  # binds on loopback under a permit
assert vllm._models(port, "token") is None  # nobody answers; what matters: it may be asked
print(egress._mode)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", CODE, *arguments, "-C", str(folder)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "arguments", "mode"),
    [
        ("", ("serve", "--engine", "vllm"), "loopback"),
        ("serving: {engine: vllm}\n", ("serve",), "loopback"),
        ("analysis: {engine: vllm}\n", ("analyse",), "strict"),
        ("name: plain\n", ("analyse", "--engine", "vllm"), "strict"),
        ("name: plain\n", ("analyse", "--engine=openai"), "strict"),
    ],
)
def test_where_vllm_is_launched_it_may_be_asked(
    tmp_path: Path, text: str, arguments: tuple[str, ...], mode: str
) -> None:
    (tmp_path / "hauslm.yaml").write_text(text, encoding="utf-8")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == mode


@pytest.mark.parametrize("arguments", [("serve",), ("analyse",)])
def test_elsewhere_the_kernel_keeps_the_door_shut(tmp_path: Path, arguments: tuple[str]) -> None:
    (tmp_path / "hauslm.yaml").write_text("name: plain\n", encoding="utf-8")
    done = run(tmp_path, *arguments)
    assert done.returncode != 0 and "H52" in done.stderr


ASKS = """
import sys
from hauslm.cli.entry import _shut_the_door
from hauslm.base import egress, seccomp
said = _shut_the_door(sys.argv[1:])
print(egress._mode, seccomp.state(), bool(said))
"""


@pytest.mark.parametrize(
    ("text", "command", "open_"),
    [
        ("evaluation:\n  cloud:\n    endpoint: https://api.example.org/v1\n", "evaluate", True),
        ("evaluation: {cloud: {endpoint: 'https://api.example.org/v1'}}\n", "bundle", True),
        ("evaluation: {cloud: {endpoint: 'https://api.example.org/v1'}}\n", "train", False),
        ("# evaluation: cloud: endpoint\nscenario: {people: {setup_hours_cloud: 3}}\n", "evaluate", False),
        ("scenario: {options: [{id: x, kind: cloud}]}\n", "evaluate", False),
    ],
)  # fmt: skip
def test_a_cloud_model_of_the_evaluation_is_told_and_only_then_reachable(
    tmp_path: Path, text: str, command: str, open_: bool
) -> None:
    (tmp_path / "hauslm.yaml").write_text(text, encoding="utf-8")
    line = [sys.executable, "-c", ASKS, command, "-C", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    mode, kernel, told = done.stdout.split()
    assert mode == "strict" and told == str(open_)
    assert (kernel == "strict") is not open_
