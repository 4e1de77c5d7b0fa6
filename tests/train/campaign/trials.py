"""How is each fault of the catalogue caused, and what must hold afterwards? One function per fault.

Each yields a `Trial` per fault caused. `long` is the campaign (`make test-faults`), otherwise the short form that
is part of `make test`. "The same adapter" means: its sha256 equals that of the uninterrupted run.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hauslm.base.errors import HauslmError, Interrupted, MissingError, RefusedError
from hauslm.base.progress import Silent
from hauslm.train import seal, trainer
from hauslm.train.writer import Writer
from tests.train.campaign.lab import (
    ADAPTER,
    TRAINING,
    Lab,
    Trial,
    at_call,
    ended,
    fork,
    grow,
    killed_at,
    newest,
    own_mounts,
    read_only,
    small_disk,
)
from tests.train.campaign.powercut import Disk, Recorder
from tests.train.conftest import Project, corpus_of, make_base, make_examples

Trials = Iterator[Trial]


# ---------------------------------------------------------------- a checkpoint alone


def snapshot(step: int) -> seal.Snapshot:
    import torch

    tensors = {"a": torch.arange(64, dtype=torch.float32) + step, "b": torch.ones(3, 2) * step}
    return seal.Snapshot(step, {"trainable": tensors, "optimizer": tensors}, {"step": step})


def checkpoints(folder: Path) -> seal.Checkpoints:
    identity = seal.Identity({"seed": 0}, {"d": "1"}, {"id": "b"})
    return seal.Checkpoints(folder, identity, {"torch": "1"})


def save(folder: Path, step: int) -> None:
    checkpoints(folder).save(snapshot(step))


def save_beside(folder: Path, step: int) -> None:
    """As the run does it: by a thread, while the values already change again."""
    writer = Writer(checkpoints(folder))
    values = snapshot(step)
    writer.submit(values)
    for tensor in values.tensors["trainable"].values():
        tensor.fill_(-1.0)
    writer.wait()


SAVES: tuple[Callable[[Path, int], None], ...] = (save, save_beside)


def old_or_new(folder: Path, allowed: tuple[int, ...]) -> bool:
    """Is the newest sound checkpoint one of `allowed`, whole, and none before it damaged?"""
    found = checkpoints(folder).newest_sound()
    if found is None or found.damaged:
        return False
    values = found.snapshot.tensors["trainable"]
    step = found.snapshot.step
    same = all(bool((values[n] == t).all()) for n, t in snapshot(step).tensors["trainable"].items())
    return step in allowed and same


# ---------------------------------------------------------------- F1, F2, F3: death


def f1_killed_anywhere(lab: Lab, long: bool) -> Trials:
    """SIGKILL at a random moment from start to end; then, in a copy, to the end."""
    chance = random.Random(11)
    project = lab.project()
    for _ in range(200 if long else 4):
        before, _ = newest(project)
        pid = fork(lambda p=project: p.run(TRAINING, ADAPTER, resume=True))
        time.sleep(chance.random() * lab.seconds * 1.1)
        os.kill(pid, signal.SIGKILL)
        status = ended(pid)
        after, sound = newest(project)
        copy = lab.project(project)
        kept = status in (-9, 0) and sound and after >= before and lab.finishes(copy)
        yield Trial(kept, f"killed with step {after} sealed")
        lab.drop(copy)
        if after >= TRAINING["max_steps"]:
            lab.drop(project)
            project = lab.project()
    lab.drop(project)


def f2_killed_at_every_call(lab: Lab, long: bool) -> Trials:
    """SIGKILL before each write, fsync, rename, mkdir and removal: of a save in the run's thread and of
    one by the writer's; long: also of a whole training run."""
    for do in SAVES:
        number, status = 0, -9
        while status == -9:
            number += 1
            folder = lab.folder()
            for step in (1, 2):
                save(folder / "c", step)
            status = killed_at(number, lambda f=folder, d=do: d(f / "c", 3))
            kept = old_or_new(folder / "c", (2, 3) if status else (3,))
            enough = len(checkpoints(folder / "c").all()) >= 2
            if status == -9:
                yield Trial(kept and enough, f"{do.__name__}: killed at call {number}")
            elif not (kept and status == 0):
                yield Trial(False, f"{do.__name__}: ended with {status}")
            shutil.rmtree(folder)
    if long:
        yield from _killed_at_every_call_of_a_run(lab)


def _killed_at_every_call_of_a_run(lab: Lab) -> Trials:
    number, status = 0, -9
    while status == -9:
        number += 1
        project = lab.project()
        status = killed_at(number, lambda p=project: p.run(TRAINING, ADAPTER, resume=True))
        if status == -9:
            _, sound = newest(project)
            kept = sound and lab.finishes(project)
            yield Trial(kept, f"run killed at call {number}")
        elif status:
            yield Trial(False, f"run ended with {status}")
        lab.drop(project)


def f3_power_cut(lab: Lab, long: bool) -> Trials:
    """Power lost after every single operation of a save; whatever nobody fsynced is gone, torn, or there
    in another order. Old or new, never half; and once `save` has returned, the new one."""
    for do in SAVES:
        folder = lab.folder()
        for step in (1, 2):
            save(folder / "c", step)
        disk = Disk(folder)
        recorder = Recorder(folder)
        with recorder.recording():
            do(folder / "c", 3)
        for count in range(len(recorder.log) + 1):
            finished = count == len(recorder.log)
            for reached, torn in list(disk.crashes()):
                if not long and len(reached) > 3 and not finished:
                    continue
                after = lab.folder()
                disk.write_to(after, reached, torn)
                kept = old_or_new(after / "c", (3,) if finished else (2, 3))
                yield Trial(kept, f"{do.__name__}: after operation {count}, {reached} {torn}")
                shutil.rmtree(after)
            if not finished:
                disk.apply(recorder.log[count])
        shutil.rmtree(folder)


# ---------------------------------------------------------------- F4, F15: the disk refuses


def _in_own_mounts(lab: Lab, prepare: Callable[[Project], None], mend: Callable[[Project], None]) -> bool:  # fmt: skip
    """In a child: the disk refuses in the run, typed, older checkpoints sound; mended, the same adapter."""
    project = lab.project()

    def child() -> None:
        own_mounts()
        prepare(project)
        try:
            project.run(TRAINING, ADAPTER, resume=True)
        except MissingError as error:
            assert error.code == "H510", error.code
            assert newest(project)[1], "a half checkpoint"
        mend(project)
        assert lab.finishes(project)

    status = ended(fork(child))
    lab.drop(project)
    return status == 0


def checkpoint_folder(project: Project) -> Path:
    return project.folder.work / "train" / "checkpoints"


def work_folder(project: Project) -> Path:
    """Checkpoints, metrics, lock, notices: all that the run writes on its way."""
    return project.folder.work / "train"


PLACES = (checkpoint_folder, work_folder)


def f4_the_disk_is_full(lab: Lab, long: bool) -> Trials:
    """A tmpfs of k pages, a file-size limit, and ENOSPC, EDQUOT or EIO at every write, fsync and rename."""
    for place in PLACES:
        for pages in range(4, 60, 2 if long else 20):
            kept = _in_own_mounts(
                lab,
                lambda p, n=pages, w=place: small_disk(w(p), f"size={n * 4}k"),
                lambda p, w=place: grow(w(p), "size=16m"),
            )
            yield Trial(kept, f"tmpfs of {pages * 4} KiB for {place.__name__}")
    for limit in range(500, 20_000, 1000 if long else 9000):
        yield Trial(_under_a_file_limit(lab, limit), f"files of at most {limit} bytes")
    for limit in range(2500, 20_000, 2500 if long else 9000):
        yield Trial(_adapter_under_a_file_limit(lab, limit), f"adapter, at most {limit} bytes")
    for do in SAVES:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO) if long else (errno.EIO,):
            yield from _every_call_fails(lab, do, number)


def _under_a_file_limit(lab: Lab, limit: int) -> bool:
    import resource

    project = lab.project()

    def child() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            project.run(TRAINING, ADAPTER, resume=True)
        except MissingError as error:
            assert error.code == "H510"
            assert newest(project)[1]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert lab.finishes(project)

    status = ended(fork(child))
    lab.drop(project)
    return status == 0


def _adapter_under_a_file_limit(lab: Lab, limit: int) -> bool:
    """All is sealed, the adapter alone is still to be written (by libraries that use no calls of ours)."""
    import resource

    project = lab.project()
    lab.finishes(project)
    shutil.rmtree(project.folder.adapter)

    def child() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            project.run(TRAINING, ADAPTER, resume=True)
        except MissingError as error:
            assert error.code == "H510"
            assert not project.folder.adapter.exists(), "half an adapter"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert lab.finishes(project)
        assert project.folder.adapter.exists()

    status = ended(fork(child))
    lab.drop(project)
    return status == 0


def _every_call_fails(lab: Lab, do: Callable[[Path, int], None], number: int) -> Trials:
    """The n-th call of a save fails with `number`: a typed error, the older ones kept."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    at = 0
    while True:
        at += 1
        folder = lab.folder()
        for step in (1, 2):
            save(folder / "c", step)
        told = ""
        with at_call(at, fail, ("write", "fsync", "rename", "mkdir")) as calls:
            try:
                do(folder / "c", 3)
            except MissingError as error:
                told = error.code
        if len(calls) < at:
            shutil.rmtree(folder)
            return
        # Told, or done all the same (a folder that need not be made).
        kept = told in ("H510", "") and old_or_new(folder / "c", (2, 3) if told else (3,))
        yield Trial(kept, f"{do.__name__}: {errno.errorcode[number]} at call {at}")
        shutil.rmtree(folder)


def f15_clock_inodes_read_only(lab: Lab, long: bool) -> Trials:
    """The clock jumps by up to years in both directions; the inode table is full; the mount is read-only."""
    for place in PLACES:
        for inodes in range(2, 26, 1 if long else 8):
            kept = _in_own_mounts(
                lab,
                lambda p, n=inodes, w=place: small_disk(w(p), f"size=16m,nr_inodes={n}"),
                lambda p, w=place: grow(w(p), "nr_inodes=4096"),
            )
            yield Trial(kept, f"{inodes} inodes for {place.__name__}")
    yield Trial(_read_only(lab), "read-only mount")
    real, count = time.time, [0]
    for jump in (-4e8, -86400.0, 3600.0, 4e8) if long else (-86400.0, 4e8):
        project = lab.project()

        def jumping(by: float = jump) -> float:
            count[0] += 1
            return real() + by * (count[0] % 2)

        with mock.patch.object(time, "time", jumping):
            kept = lab.finishes(project)
        yield Trial(kept, f"the clock jumps by {jump:g} s")
        lab.drop(project)


def _read_only(lab: Lab) -> bool:
    project = lab.project()
    _interrupt(project, 2)

    def child() -> None:
        own_mounts()
        read_only(project.folder.root)
        project.run(TRAINING, ADAPTER, resume=True)

    status = ended(fork(child))
    kept = status == MissingError.exit_code and lab.finishes(project)
    lab.drop(project)
    return kept


# ---------------------------------------------------------------- F5: signals


class SignalAt(Silent):
    """Sends this process a signal when a step is shown."""

    def __init__(self, step: int, number: int, times: int) -> None:
        super().__init__()
        self.at, self.number, self.times = step, number, times

    def step(self, title: Any, done: float, total: float | None, **figures: Any) -> None:
        if done == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def _interrupt(project: Project, step: int, number: int = signal.SIGTERM, times: int = 1) -> int:
    """Exit code of a run that is signalled in `step`: 75, or 0 in the last step."""
    from hauslm.train.loop import train

    try:
        train(
            project.scenario(TRAINING, ADAPTER),
            project.folder,
            plan=None,
            corpus=corpus_of(project.folder),
            progress=SignalAt(step, number, times),
            resume=True,
        )
    except Interrupted as error:
        return error.exit_code
    return 0


def f5_asked_to_stop(lab: Lab, long: bool) -> Trials:
    """SIGTERM and SIGINT in every step, once, twice, three times; and again after each resume."""
    last = int(TRAINING["max_steps"])
    for number in (signal.SIGTERM, signal.SIGINT):
        for step in range(1, last + 1) if long else (1, 4):
            for times in (1, 2, 3) if long else (2,):
                project = lab.project()
                code = _interrupt(project, step, number, times)
                sealed = newest(project) == (step, True)
                kept = code == (75 if step < last else 0) and sealed and lab.finishes(project)
                yield Trial(kept, f"{signal.Signals(number).name} x {times} in step {step}")
                lab.drop(project)
    project = lab.project()
    codes = [_interrupt(project, step) for step in range(1, last)]
    yield Trial(codes == [75] * (last - 1) and lab.finishes(project), "stopped in every step")
    lab.drop(project)


# ---------------------------------------------------------------- F6, F7: memory, numbers


def f6_out_of_memory(lab: Lab, long: bool) -> Trials:
    """The allocator refuses (torch's error) in step k; and a real refusal under RLIMIT_AS."""
    from safetensors.torch import load_file

    training = {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 3}
    free = lab.project()
    free.run(training)
    theirs = load_file(free.folder.adapter / "adapter_model.safetensors")
    for step in (1, 2, 3) if long else (2,):
        for real in (False, True):
            project = lab.project()
            status = ended(
                fork(lambda p=project, s=step, r=real: _short_of_memory(p, training, s, r))
            )
            kept = status == 0
            if kept:
                ours = load_file(project.folder.adapter / "adapter_model.safetensors")
                kept = all(
                    bool((ours[n] - t).abs().max() <= 2e-5 + 1e-3 * t.abs().max())
                    for n, t in theirs.items()
                )
            yield Trial(kept, f"{'RLIMIT_AS' if real else 'torch'} from step {step} on")
            lab.drop(project)
    lab.drop(free)


def _short_of_memory(project: Project, training: dict[str, Any], step: int, real: bool) -> None:
    import resource

    import torch

    original, limited, now = trainer.Compute.loss, [False], [0]
    real_step = trainer.HouseTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, number: Any = None) -> Any:
        now[0] = inputs["step"] + 1
        return real_step(self, model, inputs, number)

    def loss(self: Any, row: Any) -> Any:
        if torch.is_grad_enabled() and self.model.training and now[0] >= step:
            if not real and row.tokens > 40:
                raise torch.OutOfMemoryError("out of memory (test)")
            if real:
                if not limited[0]:  # from now on: what there is and 200 MB more
                    limited[0] = True
                    size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
                    resource.setrlimit(resource.RLIMIT_AS, (size + 240_000_000, -1))
                torch.empty(row.tokens * 4_000_000, dtype=torch.uint8)  # 40 tokens fit, 60 do not
        return original(self, row)

    with (
        mock.patch.object(trainer.Compute, "loss", loss),
        mock.patch.object(trainer.HouseTrainer, "training_step", training_step),
    ):
        run = project.run(training)
    assert run.determinism == "statistical"
    assert any("Out of memory" in n.text for n in run.notices)


def f7_not_a_number(lab: Lab, long: bool) -> Trials:
    """NaN, infinity and an exploding gradient in every step; an adapter that became infinite."""
    from safetensors.torch import load_file

    last = int(TRAINING["max_steps"])
    poisons = {"NaN": float("nan"), "infinity": float("inf"), "gradient": 1e38}
    for step in range(1, last + 1) if long else (1, 4):
        for name, value in {**poisons, "values": 0.0}.items():
            project = lab.project()
            code = ""
            with mock.patch.multiple(trainer.HouseTrainer, **_poisoned(step, name, value)):
                try:
                    project.run(TRAINING, ADAPTER, resume=True)
                except RefusedError as error:
                    code = error.code
            finite = all(
                bool(t.isfinite().all())
                for path in project.checkpoints
                for t in load_file(path / "trainable.safetensors").values()
            )
            kept = code in ("H630", "H634") and finite and not project.folder.adapter.exists()
            yield Trial(kept and lab.finishes(project), f"{name} in step {step}")
            lab.drop(project)


def _poisoned(step: int, name: str, value: float) -> dict[str, Any]:
    """`training_step` with something bad in `step`."""
    import torch

    real_step, real_loss = trainer.HouseTrainer.training_step, trainer.Compute.loss

    def training_step(self: Any, model: Any, inputs: Any, number: Any = None) -> Any:
        if inputs["step"] + 1 != step:
            return real_step(self, model, inputs, number)
        if name == "values":
            result = real_step(self, model, inputs, number)
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(float("inf"))
            return result
        with mock.patch.object(trainer.Compute, "loss", lambda s, row: real_loss(s, row) * value):
            return real_step(self, model, inputs, number)

    return {"training_step": training_step}


# ---------------------------------------------------------------- F8: damage


def f8_damaged_checkpoint(lab: Lab, long: bool) -> Trials:
    """Each file of the newest checkpoint cut, emptied, lengthened, deleted, or one bit of it flipped."""
    origin = lab.project()
    _interrupt(origin, 5)
    names = sorted(p.name for p in origin.checkpoints[-1].iterdir())
    chance = random.Random(3)
    damages = ["cut", "empty", "longer", "deleted", *(["flipped"] * (40 if long else 1))]
    for name in names:
        for how in damages:
            project = lab.project(origin)
            damage(project.checkpoints[-1] / name, how, chance)
            kept = lab.finishes(project)
            told = "step-000005 is damaged" in project.said
            yield Trial(kept and told, f"{name} {how}")
            lab.drop(project)
    lab.drop(origin)


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "cut":
        del data[chance.randrange(len(data)) :]
    elif how == "empty":
        data.clear()
    elif how == "longer":
        data += b"\0"
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


# ---------------------------------------------------------------- F9 to F12: something else


def _refused(project: Project, training: dict[str, Any], adapter: dict[str, Any], word: str) -> bool:  # fmt: skip
    try:
        project.run(TRAINING | training, ADAPTER | adapter, resume=True)
    except RefusedError as error:
        return error.code == "H612" and word in str(error)
    return False


def f9_other_examples(lab: Lab, long: bool) -> Trials:
    """One token changed, two examples swapped, one more, one less, one mask bit; train and validation."""
    origin = lab.project()
    _interrupt(origin, 3)

    def token(examples: list[Any]) -> None:
        examples[2].tokens[1] ^= 1

    def mask(examples: list[Any]) -> None:
        examples[2].trained[-2] ^= True

    def swap(examples: list[Any]) -> None:
        examples[0], examples[1] = examples[1], examples[0]

    changes = (token, swap, mask, lambda e: e.append(e[0]), lambda e: e.pop())
    for split in ("train", "validation"):
        for change in changes:
            train, validation = make_examples(30), make_examples(6, seed=1)
            change(train if split == "train" else validation)
            project = lab.project(origin)
            project.prepare(train, validation)
            kept = _refused(project, {}, {}, f"{split}.")
            if kept and (long or split == "train"):
                run = project.run(TRAINING, ADAPTER, resume=True, accept_change=True)
                kept = run.determinism == "statistical" and run.resumed_from == ("step-000003",)
                kept = kept and "what changed" in project.said
            yield Trial(kept, f"{split}: {getattr(change, '__name__', '')}")
            lab.drop(project)
    lab.drop(origin)


CHANGES: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({"seed": 5}, {}, "seed"),
    ({"learning_rate": 0.02}, {}, "learning_rate"),
    ({"micro_batch_size": 1}, {}, "micro_batch_size"),
    ({"gradient_accumulation_steps": 1}, {}, "gradient_accumulation_steps"),
    ({"seq_len": 80}, {}, "seq_len"),
    ({"lr_scheduler_type": "linear"}, {}, "lr_scheduler_type"),
    ({"warmup_ratio": 0.5}, {}, "warmup_ratio"),
    ({"weight_decay": 0.1}, {}, "weight_decay"),
    ({"max_grad_norm": 0.5}, {}, "max_grad_norm"),
    ({"max_steps": 7}, {}, "max_steps"),
    ({"packing": False}, {}, "packing"),
    ({"activation_checkpointing": "on"}, {}, "checkpointed_layers"),
    ({"validate_every_steps": 2}, {}, "validate_every_steps"),
    ({"early_stopping_patience": 1}, {}, "early_stopping_patience"),
    ({"precision": "bfloat16"}, {}, "precision"),
    ({}, {"r": 8}, "adapter.r"),
    ({}, {"lora_alpha": 3}, "adapter.lora_alpha"),
    ({}, {"lora_dropout": 0.2}, "adapter.lora_dropout"),
    ({}, {"target_modules": ["q_proj"]}, "adapter.target_modules"),
    ({}, {"variant": "dora"}, "adapter.variant"),
)


def f10_other_settings(lab: Lab, long: bool) -> Trials:
    """Every setting that the adapter depends on, alone and several at once: each is named."""
    origin = lab.project()
    _interrupt(origin, 3)
    for training, adapter, word in CHANGES:
        yield Trial(_refused(origin, training, adapter, word), word)
    chance = random.Random(5)
    for _ in range(40 if long else 3):
        chosen = chance.sample(CHANGES, 3)
        training = {k: v for one in chosen for k, v in one[0].items()}
        adapter = {k: v for one in chosen for k, v in one[1].items()}
        kept = all(_refused(origin, training, adapter, word) for _, _, word in chosen)
        yield Trial(kept, " + ".join(word for _, _, word in chosen))
    yield Trial(lab.finishes(origin), "put back as it was")
    lab.drop(origin)


def f11_other_base(lab: Lab, long: bool) -> Trials:
    """Other weights under the same name; one bit of the same weights."""
    origin = lab.project()
    _interrupt(origin, 3)
    for seed in range(7, 17 if long else 8):
        project = lab.project(origin)
        make_base(project.folder.root / "base", seed=seed)
        yield Trial(_refused(project, {}, {}, "base model"), f"seed {seed}")
        lab.drop(project)
    chance = random.Random(1)
    for _ in range(10 if long else 1):
        project = lab.project(origin)
        damage(project.folder.root / "base" / "model.safetensors", "flipped", chance)
        yield Trial(_refused(project, {}, {}, "base model"), "one bit")
        lab.drop(project)
    lab.drop(origin)


def f12_other_versions(lab: Lab, long: bool) -> Trials:
    """The checkpoint names another version of a package: told, and no longer called bitwise."""
    import json

    from hauslm.base.files import canonical_json, sha256_bytes

    origin = lab.project()
    _interrupt(origin, 3)
    manifest = origin.checkpoints[-1] / seal.MANIFEST
    known = json.loads(manifest.read_bytes())["manifest"]["versions"]
    for package in known if long else ("torch",):
        project = lab.project(origin)
        path = project.checkpoints[-1] / seal.MANIFEST
        sealed = json.loads(path.read_bytes())
        sealed["manifest"]["versions"][package] = "0.0"
        sealed["sha256"] = sha256_bytes(canonical_json(sealed["manifest"]))
        path.write_bytes(canonical_json(sealed))
        run = project.run(TRAINING, ADAPTER, resume=True)
        told = f"{package} 0.0 ->" in project.said
        yield Trial(told and run.determinism == "statistical", package)
        lab.drop(project)
    lab.drop(origin)


# ---------------------------------------------------------------- F13, F14, F16: several processes


def f13_two_runs(lab: Lab, long: bool) -> Trials:
    """A second process in the folder of a running one is refused; a killed one leaves no stale lock."""
    for _ in range(10 if long else 1):
        project = lab.project()
        first = fork(lambda p=project: p.run(TRAINING, ADAPTER))
        end = time.monotonic() + 60
        while not (project.folder.work / "train" / "metrics.jsonl").exists():
            assert time.monotonic() < end
            time.sleep(0.002)
        os.kill(first, signal.SIGSTOP)  # so that it cannot be faster than the second
        second = ended(fork(lambda p=project: p.run(TRAINING, ADAPTER, resume=True)))
        os.kill(first, signal.SIGKILL)
        ended(first)
        kept = second == RefusedError.exit_code and lab.finishes(project)
        yield Trial(kept, "second refused, lock free after a kill")
        lab.drop(project)


def f14_dead_or_hung_reader(lab: Lab, long: bool) -> Trials:
    """Training has no data worker (shown); the process that reads PDFs is killed or paused."""
    import psutil

    project, children = lab.project(), []
    before = {p.pid for p in psutil.Process().children()}  # of whoever tried something earlier

    class Looking(Silent):
        def step(self, title: Any, done: float, total: float | None, **figures: Any) -> None:
            children.extend(p for p in psutil.Process().children() if p.pid not in before)

    from hauslm.train.loop import train

    run = train(
        project.scenario(TRAINING, ADAPTER), project.folder, plan=None,
        corpus=corpus_of(project.folder), progress=Looking(),
    )  # fmt: skip
    yield Trial(not children and run.adapter.sha256 == lab.whole, "training has no other process")
    lab.drop(project)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for _ in range(5 if long else 1):
            yield Trial(_pdf_reader(lab, number), f"PDF reader gets {signal.Signals(number).name}")


def _pdf_reader(lab: Lab, number: int) -> bool:
    import dataclasses
    import threading

    import psutil

    from hauslm.data.document import Limits, UnreadableError
    from hauslm.data.readers import pdf
    from tests.data import making

    path = lab.folder() / "a.pdf"
    text = "A sentence of a document that would be long enough to be read."
    path.write_bytes(making.pdf([[(50, 50 + 20 * i, 11, text) for i in range(20)]]))
    before = {c.pid for c in psutil.Process().children()}

    def strike() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for child in psutil.Process().children():
                # Not between fork and exec, where the parent sleeps in the kernel until the child runs.
                with suppress(psutil.Error):
                    if child.pid not in before and any("_pdf_child" in a for a in child.cmdline()):
                        child.send_signal(number)
                        return
            time.sleep(0.0005)

    thread = threading.Thread(target=strike)
    thread.start()
    started = time.monotonic()
    try:
        list(pdf.read(path, dataclasses.replace(Limits(), pdf_seconds=3)))
    except UnreadableError:
        return time.monotonic() - started < 10
    finally:
        thread.join()
    return False


# ---------------------------------------------------------------- F17, F18: analysis, bundle


def f16_lost_rank(lab: Lab, long: bool) -> Trials:
    """One of two ranks is killed in the middle of a run: the other ends, and the run goes on from there."""
    for rank in (0, 1) if long else (1,):
        for after in (1, 2, 3) if long else (1,):
            yield Trial(_rank_lost(lab, rank, after), f"rank {rank} after {after} checkpoints")


def _rank_lost(lab: Lab, rank: int, after: int) -> bool:
    from hauslm.train import cluster
    from tests.train.test_distributed import ranks_of, write

    project = lab.project()
    root = project.folder.root
    write(project, max_steps=400)  # long enough to be struck while it runs
    struck: list[float] = []

    def kill() -> None:
        end = time.monotonic() + 120
        while len(project.checkpoints) < after and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(ranks_of(root)[rank], signal.SIGKILL)
        struck.append(time.monotonic())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        cluster.run(
            project.folder, cluster.Shape(2), resume=False, accept_change=False, progress=Silent()
        )
        return False  # finished although a rank was lost, or before it was
    except Interrupted as error:
        prompt = bool(struck) and time.monotonic() - struck[0] < 60
        told = error.exit_code == 75 and not ranks_of(root)
    sealed = project.checkpoints
    for path in sealed:
        seal.verify(path)
    run = cluster.run(
        project.folder, cluster.Shape(2), resume=True, accept_change=False, progress=Silent()
    )
    lab.drop(project)
    return prompt and told and bool(sealed) and run.steps == 400 and bool(run.resumed_from)


def f17_analysis_killed(lab: Lab, long: bool) -> Trials:
    """SIGKILL at each write, fsync and rename of an analysis; resumed, every article stands there once."""
    import json

    from hauslm.analyse import run as room
    from hauslm.analyse.runner import essence
    from hauslm.base.files import ProjectFolder
    from hauslm.embedded import MODEL
    from hauslm.lm.echo import EchoModel
    from hauslm.scenario import parse

    def make() -> tuple[Any, ProjectFolder]:
        root = lab.folder()
        (root / "articles").mkdir()
        for i in range(4 if long else 2):
            text = f"# Article {i}\n\n" + f"The probe showed {i} degrees in the sample. " * 12
            (root / "articles" / f"a{i}.md").write_text(text, encoding="utf-8")
        section = {"paths": ["articles"], "batch_size": 1, "template": "summary"}
        return parse(json.dumps({"model": {"base": str(MODEL)}, "analysis": section})), ProjectFolder(root)  # fmt: skip

    def rows(folder: ProjectFolder) -> list[Any]:
        path = folder.analysis / "rows.jsonl"
        return [essence(json.loads(line)) for line in path.read_text().splitlines()]

    def analyse(scenario: Any, folder: ProjectFolder) -> None:
        room.analyse(scenario, folder, run=None, corpus=None, model=EchoModel())

    scenario, folder = make()
    analyse(scenario, folder)
    whole = rows(folder)
    number, status = 0, -9
    while status == -9:
        number += 1
        scenario, folder = make()
        status = killed_at(number, lambda s=scenario, f=folder: analyse(s, f))
        done = (folder.analysis / "rows.jsonl").exists()
        sound = not done or rows(folder) == whole
        if status == -9:
            analyse(scenario, folder)
            yield Trial(sound and rows(folder) == whole, f"killed at call {number}")
        elif status:
            yield Trial(False, f"ended with {status}")
        shutil.rmtree(folder.root)


def f18_bundle_killed(lab: Lab, long: bool) -> Trials:
    """SIGKILL at each write, fsync and rename of packing: the bundle is complete or not there."""
    from hauslm.base.files import ProjectFolder
    from hauslm.scenario import Scenario
    from hauslm.share.bundle import bundle
    from hauslm.share.verify import verify
    from tests.share.test_bundle import adapter, records

    def pack(folder: ProjectFolder) -> None:
        run, corpus = records(folder)
        bundle(Scenario(name="terms"), folder, run=run, corpus=corpus, evaluation=None)

    number, status = 0, -9
    while status == -9:
        number += 1
        folder = ProjectFolder(lab.folder())
        adapter(folder.adapter)
        status = killed_at(number, lambda f=folder: pack(f))
        found = sorted(folder.bundles.glob("*.hlm")) if folder.bundles.exists() else []
        try:
            for path in found:
                verify(path)
            kept = True
        except HauslmError:
            kept = False
        if status == -9:
            pack(folder)
            yield Trial(kept, f"killed at call {number}")
        elif status or not found:
            yield Trial(False, f"ended with {status}")
        shutil.rmtree(folder.root)
