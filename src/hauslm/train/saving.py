"""What of a run outlives its process? The checkpoint it goes on from, and those that it seals.

`Saving` is the part of a leg that deals with them; the rest of the leg is in `leg.py`.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.records import Said
from hauslm.train import adapters, distributed, model, seal
from hauslm.train.inputs import plain_json
from hauslm.train.writer import Writer

if TYPE_CHECKING:
    import torch

    from hauslm.base.files import ProjectFolder
    from hauslm.train import gate, watch
    from hauslm.train.batches import Schedule
    from hauslm.train.inputs import Inputs, Notices
    from hauslm.train.meter import Meter
    from hauslm.train.settings import Settings
    from hauslm.train.trainer import HouseTrainer

# A save may hold the run up for 1/50 of the time at most: the next one waits 50 times as long as the
# last one held it up, and twice as long as the writing took beside the steps.
SAVE_SHARE = 50
WRITE_SHARE = 2
SHORTEST_SAVE_INTERVAL_S = 30.0


@dataclass
class Best:
    """The adapter with the lowest validation loss so far; step -1: none yet."""

    step: int = -1
    loss: float = math.inf
    tensors: dict[str, torch.Tensor] | None = None


@dataclass
class Losses:
    """First and newest losses, nats per label."""

    first: float = math.nan
    last: float = math.nan
    validation: float | None = None
    validation_first: float | None = None


class Saving:
    """See the module; what it works on is set by `Leg`."""

    folder: ProjectFolder
    inputs: Inputs
    settings: Settings
    schedule: Schedule
    notices: Notices
    ranks: distributed.Ranks
    model: Any
    gate: gate.Gate | None
    meter: Meter
    optimizer: Any
    scheduler: Any
    trainer: HouseTrainer
    watcher: watch.Watcher
    writer: Writer
    checkpoints: seal.Checkpoints
    found: seal.Found | None
    ancestor: dict[str, torch.Tensor] | None
    started_from: str
    resumed_from: list[str]
    best: Best
    losses: Losses
    bitwise: bool
    stopped_early: bool
    last_held: float
    last_save: float
    initial_sha256: str

    def find_checkpoint(self, resume: bool, accept_change: bool) -> None:
        """The newest sound checkpoint, if one is to be continued; otherwise room for a new run."""
        self.checkpoints = self._checkpoints()
        self.writer = Writer(self.checkpoints, fixed=("best",))  # `Best` holds copies of its own
        found = self.checkpoints.newest_sound() if resume else None
        # All have read before rank 0 makes room.
        digest = found.manifest_sha256 if found else "0" * 64
        self.ranks.must_agree(say("the checkpoint to continue"), digest)
        self.ranks.must_agree(say("what goes into the run"), self.inputs.identity.sha256())
        if found is None:
            self._set_aside()
            return
        for name, why in found.damaged:
            self.notices.tell(
                say("Checkpoint {name} is damaged and was passed over: {why}", name=name, why=why)
            )
        state = found.snapshot.state
        over = found.snapshot.step >= state["steps"] or state["stopped_early"]
        if over and not accept_change and seal.differences(found.identity, self.inputs.identity):
            # A finished run of something else: nothing unfinished is lost by beginning anew.
            self._set_aside()
            return
        changed = seal.check_identity(found, self.inputs.identity, accept_change)
        self.resumed_from = [*found.snapshot.state["resumed_from"], found.path.name]
        if changed:
            self._start_lineage(found, changed)
        else:
            self._continue(found)

    def _checkpoints(self) -> seal.Checkpoints:
        folder, identity = self.folder.work / "train" / "checkpoints", self.inputs.identity
        if not self.ranks.first:
            return distributed.ReadOnly(folder, identity)
        return seal.Checkpoints(
            folder, identity, self.inputs.versions, self.settings.keep_checkpoints
        )

    def _set_aside(self) -> None:
        if self.checkpoints.all():
            self.notices.tell(
                say("This is a new run; the earlier checkpoints are kept in checkpoints.previous.")
            )
        self.checkpoints.set_aside()

    def _start_lineage(self, found: seal.Found, changed: list[Sentence]) -> None:
        """Another run that begins with the adapter of this checkpoint."""
        self.ancestor = dict(found.snapshot.tensors["trainable"])
        self.started_from = found.path.name
        self.bitwise = False
        self.notices.tell(
            say(
                "A new run starts from the adapter of {name}; what changed: {changes}.",
                name=found.path.name,
                changes=seal.joined(changed),
            )
        )
        self.checkpoints.set_aside()
        self.checkpoints.parent = found.manifest_sha256

    def _continue(self, found: seal.Found) -> None:
        self.found = found
        self.checkpoints.parent = found.manifest_sha256
        state = found.snapshot.state
        self.bitwise = self.bitwise and state["bitwise"]
        self.stopped_early = state["stopped_early"]
        self.started_from = state.get("started_from", "")
        told = list(self.notices.said)
        self.notices.said[:] = [Said.model_validate(n) for n in state["notices"]]
        self.notices.said += [n for n in told if n not in self.notices.said]
        differing = [
            f"{key} {found.versions.get(key)} -> {value}"
            for key, value in self.inputs.versions.items()
            if found.versions.get(key) != value
        ]
        if differing:
            self.bitwise = False
            self.notices.tell(
                say(
                    "The checkpoint was written under other versions ({differing}): the result is no longer bit for bit that of an uninterrupted run.",
                    differing=", ".join(differing),
                )
            )

    def _variant(self) -> adapters.Variant | None:
        if self.settings.method == "full":
            return None
        return adapters.find(self.settings.adapter["variant"])

    def _restore(self, snapshot: seal.Snapshot) -> None:
        state, variant = snapshot.state, self._variant()
        moves_base = variant is not None and getattr(variant.module, "MOVES_BASE", False)
        if moves_base and state["initial_sha256"] != self.initial_sha256:
            raise RefusedError(
                "H613",
                say(
                    "This machine starts the variant {variant} from other values than the one before.",
                    variant=self.settings.adapter["variant"],
                ),
                next_step=say(
                    "Resume on the machine and versions of the first part, or start anew with --fresh."
                ),
            )
        model.load_trainable(self.model, dict(snapshot.tensors["trainable"]))
        best = state["best"]
        if best["step"] >= 0:
            same = best["step"] == snapshot.step
            tensors = snapshot.tensors["trainable" if same else "best"]
            self.best = Best(best["step"], best["loss"], dict(tensors))
        self.losses = Losses(**state["losses"])

    # ------------------------------------------------------------ checkpoints

    def _save_is_due(self, step: int) -> bool:
        every = self.settings.checkpoint_every_steps
        if every:
            return step % every == 0
        if self.writer.busy:
            return False
        wait = max(
            SHORTEST_SAVE_INTERVAL_S,
            SAVE_SHARE * self.last_held,
            WRITE_SHARE * self.writer.last_write_seconds,
        )
        return time.monotonic() - self.last_save >= wait

    def _seal(self, step: int) -> None:
        """Begin a sealed checkpoint of everything that continuing needs (see writer.py)."""
        if not self.ranks.first:
            return
        held = self.writer.held_seconds
        tensors, plain = seal.optimizer_state(self.optimizer)
        groups: dict[str, seal.Tensors] = {
            "trainable": model.trainable(self.model),
            "optimizer": tensors,
        }
        best = self.best
        if best.tensors is not None and best.step != step:
            groups["best"] = best.tensors
        state = {
            "steps": self.schedule.steps,
            "cursor": {"step": step, "epochs": self.schedule.epochs_done(step)},
            "rng": {"streams": "sha256(seed, step, row)", "seed": self.settings.seed},
            "optimizer": plain,
            "scheduler": plain_json(self.scheduler.state_dict()),
            "initial_sha256": self.initial_sha256,
            "best": {"step": best.step, "loss": best.loss if best.step >= 0 else None},
            "losses": asdict(self.losses),
            "micro_batch": self.trainer.micro_batch,
            "meter": self.meter.state(),
            "watcher": self.watcher.state(),
            "bitwise": self.bitwise,
            "notices": [n.model_dump(mode="json") for n in self.notices.said],
            "resumed_from": self.resumed_from,
            "started_from": self.started_from,
            "stopped_early": self.stopped_early,
            "gate": self.gate.plain() if self.gate is not None else None,
        }
        self.writer.submit(seal.Snapshot(step, groups, state))
        self.last_save = time.monotonic()
        self.last_held = self.writer.held_seconds - held
