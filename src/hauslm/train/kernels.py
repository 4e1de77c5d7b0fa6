"""Which ready-made GPU kernels may take over? Liger's, and torch.compile layer by layer; both on request.

Liger (package liger-kernel, extra `liger`) replaces norms, rotary embedding and SwiGLU; its loss is left
out, loss.py has one. `training.compile` compiles every decoder layer by itself ("regional": one layer is
compiled once, not the whole model), minutes of start for shorter steps, so `auto` uses it from an hour on.
On a CPU both are refused: Liger has no kernels there, and compiling gained 0 to 10 per cent for 17 to 104
seconds of start (measured, two Zen 4 cores). Neither was run on a GPU by us so far; the proof before each
run (proof.py) still compares the packed path with single documents.
"""

from __future__ import annotations

from typing import Any

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.base.words import say

COMPILE_FROM_HOURS = 1.0


def wanted(liger: bool, compile_: str, device: str, hours: float | None) -> tuple[bool, bool]:
    """(Liger, compile) for this device; `hours`: the planned duration. UsageError H642 on a CPU."""
    if device == "cpu" and (liger or compile_ == "on"):
        raise UsageError(
            "H642",
            say("Liger's kernels need a CUDA device; this run is on a processor.")
            if liger
            else say("Compiling does not pay on a processor: minutes of start, no faster steps."),
            where="training.liger" if liger else "training.compile",
            next_step=say("Set training.liger to false and training.compile to off."),
        )
    long = hours is not None and hours >= COMPILE_FROM_HOURS
    return liger, device != "cpu" and (compile_ == "on" or (compile_ == "auto" and long))


def use_liger(base: Any) -> None:
    """Liger's norms, rotary embedding and SwiGLU in a loaded base. H643 without the package, H644 where
    it does not know the architecture."""
    try:
        from liger_kernel.transformers.monkey_patch import (  # type: ignore[import-not-found, unused-ignore]
            MODEL_TYPE_TO_APPLY_LIGER_FN,
        )
    except ImportError as error:
        raise MissingError(
            "H643",
            say("The package liger-kernel is not installed."),
            where="training.liger",
            next_step=say("pip install 'hauslm[liger]', or set training.liger to false."),
        ) from error
    kind = str(base.config.model_type)
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(kind)
    if apply is None:
        raise RefusedError(
            "H644",
            say("Liger has no kernels for the architecture {kind}.", kind=kind),
            where="training.liger",
            next_step=say("Set training.liger to false."),
        )
    apply(model=base, cross_entropy=False, fused_linear_cross_entropy=False)


def compile_layers(decoder: Any) -> int:
    """Compile each decoder layer in place (parameter names stay); returns how many."""
    layers = list(getattr(decoder, "layers", []))
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
