"""One training run, read from top to bottom: `train`.

Prepared examples, the base and the settings go in; a plain PEFT folder and a `Run` record come out. The
run is a function of (settings, data, base): on a CPU, however often it is killed and resumed, the adapter
is bit for bit the same. What each step does stands in `batches.py` and `trainer.py`.
"""

from __future__ import annotations

import datetime
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import Interrupted
from hauslm.base.files import ProjectFolder, lock
from hauslm.base.progress import Progress
from hauslm.base.quantity import measured
from hauslm.base.words import Sentence, as_text, say
from hauslm.records import AdapterFile, Corpus, Loss, Plan, Run, Said
from hauslm.scenario import Scenario
from hauslm.train import presets, seal, settings as setting, signals, watch
from hauslm.train.meter import Energy, Meter, PeakMemory, thinned
from hauslm.train.settings import Settings

if TYPE_CHECKING:
    import torch

    from hauslm.catalog.local import BaseFolder
    from hauslm.data.store import ExampleStore
    from hauslm.train.batches import Schedule
    from hauslm.train.trainer import Compute

# A save may take 1/50 of the time at most: the next one waits 50 times as long as the last one took.
SAVE_SHARE = 50
SHORTEST_SAVE_INTERVAL_S = 30.0


def train(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    plan: Plan | None,
    corpus: Corpus,
    resume: bool = False,
    progress: Progress,
    accept_change: bool = False,
) -> Run:
    """Train the adapter of `scenario` on the prepared examples in `folder`.

    `resume` continues from the newest sound checkpoint; `accept_change` continues from its adapter even
    if data, settings or base are no longer the same. SIGTERM and Ctrl-C seal a checkpoint and raise
    `Interrupted`. Errors: H60x settings, H61x checkpoints, H62x packing, H63x learning, H64x memory.
    """
    work = folder.work / "train"
    with lock(work, "train"), signals.listening() as stop:
        from hauslm.train.model import quiet

        with quiet():
            leg = _Leg(scenario, folder, plan, corpus, progress, stop)
            leg.read()
            leg.find_checkpoint(resume, accept_change)
            leg.build()
            leg.look()
            leg.learn()
            return leg.finish()


@dataclass
class Best:
    """The adapter with the lowest validation loss so far."""

    step: int = -1
    loss: float = math.inf
    tensors: dict[str, torch.Tensor] | None = None


class _Leg:
    """One process's part of a run: from the start or a checkpoint to the end or an interruption."""

    def __init__(
        self,
        scenario: Scenario,
        folder: ProjectFolder,
        plan: Plan | None,
        corpus: Corpus,
        progress: Progress,
        stop: signals.Stop,
    ) -> None:
        self.scenario, self.folder, self.plan = scenario, folder, plan
        self.corpus, self.progress, self.stop = corpus, progress, stop
        self.work = folder.work / "train"
        self.notices: list[Said] = []
        self.best = Best()
        self.found: seal.Found | None = None
        self.resumed_from: list[str] = []
        self.bitwise = True
        self.first_loss = self.last_loss = math.nan
        self.validation: float | None = None
        self.validation_first: float | None = None
        self.last_save = time.monotonic()
        self.last_save_seconds = 0.0

    def notice(self, sentence: Sentence) -> None:
        """Tell it now and keep it in the record, once."""
        said = Said.of(sentence)
        if said not in self.notices:
            self.notices.append(said)
            self.progress.say(sentence)

    # ------------------------------------------------------------ 1. read what there is

    def read(self) -> None:
        """Examples, base and settings: everything the adapter will depend on."""
        import torch

        from hauslm.catalog.local import find_base, weights_sha256
        from hauslm.data.store import ExampleStore
        from hauslm.train.batches import Schedule, label_counts

        prepared = self.folder.work / "prepared"
        self.store: ExampleStore = ExampleStore.open(prepared / "train")
        model = self.scenario.model
        self.base: BaseFolder = find_base(model.base, model.path, model.revision, self.folder.root)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bitwise = self.device == "cpu"

        counts = label_counts(self.store)
        self.usable, said = watch.usable_examples(self.store, counts)
        self.settings: Settings = setting.resolve(self.scenario, self.plan, self._facts())
        self.schedule: Schedule = Schedule(self.store, self.settings, self.usable)
        for sentence in said:
            self.notice(sentence)
        end = watch.end_token(self.store, self.usable, _end_ids(self.base.config))
        if end:
            self.notice(end)

        self.validation_store: ExampleStore | None = None
        self.validation_examples: list[int] = []
        if (prepared / "validation.offsets.bin").is_file():
            store = ExampleStore.open(prepared / "validation")
            self.validation_examples = [int(i) for i in label_counts(store).nonzero()[0]]
            self.validation_store = store if self.validation_examples else None
        if self.validation_store is None:
            self.notice(say("There are no validation examples: overfitting would go unseen."))
        self.weights_sha256 = weights_sha256(self.base.path, self.work / "base-hashes.json")
        self.versions = _versions(self.device)
        self.identity = seal.Identity(
            settings=_jsonable(self.settings.identity()),
            data={
                "fingerprint": self.corpus.fingerprint,
                **seal.data_hashes(prepared / "train"),
                **seal.data_hashes(prepared / "validation"),
            },
            base={"id": self.base.id, "sha256": self.weights_sha256},
        )

    def _facts(self) -> setting.Facts:
        from hauslm.train.model import has_fast_bfloat16

        config = self.base.config
        lengths = self.store.lengths()[self.usable]
        return setting.Facts(
            model_type=str(config.get("model_type", "")),
            hidden=int(config.get("hidden_size", REFERENCE)),
            layers=int(config.get("num_hidden_layers", 1)),
            parameters=sum(p.stat().st_size for p in self.base.path.glob("*.safetensors")) / 2,
            context=int(config.get("max_position_embeddings", 1 << 20)),
            examples=len(self.usable),
            longest=int(lengths.max()),
            tokens=int(lengths.sum()),
            device=self.device,
            bfloat16=has_fast_bfloat16(self.device),
        )

    # ------------------------------------------------------------ 2. where to begin

    def find_checkpoint(self, resume: bool, accept_change: bool) -> None:
        """The newest sound checkpoint, if one is to be continued; otherwise room for a new run."""
        self.checkpoints = seal.Checkpoints(
            self.work / "checkpoints", self.identity, self.versions, self.settings.keep_checkpoints
        )
        if not resume:
            self._set_aside()
            return
        found = self.checkpoints.newest_sound()
        if found is None:
            return
        for name, why in found.damaged:
            self.notice(say("Checkpoint {name} is damaged and was passed over: {why}", name=name, why=why))
        over = found.snapshot.step >= found.snapshot.state["steps"]
        if over and not accept_change and seal.differences(found.identity, self.identity):
            # A finished run of something else: nothing unfinished is lost by beginning anew.
            self._set_aside()
            return
        changed = seal.check_identity(found, self.identity, accept_change)
        self.resumed_from = [*found.snapshot.state["resumed_from"], found.path.name]
        if changed:
            self._start_lineage(found, changed)
            return
        self.found = found
        self.checkpoints.parent = found.manifest_sha256
        self._compare_versions(found)

    def _set_aside(self) -> None:
        if self.checkpoints.all():
            self.notice(
                say("This is a new run; the earlier checkpoints are kept in checkpoints.previous.")
            )
        self.checkpoints.set_aside()

    def _start_lineage(self, found: seal.Found, changed: list[Sentence]) -> None:
        """Another run that begins with the adapter of this checkpoint."""
        self.ancestor: dict[str, torch.Tensor] | None = dict(found.snapshot.tensors["trainable"])
        self.notice(
            say(
                "A new run starts from the adapter of {name}; what changed: {changes}.",
                name=found.path.name,
                changes=seal.joined(changed),
            )
        )
        self.bitwise = False
        parent = found.manifest_sha256
        self.checkpoints.set_aside()
        self.checkpoints.parent = parent

    ancestor: dict[str, torch.Tensor] | None = None

    def _compare_versions(self, found: seal.Found) -> None:
        state = found.snapshot.state
        self.bitwise = self.bitwise and bool(state.get("bitwise", True))
        self.notices += [n for n in map(Said.model_validate, state.get("notices", []))]
        differing = [
            f"{key} {found.versions.get(key)} -> {value}"
            for key, value in self.versions.items()
            if found.versions.get(key) != value
        ]
        if differing:
            self.bitwise = False
            self.notice(
                say(
                    "The checkpoint was written under other versions ({differing}): the result is no longer bit for bit that of an uninterrupted run.",
                    differing=", ".join(differing),
                )
            )

    # ------------------------------------------------------------ 3. base and adapter

    def build(self) -> None:
        """Load the base, attach the adapter, put saved values back."""
        from hauslm.train import model as models
        from hauslm.train.trainer import Compute

        self.memory = PeakMemory(self.device)
        self.memory.start()
        self.energy = Energy(self.device)
        base = models.load_base(self.base.path, self.settings, self.device)
        self.base_name = _public_name(self.base)
        self.model: Any = models.attach(base, self.settings, self.base.path, self.base_name)
        _checkpoint_layers(self.model, self.settings.checkpointed_layers)
        self.compute: Compute = Compute(self.model, self.settings, self.device)
        self.initial_sha256 = seal.tensors_sha256(models.trainable(self.model))
        if self.found is None and self.ancestor is None:
            self._show_first_rows()
        self.parameters = sum(p.numel() for p in models.trainable(self.model).values())
        self.frozen_before = watch.frozen_sum(self.model)
        if self.ancestor is not None:
            models.load_trainable(self.model, self.ancestor)
        if self.found is not None:
            self._restore(self.found.snapshot)

    def _show_first_rows(self) -> None:
        """Variants that start from the data (EVA) look at the first rows."""
        if self.settings.method == "full":
            return
        from hauslm.train import adapters
        from hauslm.train.batches import make_row, split_examples

        variant = adapters.find(self.settings.adapter["variant"])
        groups = split_examples(self.schedule.bins(0), 1, self.settings.packing)
        variant.seen(self.compute, [make_row(self.store, g, self.device) for g in groups])

    def _restore(self, snapshot: seal.Snapshot) -> None:
        from hauslm.base.errors import RefusedError
        from hauslm.train import adapters
        from hauslm.train import model as models

        state = snapshot.state
        if self.settings.method != "full":
            moves = getattr(adapters.find(self.settings.adapter["variant"]).module, "MOVES_BASE", False)
            if moves and state["initial_sha256"] != self.initial_sha256:
                raise RefusedError(
                    "H613",
                    say("This machine starts the variant {variant} from other values than the one before.", variant=self.settings.adapter["variant"]),
                    next_step=say("Resume on the machine and versions of the first part, or start anew with --fresh."),
                )
        self.initial_sha256 = state["initial_sha256"]
        models.load_trainable(self.model, dict(snapshot.tensors["trainable"]))
        best = state["best"]
        if best["step"] >= 0:
            same = best["step"] == snapshot.step
            tensors = snapshot.tensors["trainable" if same else "best"]
            self.best = Best(best["step"], best["loss"], dict(tensors))
        self.first_loss, self.last_loss = state["first_loss"], state["last_loss"]
        self.validation, self.validation_first = state["validation"], state["validation_first"]

    # ------------------------------------------------------------ 4. look before you spend

    def look(self) -> None:
        """Proof that packing leaks nothing, advice, the first validation loss."""
        from hauslm.train.proof import prove
        from hauslm.train.trainer import validation_rows

        first = [i for one in self.schedule.bins(0) for i in one]
        self.proof = prove(self.compute, self.store, first, self.settings.precision)
        train_tokens = sum(self.schedule.lengths)
        for sentence in self._advice(train_tokens):
            self.notice(sentence)

        self.start = self.found.snapshot.step if self.found else 0
        state = self.found.snapshot.state if self.found else {}
        self.meter = Meter(self.work, self.start, state.get("meter", {}))
        self.watcher = watch.Watcher(state.get("watcher"))
        self.micro_batch = float(state.get("micro_batch", self.settings.micro_batch_size))
        self.rows: list[list[int]] = []
        self.validate_every = self.schedule.steps
        if self.validation_store is None:
            return
        self.rows = validation_rows(self.validation_store, self.settings, self.validation_examples)
        tokens = int(self.validation_store.lengths()[self.validation_examples].sum())
        chosen = presets.validation_interval(
            self.schedule.steps, round(train_tokens * self.schedule.epochs_done(self.schedule.steps)), tokens
        )
        self.validate_every = self.settings.validate_every_steps or chosen.value
        self.settings.reasons.setdefault("validate_every_steps", chosen.reason)
        if self.validation_first is None:
            self.validation_first = self._validate(0)
            self.meter.write({"step": 0, "validation": self.validation_first})

    def _advice(self, tokens: int) -> Sequence[Sentence]:
        s = self.settings
        facts = self._facts()
        advised = presets.learning_rate(facts.model_type, facts.hidden, facts.parameters, s.method)
        steps = max(1, self.schedule.steps)
        examples = len(self.usable) * self.schedule.epochs_done(steps) / steps
        return presets.advice(
            method=s.method,
            target_modules=s.adapter.get("target_modules", ""),
            dropout=float(s.adapter.get("lora_dropout", 0.0)),
            learning_rate_given=s.learning_rate,
            learning_rate_advised=advised.value,
            examples_per_step=examples,
            trainable=self.parameters,
            tokens=tokens,
        )

    # ------------------------------------------------------------ 5. learn

    def learn(self) -> None:
        """Trainer's loop from the start step to the end, an interruption or a failure."""
        if self.start >= self.schedule.steps:
            return
        from transformers import PrinterCallback, TrainingArguments

        from hauslm.train.batches import Steps
        from hauslm.train.trainer import HouseTrainer, Keeper

        s, total = self.settings, self.schedule.steps
        arguments = TrainingArguments(
            output_dir=str(self.work / "trainer"),
            max_steps=total,
            per_device_train_batch_size=1,  # an item is a whole optimizer step
            gradient_accumulation_steps=1,
            learning_rate=s.learning_rate,
            lr_scheduler_type=s.lr_scheduler_type,
            warmup_steps=math.ceil(s.warmup_ratio * total),
            weight_decay=s.weight_decay,
            max_grad_norm=s.max_grad_norm,
            seed=s.seed,
            use_cpu=self.device == "cpu",
            report_to="none",
            save_strategy="no",  # seal.py does it
            eval_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,  # Trainer's default would log 0.0 for a NaN
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            log_level="error",
        )
        trainer = HouseTrainer(
            self.compute,
            self.store,
            Steps(self.schedule, self.start),
            self.notice,
            micro_batch=self.micro_batch,
            args=arguments,
            callbacks=[Keeper(self._begin, self._after_step)],
        )
        trainer.remove_callback(PrinterCallback)  # rooms do not print
        self.trainer = trainer
        try:
            trainer.train()
        except watch.NotFinite as error:
            path = self._seal(error.step - 1)
            raise error.refusal(self.folder.relative(path)) from error
        except KeyboardInterrupt:
            self.stop.now()
        finally:
            self.meter.close()
        if self.stop.asked and self.step < total:
            raise Interrupted(
                "H650",
                say("Stopped in step {step} of {total}; a checkpoint is sealed.", step=self.step, total=total),
                where=self.folder.relative(self.checkpoints.folder),
                next_step=say("hauslm train --resume continues exactly there."),
            )

    step = 0

    def _begin(self, state: Any, optimizer: Any, scheduler: Any) -> None:
        """Trainer's state as it was at the checkpoint."""
        self.optimizer, self.scheduler = optimizer, scheduler
        self.step = self.start
        if self.found is None:
            return
        saved = self.found.snapshot
        seal.load_optimizer_state(optimizer, saved.tensors["optimizer"], saved.state["optimizer"])
        scheduler.load_state_dict(saved.state["scheduler"])
        state.global_step = self.start

    def _after_step(self, step: int, rate: float, seconds: float) -> bool:
        """Measure, watch, validate, seal. False: stop here."""
        self.step = step
        figures, total = self.trainer.figures, self.schedule.steps
        self.bitwise = self.bitwise and not self.trainer.halved
        self.meter.step(figures.tokens, figures.labels, seconds)
        self.last_loss = figures.loss
        if math.isnan(self.first_loss):
            self.first_loss = figures.loss
        row = {
            "step": step,
            "of": total,
            "loss": figures.loss,
            "learning_rate": rate,
            "gradient_norm": figures.gradient_norm,
            "tokens": self.meter.tokens,
            "tokens_per_second": round(figures.tokens / seconds, 1),
            "seconds": round(self.meter.seconds, 3),
        }
        said = self.watcher.loss(step, figures.loss)
        if said:
            self.notice(said)
        last = step >= total
        if self.rows and (step % self.validate_every == 0 or last):
            row["validation"] = self._validate(step)
        self.meter.write(row)
        self._show(row, total)
        if last or self.stop.asked or self._save_is_due(step):
            self._seal(step)
        return not self.stop.asked

    def _show(self, row: dict[str, Any], total: int) -> None:
        left = total - row["step"]
        per_step = self.meter.step_seconds / max(1, row["step"])
        self.progress.step(
            say("Training"),
            row["step"],
            total,
            loss=row["loss"],
            validation=self.validation,
            tokens_per_second=self.meter.tokens_per_second,
            remaining_seconds=left * per_step,
        )

    def _validate(self, step: int) -> float:
        """Validation loss now; keeps the adapter if it is the best so far."""
        from hauslm.train.model import trainable
        from hauslm.train.trainer import mean_loss

        assert self.validation_store is not None
        value = mean_loss(self.compute, self.validation_store, self.rows)
        if not math.isfinite(value):
            raise watch.NotFinite("loss", step)
        self.validation = value
        said = self.watcher.validation(step, value, self.best.loss, self.best.step)
        if said:
            self.notice(said)
        if value < self.best.loss and step > 0:
            tensors = {n: p.detach().to("cpu", copy=True) for n, p in trainable(self.model).items()}
            self.best = Best(step, value, tensors)
        return value

    def _save_is_due(self, step: int) -> bool:
        every = self.settings.checkpoint_every_steps
        if every:
            return step % every == 0
        wait = max(SHORTEST_SAVE_INTERVAL_S, SAVE_SHARE * self.last_save_seconds)
        return time.monotonic() - self.last_save >= wait

    def _seal(self, step: int) -> Path:
        """A sealed checkpoint of everything that continuing needs."""
        from hauslm.train.model import trainable

        started = time.monotonic()
        tensors, plain = seal.optimizer_state(self.optimizer)
        groups: dict[str, seal.Tensors] = {
            "trainable": trainable(self.model),
            "optimizer": tensors,
        }
        if self.best.tensors is not None and self.best.step != step:
            groups["best"] = self.best.tensors
        state = {
            "optimizer": plain,
            "scheduler": _jsonable(self.scheduler.state_dict()),
            "steps": self.schedule.steps,
            "cursor": {"step": step, "epochs": self.schedule.epochs_done(step)},
            "rng": {"streams": "sha256(seed, step, row)", "seed": self.settings.seed},
            "initial_sha256": self.initial_sha256,
            "best": {"step": self.best.step, "loss": self.best.loss if self.best.step >= 0 else None},
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "validation": self.validation,
            "validation_first": self.validation_first,
            "micro_batch": self.trainer.micro_batch,
            "meter": self.meter.state(),
            "watcher": self.watcher.state(),
            "bitwise": self.bitwise,
            "notices": [n.model_dump(mode="json") for n in self.notices],
            "resumed_from": self.resumed_from,
        }
        path = self.checkpoints.save(seal.Snapshot(step, groups, state))
        self.last_save = time.monotonic()
        self.last_save_seconds = self.last_save - started
        return path

    # ------------------------------------------------------------ 6. the adapter and its record

    def finish(self) -> Run:
        """Write the best adapter and say how it came about."""
        from hauslm.train import model as models

        after = watch.frozen_sum(self.model)
        if after != self.frozen_before:
            raise watch.frozen_changed(self.frozen_before, after)
        steps = self.schedule.steps
        if self.best.tensors is not None and self.best.step != steps:
            models.load_trainable(self.model, self.best.tensors)
            self.notice(
                say(
                    "The adapter of step {step} of {total} is kept: its validation loss {loss:.3f} is the lowest.",
                    step=self.best.step,
                    total=steps,
                    loss=self.best.loss,
                )
            )
        digest = models.save(
            self.model, self.settings, self.folder.adapter, self.base.path, self.base_name
        )
        return self._record(digest)

    def _record(self, digest: str) -> Run:
        today = datetime.date.today().isoformat()
        kept = self.best.loss if self.best.step >= 0 else self.validation
        return Run(
            adapter=AdapterFile(
                path=self.folder.relative(self.folder.adapter),
                sha256=digest,
                parameters=self.parameters,
                config=self.settings.adapter,
            ),
            base={
                "id": self.base.id,
                "path": self.folder.relative(self.base.path),
                "sha256": self.weights_sha256,
            },
            method=self.settings.method,
            steps=self.schedule.steps,
            epochs=self.schedule.epochs_done(self.schedule.steps),
            tokens=self.meter.tokens,
            tokens_per_second=measured(
                self.meter.tokens_per_second,
                "tokens/s",
                today,
                as_text(say("tokens read while learning over the time of the steps; no padding")),
            ),
            peak_memory_gib=self.memory.quantity(today),
            seconds=self.meter.seconds,
            energy_kwh=self.energy.quantity(today),
            loss=Loss(
                first=self.first_loss,
                last=self.last_loss,
                validation=kept,
                validation_first=self.validation_first,
            ),
            history=thinned(self.meter.rows),
            determinism="bitwise" if self.bitwise else "statistical",
            resumed_from=tuple(self.resumed_from),
            settings=self._settings_in_force(),
            device=self.device,
            versions=self.versions,
            notices=tuple(self.notices),
        )

    def _settings_in_force(self) -> dict[str, Any]:
        values = _jsonable(self.settings.plain())
        values["validate_every_steps"] = self.validate_every
        values["steps"] = self.schedule.steps
        values["kept_step"] = self.best.step if self.best.step >= 0 else self.schedule.steps
        values["packing_proof"] = {"logits": self.proof.logits, "loss": self.proof.loss}
        values["reasons"] = {
            k: Said.of(v).model_dump(mode="json") for k, v in self.settings.reasons.items()
        }
        return dict(values)


# ---------------------------------------------------------------- small things

REFERENCE = presets.REFERENCE_HIDDEN


def _end_ids(config: dict[str, Any]) -> set[int]:
    """The ids that end a text, by the base's config (one or several)."""
    ends = config.get("eos_token_id")
    return {int(e) for e in (ends if isinstance(ends, list) else [ends]) if e is not None}


def _public_name(base: BaseFolder) -> str:
    """What others know the base by: its Hugging Face name, else the name in the project file."""
    if base.catalog_id:
        from hauslm.catalog import load

        return load.model(base.catalog_id).hf_id or base.id
    return base.id


def _checkpoint_layers(model: Any, layers: int) -> None:
    """Recompute the activations of the first `layers` layers (-1: of all) in the backward pass."""
    if layers == 0:
        return
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    flagged = [m for m in causal.modules() if getattr(m, "gradient_checkpointing", None) is True]
    stack = [m for m in flagged if type(m).__name__.endswith("Layer")]
    for module in stack[layers:] if layers > 0 else []:
        module.gradient_checkpointing = False


def _versions(device: str) -> dict[str, str]:
    """What may change the last bit of a result."""
    import importlib.metadata as metadata

    import torch

    names = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy")
    versions = {n: metadata.version(n) for n in names}
    versions["python"] = platform.python_version()
    versions["threads"] = str(torch.get_num_threads())
    versions["device"] = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return versions


def _processor() -> str:
    import torch

    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _jsonable(value: Any) -> Any:
    """As JSON gives it back (tuples become lists)."""
    import json

    return json.loads(json.dumps(value, sort_keys=True))
