"""Several processes train what one process trains: real torchrun, gloo, two ranks on this machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hauslm
from hauslm.base.errors import Interrupted, RefusedError, UsageError
from hauslm.base.files import sha256_file
from hauslm.base.progress import Silent
from hauslm.records import Run
from hauslm.train import cluster, distributed, seal
from hauslm.train.cluster import Shape
from tests.train.conftest import Project, corpus_of

TRAINING: dict[str, Any] = {
    "max_steps": 8,
    "seq_len": 64,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 3,  # an odd number of rows: one rank has one more
    "learning_rate": 0.01,
    "precision": "float32",
    "early_stopping_patience": None,
    "checkpoint_every_steps": 2,
}


def write(project: Project, **training: Any) -> None:
    document = {
        "model": {"base": "tiny", "path": "base"},
        "training": TRAINING | training,
        "adapter": {"r": 4, "lora_dropout": 0.1},
    }
    project.folder.file.write_text(json.dumps(document))
    corpus_of(project.folder).save(project.folder.records)


def together(project: Project, resume: bool = False, strategy: str = "ddp") -> Run:
    write(project)
    return cluster.run(
        project.folder, Shape(2, strategy=strategy), resume=resume, accept_change=False,
        progress=Silent(),
    )  # fmt: skip


def alone(project: Project, resume: bool = False) -> Run:
    return project.run(TRAINING, {"lora_dropout": 0.1}, resume=resume)


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.history if "loss" in row]


def back_to(project: Project, step: int) -> None:
    """As if the run had been killed after `step`."""
    for path in project.checkpoints:
        if int(path.name.split("-")[1]) > step:
            path.rename(path.with_name(f"gone-{path.name}"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(
    make_project: Callable[..., Project], strategy: str
) -> None:
    one, two = alone(make_project()), together(make_project(), strategy=strategy)
    assert len(losses(two)) == 8
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert two.loss.validation == pytest.approx(one.loss.validation, abs=1e-5)
    assert two.tokens == one.tokens
    assert two.distributed["processes"] == 2
    assert two.distributed["network"] == "loopback"
    assert two.distributed["wrapped"]
    assert two.determinism == "statistical" and one.distributed == {}


@pytest.mark.slow
def test_the_python_api_trains_with_two_processes(tmp_path: Path) -> None:
    """`hauslm.train(processes=2)`: what the command line does with --nproc, filed as a record."""
    from hauslm.start import write_demo

    runs = {}
    for processes in (1, 2):
        root = tmp_path / f"with-{processes}"
        write_demo(root, "en")
        for path in sorted((root / "documents").iterdir())[6:]:
            path.unlink()
        file = root / "hauslm.yaml"
        text = file.read_text(encoding="utf-8").replace(
            "training:\n", "training:\n  max_steps: 4\n  seq_len: 256\n  precision: float32\n"
        )
        file.write_text(text, encoding="utf-8")
        runs[processes] = hauslm.train(root, processes=processes)
        assert Run.load(root / "records" / "run.json") == runs[processes]
        weights = root / runs[processes].adapter.path / "adapter_model.safetensors"
        assert sha256_file(weights) == runs[processes].adapter.sha256
    one, two = runs[1], runs[2]
    assert one.distributed == {}
    assert two.distributed["processes"] == 2 and two.distributed["strategy"] == "ddp"
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)


def test_two_processes_resume_what_one_began_and_the_other_way_round(
    make_project: Callable[..., Project],
) -> None:
    whole = alone(make_project())
    project = make_project()
    alone(project)
    back_to(project, 6)
    second = together(project, resume=True)
    assert second.resumed_from == ("step-000006",)
    assert losses(second) == pytest.approx(losses(whole), abs=1e-5)
    project = make_project()
    together(project)
    back_to(project, 6)
    third = alone(project, resume=True)
    assert third.resumed_from == ("step-000006",)
    assert third.determinism == "statistical"
    assert losses(third) == pytest.approx(losses(whole), abs=1e-5)


def test_two_machines_train_by_the_same_command(make_project: Callable[..., Project]) -> None:
    """Two torchrun agents, each with its own project folder (a copy), meet on loopback. Node 1 leaves
    node 0's lock and records alone."""
    one = alone(make_project())
    first, second = make_project(), make_project()
    for project in (first, second):
        write(project)
    shape = {"processes": 1, "nodes": 2, "rendezvous": f"127.0.0.1:{cluster._free_port()}"}
    joined: list[BaseException | None] = []

    def join() -> None:
        try:
            cluster.join(
                second.folder, Shape(**shape, node_rank=1), resume=False, accept_change=False,
                progress=Silent(),
            )  # fmt: skip
            joined.append(None)
        except BaseException as error:
            joined.append(error)

    other = threading.Thread(target=join, daemon=True)
    other.start()
    two = cluster.run(
        first.folder, Shape(**shape), resume=False, accept_change=False, progress=Silent()
    )
    other.join(timeout=60)
    assert joined == [None]
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert two.distributed["processes"] == 2 and two.distributed["nodes"] == 2
    assert two.distributed["wrapped"] == ["DistributedDataParallel"]
    assert (first.folder.adapter / "adapter_model.safetensors").is_file()
    assert not second.folder.adapter.exists() and not second.checkpoints
    assert not (second.folder.work / "train" / "process.json").exists()


def test_a_machine_with_another_corpus_is_refused(make_project: Callable[..., Project]) -> None:
    first, second = make_project(), make_project()
    for project in (first, second):
        write(project)
    corpus_of(second.folder, "another").save(second.folder.records)
    shape = {"processes": 1, "nodes": 2, "rendezvous": f"127.0.0.1:{cluster._free_port()}"}

    def join() -> None:
        with pytest.raises(Interrupted, match="H655"):
            cluster.join(
                second.folder, Shape(**shape, node_rank=1), resume=False, accept_change=False,
                progress=Silent(),
            )  # fmt: skip

    other = threading.Thread(target=join, daemon=True)
    other.start()
    with pytest.raises(RefusedError, match="do not agree"):
        cluster.run(
            first.folder, Shape(**shape), resume=False, accept_change=False, progress=Silent()
        )
    other.join(timeout=60)


def ranks_of(root: Path) -> list[int]:
    """Process numbers of the ranks that train below `root`, rank 0 first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [e for e in environment if e.startswith(b"RANK=")]
        if b"hauslm.train.distributed" in words and str(root).encode() in words and rank:
            found.append((int(rank[0][5:]), int(entry.name)))
    return [pid for _, pid in sorted(found)]


def test_a_lost_rank_ends_the_run_and_the_sealed_checkpoints_stay(project: Project) -> None:
    write(project, max_steps=5000)
    ended: list[float] = []

    def kill() -> None:
        while len(project.checkpoints) < 2:
            time.sleep(0.05)
        os.kill(ranks_of(project.folder.root)[1], signal.SIGKILL)
        ended.append(time.monotonic())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(Interrupted) as error:
        cluster.run(project.folder, Shape(2), resume=False, accept_change=False, progress=Silent())
    assert error.value.code == "H655" and error.value.exit_code == 75
    assert time.monotonic() - ended[0] < 60
    assert not ranks_of(project.folder.root)
    for path in project.checkpoints:
        seal.verify(path)


def test_ranks_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """must_agree against another rank's digest: the sum is that of two ranks."""
    ranks = distributed.Ranks(0, 2, "gloo")
    digests = ["ab" * 32, "ab" * 31 + "ac"]

    def both(values: Any) -> list[float]:
        parts = [[int(d[i : i + 8], 16) for i in range(0, 64, 8)] for d in digests]
        mean = [sum(p) / 2 for p in zip(*parts, strict=True)]
        if list(values) == [float(v) for v in parts[0]]:
            return [2 * m for m in mean]
        return [2 * float(v) for v in values]

    monkeypatch.setattr(ranks, "sum", both)
    with pytest.raises(RefusedError, match="H656"):
        ranks.must_agree("it", digests[0])
    digests[1] = digests[0]
    ranks.must_agree("it", digests[0])


@pytest.mark.parametrize(
    "shape",
    [Shape(2, nodes=2), Shape(2, nodes=2, node_rank=2, rendezvous="a:1"), Shape(2, rendezvous="a")],
)
def test_numbers_that_contradict_each_other_are_a_sentence(shape: Shape) -> None:
    with pytest.raises(UsageError, match="H653"):
        shape.checked()


def test_every_row_counts_once_and_ranks_meet_equally_often() -> None:
    for world in (1, 2, 3, 5):
        for count in range(1, 12):
            rows = list(range(count))
            shares = [distributed.Ranks(r, world).share(rows) for r in range(world)]
            assert len({len(s) for s in shares}) == 1
            counted = [row for share in shares for _, row, counts in share if counts]
            assert sorted(counted) == rows
