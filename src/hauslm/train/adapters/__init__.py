"""Which variants of LoRA are there? One file each; a further file is a further variant.

A variant module offers
    NAME            its name in `adapter.variant`
    WHEN            one line: when to use it
    BASES           how the frozen base may be stored: none, nf4, int8
    EIGHT_BIT       may be true: it also works on a base in 8 bit (eightbit.py)
    config(values)  keyword arguments of PEFT's LoraConfig, from `AdapterSection.resolved()`
    extra_parameters(inputs, outputs, rank)   trained parameters of a module beyond LoRA's r (in + out)
and, where it needs them,
    prepare(model, base_path)     after the adapter is attached
    seen(model, rows)             with the first training rows (`trainer.Compute` and `Row`s)
    finish(model, folder)         after PEFT has saved: leave a folder that plain PEFT reads
    parameter_groups(model, lr)   groups for the optimizer
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Any

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.words import say


def nothing(*_: Any) -> None:
    """The hook of a variant that needs none."""


@dataclass(frozen=True)
class Variant:
    """A variant module with its optional hooks filled in."""

    module: Any

    def __getattr__(self, name: str) -> Any:
        if name in ("prepare", "seen", "finish", "parameter_groups"):
            return getattr(self.module, name, nothing)
        return getattr(self.module, name)


@cache
def variants() -> dict[str, Variant]:
    """All variants by name."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "NAME"):
            found[module.NAME] = Variant(module)
    return found


def find(name: str) -> Variant:
    """The variant called `name`; H609 with the nearest names otherwise."""
    known = variants()
    if name not in known:
        raise UsageError(
            "H609",
            say("There is no LoRA variant '{name}'.", name=name),
            where="adapter.variant",
            next_step=did_you_mean(name, known),
        )
    return known[name]


def plain_config(values: dict[str, Any]) -> dict[str, Any]:
    """What all variants share: the values in force, without our own word `variant`."""
    return {key: value for key, value in values.items() if key != "variant"}
