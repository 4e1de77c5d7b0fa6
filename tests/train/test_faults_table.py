"""Every fault of the catalogue is caused, and its promise kept: the short form of `make test-faults`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.campaign.lab import Lab, may_mount
from tests.train.campaign.table import FAULTS


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    import torch

    before = torch.get_num_threads()
    yield Lab(tmp_path_factory.mktemp("faults"))
    torch.set_num_threads(before)


def test_no_fault_of_the_catalogue_is_forgotten() -> None:
    assert list(FAULTS) == [f"F{n}" for n in range(1, 19)]
    assert all(f.cause for f in FAULTS.values())


@pytest.mark.parametrize("name", [n for n, f in FAULTS.items() if f.cause])
def test_the_promise_is_kept(name: str, lab: Lab) -> None:
    fault = FAULTS[name]
    assert fault.cause is not None
    if fault.mounts and not may_mount():
        pytest.skip("this machine forbids user namespaces, so no disk can be made small")
    tried = list(fault.cause(lab, False))
    broken = [t.what for t in tried if not t.kept]
    assert tried and not broken, f"{len(broken)} of {len(tried)}: {broken[:5]}"


def test_the_power_cut_model_loses_what_was_not_synced(tmp_path: Path) -> None:
    """The instrument itself: without any fsync, nothing new is sure to be there."""
    import os

    from tests.train.campaign.powercut import Disk, Recorder

    (tmp_path / "d").mkdir()
    disk, recorder = Disk(tmp_path), Recorder(tmp_path)
    with recorder.recording():
        descriptor = os.open(tmp_path / "d" / "x", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"data")
        os.close(descriptor)
        (tmp_path / "d" / "x").rename(tmp_path / "d" / "y")
    for operation in recorder.log:
        disk.apply(operation)
    seen = set()
    for number, (reached, torn) in enumerate(disk.crashes()):
        after = tmp_path / f"after{number}"
        disk.write_to(after, reached, torn)
        seen.add(tuple((p.name, p.read_bytes()) for p in (after / "d").iterdir()))
    assert () in seen  # neither name
    assert (("x", b""),) in seen and (("y", b""),) in seen  # a name without its contents
    assert (("y", b"da"),) in seen and (("y", b"data"),) not in seen


def test_the_page_is_what_the_campaign_gave() -> None:
    """docs/reliability.md is made from benchmarks/results/faults.json, for the faults of today's table."""
    import importlib.util
    import json

    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("reliability", root / "scripts/reliability.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    result = json.loads(script.RESULT.read_text(encoding="utf-8"))
    assert script.PAGE.read_text(encoding="utf-8") == script.page(result)
    assert {n: (f["fault"], f["promise"]) for n, f in result["faults"].items()} == {
        n: (f.fault, f.promise) for n, f in FAULTS.items()
    }
    assert all(f["tried"] == f["kept"] for f in result["faults"].values())
    assert result["faults"]["F1"]["tried"] >= 200
    assert all(m["test"] for m in result["mutations"])
