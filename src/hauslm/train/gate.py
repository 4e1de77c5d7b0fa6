"""Does this base bear 8 bit on this user's documents? Measured before the run, refused if not.

The rows of the first optimizer step go through the unrounded base and through the rounded one, each
forward and backward, at the adapter's start. Compared are the mean loss (what the rounded base knows) and
the gradient of the adapter (what it would teach). A base with outliers, columns of activations a hundred
times the rest, loses one or both; the run is then refused, not made worse in silence.

Tolerances. Loss: 0.02 nats per label. Measured on the embedded model and scientific text, 3,972 tokens:
int8 0.001 off, fp8 0.003, nf4 0.151. Gradient: it must point the way of the unrounded one, cosine at
least 0.3. Its length is no measure: the mean gradient of a pretrained model is a small rest of large
terms; on the same tokens bfloat16 instead of float32 alone gives a cosine of 0.68, int8 the same 0.68.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from hauslm.base.errors import RefusedError
from hauslm.base.words import say
from hauslm.train import eightbit

if TYPE_CHECKING:
    from hauslm.data.store import ExampleStore
    from hauslm.train.inputs import Inputs
    from hauslm.train.leg import Leg
    from hauslm.train.settings import Settings

LOSS_TOLERANCE = 0.02  # nats per label
LEAST_COSINE = 0.3  # between the adapter's gradients
# An unrounded base is measured on the device if this many times its size are free there.
ROOM_FOR_GATE = 1.5
MOST_TOKENS = 4096  # of the first step; at least one document


@dataclass(frozen=True)
class Measured:
    """Mean loss in nats per label and the adapter's gradient, in order, on the CPU."""

    loss: float
    gradient: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class Gate:
    """Figures of the comparison, for the record."""

    base_precision: str
    loss_full: float
    loss_rounded: float
    loss_difference: float  # rounded minus full, nats per label
    loss_tolerance: float
    gradient_cosine: float
    least_cosine: float
    tokens: int
    layers: int  # in 8 bit
    layers_left: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def first_examples(store: ExampleStore, bins: Sequence[Sequence[int]]) -> list[int]:
    """Examples of the first step, up to `MOST_TOKENS`."""
    chosen: list[int] = []
    tokens = 0
    for index in (i for one in bins for i in one):
        length = len(store[index].tokens)
        if chosen and tokens + length > MOST_TOKENS:
            break
        chosen.append(index)
        tokens += length
    return chosen


def measure(compute: Any, store: ExampleStore, examples: Sequence[int]) -> Measured:
    """Loss and gradient of these examples, without dropout, wherever the model is now."""
    from hauslm.train.batches import make_row

    model, settings = compute.model, compute.settings
    device = next(model.parameters()).device
    groups = [list(examples)] if settings.packing else [[i] for i in examples]
    rows = [make_row(store, group, device) for group in groups]
    labels = sum(row.labels for row in rows)
    model.eval()
    total = 0.0
    for row in rows:
        part = compute.loss(row) / labels
        part.backward()
        total += float(part.detach())
    learning = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten().float().cpu()
            for p in learning
        ]
    )
    model.zero_grad(set_to_none=True)
    model.train()
    return Measured(total, gradient, sum(row.tokens for row in rows))


def compare(full: Measured, rounded: Measured, kind: str, layers: int, left: int) -> Gate:
    """The figures; RefusedError H618 when one is out of its tolerance."""
    cosine = torch.nn.functional.cosine_similarity(full.gradient, rounded.gradient, dim=0)
    gate = Gate(
        base_precision=kind,
        loss_full=full.loss,
        loss_rounded=rounded.loss,
        loss_difference=rounded.loss - full.loss,
        loss_tolerance=LOSS_TOLERANCE,
        gradient_cosine=float(cosine),
        least_cosine=LEAST_COSINE,
        tokens=full.tokens,
        layers=layers,
        layers_left=left,
    )
    # `not <=`, so that a NaN is refused, too.
    if not abs(gate.loss_difference) <= LOSS_TOLERANCE:
        what = say(
            "This base does not bear {kind}: on {tokens:,} of your tokens its loss is {rounded:.3f} instead of {full:.3f} nats; up to {limit:.2f} apart is accepted.",
            kind=kind,
            tokens=gate.tokens,
            rounded=gate.loss_rounded,
            full=gate.loss_full,
            limit=LOSS_TOLERANCE,
        )
    elif not gate.gradient_cosine >= LEAST_COSINE:
        what = say(
            "This base does not bear {kind}: on {tokens:,} of your tokens the adapter would learn in another direction (cosine {cosine:.2f}; at least {limit:.2f} is accepted).",
            kind=kind,
            tokens=gate.tokens,
            cosine=gate.gradient_cosine,
            limit=LEAST_COSINE,
        )
    else:
        return gate
    raise RefusedError(
        "H618",
        what,
        where="training.base_precision",
        next_step=say(
            "Set training.base_precision to full, or model.quantisation to nf4 if memory is short."
        ),
    )


# ---------------------------------------------------------------- in a run


def first_home(inputs: Inputs, settings: Settings) -> str:
    """Where the base is loaded: on the device, or beside it if it will only fit there in 8 bit."""
    device = inputs.device
    if settings.base_precision == "full" or device == "cpu":
        return device
    free, _ = torch.cuda.mem_get_info()
    wide = 4 if settings.precision == "float32" else 2
    return device if free > ROOM_FOR_GATE * wide * inputs.facts.parameters else "cpu"


def round_base(leg: Leg) -> Gate | None:
    """The frozen base in 8 bit, if that is wanted and the base bears it (H618); None: not wanted."""
    settings, store, device = leg.settings, leg.inputs.store, leg.inputs.device
    kind = settings.base_precision
    if kind == "full":
        return None
    eightbit.try_out(settings, device)
    known = leg.found.snapshot.state.get("gate") if leg.found is not None else None
    if known:  # a continued run: measured when it began
        eightbit.round_base(leg.model, kind, device)
        return Gate(**known)
    first = first_examples(store, leg.schedule.bins(0))
    before = measure(leg.compute, store, first)
    done = eightbit.round_base(leg.model, kind, device)
    gate = compare(before, measure(leg.compute, store, first), kind, done.layers, done.left)
    leg.notices.tell(
        say(
            "The frozen base is multiplied in {kind}: {layers} layers, loss off by {difference:.4f} nats on {tokens:,} of your tokens, which is accepted. What uses the adapter later takes the base unrounded.",
            kind=kind,
            layers=gate.layers,
            difference=abs(gate.loss_difference),
            tokens=gate.tokens,
        )
    )
    return gate
