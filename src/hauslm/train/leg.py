"""One process's part of a run, from the start or a checkpoint to the end or an interruption.

Holds what lives between steps: losses, the best adapter, the meters, the checkpoints; and what happens
after each step: measure, watch, validate, seal. `loop.train` calls its methods in order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import HauslmError, Interrupted, RefusedError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.train import (
    distributed,
    gate,
    kernels,
    limit,
    model,
    presets,
    profile,
    seal,
    signals,
    watch,
)
from hauslm.train.inputs import Inputs, Notices
from hauslm.train.meter import Energy, Meter, PeakMemory, figures_of
from hauslm.train.reporters import Reporters
from hauslm.train.saving import Best, Losses, Saving

if TYPE_CHECKING:
    import torch

    from hauslm.train.trainer import Compute, HouseTrainer


class Leg(Saving):
    """See the module."""

    def __init__(
        self,
        inputs: Inputs,
        folder: ProjectFolder,
        notices: Notices,
        progress: Progress,
        stop: signals.Stop,
        ranks: distributed.Ranks = distributed.ALONE,
    ) -> None:
        self.inputs, self.folder, self.notices = inputs, folder, notices
        self.progress, self.stop = progress, stop
        self.settings, self.schedule = inputs.settings, inputs.schedule
        self.ranks = ranks
        self.work = folder.work / "train"
        if not ranks.first:  # what this rank would write besides is nobody's
            self.work = self.work / "ranks" / str(ranks.rank)
        # GPU kernels may add in any order; several ranks add in another one than a single process
        self.bitwise = inputs.device == "cpu" and not ranks.several
        self.best, self.losses = Best(), Losses()
        self.found: seal.Found | None = None  # the checkpoint that is continued
        self.ancestor: dict[str, torch.Tensor] | None = None  # or the adapter to start from
        self.started_from = ""  # the checkpoint of `ancestor`
        self.resumed_from: list[str] = []
        self.step = 0
        self.last_save = time.monotonic()
        self.last_held = 0.0  # seconds
        self.stopped_early = False
        self.profiled = False
        self.profile: profile.Profile | None = None

    # ------------------------------------------------------------ 3. base and adapter

    def build(self) -> None:
        """Load the base, attach the adapter, put saved values back."""
        from hauslm.train.trainer import Compute

        given = self.inputs
        self.memory = PeakMemory(given.device)
        self.memory.start()
        self.energy = Energy(given.device)
        home = gate.first_home(given, self.settings)
        base = model.load_base(given.base.path, self.settings, home)
        self.model: Any = model.attach(base, self.settings, given.base.path, given.base_name)
        model.checkpoint_layers(self.model, self.settings.checkpointed_layers)
        self.compute: Compute = Compute(self.model, self.settings, given.device)
        self.initial_sha256 = seal.tensors_sha256(model.trainable(self.model))
        self.gate = gate.round_base(self)
        if self.found is None and self.ancestor is None:
            self._show_first_rows()
        self.parameters = sum(p.numel() for p in model.trainable(self.model).values())
        if self.ancestor is not None:
            model.load_trainable(self.model, self.ancestor)
        if self.found is not None:
            self._restore(self.found.snapshot)
        if self.ranks.several:
            values = seal.tensors_sha256(model.trainable(self.model))
            self.ranks.must_agree(say("the adapter at the start"), values)
            sums = [f"{n}={v}" for n, v in watch.frozen_sums(self.model).items()]
            self.ranks.must_agree(say("the base in memory"), distributed.digest_of(sums))
        if self.settings.compile:
            kernels.compile_layers(self.compute.decoder)
        self.ranks.wrap(self.compute)
        self.frozen_before = watch.frozen_sums(self.model)

    def _show_first_rows(self) -> None:
        """Variants that start from the data (EVA) look at the first rows."""
        from hauslm.train.batches import make_row, split_examples

        variant = self._variant()
        if variant is None:
            return
        groups = split_examples(self.schedule.bins(0), 1, self.settings.packing)
        device = self.inputs.device
        variant.seen(self.compute, [make_row(self.inputs.store, g, device) for g in groups])

    # ------------------------------------------------------------ 4. look before you spend

    def look(self) -> None:
        """Proof that packing leaks nothing, advice, the first validation loss."""
        from hauslm.train.proof import prove
        from hauslm.train.trainer import validation_rows

        given = self.inputs
        first = [i for one in self.schedule.bins(0) for i in one]
        self.proof = prove(self.compute, given.store, first)
        self.limit = limit.of(self.compute, self.ranks.world if self.ranks.several else 1)
        for sentence in self._advice():
            self.notices.tell(sentence)

        state = self.found.snapshot.state if self.found else {}
        self.start = self.found.snapshot.step if self.found else 0
        self.meter = Meter(self.work, self.start, state.get("meter", {}))
        self.reporters = Reporters(
            self.settings.report_to if self.ranks.first else (),
            self.work,
            self.folder.root.name,
            self.start,
        )
        self.watcher = watch.Watcher(state.get("watcher"))
        self.micro_batch = float(state.get("micro_batch", self.settings.micro_batch_size))
        self.rows: list[list[int]] = []
        self.validate_every = self.schedule.steps
        if given.validation_store is None:
            return
        self.rows = validation_rows(given.validation_store, self.settings, given.validation_usable)
        self._settle_interval()
        if self.losses.validation_first is None:
            self.losses.validation_first = self._validate(0)
            row = {"step": 0, "validation": self.losses.validation_first}
            self.meter.write(row)
            self.reporters.write(row)

    def _settle_interval(self) -> None:
        """Steps between validations: the user's, or what the run can afford."""
        steps = self.schedule.steps
        tokens = round(self.inputs.tokens * self.schedule.epochs_done(steps))
        chosen = presets.validation_interval(steps, tokens, self.inputs.validation_tokens)
        self.validate_every = self.settings.validate_every_steps or chosen.value
        given = say("Given in the project file.")
        self.settings.reasons["validate_every_steps"] = (
            given if self.settings.validate_every_steps else chosen.reason
        )

    def _advice(self) -> Sequence[Sentence]:
        s, facts, steps = self.settings, self.inputs.facts, self.schedule.steps
        advised = presets.learning_rate(facts.model_type, facts.hidden, facts.parameters, s.method)
        return presets.advice(
            method=s.method,
            target_modules=s.adapter.get("target_modules", ""),
            dropout=float(s.adapter.get("lora_dropout", 0.0)),
            learning_rate_given=s.learning_rate,
            learning_rate_advised=advised.value,
            examples_per_step=facts.examples * self.schedule.epochs_done(steps) / max(1, steps),
            trainable=self.parameters,
            tokens=self.inputs.tokens,
        )

    # ------------------------------------------------------------ 5. learn

    def learn(self) -> None:
        """Trainer's loop from the start step to the end, an interruption or a failure."""
        total = self.schedule.steps
        self.step = self.start
        if self.start >= total or self.stopped_early:
            self.meter.close()
            self.reporters.close()
            return
        from hauslm.train.trainer import make_trainer

        self.trainer: HouseTrainer = make_trainer(self)
        self.seconds_at_start = self.meter.seconds
        try:
            self.trainer.train()
            self.writer.wait()
        except watch.NotFinite as error:
            raise error.refusal(self._keep_last_good(error)) from error
        except distributed.RankLost as error:
            if self.trainer.state.global_step > self.start:  # values and state of the step before
                self._seal(self.trainer.state.global_step)
            raise distributed.lost(error, self._where()) from error
        finally:
            # The first failure is the one that is told.
            with suppress(HauslmError, watch.NotFinite):
                self.writer.wait()
            self.reporters.close()
            self.meter.close()
        if self.stop.asked and self.step < total and not self.stopped_early:
            raise Interrupted(
                "H650",
                say(
                    "Stopped in step {step} of {total}; a checkpoint is sealed.",
                    step=self.step,
                    total=total,
                ),
                where=self.folder.relative(self.checkpoints.folder),
                next_step=say("hauslm train --resume continues exactly there."),
            )

    def _where(self) -> str:
        return self.folder.relative(self.checkpoints.folder)

    def _keep_last_good(self, error: watch.NotFinite) -> str:
        """Seal the step before, if its values are sound; where the last good checkpoint lies, if any."""
        with suppress(watch.NotFinite):
            if error.what != "values":
                self._seal(error.step - 1)
            self.writer.wait()
        found = self.checkpoints.all()
        return self.folder.relative(found[-1]) if found else ""

    def begin(self, state: Any, optimizer: Any, scheduler: Any) -> None:
        """Trainer is ready: give it the state of the checkpoint."""
        self.optimizer, self.scheduler = optimizer, scheduler
        if self.profiled:
            rank = int(self.settings.adapter.get("r", 0))
            vocabulary = int(self.compute.causal.config.get_text_config().vocab_size)
            self.profile = profile.Profile(self.work, self.inputs.device, rank, vocabulary)
            self.profile.begin()
        if self.found is None:
            return
        saved = self.found.snapshot
        seal.load_optimizer_state(optimizer, saved.tensors["optimizer"], saved.state["optimizer"])
        scheduler.load_state_dict(saved.state["scheduler"])
        state.global_step = self.start

    def after_step(self, step: int, rate: float, seconds: float, cpu_seconds: float) -> bool:
        """Measure, watch, validate, seal. False: stop here."""
        self.step = step
        self.writer.check()
        if self.ranks.any(self.stop.asked):  # one is asked, all stop after this step
            self.stop.now()
        figures, total = self.trainer.figures, self.schedule.steps
        self.bitwise = self.bitwise and not self.trainer.halved
        self.meter.step(figures.tokens, figures.labels, seconds, figures.squares)
        self.losses.last = figures.loss
        if math.isnan(self.losses.first):
            self.losses.first = figures.loss
        self.notices.tell(self.watcher.loss(step, figures.loss))
        row = {
            "step": step,
            "of": total,
            "loss": figures.loss,
            "learning_rate": rate,
            "gradient_norm": figures.gradient_norm,
            "tokens": self.meter.tokens,
            "tokens_per_second": round(figures.tokens / seconds, 1),
            "cpu_seconds": round(cpu_seconds, 4),  # of this step, all threads
            "seconds": round(self.meter.seconds, 3),
            "memory_gib": round(self.memory.now_gib(), 3),
            "remaining_seconds": round(self._remaining_seconds(), 1),
        }
        if self.limit is not None:
            read = figures.tokens, figures.labels, figures.squares
            row["limit_share"] = round(self.limit.share(*read, seconds), 4)
        if self.inputs.planned_gib is not None:
            row["planned_gib"] = self.inputs.planned_gib
        if self.inputs.eur_per_hour is not None:
            # of the whole run: what it has cost and what is still to come, at the plan's rate
            hours = (row["seconds"] + row["remaining_seconds"]) / 3600
            row["cost_eur"] = round(hours * self.inputs.eur_per_hour, 4)
        last = step >= total
        if self.profile is not None:
            done = figures.tokens, figures.labels, figures.squares
            work = self.limit.work(*done) if self.limit is not None else 0.0
            self.profile.after_step(figures.tokens, work, self.limit, last)
        if self.rows and (step % self.validate_every == 0 or last):
            row["validation"] = self._validate(step)
            self._stop_early_if_due(step, last)
        self.meter.write(row)
        self.reporters.write(row)
        self.progress.step(say("Training"), step, total, **figures_of(row, self.losses.validation))
        over = last or self.stopped_early or self.stop.asked
        if over or self._save_is_due(step):
            self._seal(step)
        return not over

    def _stop_early_if_due(self, step: int, last: bool) -> None:
        """The validation loss has not improved for long: the rest would only cost."""
        patience = self.settings.early_stopping_patience
        if last or patience is None or self.watcher.stale < patience:
            return
        self.stopped_early = True
        self.notices.tell(
            say(
                "Stopped early in step {step} of {total}: {times} validations in a row were no better than that of step {best_step}. training.early_stopping_patience changes it.",
                step=step,
                total=self.schedule.steps,
                times=self.watcher.stale,
                best_step=self.best.step,
            )
        )

    def _remaining_seconds(self) -> float:
        """By the pace of this process: steps, and the validations and saves among them."""
        done_here = max(1, self.step - self.start)
        left = self.schedule.steps - self.step
        return left * (self.meter.seconds - self.seconds_at_start) / done_here

    def _validate(self, step: int) -> float:
        """Validation loss now; keeps the adapter if it is the best so far."""
        from hauslm.train.trainer import mean_loss

        store = self.inputs.validation_store or self.inputs.store
        value = mean_loss(self.compute, store, self.rows, self.ranks)
        if not math.isfinite(value):
            raise RefusedError(
                "H634",
                say("The validation loss of step {step} is not a number.", step=step),
                where=self.folder.relative(self.checkpoints.folder),
                next_step=say(
                    "Checkpoints before it are sealed; set a lower training.learning_rate, or look at the validation examples."
                ),
            )
        self.losses.validation = value
        self.notices.tell(self.watcher.validation(step, value, self.best.loss, self.best.step))
        if value < self.best.loss and step > 0:
            now = model.trainable(self.model)
            kept = {name: p.detach().to("cpu", copy=True) for name, p in now.items()}
            self.best = Best(step, value, kept)
        return value

    # ------------------------------------------------------------ 6. the adapter

    def write_adapter(self) -> str:
        """The best adapter as a plain PEFT folder; returns the sha256 of its weights file."""
        watch.frozen_unchanged(self.frozen_before, watch.frozen_sums(self.model))
        total, best = self.schedule.steps, self.best
        if best.tensors is not None and best.step != self.step:
            model.load_trainable(self.model, best.tensors)
            self.notices.tell(
                say(
                    "The adapter of step {step} of {total} is kept: its validation loss {loss:.3f} is the lowest.",
                    step=best.step,
                    total=total,
                    loss=best.loss,
                )
            )
        given = self.inputs
        digest = seal.tensors_sha256(model.trainable(self.model))
        self.ranks.must_agree(say("the adapter at the end"), digest)
        if not self.ranks.first:
            return ""
        return model.save(self.model, self.settings, self.target, given.base.path, given.base_name)

    @property
    def target(self) -> Path:
        """The folder that is written at the end: the adapter, or the whole model."""
        full = self.settings.method == "full"
        return self.folder.trained_model if full else self.folder.adapter
