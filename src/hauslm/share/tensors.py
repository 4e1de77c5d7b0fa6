"""Are these tensors what the adapter's configuration says? Header, shapes, finite values; nothing is loaded.

A safetensors file is an 8-byte length, a JSON header and raw numbers. The header is parsed here with
limits, and the numbers are read in pieces: memory stays small however large the file is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from hauslm.base.words import Sentence, say
from hauslm.lm.checks import token_rows

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 20_000
CHUNK_BYTES = 1 << 22
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LORA = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.]{1,200}?)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?\Z"
)

# Rows of added tokens; of a matrix in the decoder or the output head beside it.
_ROWS = re.compile(
    r"base_model\.model\.(?:[A-Za-z0-9_.]{1,200}\.)?(?P<module>[A-Za-z0-9_]{1,64})"
    r"\.token_adapter\.trainable_tokens_delta\Z"
)


def problem(
    stream: IO[bytes], size: int, config: Mapping[str, Any], base: Mapping[str, Any] | None
) -> Sentence | None:
    """What is wrong with the tensors; None if nothing is. `base` is the base model's config.json."""
    header = read_header(stream, size)
    if isinstance(header, Sentence):
        return header
    tensors = {n: t for n, t in header.items() if n != "__metadata__"}
    for check in (_layout, _shapes):
        found = check(tensors, size, config)
        if found is not None:
            return found
    if base is not None:
        found = _against_base(tensors, config, base)
        if found is not None:
            return found
    return _finite(stream, tensors)


def read_header(stream: IO[bytes], size: int) -> dict[str, Any] | Sentence:
    """The header of a safetensors file, `at` (where its numbers begin) added; or what is wrong."""
    broken = say("The weights file is not a sound safetensors file.")
    first = stream.read(8)
    if len(first) < 8:
        return broken
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES or length + 8 > size:
        return broken
    try:
        header = json.loads(stream.read(length))
    except (ValueError, RecursionError):
        return broken
    if not isinstance(header, dict) or not 1 <= len(header) <= MAX_TENSORS:
        return broken
    start = 8 + length
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        if not _sound_entry(tensor):
            return say("The tensor '{name}' is described wrongly.", name=str(name)[:80])
        tensor["at"] = start
    return header


def _sound_entry(tensor: Any) -> bool:
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        return False
    shape, ends = tensor["shape"], tensor["data_offsets"]
    whole = (
        isinstance(shape, list)
        and all(type(n) is int and 0 < n < 1 << 31 for n in shape)
        and len(shape) <= 4
    )
    return bool(
        whole and tensor["dtype"] in _BYTES and isinstance(ends, list) and len(ends) == 2
        and all(type(n) is int and n >= 0 for n in ends)
    )  # fmt: skip


def _layout(tensors: Mapping[str, Any], size: int, _config: Mapping[str, Any]) -> Sentence | None:
    """Offsets must tile the data exactly: no gaps, no overlaps, nothing beyond the end."""
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda i: i[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        count = 1
        for n in tensor["shape"]:
            count *= n
        if begin != position or end - begin != count * _BYTES[tensor["dtype"]]:
            return say("The tensor '{name}' does not lie where it should.", name=name[:80])
        position = end
    first = next(iter(tensors.values()), None)
    if first is None or first["at"] + position != size:
        return say("The weights file is longer or shorter than its tensors.")
    return None


def _of_saved(name: str, saved: Sequence[str]) -> bool:
    """Does the tensor belong to a module that is saved whole? PEFT takes every module whose name ends so:
    `norm` are also input_layernorm and post_attention_layernorm."""
    path = name.split(".")[:-1]
    return any(part.endswith(module) for part in path for module in saved)


def _shapes(tensors: Mapping[str, Any], _size: int, config: Mapping[str, Any]) -> Sentence | None:
    """Each adapted module has both halves, with the rank that the configuration names."""
    rank, patterns = config.get("r"), config.get("rank_pattern") or {}
    saved = config.get("modules_to_save") or []
    learnt = token_rows(config)
    halves: dict[str, dict[str, list[int]]] = {}
    for name, tensor in tensors.items():
        match = _LORA.match(name)
        if match is None:
            if _of_saved(name, saved):
                continue
            row = _ROWS.match(name)
            if row is not None and row["module"] in learnt:
                if len(tensor["shape"]) != 2 or tensor["shape"][0] != len(
                    learnt.pop(row["module"])
                ):
                    return say(
                        "The tensor '{name}' has not one row for each added token.", name=name[:80]
                    )
                continue
            return say("The tensor '{name}' does not belong to a LoRA adapter.", name=name[:80])
        halves.setdefault(match["module"], {})[match["part"]] = tensor["shape"]
    if learnt:
        return say("There are no rows of the added tokens for '{name}'.", name=next(iter(learnt)))
    targets = config.get("target_modules", [])
    for module, parts in halves.items():
        last = module.split(".")[-1]
        if isinstance(targets, list) and not any(
            module == t or module.endswith("." + t) for t in targets
        ):
            return say("The module '{name}' is not among the target modules.", name=module[:80])
        a, b = parts.get("lora_A"), parts.get("lora_B")
        if a is None or b is None:
            return say("The module '{name}' lacks half of its adapter.", name=module[:80])
        wanted = next(
            (r for p, r in patterns.items() if module == p or module.endswith("." + p)), rank
        )
        if len(a) != 2 or len(b) != 2 or a[0] != wanted or b[1] != wanted:
            return say("The module '{name}' does not have the rank {rank}.", name=last, rank=wanted)
    if isinstance(targets, list):
        for target in targets:
            if not any(m == target or m.endswith("." + target) for m in halves):
                return say("There are no tensors for the target module '{name}'.", name=target)
    return None


def _against_base(
    tensors: Mapping[str, Any], config: Mapping[str, Any], base: Mapping[str, Any]
) -> Sentence | None:
    """Widths and layer count must be the base model's; unknown module names are left to loading."""
    hidden, layers = base.get("hidden_size"), base.get("num_hidden_layers")
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    heads = base.get("num_attention_heads") or 1
    width = base.get("head_dim") or hidden // heads
    kv = (base.get("num_key_value_heads") or heads) * width
    inner = base.get("intermediate_size")
    shapes = {
        "q_proj": (hidden, heads * width), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (heads * width, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    seen: dict[str, set[int]] = {}
    for name, tensor in tensors.items():
        match = _LORA.match(name)
        if match is None:
            if _ROWS.match(name) and tensor["shape"][1] != hidden:
                return say(
                    "The module '{name}' does not fit the base model's widths.", name=name[:80]
                )
            continue
        module = match["module"]
        last = module.split(".")[-1]
        layer = re.search(r"\.layers\.(\d+)\.", f".{module}.")
        if layer:
            seen.setdefault(last, set()).add(int(layer[1]))
            if int(layer[1]) >= layers:
                return say(
                    "The adapter has a layer {layer}; the base model has {layers}.",
                    layer=int(layer[1]),
                    layers=layers,
                )
        expected = shapes.get(last)
        if expected is None:
            continue
        side = tensor["shape"][1] if match["part"] == "lora_A" else tensor["shape"][0]
        if (
            match["part"] in ("lora_A", "lora_B")
            and side != expected[0 if match["part"] == "lora_A" else 1]
        ):
            return say(
                "The module '{name}' does not fit the base model's widths.", name=module[:80]
            )
    if not config.get("layers_to_transform"):
        for last, numbers in seen.items():
            if len(numbers) != layers:
                return say(
                    "The adapter covers '{name}' in {found} of {layers} layers; tensors are missing.",
                    name=last, found=len(numbers), layers=layers,
                )  # fmt: skip
    return None


def _finite(stream: IO[bytes], tensors: Mapping[str, Any]) -> Sentence | None:
    for name, tensor in sorted(tensors.items(), key=lambda i: i[1]["data_offsets"]):
        stream.seek(tensor["at"] + tensor["data_offsets"][0])
        left = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        while left > 0:
            piece = stream.read(min(CHUNK_BYTES, left))
            if not piece:
                return say("The weights file ends too early.")
            left -= len(piece)
            if not _all_finite(piece, tensor["dtype"]):
                return say("The tensor '{name}' holds values that are not numbers.", name=name[:80])
    return None


def _all_finite(piece: bytes, kind: str) -> bool:
    """NaN and infinity have an exponent of ones; for bf16 numpy has no type, so look at the bits."""
    if kind == "BF16":
        bits = np.frombuffer(piece, dtype="<u2")
        return bool(((bits & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(np.frombuffer(piece, dtype="<f4" if kind == "F32" else "<f2")).all())
