"""What exactly was asked? The words of a free-standing question as a training or serving setup.

A question names a few things; the rest is what the plain path of the field does, and where that path
forks (padded batches or not, autocast or not, dropout or not) the answer's range covers the forks. Which
values were given and which were assumed goes into the record with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.words import Sentence, say
from hauslm.catalog.schema import Architecture
from hauslm.estimate import shape
from hauslm.estimate.setup import (
    Arithmetic,
    Attention,
    Loss,
    Optimizer,
    Quantisation,
    Sharding,
    TrainingSetup,
)
from hauslm.estimate.shape import Targets
from hauslm.plan.values import Chosen
from hauslm.plan.values import given as by_user

METHODS = ("lora", "qlora", "full", "inference")
USUAL_RANK = 16
# The lab sheet's value, and that of most published setups (docs/accuracy.md); PEFT's own default is 0.
USUAL_DROPOUT = 0.05

# The project file's words for base formats: nf4 means double quantisation there.
FORMATS: Mapping[str, Quantisation] = {
    "none": "none",
    "nf4": "nf4_dq",
    "nf4_dq": "nf4_dq",
    "nf4_single": "nf4",
    "int8": "int8",
    "fp8": "fp8",
    "int8_mm": "int8_mm",
    "mxfp4": "mxfp4",
}
ATTENTIONS: Mapping[str, Attention] = {
    "sdpa": "sdpa", "flash": "flash", "padded": "masked", "eager": "eager", "documents": "documents",
}  # fmt: skip
LOSSES: Mapping[str, Loss] = {"naive": "naive", "kernel": "kernel", "fused": "fused"}
ARITHMETICS: tuple[Arithmetic, ...] = ("mixed", "autocast", "lean")
OPTIMIZERS: tuple[Optimizer, ...] = (
    "adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit",
)  # fmt: skip
KV_BYTES: Mapping[str, float] = {"16bit": 2.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}

# Variants of LoRA and the base formats each starts from. A step of all of them but DoRA holds what a
# step of LoRA holds: they differ in how A and B start (pissa, olora, eva, loftq), in the factor
# (rslora) or in the step sizes (lora_plus). Sources: the papers named in train/adapters/.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "lora": ("none", "nf4", "int8", "fp8", "int8_mm"),
    "rslora": ("none", "nf4", "int8", "fp8", "int8_mm"),
    "lora_plus": ("none", "nf4", "int8", "fp8", "int8_mm"),
    "eva": ("none", "nf4", "int8", "fp8", "int8_mm"),
    "dora": ("none", "nf4"),
    "pissa": ("none",),
    "olora": ("none",),
    "loftq": ("nf4",),
}


@dataclass(frozen=True)
class Question:
    """A free-standing question as asked; None is "not said"."""

    method: str
    seq_len: int
    micro_batch_size: int | None = None
    checkpointing: bool | None = None
    rank: int | None = None
    targets: str | Sequence[str] | None = None
    quantisation: str | None = None
    dropout: float | None = None
    loss: str | None = None
    attention: str | None = None
    arithmetic: str | None = None
    optimizer: str | None = None
    variant: str | None = None
    kbit_upcast: bool = False
    gpus: int = 1
    sharding: Sharding | None = None

    def setup(self, architecture: Architecture, device: Literal["cuda", "cpu"]) -> TrainingSetup:
        """The training setup meant. Raises UsageError H152 or H174 for what cannot exist, H158 for unknown words."""
        full = self.method == "full"
        variant = self.variant or "lora"
        one_of(variant, VARIANTS, "--variant")
        stored = self.stored
        if not full:
            _require_base(variant, stored)
        arithmetic: Arithmetic = "lean"
        if not full or self.arithmetic:
            arithmetic = one_of(self.arithmetic or "mixed", ARITHMETICS, "--arithmetic")  # type: ignore[assignment]
        setup = TrainingSetup(
            architecture,
            self.method,  # type: ignore[arg-type]
            self.seq_len,
            quantisation=stored,
            rank=self.rank or USUAL_RANK,
            targets=parse_targets(self.targets),
            dora=variant == "dora",
            dropout=0.0 if full else self.usual_dropout(architecture),
            arithmetic=arithmetic,
            attention=ATTENTIONS[one_of(self.attention or "sdpa", ATTENTIONS, "--attention")],
            loss=LOSSES[one_of(self.loss or "naive", LOSSES, "--loss")],
            optimizer=one_of(self.optimizer or "adamw", OPTIMIZERS, "--optimizer"),  # type: ignore[arg-type]
            kbit_upcast=self.kbit_upcast,
            device=device,
            ranks=self.gpus,
            sharding=self.sharding or ("ddp" if self.gpus > 1 else "none"),
        )
        setup.check()
        return setup

    @property
    def stored(self) -> Quantisation:
        usual = "nf4" if self.method == "qlora" else "none"
        return FORMATS[one_of(self.quantisation or usual, FORMATS, "--quantisation")]

    def usual_dropout(self, architecture: Architecture) -> float:
        """The dropout asked for, else the usual one; none where PEFT adapts fused experts."""
        if self.dropout is not None:
            return self.dropout
        experts = shape.adapts_experts(architecture, parse_targets(self.targets))
        return 0.0 if experts else USUAL_DROPOUT

    def forks(self, setup: TrainingSetup) -> tuple[TrainingSetup, ...]:
        """Other setups that the same words may mean: what was left open, at both ends."""
        if setup.method == "full":
            return (replace(setup, attention="masked"),) if self.attention is None else ()
        least = most = setup
        if self.attention is None:
            most = replace(most, attention="masked")
        if self.arithmetic is None and setup.device == "cuda":
            least = replace(least, arithmetic="autocast")
        if self.dropout is None:
            least = replace(least, dropout=0.0)
        return tuple(s for s in (least, most) if s != setup)


def one_of(word: str, known: Sequence[str] | Mapping[str, object], option: str) -> str:
    """`word` if it is known. UsageError H158 with the nearest one otherwise."""
    if word not in known:
        raise UsageError(
            "H158",
            say("'{word}' is not known to {option}.", word=word, option=option),
            where=option,
            next_step=did_you_mean(word, list(known)),
        )
    return word


def _require_base(variant: str, stored: Quantisation) -> None:
    """H174 where a variant cannot start from the base's format (PiSSA moves a part of the base itself)."""
    plain = "nf4" if stored.startswith("nf4") else stored
    if plain not in VARIANTS[variant]:
        raise UsageError(
            "H174",
            say(
                "The variant {variant} cannot start from a base in {format}.",
                variant=variant, format=plain,
            ),
            where="--variant",
            next_step=say(
                "Choose another variant, or a base in: {formats}.",
                formats=", ".join(VARIANTS[variant]),
            ),
        )  # fmt: skip


def parse_targets(targets: str | Sequence[str] | None) -> Targets:
    """ "attention", "all-linear", "mlp", "a,b,c" or a list of names; all-linear if left out."""
    if targets is None:
        return "all-linear"
    names = [t.strip() for t in targets.split(",")] if isinstance(targets, str) else list(targets)
    names = [n for n in names if n]
    if len(names) == 1 and names[0] in ("attention", "all-linear", "mlp"):
        return names[0]  # type: ignore[return-value]
    return tuple(names) or "all-linear"


# ---------------------------------------------------------------- with reasons


def reasons(q: Question, s: TrainingSetup) -> dict[str, Chosen]:
    """The settings that concern how LoRA, attention and loss are computed, each with its reason."""
    found = {
        "attention": _reason(q.attention, "padded" if s.attention == "masked" else s.attention,
                             say("Fused attention; padded batches need more, the range covers it.")),
        "loss": _reason(q.loss, s.loss,
                        say("The plain path keeps all logits; hauslm train computes them in chunks.")),
        "optimizer": _reason(q.optimizer, s.optimizer, say("The usual one.")),
    }  # fmt: skip
    if s.ranks > 1:
        found["sharding"] = _reason(
            q.sharding,
            s.sharding,
            say("Every GPU holds the whole model and works on its own part."),
        )
    if s.method == "full":
        return found
    found["variant"] = _reason(q.variant, "dora" if s.dora else q.variant or "lora",
                               say("Plain LoRA, as nothing else was asked for."))  # fmt: skip
    found["lora_dropout"] = (
        by_user(s.dropout) if q.dropout is not None else Chosen(
            s.dropout,
            say("The lab sheet's value and the most usual one; hauslm train uses none.") if s.dropout
            else say("PEFT adapts fused experts without dropout only."))
    )  # fmt: skip
    found["arithmetic"] = _reason(
        q.arithmetic, s.arithmetic,
        say("PEFT's default: adapters in fp32 beside a 16-bit base; the range covers autocast."),
    )  # fmt: skip
    return found


def _reason(asked: object, value: object, why: Sentence) -> Chosen:
    return by_user(value) if asked is not None else Chosen(value, why)
