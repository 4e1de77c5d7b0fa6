"""What is planned for? The base model's shape and the machine that has to hold it.

A model is a catalog id, "embedded", a folder with config.json or a config.json itself; a machine is a
card of the catalog or this computer's processor. Nothing is loaded. Which settings follow is for
`choose` and `search`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hauslm.base.errors import HauslmError, RefusedError, UsageError, did_you_mean
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.config import architecture_of
from hauslm.catalog.schema import Architecture, Gpu
from hauslm.embedded import MODEL as EMBEDDED_MODEL

GIB = float(1 << 30)
# Of a card's nominal memory: the driver keeps a little, error correction 6 per cent on L4 and A10.
USABLE_OF_CARD = 0.97
ECC_CARDS = {"l4": 0.94, "a10": 0.94, "t4": 0.94, "l40s": 0.94}
# Of the memory that is free now: the rest of this computer must go on working.
USABLE_OF_HOST = 0.85

CPU = "cpu"
_SHAPE_CODES = frozenset(("H443", "H444", "H445"))


@dataclass(frozen=True)
class Subject:
    """A base model to plan for. `config` is its configuration where there is one on this disk;
    `approximate` marks a shape that the formulas only guess at (the trace knows better)."""

    id: str
    architecture: Architecture
    config: dict[str, Any] | None = None
    approximate: bool = False
    notices: tuple[Sentence, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What has to hold it: a card, or this computer (`gpu` None). Memory in GiB."""

    id: str
    name: Sentence | str
    memory_gib: float
    usable_gib: float
    gpu: Gpu | None = None
    cores: int = 0
    fast_bf16: bool = True
    count: int = 1

    @property
    def is_cpu(self) -> bool:
        return self.gpu is None


# ---------------------------------------------------------------- models


def subject(name: str, root: Path, *, path: str | None = None, trace: bool = False) -> Subject:
    """The model called `name` (H120 if there is none), seen from the folder `root`.

    With `trace` a configuration that the formulas do not know is accepted as an approximation.
    """
    if path:
        return _from_file(name, root / path, trace)
    if name == "embedded":
        return _from_file(name, EMBEDDED_MODEL, trace)
    place = (root / name).expanduser()
    if name.endswith(".json") or (place / "config.json").is_file():
        return _from_file(name, place, trace)
    identity = name if name in load.ids("models") else _by_hub_name(name)
    if identity is None:
        known = ["embedded", *(m.id for m in load.models() if m.architecture is not None)]
        raise UsageError(
            "H163",
            say("'{name}' is neither a model of the catalog nor a folder here.", name=name),
            next_step=did_you_mean(name, known),
        )
    return _from_catalog(identity)


def _by_hub_name(name: str) -> str | None:
    hits = [m.id for m in load.models() if m.hf_id and m.hf_id.lower() == name.lower()]
    return hits[0] if hits else None


def _from_catalog(identity: str) -> Subject:
    model = load.model(identity)
    if model.architecture is None:
        raise UsageError(
            "H154",
            say(
                "The catalog does not know the shape of {model}; nothing can be planned.",
                model=identity,
            ),
            next_step=say("Name an open model, or a folder with its config.json."),
        )
    return Subject(identity, model.architecture)


def _from_file(name: str, place: Path, trace: bool) -> Subject:
    file = place if place.suffix == ".json" else place / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            "H155",
            say("The configuration of the model cannot be read ({reason}).", reason=str(error)),
            where=str(file),
            next_step=say("Give the folder that holds the model's config.json."),
        ) from error
    if not isinstance(config, dict):
        raise UsageError(
            "H155", say("The configuration of the model is no mapping."), where=str(file)
        )
    try:
        return Subject(name, architecture_of(config, str(file)), config)
    except RefusedError as error:
        if error.code not in _SHAPE_CODES:
            raise
        if trace:
            return _approximation(name, config, error)
        raise UsageError(
            error.code, error.what, where=error.where, next_step=error.next_step
        ) from error


_SPELLINGS: dict[str, tuple[str, ...]] = {
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
    "max_context": ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"),
}


def _approximation(name: str, config: dict[str, Any], error: HauslmError) -> Subject:
    """Sizes under any usual spelling, read as a Llama block: good enough for speed, not for memory."""

    def find(key: str, default: int | None = None) -> int:
        for spelling in _SPELLINGS[key]:
            value = config.get(spelling)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        if default is None:
            raise UsageError(error.code, error.what, where=error.where, next_step=error.next_step)
        return default

    hidden, heads = find("hidden_size"), find("n_heads")
    head_dim = config.get("head_dim")
    architecture = Architecture(
        n_layers=find("n_layers"),
        hidden_size=hidden,
        n_heads=heads,
        n_kv_heads=find("n_kv_heads", heads),
        head_dim=head_dim if isinstance(head_dim, int) else hidden // heads,
        intermediate_size=find("intermediate_size", 4 * hidden),
        vocab_size=find("vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_context=find("max_context", 2048),
        sliding_window=None,
        family="llama",
        source=name,
    )
    notice = say(
        "The formulas do not know this architecture; memory is traced, speed is that of a Llama block "
        "of its size."
    )
    return Subject(name, architecture, config, approximate=True, notices=(notice,))


# ---------------------------------------------------------------- machines


def card(identity: str, count: int = 1) -> Machine:
    """A card of the catalog; H120 with the nearest names if there is none."""
    return of_gpu(load.gpu(identity), count)


def of_gpu(gpu: Gpu, count: int = 1) -> Machine:
    memory = gpu.memory_gib.value
    usable = memory * (ECC_CARDS.get(gpu.id, USABLE_OF_CARD) if not gpu.unified_memory else 1.0)
    return Machine(gpu.id, gpu.name, memory, usable, gpu, count=max(1, count))


def smaller_card(machine: Machine, memory_gib: float) -> Machine:
    """The same card with another memory size: for "which size would do?"."""
    return replace(
        machine,
        id=f"{memory_gib:g} GB",
        memory_gib=memory_gib,
        usable_gib=memory_gib * USABLE_OF_CARD,
    )


def this_computer() -> Machine:
    """The processor and memory of this computer, as this process may use them."""
    import psutil  # 10 ms that a plan for a card need not pay

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    return Machine(
        CPU,
        say(
            "this computer ({cores} cores, {memory:.0f} GiB)",
            cores=cores,
            memory=memory.total / GIB,
        ),
        memory.total / GIB,
        memory.available / GIB * USABLE_OF_HOST,
        cores=cores,
        fast_bf16=fast_bfloat16(),
    )


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in text for flag in ("avx512_bf16", "amx_bf16"))
