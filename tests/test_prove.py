"""The privacy proof: passed only with 0 packets and a caught control, never green where it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm import prove
from hauslm.base import trap
from hauslm.base.errors import HauslmError, MissingError, RefusedError, UsageError
from hauslm.base.progress import Silent
from hauslm.cli.entry import COMMANDS
from hauslm.prove import copy as copying
from hauslm.prove import stages
from hauslm.records import Privacy

CONTROLS = stages.commands(Path("x"), [], Path("y"))


def in_trap(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = prove.in_trap(commands, Silent())
    if answers[0]["event"] == "impossible":
        pytest.skip(f"no private network here: {answers[0]['reason']}")
    return answers


def stage(name: str, code: str) -> dict[str, Any]:
    return {"name": name, "argv": [sys.executable, "-I", "-c", code]}


def recorded(*commands: dict[str, Any], stages: tuple[str, ...]) -> Privacy:
    return prove.make_record(in_trap([*commands, *CONTROLS]), stages, [], [])


def code_of(record: Privacy) -> tuple[str, int]:
    with pytest.raises(HauslmError) as caught:
        prove.verdict(record)
    return caught.value.code, caught.value.exit_code


# ---------------------------------------------------------------- the verdict


def test_a_silent_stage_passes_and_the_control_is_caught_on_every_way_out() -> None:
    record = recorded(stage("train", "print(1)"), stages=("train",))
    assert record.passed and record.packets == 0 and record.stages == {"train": "0"}
    assert record.control_packets == sum(record.controls.values())
    ipv6 = "IPv6 caught" in record.layers[prove.TRAP_LAYER].text
    assert all(n for k, n in record.controls.items() if ipv6 or "IPv6" not in k), record.controls
    prove.verdict(record)


def test_a_stage_that_sends_is_caught_with_its_target() -> None:
    code = "import socket; socket.socket(2, 2).sendto(b'x', ('198.51.100.7', 9))"
    record = recorded(stage("prepare", code), stage("train", "1"), stages=("prepare", "train"))
    assert not record.passed and record.packets == 1
    assert record.attempts == (
        {"event": "packet", "target": "udp 198.51.100.7:9", "stage": "prepare"},
    )
    assert code_of(record) == ("H480", 4)


def test_a_stage_that_fails_proves_nothing() -> None:
    record = recorded(stage("train", "raise SystemExit('no')"), stages=("train", "serve"))
    assert not record.passed and record.packets == 0
    assert ["no" in n.text or "did not run" in n.text for n in record.notices] == [True, True]
    assert code_of(record) == ("H551", 5)


def test_without_a_caught_control_nothing_is_proven() -> None:
    answers = in_trap([stage("train", "1")])
    record = prove.make_record(answers, ("train",), [], [])
    assert not record.passed and record.packets == 0 and record.control_packets == 0
    assert code_of(record) == ("H551", 5)
    assert record.layers[prove.TRIED_LAYER].text.startswith("not proven")


def test_no_stages_are_no_proof() -> None:
    assert not recorded(stages=()).passed


def test_an_unknown_stage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="H140"):
        prove.prove(tmp_path, stages=("trian",))


# ---------------------------------------------------------------- the command


def hauslm(*arguments: str, before: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}; from hauslm.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"LANGUAGE": "en"}, timeout=600,
    )  # fmt: skip


def test_where_it_cannot_run_the_record_says_not_proven(tmp_path: Path) -> None:
    """Inside a process that may not make sockets there is no trap either."""
    done = hauslm("prove-privacy", "-C", str(tmp_path), "--until", "prepare", "--json",
                  before="from hauslm.base import egress; egress.shut('strict')")  # fmt: skip
    record = json.loads(done.stdout)
    assert done.returncode == 5 and "H550" in done.stderr and "Traceback" not in done.stderr
    assert record["passed"] is False and record["packets"] is None
    assert record["layers"][prove.TRAP_LAYER]["text"].startswith("not proven")
    kept = Privacy.load(tmp_path / "records" / "privacy.json")
    assert not kept.passed and kept.packets is None


def test_the_command_proves_a_project_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    done = hauslm("demo", "-C", str(tmp_path), "--until", "compare", "-q")
    assert done.returncode == 0, done.stderr
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = hauslm("prove-privacy", "-C", str(tmp_path), "--until", "prepare", "--json")
    record = json.loads(done.stdout)
    if record["packets"] is None:
        pytest.skip(f"no private network here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert record["passed"] and record["packets"] == 0 and record["control_packets"] > 0
    assert record["stages"] == {"prepare": "0"} and record["limits"] and record["kernel"]
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after.keys() - before.keys() == {tmp_path / "records" / "privacy.json"}
    assert all(after[p] == before[p] for p in before)


@pytest.mark.slow
def test_all_stages_and_the_server_send_nothing(tmp_path: Path) -> None:
    done = hauslm("prove-privacy", "-C", str(tmp_path), "--json")
    record = json.loads(done.stdout)
    if record["packets"] is None:
        pytest.skip(f"no private network here: {done.stderr}")
    assert done.returncode == 0 and record["stages"] == dict.fromkeys(prove.DEFAULT, "0")


WEB = """
import http.client, subprocess, sys, time
web = subprocess.Popen([sys.executable, "-m", "hauslm", "web", "-C", sys.argv[1], "--port", "8399"])
while web.poll() is None:
    try:
        c = http.client.HTTPConnection("127.0.0.1", 8399, timeout=60)
        c.request("GET", "/")
        status = c.getresponse().status
        break
    except ConnectionRefusedError:
        time.sleep(0.2)
web.terminate()
code = web.wait(30)
sys.exit(0 if status == 401 and code in (0, 75) else f"{status} {code}")  # 401: no token was sent
"""


# Commands that are done in a second or two; the others run in the slow test.
QUICK = ("demo", "check", "init", "plan", "prepare", "verify", "catalog", "schema")
ARGUMENTS = {
    "demo": ["--until", "compare"], "catalog": ["models"], "export": ["script"],
    "report": ["--format", "pdf", "--format", "html"], "prove-privacy": ["--help"],
}  # fmt: skip


def commands_in_order(tmp_path: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each command as a user types it, in the order in which each finds what it needs."""
    folder = tmp_path / "demo"
    found = []
    for name in names:
        target = tmp_path / "new" if name == "init" else folder
        more = {"init": ["--yes"], "verify": [str(folder / "adapter")]}.get(
            name, ARGUMENTS.get(name, [])
        )
        argv = [sys.executable, "-P", "-m", "hauslm", name, *more, "-C", str(target)]
        if name == "serve":
            argv = [sys.executable, "-P", "-m", "hauslm.prove.trapped", "serve", str(folder)]
        elif name == "web":
            argv = [sys.executable, "-c", WEB, str(folder)]
        found.append({"name": name, "argv": argv})
        if name == "demo":  # a short run from here on
            code = (
                "import sys; from pathlib import Path; from hauslm.prove.copy import shorten\n"
                "shorten(Path(sys.argv[1]) / 'hauslm.yaml', Path(sys.argv[1]))"
            )
            found.append({"name": "shorten", "argv": [sys.executable, "-c", code, str(folder)]})
    return found


def run_in_trap(commands: list[dict[str, Any]], may_fail: tuple[str, ...] = ()) -> None:
    ended = {a["name"]: a for a in in_trap(commands) if a["event"] == "ended"}
    assert {n: a["packets"] for n, a in ended.items()} == {c["name"]: 0 for c in commands}
    failed = {n: a["errors"][-300:] for n, a in ended.items() if a["exit_code"] != 0}
    assert failed.keys() <= set(may_fail), failed


def test_no_command_is_forgotten() -> None:
    """What click knows is what the trap runs: a new command is in the slow test without anybody's doing."""
    import click

    from hauslm.cli.entry import group

    assert set(group.list_commands(click.Context(group))) == set(COMMANDS) >= set(QUICK)


def test_quick_commands_run_in_the_trap_and_send_nothing(tmp_path: Path) -> None:
    """Without an adapter `verify` ends with a refusal: that path must be as silent."""
    run_in_trap(commands_in_order(tmp_path, QUICK), may_fail=("verify",))


@pytest.mark.slow
def test_every_command_runs_in_the_trap_and_sends_nothing(tmp_path: Path) -> None:
    run_in_trap(commands_in_order(tmp_path, ("demo", *(c for c in COMMANDS if c != "demo"))))


# ---------------------------------------------------------------- the copy


def test_the_copy_is_short_and_finds_what_lies_beside_the_project(tmp_path: Path) -> None:
    root = tmp_path / "team"
    (root / "records").mkdir(parents=True)
    (root / "texts").mkdir()
    (root / "texts" / "a.md").write_text("A", encoding="utf-8")
    (root / "big.bin").write_bytes(bytes(copying.LINKED_ABOVE_BYTES + 1))
    (root / "hauslm.yaml").write_text(
        "# kept\nname: team\ndocuments: [texts, ../corpus]\nmodel: ../model\n"
        "training:\n  max_steps: 2\nevaluation:\n  max_items: 5000\n",
        encoding="utf-8",
    )
    copy = tmp_path / "copy"
    copying.copy_project(root, copy)
    copying.shorten(copy / "hauslm.yaml", root)
    assert not (copy / "records").exists()
    assert (copy / "big.bin").stat().st_ino == (root / "big.bin").stat().st_ino
    assert (copy / "texts" / "a.md").stat().st_ino != (root / "texts" / "a.md").stat().st_ino
    from hauslm.scenario import load

    scenario = load(copy / "hauslm.yaml")
    assert scenario.documents.paths == ["texts", f"{root}/../corpus"]
    assert scenario.model.base == f"{root}/../model"
    assert (scenario.training.max_steps, scenario.evaluation.max_items) == (2, 12)
    assert scenario.analysis.max_documents == 1
    assert "# kept" in (copy / "hauslm.yaml").read_text()


# ---------------------------------------------------------------- the trap


@given(st.sampled_from([0x0800, 0x86DD, 0x0806, 0x88CC]), st.binary(max_size=120))
def test_no_packet_breaks_its_description(protocol: int, packet: bytes) -> None:
    described = trap.describe(protocol, packet)
    assert described is None or described


def test_only_the_housekeeping_of_the_kernel_is_left_out() -> None:
    def ipv6(kind: int, rest: bytes) -> bytes:
        return (
            bytes((0x60, 0, 0, 0, 0, len(rest), kind, 255)) + bytes(16) + bytes(15) + b"\1" + rest
        )

    assert trap.describe(0x86DD, ipv6(58, bytes((135, 0)))) is None  # neighbour solicitation
    assert trap.describe(0x86DD, ipv6(0, bytes((58, 0)) + bytes(6) + bytes((143, 0)))) is None
    assert trap.describe(0x86DD, ipv6(58, bytes((128, 0)))) == "icmpv6 [::1]"  # a ping
    assert trap.describe(0x86DD, ipv6(17, bytes((0, 1, 0, 53)))) == "udp [::1]:53"
    assert trap.describe(0x0806, bytes(28)) == "protocol 0x0806"


def test_a_trap_cannot_be_left_behind_by_the_way_it_ends() -> None:
    """A command that is no programme is an ended command, and the trap goes on."""
    answers = in_trap([{"name": "none", "argv": ["/no/such/programme"]}, stage("one", "1")])
    assert [a["exit_code"] for a in answers if a["event"] == "ended"] == [127, 0]


def test_errors_of_the_verdict_are_of_the_family() -> None:
    nothing = Privacy(passed=True, packets=0, control_packets=1)
    prove.verdict(nothing)
    assert issubclass(RefusedError, HauslmError) and issubclass(MissingError, HauslmError)
