"""What does the project want of its training, what may vary, and why was each value chosen?

Reads the sections `training`, `adapter` and `model` of the project file: what stands there is honoured,
the rest spans the grid that `choose` searches. The reasons become those of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hauslm.base.errors import UsageError
from hauslm.base.quantity import Quantity
from hauslm.base.words import say
from hauslm.estimate import shape
from hauslm.estimate.setup import (
    EIGHT_BIT_PRODUCTS,
    Method,
    Quantisation,
    TrainingSetup,
    eight_bit_format,
)
from hauslm.estimate.shape import Targets
from hauslm.plan import values
from hauslm.plan.choose import Grid, Point
from hauslm.plan.question import VARIANTS
from hauslm.plan.record import adapter_words, stored_as
from hauslm.plan.sizes import Amount
from hauslm.plan.subject import Machine, Subject
from hauslm.plan.values import Chosen
from hauslm.plan.values import given as by_user
from hauslm.scenario import Scenario

MICRO_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Wanted:
    """The project's wishes about training, and what follows from them."""

    scenario: Scenario
    base: Subject
    machine: Machine
    amount: Amount

    @property
    def targets(self) -> Targets:
        named = self.scenario.adapter.resolved()["target_modules"]
        return named if isinstance(named, str) else tuple(named)  # type: ignore[return-value]

    def seq_lens(self) -> tuple[int, ...]:
        """The lengths that may be chosen: the user's, or a few, longest first."""
        fixed = self.scenario.training.seq_len
        context = self.base.architecture.max_context
        if fixed is None:
            return values.sequence_lengths(
                self.base.architecture, self.amount.median_tokens, self.machine.is_cpu
            )
        if fixed > context:
            raise UsageError(
                "H156",
                say(
                    "Sequences of {tokens:,} tokens exceed the {context:,} that the model reads.",
                    tokens=fixed,
                    context=context,
                ),
                where="hauslm.yaml: training.seq_len",
                next_step=say("Give at most {context}.", context=context),
            )
        return (fixed,)

    def _length(self, seq_len: int) -> Chosen:
        if self.scenario.training.seq_len is not None:
            return by_user(seq_len)
        reason = values.length_reason(
            seq_len, self.base.architecture, self.amount.median_tokens, self.machine.is_cpu
        )
        return Chosen(seq_len, reason)

    def sequences_per_step(self, seq_len: int) -> Chosen:
        training = self.scenario.training
        micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
        if micro is not None and accumulation is not None:
            return by_user(micro * accumulation * self.machine.count)
        epochs = training.epochs if training.max_steps is None else float("inf")
        return values.sequences_per_step(self.amount.tokens / seq_len, epochs)

    def trained_tokens(self, setup: TrainingSetup) -> float | Quantity:
        """Tokens of the whole run."""
        training = self.scenario.training
        if training.max_steps is not None:
            return float(
                training.max_steps * setup.tokens * setup.gradient_accumulation_steps * setup.ranks
            )
        return self.amount.trained(training.epochs)

    def bases(self, seq_len: int) -> tuple[TrainingSetup, ...]:
        """One setup per method and base format that the user's words allow."""
        found: list[TrainingSetup] = []
        for method, quantisation in self._methods():
            found.append(self._setup(seq_len, method, quantisation))
        return tuple(found)

    def _methods(self) -> list[tuple[Method, Quantisation]]:
        """Method and base format as the user's words allow; of several, those the variant can start from."""
        allowed = self._allowed_methods()
        known = VARIANTS.get(self.scenario.adapter.variant)
        if known is None or len(allowed) < 2:
            return allowed
        return [pair for pair in allowed if stored_as(pair[1]) in known] or allowed

    def _allowed_methods(self) -> list[tuple[Method, Quantisation]]:
        training, stored = self.scenario.training, self.scenario.model.quantisation
        if training.method == "full":
            return [
                ("full", "nf4_dq" if stored == "nf4" else "int8" if stored == "int8" else "none")
            ]
        if training.method == "qlora":
            choice: Quantisation = {"none": "none", "int8": "int8"}.get(stored, "nf4_dq")  # type: ignore[assignment]
            return [("qlora", choice)]
        by_name: dict[str, list[tuple[Method, Quantisation]]] = {
            "none": [("lora", "none")],
            "nf4": [("qlora", "nf4_dq")],
            "int8": [("qlora", "int8")],
        }
        asked, small = training.base_precision, self.eight_bit()
        if small is not None and stored in ("auto", "none"):
            if asked != "auto":
                return [("lora", small)]
            by_name["none"].append(("lora", small))
        if stored != "auto":
            return by_name[stored]
        if training.method == "lora" or self.machine.is_cpu:
            return by_name["none"]
        return [*by_name["none"], *by_name["int8"], *by_name["nf4"]]

    def _setup(self, seq_len: int, method: Method, quantisation: Quantisation) -> TrainingSetup:
        adapter = self.scenario.adapter.resolved()
        full = method == "full"
        base_dtype: Literal["bf16", "fp32"] = (
            "fp32" if full or self.precision() == "float32" else "bf16"
        )
        dora = "dora" in self.scenario.adapter.variant
        return TrainingSetup(
            self.base.architecture,
            method,
            seq_len,
            base_dtype=base_dtype,
            quantisation=quantisation,
            rank=adapter["r"],
            trained_whole=0
            if full
            else self._trained_whole(adapter.get("modules_to_save", ())) + self._rows(),
            targets=self.targets,
            dora=dora and not full,
            dropout=0.0 if full else adapter["lora_dropout"],
            # train/lean.py computes plain LoRA in the base's format; variants keep PEFT's path.
            arithmetic="autocast" if (dora or full) and self.precision() != "float32" else "lean",
            attention="documents",
            loss="fused",
            device="cpu" if self.machine.is_cpu else "cuda",
            ranks=self.machine.count,
            sharding="ddp" if self.machine.count > 1 else "none",
        )

    def _trained_whole(self, names: Sequence[str]) -> int:
        """Parameters of the modules that are trained whole; those of unknown name count as nothing, and
        training refuses names that the base does not have."""
        a = self.base.architecture
        sizes = {x.name: x.parameters * a.n_layers for x in shape.linears(a)}
        sizes |= {
            "lm_head": a.vocab_size * a.hidden_size,
            "embed_tokens": a.vocab_size * a.hidden_size,
        }
        return sum(sizes.get(name, 0) for name in names)

    def _rows(self) -> int:
        """Parameters of the rows of model.added_tokens, in embeddings and output head."""
        a = self.base.architecture
        matrices = 1 if a.tied_embeddings else 2
        return len(self.scenario.model.added_tokens) * a.hidden_size * matrices

    def eight_bit(self) -> Quantisation | None:
        """The 8-bit products that training.base_precision asks for, or allows on this machine."""
        asked = self.scenario.training.base_precision
        if asked == "full":
            return None
        if asked == "auto":
            gpu = self.machine.gpu
            found = gpu.compute_capability if gpu is not None else None
            if gpu is not None and not found:
                return None
            parts = tuple(int(part) for part in found.split(".")) if found else None
            asked = eight_bit_format((parts[0], parts[1]) if parts else None)
        return EIGHT_BIT_PRODUCTS.get(asked)

    def precision(self) -> str:
        asked = self.scenario.training.precision
        if asked != "auto":
            return asked
        return "bfloat16" if self.machine.fast_bf16 else "float32"

    def grid(self, seq_len: int) -> Grid:
        """What may vary at one sequence length."""
        training = self.scenario.training
        per_step = max(1, round(self.sequences_per_step(seq_len).value / self.machine.count))
        micros: Sequence[int] = (
            (training.micro_batch_size,)
            if training.micro_batch_size
            else [m for m in MICRO_BATCH_SIZES if m <= per_step]
        )
        if self.machine.is_cpu and not training.micro_batch_size:
            room = max(1, values.CPU_TOKENS_PER_MICRO_STEP // seq_len)
            micros = [m for m in micros if m <= room]
        layers = self.base.architecture.n_layers
        checkpointed = {"on": layers, "off": 0}.get(training.activation_checkpointing)
        return Grid(
            self.bases(seq_len), tuple(micros), per_step, checkpointed,
            training.gradient_accumulation_steps,
        )  # fmt: skip

    # ------------------------------------------------------------ with reasons

    def settings(self, chosen: Point, found: Sequence[Point]) -> dict[str, Chosen]:
        """Every setting of the chosen point with its reason."""
        s = chosen.setup
        return {
            "method": self._method_reason(chosen, found),
            "quantisation": self._quantisation_reason(chosen),
            "precision": self._precision_reason(),
            "base_precision": self._base_precision(chosen, found),
            "seq_len": self._length(s.seq_len),
            "micro_batch_size": self._micro_reason(chosen),
            "gradient_accumulation_steps": self._accumulation_reason(s),
            "activation_checkpointing": self._checkpointing(chosen, "on" if s.checkpointed_layers else "off"),
            "checkpointed_layers": self._checkpointing(chosen, s.checkpointed_layers),
            "loss": Chosen(s.loss, say("In chunks: all logits at once would cost {size:.1f} GiB.",
                                       size=12 * s.tokens * s.architecture.vocab_size / 2**30)),
            "learning_rate": self._learning_rate(s),
            "packing": self._packing(),
            "optimizer": Chosen("adamw", say("Its states are small beside the base; 8 bit would gain nothing.")
                                if s.method != "full" else say("The usual optimizer of full fine-tuning.")),
            **self._adapter(s),
        }  # fmt: skip

    def _method_reason(self, chosen: Point, found: Sequence[Point]) -> Chosen:
        method = chosen.setup.method
        if self.scenario.training.method != "auto":
            return by_user(method)
        if self.scenario.model.quantisation != "auto":
            return Chosen(method, say("Follows from the base format that you gave."))
        if chosen.setup.quantisation in EIGHT_BIT_PRODUCTS.values():
            return Chosen(method, say("LoRA beside a base that is multiplied in 8 bit."))
        if method == "lora":
            return Chosen(
                method, say("The base fits unrounded; rounding it would gain little speed.")
            )
        finer = [p for p in found if p.setup.quantisation == "none" and p.fits_with_margin]
        if not finer:
            return Chosen(method, say("The unrounded base does not fit beside the activations."))
        quickest = max(p.tokens_per_second for p in finer)
        return Chosen(
            method,
            say("The smaller base leaves room for activations: {factor:.1f} times as fast as unrounded.",
                factor=chosen.tokens_per_second / quickest),
        )  # fmt: skip

    def _quantisation_reason(self, chosen: Point) -> Chosen:
        value = stored_as(chosen.setup.quantisation)
        if value in EIGHT_BIT_PRODUCTS.values():
            return Chosen("none", say("The files stay; base_precision rounds the base in memory."))
        if self.scenario.model.quantisation != "auto":
            return by_user(value)
        reasons = {
            "none": say("Nothing is rounded."),
            "nf4": say(
                "4 bit with double quantisation, the smallest base that trains well (QLoRA)."
            ),
            "int8": say("8 bit: half the size, ten times closer to the original than 4 bit."),
        }
        return Chosen(value, reasons[value])

    def _base_precision(self, chosen: Point, found: Sequence[Point]) -> Chosen:
        """full, int8 or fp8, as training.base_precision names them."""
        asked, stored = self.scenario.training.base_precision, chosen.setup.quantisation
        value = next((k for k, v in EIGHT_BIT_PRODUCTS.items() if v == stored), "full")
        if asked != "auto":
            if "base_precision" in self.scenario.training.model_fields_set:
                return by_user(value)
            return Chosen(value, say("8-bit products are only used when asked for."))
        if value == "full":
            return Chosen(
                value, say("8-bit products would gain too little here, or cannot be had.")
            )
        others = [p for p in found if p.setup.quantisation != stored and p.fits_with_margin]
        if not others:
            return Chosen(
                value, say("Nothing else fits; its accuracy is measured before training.")
            )
        return Chosen(
            value,
            say("{factor:.2f} times as fast as the next best base; its accuracy is measured before training.",
                factor=chosen.tokens_per_second / max(p.tokens_per_second for p in others)),
        )  # fmt: skip

    def _precision_reason(self) -> Chosen:
        value = self.precision()
        if self.scenario.training.precision != "auto":
            return by_user(value)
        if value == "float32":
            return Chosen(value, say("This processor has no fast bfloat16."))
        return Chosen(value, say("Half the memory of float32, and faster here."))

    def _micro_reason(self, chosen: Point) -> Chosen:
        s = chosen.setup
        if self.scenario.training.micro_batch_size is not None:
            return by_user(s.micro_batch_size)
        return Chosen(
            s.micro_batch_size,
            say(
                "{tokens:,} tokens in one pass, the fastest that fits with margin.", tokens=s.tokens
            )
            if chosen.fits_with_margin
            else say("The smallest memory among the possible ones."),
        )

    def _accumulation_reason(self, s: TrainingSetup) -> Chosen:
        if self.scenario.training.gradient_accumulation_steps is not None:
            return by_user(s.gradient_accumulation_steps)
        return Chosen(s.gradient_accumulation_steps, self.sequences_per_step(s.seq_len).reason)

    def _checkpointing(self, chosen: Point, value: Any) -> Chosen:
        s = chosen.setup
        if self.scenario.training.activation_checkpointing != "auto":
            return by_user(value)
        if s.checkpointed_layers == 0:
            return Chosen(
                value, say("Everything fits without; recomputing costs up to 48 % more work.")
            )
        if s.checkpointed_layers == s.architecture.n_layers:
            return Chosen(value, say("All layers have to be recomputed for it to fit."))
        return Chosen(
            value,
            say("Only as many layers as needed are recomputed: {count} of {layers}.",
                count=s.checkpointed_layers, layers=s.architecture.n_layers),
        )  # fmt: skip

    def _learning_rate(self, s: TrainingSetup) -> Chosen:
        stated = self.scenario.training.learning_rate
        return (
            by_user(stated)
            if stated is not None
            else values.learning_rate(s.architecture, s.method)
        )

    def _packing(self) -> Chosen:
        if "packing" in self.scenario.training.model_fields_set:
            return by_user(self.scenario.training.packing)
        return Chosen(True, say("Padding would waste two to three times the work."))

    def _adapter(self, s: TrainingSetup) -> dict[str, Chosen]:
        if s.method == "full":
            return {}
        resolved = self.scenario.adapter.resolved()
        preset = self.scenario.adapter.preset
        found: dict[str, Chosen] = {}
        for key in ("r", "lora_alpha", "lora_dropout", "target_modules"):
            stated = getattr(self.scenario.adapter, key) is not None
            reason = say("Value of the preset '{preset}'.", preset=preset)
            if key == "r" and not stated:
                reason = adapter_words(self.base, s.targets, s.rank)
            found[key] = by_user(resolved[key]) if stated else Chosen(resolved[key], reason)
        return found
