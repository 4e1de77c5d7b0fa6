"""Training that cannot be broken: interruptions, damaged checkpoints, changed inputs, full disks.

The yardstick everywhere: the adapter's sha256 equals that of the uninterrupted run.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import HauslmError, Interrupted, MissingError, RefusedError
from hauslm.base.files import lock
from hauslm.base.progress import Silent
from hauslm.train import seal
from tests.train.conftest import Project, corpus_of, make_base, make_examples

ADAPTER = {"lora_dropout": 0.1}
TRAINING = {"max_steps": 6, "checkpoint_every_steps": 2, "validate_every_steps": 3}


class SignalAt(Silent):
    """Sends this process a signal when a step is shown."""

    def __init__(self, step: int, number: int, times: int = 1) -> None:
        super().__init__()
        self.at, self.number, self.times = step, number, times

    def step(self, title: Any, done: float, total: float | None, **figures: Any) -> None:
        if done == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def interrupted(project: Project, step: int, number: int = signal.SIGTERM, times: int = 1) -> None:
    from hauslm.train.loop import train

    with pytest.raises(Interrupted) as caught:
        train(
            project.scenario(TRAINING, ADAPTER),
            project.folder,
            plan=None,
            corpus=corpus_of(project.folder),
            progress=SignalAt(step, number, times),
            resume=True,
        )
    assert caught.value.exit_code == 75


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the adapter of the uninterrupted run."""
    import torch

    torch.set_num_threads(1)
    project = Project(tmp_path_factory.mktemp("whole"))
    return project.run(TRAINING, ADAPTER).adapter.sha256


def test_stopped_twice_and_resumed_is_bit_for_bit_the_same(project: Project, whole: str) -> None:
    interrupted(project, 1)
    interrupted(project, 3, signal.SIGINT)
    run = project.run(TRAINING, ADAPTER, resume=True)
    assert run.adapter.sha256 == whole
    assert run.determinism == "bitwise"
    assert run.resumed_from == ("step-000001", "step-000003")
    assert [r["step"] for r in run.history] == [0, 1, 2, 3, 4, 5, 6]


def test_a_second_signal_is_harmless(project: Project, whole: str) -> None:
    interrupted(project, 2, times=3)
    assert project.run(TRAINING, ADAPTER, resume=True).adapter.sha256 == whole


@pytest.mark.parametrize("variant", ["dora", "pissa", "eva", "lora_plus"])
def test_variants_resume_bit_for_bit(make_project: Callable[..., Project], variant: str) -> None:
    from hauslm.train.loop import train

    adapter = {"variant": variant}
    whole = make_project().run({}, adapter)
    project = make_project()
    with pytest.raises(Interrupted):
        train(
            project.scenario({}, adapter),
            project.folder,
            plan=None,
            corpus=corpus_of(project.folder),
            progress=SignalAt(2, signal.SIGTERM),
        )
    assert project.run({}, adapter, resume=True).adapter.sha256 == whole.adapter.sha256


def test_a_finished_run_gives_its_record_again(project: Project, whole: str) -> None:
    project.run(TRAINING, ADAPTER)
    shutil.rmtree(project.folder.adapter)
    run = project.run(TRAINING, ADAPTER, resume=True)
    assert run.adapter.sha256 == whole
    assert run.loss.first > 0


def test_at_least_two_checkpoints_are_kept(project: Project) -> None:
    project.run(TRAINING | {"checkpoint_every_steps": 1}, ADAPTER)
    assert [p.name for p in project.checkpoints] == ["step-000005", "step-000006"]


# ---------------------------------------------------------------- killed


def run_in_a_fork(project: Project) -> int:
    """Train (resuming) in a forked process; its pid. Forking saves importing torch again."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        project.run(TRAINING, ADAPTER, resume=True)
        code = 0
    finally:
        os._exit(code)


def test_killed_at_random_moments_and_resumed_is_the_same(project: Project, whole: str) -> None:
    """kill -9 ten times, whatever it is doing; then let it finish."""
    chance = random.Random(7)
    metrics = project.folder.work / "train" / "metrics.jsonl"
    kills = 0
    while kills < 10:
        pid = run_in_a_fork(project)
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        end = time.monotonic() + 60
        while time.monotonic() < end:  # until it has begun, so that most kills hit steps and saves
            if metrics.exists() and metrics.stat().st_mtime_ns != before:
                break
            time.sleep(0.001)
        time.sleep(chance.random() * 0.12)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += 1
        if os.WIFEXITED(status):  # it was faster than the kill
            assert os.WEXITSTATUS(status) == 0
    run = project.run(TRAINING, ADAPTER, resume=True)
    assert run.adapter.sha256 == whole
    assert run.determinism == "bitwise"


class Killed(BaseException):
    """Stands for the process ending at this very call."""


def small_snapshot(step: int) -> seal.Snapshot:
    import torch

    tensors = {"a": torch.arange(64, dtype=torch.float32) + step, "b": torch.ones(3, 2) * step}
    return seal.Snapshot(step, {"trainable": tensors, "optimizer": tensors}, {"step": step})


def checkpoints_in(folder: Path) -> seal.Checkpoints:
    identity = seal.Identity({"seed": 0}, {"d": "1"}, {"id": "b"})
    return seal.Checkpoints(folder, identity, {"torch": "1"})


def hooked(monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], None]) -> list[str]:
    """Do `action` at the n-th write, fsync, rename or unlink; returns the calls as they happen."""
    calls: list[str] = []

    def hook(name: str) -> None:
        original = getattr(os, name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == at:
                action()
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, replacement)

    for name in ("write", "fsync", "rename", "unlink", "rmdir"):
        hook(name)
    return calls


def kill() -> None:
    raise Killed


def test_dying_at_every_single_call_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Exhaustive: at each write, fsync, rename and removal of a save."""
    at = 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        for step in (1, 2):
            checkpoints_in(folder).save(small_snapshot(step))
        with pytest.MonkeyPatch.context() as patch:
            calls = hooked(patch, at, kill)
            try:
                checkpoints_in(folder).save(small_snapshot(3))
                finished = True
            except Killed:
                finished = False
        found = checkpoints_in(folder).newest_sound()
        assert found is not None and not found.damaged
        assert found.snapshot.step in (2, 3)
        assert float(found.snapshot.tensors["trainable"]["a"][0]) == found.snapshot.step
        assert len(checkpoints_in(folder).all()) >= 2
        if finished:
            assert at == len(calls) + 1
            assert "fsync" in calls and "rename" in calls
            break
    assert at > 12


def test_power_loss_keeps_only_what_was_synced(tmp_path: Path) -> None:
    """At the rename every file that was not fsynced loses its contents, as after a power cut."""
    folder = tmp_path / "c"
    checkpoints_in(folder).save(small_snapshot(1))
    opened: dict[int, str] = {}
    synced: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real_open, real_fsync, real_rename = os.open, os.fsync, os.rename

        def open_(path: Any, *args: Any, **kwargs: Any) -> int:
            descriptor = real_open(path, *args, **kwargs)
            opened[descriptor] = str(path)
            return descriptor

        def fsync(descriptor: int) -> None:
            synced.append(opened[descriptor])
            real_fsync(descriptor)

        def rename(source: Any, target: Any) -> None:
            assert str(source) in synced  # the names in the staged folder
            for file in Path(source).iterdir():
                if str(file) not in synced:
                    file.write_bytes(b"")
            synced.clear()
            real_rename(source, target)

        patch.setattr(os, "open", open_)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "rename", rename)
        checkpoints_in(folder).save(small_snapshot(2))
    found = checkpoints_in(folder).newest_sound()
    assert found is not None and found.snapshot.step == 2 and not found.damaged
    assert synced == [str(folder)]  # and the rename itself


# ---------------------------------------------------------------- damaged


def damage(path: Path, how: str) -> None:
    if how == "delete":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "truncate":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["truncate", "flip", "delete"])
def test_every_damaged_file_is_seen_and_the_older_one_used(tmp_path: Path, how: str) -> None:
    checkpoints_in(tmp_path / "c").save(small_snapshot(1))
    checkpoints_in(tmp_path / "c").save(small_snapshot(2))
    names = [p.name for p in (tmp_path / "c" / "step-000002").iterdir()]
    assert len(names) == 4
    for name in names:
        folder = tmp_path / f"copy-{name}-{how}"
        shutil.copytree(tmp_path / "c", folder)
        damage(folder / "step-000002" / name, how)
        found = checkpoints_in(folder).newest_sound()
        assert found is not None
        assert found.snapshot.step == 1
        assert found.damaged[0][0] == "step-000002"
        assert str(found.damaged[0][1])


def test_a_flipped_bit_anywhere_in_a_manifest_is_seen(tmp_path: Path) -> None:
    checkpoints_in(tmp_path).save(small_snapshot(1))
    folder = tmp_path / "step-000001"
    path = folder / seal.MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (0, 1, 5):  # 5: capital and small letters
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(bytes(data))
            with pytest.raises(seal.DamagedCheckpoint):
                seal.verify(folder)
    path.write_bytes(whole)
    seal.verify(folder)


def test_a_damaged_checkpoint_is_named_and_the_run_still_the_same(
    project: Project, whole: str
) -> None:
    interrupted(project, 4)
    damage(project.checkpoints[-1] / "optimizer.safetensors", "flip")
    run = project.run(TRAINING, ADAPTER, resume=True)
    assert run.adapter.sha256 == whole
    assert "step-000004 is damaged" in project.said
    assert run.resumed_from == ("step-000002",)


def test_when_none_is_sound_it_is_refused(project: Project) -> None:
    interrupted(project, 2)
    for path in project.checkpoints:
        damage(path / "state.json", "flip")
    with pytest.raises(RefusedError) as caught:
        project.run(TRAINING, ADAPTER, resume=True)
    assert caught.value.code == "H611"


# ---------------------------------------------------------------- changed


@pytest.mark.parametrize(
    ("training", "adapter", "word"),
    [
        ({"seed": 5}, {}, "seed: 0 before, 5 now"),
        ({"learning_rate": 0.5}, {}, "learning_rate"),
        ({"micro_batch_size": 1}, {}, "micro_batch_size"),
        ({}, {"r": 8}, "adapter.r"),
        ({}, {"lora_dropout": 0.2}, "adapter.lora_dropout"),
    ],
)
def test_changed_settings_are_refused_with_the_difference(
    project: Project, training: dict[str, Any], adapter: dict[str, Any], word: str
) -> None:
    interrupted(project, 2)
    with pytest.raises(RefusedError) as caught:
        project.run(TRAINING | training, ADAPTER | adapter, resume=True)
    assert caught.value.code == "H612"
    assert caught.value.exit_code == 4
    assert word in str(caught.value)


def test_changed_examples_are_refused_and_accepted_on_demand(project: Project) -> None:
    interrupted(project, 2)
    examples = make_examples(30)
    examples[7].tokens[2] ^= 1
    project.prepare(examples, make_examples(6, seed=1))
    with pytest.raises(RefusedError) as caught:
        project.run(TRAINING, ADAPTER, resume=True)
    assert "train.tokens.bin" in str(caught.value)
    run = project.run(TRAINING, ADAPTER, resume=True, accept_change=True)
    assert run.determinism == "statistical"
    assert run.resumed_from == ("step-000002",)
    assert "what changed" in project.said


def test_another_base_is_refused(project: Project) -> None:
    interrupted(project, 2)
    make_base(project.folder.root / "base", seed=9)
    with pytest.raises(RefusedError) as caught:
        project.run(TRAINING, ADAPTER, resume=True)
    assert "base model" in str(caught.value)


def test_after_a_finished_run_a_change_is_a_new_run(project: Project) -> None:
    project.run(TRAINING, ADAPTER)
    run = project.run(TRAINING | {"seed": 3}, ADAPTER, resume=True)
    assert run.resumed_from == ()
    assert (project.folder.work / "train" / "checkpoints.previous").is_dir()


def test_another_version_is_told_and_no_longer_bitwise(project: Project) -> None:
    interrupted(project, 2)
    path = project.checkpoints[-1] / seal.MANIFEST
    sealed = json.loads(path.read_bytes())
    sealed["manifest"]["versions"]["torch"] = "1.0"
    from hauslm.base.files import canonical_json, sha256_bytes

    sealed["sha256"] = sha256_bytes(canonical_json(sealed["manifest"]))
    path.write_bytes(canonical_json(sealed))
    run = project.run(TRAINING, ADAPTER, resume=True)
    assert run.determinism == "statistical"
    assert "other versions" in project.said


# ---------------------------------------------------------------- machine


def test_two_runs_in_one_folder_are_refused(project: Project) -> None:
    with lock(project.folder.work / "train", "train"), pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H410"


def test_a_full_disk_is_a_sentence_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    checkpoints_in(tmp_path / "c").save(small_snapshot(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        with pytest.raises(MissingError) as caught:
            checkpoints_in(tmp_path / "c").save(small_snapshot(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.code == "H510"
    found = checkpoints_in(tmp_path / "c").newest_sound()
    assert found is not None and found.snapshot.step == 1
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["step-000001"]


def test_a_bad_disk_that_lies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads back other than written is refused, and the older ones are not pruned."""
    for step in (1, 2):
        checkpoints_in(tmp_path / "c").save(small_snapshot(step))
    real = seal.write_synced

    def lying(path: Path, data: bytes) -> None:
        real(path, data[:-1] + b"\x00" if path.name.startswith("optimizer") else data)

    monkeypatch.setattr(seal, "write_synced", lying)
    with pytest.raises(RefusedError) as caught:
        checkpoints_in(tmp_path / "c").save(small_snapshot(3))
    assert caught.value.code == "H610"
    monkeypatch.undo()
    found = checkpoints_in(tmp_path / "c").newest_sound()
    assert found is not None and found.snapshot.step == 2


def test_errors_are_the_family(project: Project) -> None:
    shutil.rmtree(project.folder.work / "prepared")
    with pytest.raises(HauslmError) as caught:
        project.run()
    assert caught.value.exit_code == 3
