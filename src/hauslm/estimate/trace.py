"""How much memory does a real training step take? Ask the real model, without its weights.

The model of transformers and PEFT is built on the `meta` device from its configuration
(`trace_model`), its parameters are swapped for fake tensors, and two real training steps run under
FakeTensorMode while a dispatch mode counts the storages that are alive. A few layers are traced and the
rest is extrapolated: every moment of a step is linear in the number of layers. No GPU, no weights, a
few seconds. torch's own MemTracker is not used: it fails on frozen parameters and is quadratic in depth.

This module imports torch; import it only where a trace is wanted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.words import say
from hauslm.estimate import memory as formula
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import MemoryEstimate, Moment, as_estimate
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.trace_model import dora_reads_stand_ins, loss_of, meta_model, optimizer_of

__all__ = ["StorageCounter", "config_of", "trace_training_peak"]

SAMPLES = (2, 4)
UNTRACED_LOSSES = frozenset(("kernel", "naive_kept"))
MIXED = ((1, 2), (2, 3), (1, 3))  # (checkpointed, layers): enough to tell the two kinds apart


# ---------------------------------------------------------------- counting storages


class StorageCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that operators made and somebody still holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return out

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: Any) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)

    def restart(self) -> None:
        """Measure the next peak from here."""
        self.peak = self.live


def _swap_for_fakes(model: nn.Module) -> None:
    """Meta parameters and buffers become fake CPU tensors; shared ones stay shared."""
    seen: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in seen:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                seen[id(parameter)] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            module._parameters[name] = seen[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


# ---------------------------------------------------------------- running the steps


@dataclass(frozen=True)
class _Peaks:
    """Bytes at rest after a step, and the peaks of its three parts."""

    rest: float
    forward: float
    backward: float
    update: float

    def combine(self, other: _Peaks, rule: Callable[[float, float], float]) -> _Peaks:
        pairs = zip(self.values, other.values, strict=True)
        return _Peaks(*(rule(a, b) for a, b in pairs))

    @property
    def values(self) -> tuple[float, float, float, float]:
        return (self.rest, self.forward, self.backward, self.update)


def _run(config: dict[str, Any], s: TrainingSetup, layers: int, checkpointed: int) -> _Peaks:
    """Two optimizer steps of a model with `layers` layers; the second one is measured."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = meta_model(config, s, layers, checkpointed)
    counter = StorageCounter()
    peaks = _Peaks(0, 0, 0, 0)
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        _swap_for_fakes(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        update = optimizer_of(parameters, s)
        ids = torch.zeros((s.micro_batch_size, s.seq_len), dtype=torch.long)
        for _ in range(2):
            forward = backward = 0.0
            for _ in range(min(2, s.gradient_accumulation_steps)):
                counter.restart()
                with torch.autocast("cpu", torch.bfloat16, enabled=s.arithmetic == "autocast"):
                    loss = loss_of(model, s, ids)
                forward = counter.peak
                counter.restart()
                loss.backward()  # type: ignore[no-untyped-call]
                del loss
                backward = counter.peak
            counter.restart()
            update()
            changed = counter.peak
            for parameter in parameters:
                parameter.grad = None
            peaks = _Peaks(counter.live, forward, backward, changed)
    return peaks


def _peaks(config: dict[str, Any], s: TrainingSetup, samples: tuple[int, int]) -> _Peaks:
    """Peaks of the whole model, extrapolated from a few layers."""
    layers, k = s.architecture.n_layers, s.checkpointed_layers
    if layers <= max(samples):
        return _run(config, s, layers, k)
    if 0 < k < layers:
        both, one_more, plain_more = (_run(config, s, n, c) for c, n in MIXED)
        checkpointed = one_more.combine(both, lambda a, b: a - b)
        plain = plain_more.combine(both, lambda a, b: a - b)
        extra = checkpointed.combine(plain, lambda a, b: (k - 1) * a + (layers - k - 1) * b)
        return both.combine(extra, lambda a, b: a + b)
    few, more = (_run(config, s, n, n if k else 0) for n in samples)
    rest = layers - samples[0]
    return few.combine(more, lambda a, b: a + (b - a) / (samples[1] - samples[0]) * rest)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers and bitsandbytes warn about things that do not matter to a trace."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace_training_peak(
    config: dict[str, Any], setup: TrainingSetup, n_layers_sample: tuple[int, int] = SAMPLES
) -> MemoryEstimate:
    """Peak memory of a training step, traced on the real model built from `config`.

    `config` is a config.json's content; any causal language model that transformers knows. The
    parts are split as far as they are known exactly (weights, adapter, gradients, optimizer,
    logits); what is left is activations. Raises UsageError H160/H151/H161 where a model cannot be
    built or traced, H162 for what only the formula knows.
    """
    setup.check(any_family=True)
    if setup.loss in UNTRACED_LOSSES or (setup.sharding == "fsdp" and setup.ranks > 1):
        raise UsageError(
            "H162",
            say("A trace knows neither sharded weights nor the loss kernels of other packages."),
            next_step=say("Use --evidence formula."),
        )
    with _quiet(), dora_reads_stand_ins(setup):
        try:
            peaks = _peaks(config, setup, n_layers_sample)
        except HauslmError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise UsageError(
                "H161",
                say("This model cannot be traced ({reason}).", reason=reason),
                next_step=say("Use --evidence formula, or --evidence probe on the real device."),
            ) from error
    return _as_estimate(setup, peaks)


def _as_estimate(s: TrainingSetup, peaks: _Peaks) -> MemoryEstimate:
    named: dict[Moment, float] = {
        "loss": peaks.forward,
        "layers": peaks.backward,
        "optimizer": peaks.update,
    }
    phase = max(named, key=lambda name: named[name])
    total = named[phase]
    expected = formula.training_memory(s)
    moment: Moment = phase
    if phase == "layers" and expected.moment == "loss":
        moment = "loss"  # the backward pass begins with the loss
    parts = dict(expected.bytes)
    parts["overhead"] = 0.0
    if moment != expected.moment:
        parts["logits"] = 0.0
    known = sum(v for k, v in parts.items() if k not in ("activations", "weights"))
    # Weights at rest are counted, not computed: padding, buffers and biases included.
    trainable = 0.0 if s.method == "full" else parts["adapter"]
    states = parts["optimizer"] if s.optimizer != "adamw_foreach" else formula.optimizer_bytes(s)
    parts["weights"] = max(0.0, peaks.rest - trainable - states)
    parts["activations"] = max(0.0, total - parts["weights"] - known)
    if moment == "optimizer":
        parts["activations"] = 0.0
        parts["optimizer"] = total - parts["weights"] - parts["adapter"] - parts["gradients"]
    return as_estimate(moment, parts, s.device, f"fake-tensor trace, torch {torch.__version__}")
