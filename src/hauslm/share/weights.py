"""What are a base model's weights with the adapter added? One tensor at a time, in float32.

W + scaling * B A, as PEFT merges it (a test compares), but read tensor by tensor from the files, so
that a model larger than memory can be written out. LoRA, rsLoRA, DoRA, rank and alpha patterns,
embeddings and saved modules; everything else was refused by `lm.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.lm.checks import check_adapter, check_base, token_rows
from hauslm.share.tensors import read_header

Array = npt.NDArray[np.float32]
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_PREFIX = "base_model.model."
_ROWS = ".token_adapter.trainable_tokens_delta"
_PARTS = (
    "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector",
)  # fmt: skip


def refused(what: Sentence, where: Path) -> RefusedError:
    return RefusedError(
        "H735", what, where=str(where), next_step=say("hauslm export merge writes a plain model.")
    )


class Tensors:
    """The tensors of one or several safetensors files, by name, read when asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._where: dict[str, tuple[Path, dict[str, Any]]] = {}
        for file in files:
            with file.open("rb") as stream:
                header = read_header(stream, file.stat().st_size)
            if isinstance(header, Sentence):
                raise refused(header, file)
            for name, entry in header.items():
                if name != "__metadata__":
                    self._where[name] = (file, entry)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        return sorted(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name][1]["shape"])

    def read(self, name: str) -> Array:
        """The tensor as float32; bfloat16 is the upper half of a float32."""
        file, entry = self._where[name]
        begin, end = entry["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(entry["at"] + begin)
            raw = np.frombuffer(stream.read(end - begin), dtype=_TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            value: Array = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            value = raw.astype(np.float32)
        return value.reshape(entry["shape"])


@dataclass
class Lora:
    """One module's adapter. `scaling` is what PEFT multiplies B A with."""

    scaling: float
    parts: dict[str, Array] = field(default_factory=dict)

    @property
    def a(self) -> Array:
        return self.parts["lora_A"]

    @property
    def b(self) -> Array:
        return self.parts["lora_B"]


class Adapter:
    """An adapter folder's matrices by the name of the base tensor that they change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = check_adapter(folder)
        if self.config.get("fan_in_fan_out") or self.config.get("lora_bias"):
            raise refused(
                say("This kind of adapter (fan_in_fan_out, lora_bias) cannot leave."), folder
            )
        self.modules: dict[str, Lora] = {}
        self.replaced: dict[str, Array] = {}
        self.rows: dict[str, tuple[list[int], Array]] = {}  # of added tokens
        tensors = Tensors([folder / "adapter_model.safetensors"])
        for name in tensors.names():
            self._take(name.removeprefix(_PREFIX), tensors.read(name))

    @property
    def dora(self) -> bool:
        return bool(self.config.get("use_dora"))

    def _take(self, name: str, value: Array) -> None:
        if name.endswith(_ROWS):
            module = name.removesuffix(_ROWS)
            self.rows[f"{module}.weight"] = token_rows(self.config)[module.split(".")[-1]], value
            return
        pieces = name.removesuffix(".weight").split(".")
        if pieces[-1] not in _PARTS:  # a module saved whole (modules_to_save)
            plain = ".".join(p for p in name.split(".") if p != "modules_to_save")
            self.replaced[plain] = value
            return
        module = ".".join(pieces[:-1])
        lora = self.modules.setdefault(f"{module}.weight", Lora(0.0))
        lora.parts[pieces[-1]] = value
        if pieces[-1] in ("lora_A", "lora_embedding_A"):
            lora.scaling = self._scaling(module, value.shape[0])

    def _scaling(self, module: str, rank: int) -> float:
        patterns: Mapping[str, float] = self.config.get("alpha_pattern") or {}
        alpha = next(
            (a for p, a in patterns.items() if module == p or module.endswith("." + p)),
            self.config.get("lora_alpha", 8),
        )
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def merged(name: str, weight: Array, adapter: Adapter) -> Array:
    """The base tensor `name` with the adapter's share added."""
    if name in adapter.replaced:
        return adapter.replaced[name]
    if name in adapter.rows:
        ids, values = adapter.rows[name]
        if max(ids) >= len(weight) or values.shape[1] != weight.shape[1]:
            raise refused(
                say("The adapter does not fit the tensor {name}.", name=name), adapter.folder
            )
        weight = weight.copy()
        weight[ids] = values
    lora = adapter.modules.get(name)
    if lora is None:
        return weight
    if "lora_embedding_A" in lora.parts:
        a, b = lora.parts["lora_embedding_A"], lora.parts["lora_embedding_B"]
        return weight + np.float32(lora.scaling) * (b @ a).T
    if lora.b.shape[0] != weight.shape[0] or lora.a.shape[1] != weight.shape[1]:
        raise refused(say("The adapter does not fit the tensor {name}.", name=name), adapter.folder)
    changed: Array = weight + np.float32(lora.scaling) * (lora.b @ lora.a)
    if "lora_magnitude_vector" in lora.parts:  # DoRA: the direction is learnt, then the length
        length = np.linalg.norm(changed, axis=1)
        changed = changed * (lora.parts["lora_magnitude_vector"].reshape(-1) / length)[:, None]
    return changed


class Merged:
    """A base folder and perhaps an adapter: `read` gives the merged tensor. H735 if quantised."""

    def __init__(self, base: Path, adapter: Path | None) -> None:
        self.base = base
        self.config = check_base(base)
        if "quantization_config" in self.config:
            raise refused(
                say(
                    "The base model is quantised; an adapter is never merged into rounded weights."
                ),
                base,
            )
        self._tensors = Tensors(sorted(base.glob("*.safetensors")))
        self.adapter = Adapter(adapter) if adapter is not None else None
        if self.adapter is not None:
            wanted = {*self.adapter.modules, *self.adapter.replaced, *self.adapter.rows}
            unknown = sorted(n for n in wanted if n not in self._tensors and n != "lm_head.weight")
            if unknown:
                raise refused(
                    say("The adapter changes '{name}', which the base does not have.", name=unknown[0]),
                    self.adapter.folder,
                )  # fmt: skip

    def names(self) -> list[str]:
        names = set(self._tensors.names())
        if self.adapter is not None:
            names |= {n for n in self.adapter.replaced if n == "lm_head.weight"}
        return sorted(names)

    def shape(self, name: str) -> tuple[int, ...]:
        return (
            self._tensors.shape(name)
            if name in self._tensors
            else tuple(self.adapter.replaced[name].shape)  # type: ignore[union-attr]
        )

    def read(self, name: str) -> Array:
        if name not in self._tensors:
            return self.adapter.replaced[name]  # type: ignore[union-attr]
        weight = self._tensors.read(name)
        return weight if self.adapter is None else merged(name, weight, self.adapter)
