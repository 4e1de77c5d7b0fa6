"""How does transformers' Trainer train our way? One item is one optimizer step; the rest is its own.

`Compute` runs a row through the model (fast path and stock path). `HouseTrainer` overrides the public
`training_step` (rows, token-weighted loss, out-of-memory) and `get_train_dataloader` (an order without
state); optimizer, schedule, clipping and callbacks are Trainer's. `Keeper` is the callback that measures,
watches, validates and seals.

Shapes: see batches.py.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.data.pack import pack, unpacked
from hauslm.train import attention, lean, loss, profile, rows, watch
from hauslm.train.batches import Row, Steps, make_row, only, split_examples, stream_seed
from hauslm.train.distributed import ALONE, Ranks

if TYPE_CHECKING:
    from hauslm.data.store import ExampleStore
    from hauslm.train.leg import Leg
    from hauslm.train.settings import Settings


class Compute:
    """A model with the paths that a row can take through it."""

    def __init__(self, model: Any, settings: Settings, device: str) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        causal: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.causal = causal
        self.decoder: Any = causal.get_decoder()
        self.head = causal.get_output_embeddings()
        self._fast()

    def _fast(self) -> None:
        if self.settings.packing:
            attention.register()
            self.causal.set_attn_implementation(attention.NAME)
        lean.make_lean(self.model)
        rows.make_lean(self.model)

    def _stock(self) -> None:
        self.causal.set_attn_implementation("sdpa")
        lean.make_plain(self.model)
        rows.make_plain(self.model)

    def _number_format(self) -> contextlib.AbstractContextManager[Any]:
        """Full training keeps float32 weights and multiplies in the chosen format."""
        if self.settings.method == "full" and self.settings.precision == "bfloat16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def hidden(self, row: Row) -> torch.Tensor:
        """(T, C) hidden states before the head."""
        extra = {"documents": row.documents} if self.settings.packing else {}
        states: torch.Tensor = self.decoder(
            input_ids=row.ids_1T, position_ids=row.positions_1T, use_cache=False, **extra
        ).last_hidden_state
        return states[0]

    def loss(self, row: Row) -> torch.Tensor:
        """Sum of -log p over the labels that count, nats, float32."""
        with self._number_format():
            return loss.summed_loss(self.hidden(row)[row.places_N], self.head, row.labels_N)

    # ------------------------------------------------------------ for the proof

    def packed_logits(self, pieces: Sequence[torch.Tensor]) -> tuple[torch.Tensor, float]:
        """Logits (T, V) and mean loss of the pieces by the fast path."""
        self.model.eval()
        rows = [list(pieces)] if self.settings.packing else [[p] for p in pieces]
        logits, total, count = [], 0.0, 0
        for group in rows:
            row = _row_of(group, self.device)
            with self._number_format():
                hidden = self.hidden(row)
                logits.append(self.head(hidden).float())
                total += float(loss.summed_loss(hidden[row.places_N], self.head, row.labels_N))
            count += row.labels
        return torch.cat(logits), total / max(1, count)

    def stock_logits(self, pieces: Sequence[torch.Tensor]) -> tuple[torch.Tensor, float]:
        """The same by transformers' own path, each piece alone."""
        self.model.eval()
        self._stock()
        try:
            logits, total, count = [], 0.0, 0
            for piece in pieces:
                ids = piece.to(self.device).unsqueeze(0)
                with self._number_format():
                    one = self.causal(input_ids=ids, use_cache=False).logits[0].float()
                logits.append(one)
                total += float(nn.functional.cross_entropy(one[:-1], ids[0, 1:], reduction="sum"))
                count += len(piece) - 1
        finally:
            self._fast()
        return torch.cat(logits), total / max(1, count)


def _row_of(pieces: Sequence[torch.Tensor], device: str) -> Row:
    """A row in which every token after the first of a piece counts."""
    lengths = [len(p) for p in pieces]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    places = torch.cat([torch.arange(s, s + n - 1) for s, n in zip(starts, lengths, strict=True)])
    ids = torch.cat(list(pieces))
    return Row(
        ids.unsqueeze(0).to(device),
        torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0).to(device),
        attention.Documents.of(lengths, device),
        places.to(device),
        ids[places + 1].to(device),
    )


@dataclass(frozen=True)
class StepFigures:
    """What a step did."""

    loss: float  # mean over its labels, nats
    gradient_norm: float
    tokens: int
    labels: int
    squares: float = 0.0  # sum of the squared lengths of its documents


class HouseTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Trainer whose item is a whole optimizer step."""

    def __init__(
        self,
        compute: Compute,
        store: ExampleStore,
        steps: Steps,
        notice: Callable[[Sentence], None],
        *,
        micro_batch: float,
        ranks: Ranks = ALONE,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=compute.model, train_dataset=steps, data_collator=only, **kwargs)
        self.compute = compute
        self.store = store
        self.lengths: list[int] = [int(n) for n in store.lengths()]
        self.notice = notice
        self.ranks = ranks
        self.micro_batch = micro_batch  # sequences per forward pass; below 1: parts of one
        self.halved = False
        self.checked_gradients = steps.start > 0
        self.figures = StepFigures(0.0, 0.0, 0, 0)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """In order, in this process: making a row takes less time than handing it over."""
        steps: Any = self.train_dataset
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=only)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counted by the planner's formula, not by Trainer's estimate

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW; a variant may ask for groups of its own (LoRA+)."""
        from hauslm.train import adapters

        settings = self.compute.settings
        groups = None
        if settings.method != "full":
            variant = adapters.find(settings.adapter["variant"])
            groups = variant.parameter_groups(self.model, settings.learning_rate)
        if groups is None or self.optimizer is not None:
            return super().create_optimizer(model)
        maker, arguments = self.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = maker(groups, **{**arguments, "weight_decay": settings.weight_decay})
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward of one optimizer step. Out of memory: half the micro-batch, again."""
        model.train()
        while True:
            try:
                figures = self._forward_backward(model, inputs["step"], inputs["bins"])
                squares = sum(self.lengths[i] ** 2 for one in inputs["bins"] for i in one)
                self.figures = replace(figures, squares=squares)
                break
            except (RuntimeError, MemoryError) as error:
                if not watch.is_out_of_memory(error):
                    raise
                if self.ranks.several:  # the others are in another forward pass by now
                    raise RefusedError(
                        "H657",
                        say("A process of the distributed run is out of memory."),
                        next_step=say(
                            "Set a smaller training.micro_batch_size; checkpoints are untouched."
                        ),
                    ) from error
                self._halve(inputs["bins"], error)
            model.zero_grad(set_to_none=True)
            if self.compute.device == "cuda":
                torch.cuda.empty_cache()
        if not self.checked_gradients:
            said = watch.without_gradient(model)
            if said:
                self.notice(said)
            self.checked_gradients = True
        return torch.tensor(self.figures.loss, device=self.args.device)

    def _forward_backward(self, model: nn.Module, step: int, bins: list[list[int]]) -> StepFigures:
        settings, device = self.compute.settings, self.compute.device
        groups = split_examples(bins, self.micro_batch, settings.packing)
        if self.ranks.several:
            return self._with_others(model, step, groups)
        with torch.profiler.record_function(profile.ROWS_RANGE):
            rows = [make_row(self.store, group, device) for group in groups]
        labels = sum(row.labels for row in rows)
        total = torch.zeros((), dtype=torch.float32, device=device)
        for place, row in enumerate(rows):
            # Dropout is a function of (seed, step, row): resuming needs no generator state.
            torch.manual_seed(stream_seed(settings.seed, step, place))
            part = self.compute.loss(row) / labels
            total += part.detach()
            self.accelerator.backward(part)
        if not watch.finite(total):
            raise watch.NotFinite("loss", step + 1)
        norm = self._norm(model, step)
        return StepFigures(float(total), norm, sum(row.tokens for row in rows), labels)

    def _with_others(self, model: nn.Module, step: int, groups: list[list[int]]) -> StepFigures:
        """This rank's rows of the step; loss, tokens and gradients are those of all ranks."""
        seed, device = self.compute.settings.seed, self.compute.device
        mine = [
            (make_row(self.store, group, device), counts, stream_seed(seed, step, place))
            for place, group, counts in self.ranks.share(groups)
        ]
        counted = [row for row, counts, _ in mine if counts]
        labels, tokens = self.ranks.sum(
            [sum(r.labels for r in counted), sum(r.tokens for r in counted)]
        )
        part = self.ranks.backward([(row, counts / labels, s) for row, counts, s in mine])
        (total,) = self.ranks.sum([float(part)])
        if not watch.finite(total):
            raise watch.NotFinite("loss", step + 1)
        return StepFigures(total, self._norm(model, step), int(tokens), int(labels))

    def _norm(self, model: nn.Module, step: int) -> float:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if not watch.finite(norm):
            raise watch.NotFinite("gradient", step + 1)
        return norm

    def _halve(self, bins: list[list[int]], error: BaseException) -> None:
        """The same global batch in smaller pieces; RefusedError H640 when a document alone is too much."""
        before = split_examples(bins, self.micro_batch, self.compute.settings.packing)
        if max(len(group) for group in before) <= 1:
            raise RefusedError(
                "H640",
                say("One document alone does not fit into the memory of this device."),
                next_step=say(
                    "Run hauslm plan: it finds settings that fit (activation_checkpointing, qlora, a smaller training.seq_len)."
                ),
            ) from error
        self.micro_batch = self.micro_batch / 2 if self.micro_batch <= 1 else self.micro_batch // 2
        self.halved = True
        self.notice(
            say(
                "Out of memory: each forward pass now takes half as much; the batch of a step stays the same. The result is no longer bit for bit that of an uninterrupted run."
            )
        )


def make_trainer(leg: Leg) -> HouseTrainer:
    """Trainer with today's arguments; what hauslm does itself (saving, logging, evaluating) is off."""
    from transformers import PrinterCallback, TrainingArguments

    s, total = leg.settings, leg.schedule.steps
    arguments = TrainingArguments(
        output_dir=str(leg.work),  # Trainer makes it and, as it is set here, writes nothing to it
        max_steps=total,
        per_device_train_batch_size=1,  # an item is a whole optimizer step
        gradient_accumulation_steps=1,
        learning_rate=s.learning_rate,
        lr_scheduler_type=s.lr_scheduler_type,
        warmup_steps=math.ceil(s.warmup_ratio * total),
        weight_decay=s.weight_decay,
        max_grad_norm=s.max_grad_norm,
        seed=s.seed,
        use_cpu=leg.inputs.device == "cpu",
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # Trainer's default would log 0.0 for a NaN
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        log_level="error",
    )
    trainer = HouseTrainer(
        leg.compute,
        leg.inputs.store,
        Steps(leg.schedule, leg.start),
        leg.notices.tell,
        micro_batch=leg.micro_batch,
        ranks=leg.ranks,
        args=arguments,
        callbacks=[Keeper(leg.begin, leg.after_step)],
    )
    trainer.remove_callback(PrinterCallback)  # rooms do not print
    return trainer


def validation_rows(
    store: ExampleStore, settings: Settings, usable: Sequence[int]
) -> list[list[int]]:
    """Rows of the validation examples, the same every time."""
    lengths = [int(n) for n in store.lengths()[list(usable)]]
    if not settings.packing:
        return [[usable[i] for i in one] for one in unpacked(lengths, 0, 0)]
    bins = pack(lengths, max(settings.seq_len, max(lengths, default=0)), 0, 0)
    return split_examples(
        [[usable[i] for i in one] for one in bins], settings.micro_batch_size, True
    )


def mean_loss(
    compute: Compute, store: ExampleStore, rows: Sequence[Sequence[int]], ranks: Ranks = ALONE
) -> float:
    """Mean loss over all labels that count; one row at a time, no logits kept; ranks share the rows."""
    compute.model.eval()
    total, labels = 0.0, 0
    with torch.no_grad():
        for _, examples, counts in ranks.share(rows):
            row = make_row(store, examples, compute.device)
            total += counts * float(compute.loss(row))
            labels += counts * row.labels
    compute.model.train()
    total, labels_of_all = ranks.sum([total, labels])
    return total / labels_of_all


class Keeper(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Calls the run's own hooks at the right moments of Trainer's loop."""

    def __init__(
        self,
        begin: Callable[[Any, Any, Any], None],
        after_step: Callable[[int, float, float, float], bool],
    ) -> None:
        self._begin = begin
        self._after_step = after_step
        self._started = self._cpu_started = 0.0
        self._rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begin(state, kwargs["optimizer"], kwargs["lr_scheduler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rate = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = time.perf_counter() - self._started
        cpu_seconds = time.process_time() - self._cpu_started
        if not self._after_step(state.global_step, self._rate, seconds, cpu_seconds):
            control.should_training_stop = True
