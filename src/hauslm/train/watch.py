"""Which failures are usually silent, and how are they made loud?

Before the run: no label counts, the end token is never trained. At the first step: an adapter that
receives no gradient. During it: a loss or gradient that is not a number, a spike, a validation loss that
rises. After it: a frozen parameter that changed.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.words import Sentence, say

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from hauslm.data.store import ExampleStore

SPIKE_WINDOW = 20
SPIKE_FACTOR = 1.5  # over the median of the window, and
SPIKE_SPREADS = 6.0  # this many times its median deviation
SPIKES_TOLD = 3
RISE = 0.01  # a validation loss 1 % above the best one is told


class NotFinite(Exception):
    """`what` (loss, gradient, values: adapter or optimizer) is NaN or infinite in `step`.

    With loss and gradient the parameters were not touched; with values they are lost, and the
    checkpoint before is the last good one.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(what, step)
        self.what = what
        self.step = step

    def refusal(self, kept: str) -> RefusedError:
        what = {
            "loss": say("The loss of step {step} is not a number.", step=self.step),
            "gradient": say("The gradient of step {step} is not finite.", step=self.step),
        }.get(
            self.what,
            say("After step {step} the adapter holds values that are not finite.", step=self.step),
        )
        again = (
            say(
                "The adapter before this step is sealed; set a lower training.learning_rate and continue from it with --resume --accept-change."
            )
            if kept
            else say("Set a lower training.learning_rate and start again.")
        )
        return RefusedError("H630", what, where=kept, next_step=again)


def usable_examples(store: ExampleStore, counts: NDArray[Any]) -> tuple[list[int], list[Sentence]]:
    """Indices of the examples with a label that counts; DataError H631 when there are none."""
    usable = [int(i) for i in counts.nonzero()[0]]
    if not usable:
        raise DataError(
            "H631",
            say(
                "No token of the {count:,} training examples counts in the loss.", count=len(store)
            ),
            where=str(store.prefix),
            next_step=say(
                "hauslm prepare makes the examples again; its record shows the mask of some."
            ),
        )
    left = len(store) - len(usable)
    if not left:
        return usable, []
    return usable, [
        say(
            "{left:,} of {all:,} training examples have no label that counts and teach nothing.",
            left=left,
            all=len(store),
        )
    ]


def end_token(store: ExampleStore, usable: list[int], end_ids: set[int]) -> Sentence | None:
    """A notice when the model is never taught to stop."""
    if not end_ids:
        return say("The base names no end token; the adapter cannot learn to stop.")
    ends = trained = 0
    for index in usable:
        example = store[index]
        if len(example.tokens) and int(example.tokens[-1]) in end_ids:
            ends += 1
            trained += bool(example.trained[-1])
    if trained:
        return None
    if ends:
        return say(
            "{ends:,} examples close with the end token, but none of them is trained: the model will not learn to stop.",
            ends=ends,
        )
    return say("No example closes with the end token: the model will not learn to stop.")


def without_gradient(model: Any) -> Sentence | None:
    """After the first backward pass: RefusedError H632 when nothing learns, a notice when a part does not.

    A LoRA module counts as learning when any of its parameters has a gradient other than zero (at the
    start only B has one, because B is zero).
    """
    modules: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        module = name.split(".lora_")[0] if ".lora_" in name else name
        alive = parameter.grad is not None and bool(parameter.grad.any())
        modules[module] = modules.get(module, False) or alive
    dead = [m for m, alive in modules.items() if not alive]
    if not dead:
        return None
    if len(dead) == len(modules):
        raise RefusedError(
            "H632",
            say("No adapted module receives a gradient; nothing would be learned."),
            next_step=say("Check adapter.target_modules."),
        )
    return say(
        "{count} of {all} adapted modules received no gradient in the first step, for example {name}.",
        count=len(dead),
        all=len(modules),
        name=dead[0],
    )


def frozen_sums(model: Any) -> dict[str, int]:
    """A checksum of each frozen parameter over all its bits, by name."""
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(p.contiguous().view(whole[p.element_size()]).sum(dtype=torch.int64))
        for name, p in _frozen_here(model)
        if p.numel()
    }


def _frozen_here(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The frozen parameters as this process holds them: of a sharded one (FSDP) its shard."""
    for name, p in model.named_parameters():
        if not p.requires_grad:
            value = p.detach()
            yield name, value.to_local() if hasattr(value, "to_local") else value


def frozen_unchanged(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """RefusedError H633 if a frozen parameter is not what it was."""
    changed = next((n for n in before if before[n] != after.get(n)), None)
    if changed is None:
        return
    raise RefusedError(
        "H633",
        say("The frozen parameter {name} of the base changed during the run.", name=changed),
        next_step=say("Report this with the log; the adapter was not written."),
    )


class Watcher:
    """Follows the losses of a run and says what deserves attention, a few times at most."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self.recent: deque[float] = deque(state.get("recent", []), maxlen=SPIKE_WINDOW)
        self.spikes = int(state.get("spikes", 0))
        self.rises = int(state.get("rises", 0))
        self.stale = int(state.get("stale", 0))  # validations in a row that were no better

    def state(self) -> dict[str, Any]:
        return {
            "recent": list(self.recent),
            "spikes": self.spikes,
            "rises": self.rises,
            "stale": self.stale,
        }

    def loss(self, step: int, value: float) -> Sentence | None:
        """A notice when the loss jumps out of what it was."""
        said = None
        if len(self.recent) == SPIKE_WINDOW:
            middle = statistics.median(self.recent)
            spread = statistics.median(abs(v - middle) for v in self.recent)
            if value > SPIKE_FACTOR * middle and value > middle + SPIKE_SPREADS * spread:
                self.spikes += 1
                if self.spikes <= SPIKES_TOLD:
                    said = say(
                        "The loss jumped to {value:.2f} in step {step}; it was about {middle:.2f}. A lower learning rate is steadier.",
                        value=value,
                        step=step,
                        middle=middle,
                    )
        self.recent.append(value)
        return said

    def validation(self, step: int, value: float, best: float, best_step: int) -> Sentence | None:
        """A notice when the validation loss has risen above its best; counts those that are no better."""
        self.stale = 0 if value < best else self.stale + 1
        if math.isfinite(best) and value > best * (1 + RISE):
            self.rises += 1
            if self.rises == 1:
                return say(
                    "The validation loss rises: {value:.3f} in step {step}, {best:.3f} in step {best_step}. The adapter of step {best_step} is kept.",
                    value=value,
                    step=step,
                    best=best,
                    best_step=best_step,
                )
        return None


def all_finite(groups: Mapping[str, Mapping[str, torch.Tensor]], step: int) -> None:
    """NotFinite if any value that would be kept is not: a bad adapter is never sealed."""
    for tensors in groups.values():
        for tensor in tensors.values():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NotFinite("values", step)


def is_out_of_memory(error: BaseException) -> bool:
    """Did this device or process run out of memory (as opposed to any other error)?"""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("not enough memory", "can't allocate memory", "out of memory")
    )


def finite(value: torch.Tensor | float) -> bool:
    return math.isfinite(float(value))
