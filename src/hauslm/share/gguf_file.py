"""How does the model get into llama.cpp and Ollama? GGUF of base plus adapter, or of the LoRA alone.

The names, the shapes and the order of the rows are written from the GGUF specification and llama.cpp's
architectures llama (Llama 2 and 3, Mistral), qwen2 and qwen3; anything else is refused. Weights are
merged in float32, one tensor at a time, and rounded once. What the file answers is compared with base
plus adapter by `llama.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hauslm.base.errors import MissingError
from hauslm.base.files import disk_error, fsync_folder
from hauslm.base.words import Sentence, say
from hauslm.share.gguf_text import tokens_of
from hauslm.share.weights import Adapter, Array, Merged, refused

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
KINDS = ("f32", "f16", "q8_0")
_BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_Q8_BLOCK = 32


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingError(
            "H736",
            say("The package gguf, which writes these files, is not installed."),
            next_step=say("Run: {command}", command='pip install "hauslm[gguf]"'),
        ) from error
    return gguf


def architecture(config: dict[str, Any], where: Path) -> str:
    """llama.cpp's name of the base model's architecture; H735 if it is none we can write."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise refused(
            say("GGUF export does not know the architecture '{name}'.", name=kind[:60]), where
        )
    return ARCHITECTURES[kind]


def tensor_name(name: str) -> str | None:
    """`model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`; None for one not known."""
    stem, _, part = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{part}"
    pieces = stem.split(".", 3)
    if len(pieces) == 4 and pieces[:2] == ["model", "layers"] and pieces[3] in _BLOCK:
        return f"blk.{int(pieces[2])}.{_BLOCK[pieces[3]]}.{part}"
    return None


def rows(config: dict[str, Any], name: str, value: Array) -> Array:
    """The rows as llama.cpp wants them: its rotary embedding turns neighbours, transformers' turns
    the halves of a head, so the rows of q and k of the llama architecture change places."""
    last = name.rpartition(".")[0].rsplit(".", 1)[-1]
    if ARCHITECTURES[config["model_type"]] != "llama" or last not in ("q_proj", "k_proj"):
        return value
    heads = config["num_attention_heads"]
    if last == "k_proj":
        heads = config.get("num_key_value_heads") or heads
    width = value.shape[0] // heads
    within = np.arange(width).reshape(2, width // 2).T.reshape(-1)  # 0, half, 1, half + 1, ...
    order = (np.arange(heads)[:, None] * width + within[None, :]).reshape(-1)
    turned: Array = value[order]
    return turned


# ---------------------------------------------------------------- the whole model


def write_model(
    base: Path,
    adapter: Path | None,
    target: Path,
    *,
    kind: str,
    name: str,
    template: str,
    begins_with_bos: bool,
) -> dict[str, Any]:
    """Write base plus adapter to `target`. Returns path, sizes and notes (sentences).

    `kind`: f32, f16 or q8_0. `template`: the chat template as it was trained. H735, H736, H510.
    """
    gguf = _gguf()
    model = Merged(base, adapter)
    arch = architecture(model.config, base)
    writer = gguf.GGUFWriter(None, arch)
    notes = _describe(writer, gguf, model.config, base, name, kind)
    notes += _tokenizer(writer, base, model, template, begins_with_bos)
    plan = _plan(model, base)
    factors = _rope_factors(model.config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    unrounded = 0
    for source, gguf_name in plan:
        stored = _stored(gguf, kind, model.shape(source))
        wide = stored == gguf.GGMLQuantizationType.F16 and kind == "q8_0"
        unrounded += int(wide)
        _announce(writer, gguf, gguf_name, model.shape(source), stored)
    if unrounded:
        notes.append(
            say(
                "{count} tensors whose rows are no multiple of 32 long stay in f16.",
                count=unrounded,
            )
        )

    def data() -> Iterator[np.ndarray[Any, Any]]:
        if factors is not None:
            yield factors
        for source, _ in plan:
            value = np.ascontiguousarray(rows(model.config, source, model.read(source)))
            yield gguf.quants.quantize(value, _stored(gguf, kind, value.shape))

    _finish(writer, target, data())
    return {"path": str(target), "type": kind, "architecture": arch, "notes": notes}


def _plan(model: Merged, base: Path) -> list[tuple[str, str]]:
    found = []
    for source in model.names():
        if source.endswith("rotary_emb.inv_freq"):
            continue  # computed from the configuration
        trained = model.adapter is not None and source in model.adapter.replaced
        if source == "lm_head.weight" and model.config.get("tie_word_embeddings") and not trained:
            continue
        name = tensor_name(source)
        if name is None:
            raise refused(say("GGUF export does not know the tensor '{name}'.", name=source), base)
        found.append((source, name))
    return found


def _stored(gguf: Any, kind: str, shape: tuple[int, ...]) -> Any:
    """The number format of one tensor: vectors stay float32, as llama.cpp wants them."""
    types = gguf.GGMLQuantizationType
    if len(shape) == 1 or kind == "f32":
        return types.F32
    return types.Q8_0 if kind == "q8_0" and shape[-1] % _Q8_BLOCK == 0 else types.F16


def _announce(writer: Any, gguf: Any, name: str, shape: tuple[int, ...], stored: Any) -> None:
    block, size = gguf.GGML_QUANT_SIZES[stored]
    nbytes = math.prod(shape) // block * size
    writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=stored)


def _finish(writer: Any, target: Path, data: Iterator[np.ndarray[Any, Any]]) -> None:
    """Written beside the target and renamed: the file is absent or whole."""
    staged = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file(staged)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for value in data:
            writer.write_tensor_data(value)
        writer.flush()
        os.fsync(writer.fout[0].fileno())
        writer.close()
        staged.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        staged.unlink(missing_ok=True)


# ---------------------------------------------------------------- what the file says of the model


def _describe(
    writer: Any, gguf: Any, config: dict[str, Any], base: Path, name: str, kind: str
) -> list[Sentence]:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    types = gguf.LlamaFileType
    writer.add_file_type(
        {"f32": types.ALL_F32, "f16": types.MOSTLY_F16, "q8_0": types.MOSTLY_Q8_0}[kind]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    scaling = str(rope.get("rope_type", rope.get("type", "default")))
    if scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif scaling not in ("default", "llama3"):
        raise refused(
            say("GGUF export does not know the rotary scaling '{name}'.", name=scaling[:40]), base
        )
    window = config.get("sliding_window")
    if (
        window
        and config.get("use_sliding_window", True)
        and window < config["max_position_embeddings"]
    ):
        return [
            say(
                "The base model looks back {window:,} tokens; llama.cpp looks back over all of them, so longer texts are answered differently.",
                window=window,
            )
        ]  # fmt: skip
    return []


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings, in the form of transformers 5 or the older one."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    return found


def _rope_factors(config: dict[str, Any]) -> Array | None:
    """Llama 3.1's scaling: each frequency's divisor (one for high ones, `factor` for low ones)."""
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    frequency = float(rope["rope_theta"]) ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    wavelength = 2 * math.pi / frequency
    old, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    smooth = (old / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    value = np.where(wavelength < old / high, 1.0, between)
    value = np.where(wavelength > old / low, factor, value)
    return value.astype(np.float32)


def _tokenizer(
    writer: Any, base: Path, model: Merged, template: str, begins_with_bos: bool
) -> list[Sentence]:
    config = model.config
    known = tokens_of(base, model.shape("model.embed_tokens.weight")[0])
    writer.add_tokenizer_model(known.model)
    writer.add_token_list(known.tokens)
    writer.add_token_types(known.kinds)
    if known.cut:
        writer.add_tokenizer_pre(known.cut)
        writer.add_token_merges(known.merges)
    else:
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(known.scores)
        writer.add_add_space_prefix(known.space_prefix)
    generation = base / "generation_config.json"
    more = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    for key, add in (("bos", writer.add_bos_token_id), ("pad", writer.add_pad_token_id)):
        number = config.get(f"{key}_token_id")
        if isinstance(number, int):
            add(number)
    ends: list[int] = []
    for value in (more.get("eos_token_id"), config.get("eos_token_id")):
        ends += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)]
    ends = list(dict.fromkeys(ends))
    if ends:
        writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    writer.add_add_bos_token(begins_with_bos)
    writer.add_add_eos_token(False)
    writer.add_chat_template(template)
    return known.notes


# ---------------------------------------------------------------- the LoRA alone


def write_lora(base: Path, adapter: Path, target: Path, *, name: str) -> dict[str, Any]:
    """Write the adapter as a GGUF for `llama-cli --lora` or Ollama's ADAPTER. H735 for DoRA."""
    gguf = _gguf()
    model = Merged(base, adapter)
    lora = model.adapter
    assert lora is not None  # noqa: S101 - Merged was given one
    if (
        lora.dora
        or lora.replaced
        or lora.rows
        or any("lora_embedding_A" in m.parts for m in lora.modules.values())
    ):
        raise refused(
            say(
                "GGUF has no form for this adapter alone (DoRA, embeddings, added tokens or saved modules)."
            ),
            adapter,
        )
    writer = gguf.GGUFWriter(None, architecture(model.config, base))
    alpha = float(lora.config.get("lora_alpha", 8))
    writer.add_type("adapter")
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    parts = list(_lora_parts(model.config, lora, alpha, base))
    for part, value in parts:
        writer.add_tensor_info(part, value.shape, value.dtype, value.nbytes)
    _finish(writer, target, iter([np.ascontiguousarray(v) for _, v in parts]))
    return {"path": str(target), "type": "f32", "tensors": len(parts), "notes": []}


def _lora_parts(
    config: dict[str, Any], lora: Adapter, alpha: float, base: Path
) -> Iterator[tuple[str, Array]]:
    """llama.cpp scales by alpha / rank; a module with another scaling has the rest in its B."""
    for source, module in sorted(lora.modules.items()):
        name = tensor_name(source)
        if name is None:
            raise refused(say("GGUF export does not know the tensor '{name}'.", name=source), base)
        rest = np.float32(module.scaling * module.a.shape[0] / alpha)
        yield f"{name}.lora_a", module.a
        yield f"{name}.lora_b", rows(config, source, module.b * rest)
