"""Is a model's config.json harmless, and what shape does it describe?

`refuse_code` turns away everything through which a model folder could run code: `auto_map`, Python
files, private keys that load kernels (CVE-2026-4372), pickled weights. `architecture_of` reads the
shape of the block layouts that `estimate` knows; another layout is refused, not guessed at. Which
folder a base model lies in is `local`'s question. Codes H440-H446.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.catalog.schema import Architecture

MAX_CONFIG_BYTES = 4 << 20
HARMLESS_PRIVATE_KEYS = frozenset(
    ("_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_sliding_window_pattern")
)
CODE_KEYS = frozenset(("auto_map", "custom_pipelines", "trust_remote_code", "kernel_config"))
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class _Layout:
    """What transformers' configuration class assumes for keys that a config.json leaves out.

    Read from transformers 5.23; a test compares. `head_dim` None: hidden_size / heads.
    `kv_heads` None: as many as heads. `window` and `global_every` as in `Architecture`.
    """

    family: str
    head_dim: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    vocab_size: int | None = None
    max_context: int | None = None
    tied: bool | None = False
    window: int | None = None
    global_every: int | None = None
    switched_window: bool = False  # a window only counts when use_sliding_window is true


LAYOUTS = {
    "llama": _Layout("llama"),
    "mistral": _Layout("mistral", kv_heads=8, window=4096),
    "ministral3": _Layout("ministral3", head_dim=128, kv_heads=8),
    "mixtral": _Layout("mixtral", kv_heads=8),
    "qwen2": _Layout("qwen2", kv_heads=32, switched_window=True),
    "qwen3": _Layout("qwen3", head_dim=128, kv_heads=32, switched_window=True),
    "qwen3_moe": _Layout("qwen3_moe", kv_heads=4, switched_window=True),
    "gemma2": _Layout("gemma2", head_dim=256, kv_heads=4, tied=True, window=4096, global_every=2),
    "gemma3_text": _Layout(
        "gemma3",
        head_dim=256,
        heads=8,
        kv_heads=4,
        vocab_size=262208,
        max_context=131072,
        tied=True,
        window=4096,
        global_every=6,
    ),
    "phi3": _Layout("phi3"),
    "olmo2": _Layout("olmo2"),
    "gpt_oss": _Layout("gpt_oss", head_dim=64, kv_heads=8, window=128, global_every=2),
    "smollm3": _Layout("smollm3", kv_heads=4, tied=True, switched_window=True),
}
# Multimodal wrappers whose text decoder stands under `text_config`.
WRAPPERS = {"gemma3": "gemma3_text", "mistral3": "mistral"}


# ---------------------------------------------------------------- harmless?


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as a mapping; RefusedError H446 if it is not one."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("more than 4 MiB")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_config(path, str(error)) from error
    if not isinstance(config, dict):
        raise _bad_config(path, "not an object")
    return config


def _bad_config(path: Path, reason: str) -> RefusedError:
    return RefusedError(
        "H446",
        say("The configuration of the model cannot be read ({reason}).", reason=reason),
        where=str(path),
        next_step=say("Copy the model's folder again."),
    )


def refuse_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a model folder that could run code when it is loaded.

    H440 a key that loads code (in config.json or tokenizer_config.json, at any depth), H441 Python
    files, H442 pickled weights without safetensors beside them.
    """
    _refuse_keys(config, folder / "config.json")
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        try:
            settings = json.loads(tokenizer.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _bad_config(tokenizer, str(error)) from error
        if isinstance(settings, dict):
            _refuse_keys({k: v for k, v in settings.items() if k == "auto_map"}, tokenizer)
    scripts = sorted(p.name for p in folder.rglob("*.py"))
    if scripts:
        raise RefusedError(
            "H441",
            say("The model folder contains Python files ({names}).", names=", ".join(scripts[:3])),
            where=str(folder),
            next_step=say("Use a model that transformers supports without code of its own."),
        )
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
    if pickled and not any(folder.glob("*.safetensors")):
        raise RefusedError(
            "H442",
            say(
                "The weights are pickled ({names}); such files can run code.",
                names=", ".join(pickled[:3]),
            ),
            where=str(folder),
            next_step=say("Copy the model's *.safetensors files into the folder."),
        )


def _refuse_keys(config: dict[str, Any], path: Path) -> None:
    for key in _keys(config):
        name = key.rsplit(".", 1)[-1]
        private = name.startswith("_") and name not in HARMLESS_PRIVATE_KEYS
        if private or name in CODE_KEYS:
            raise RefusedError(
                "H440",
                say("The key '{key}' can make the model's loader run foreign code.", key=key),
                where=str(path),
                next_step=say("Use a model that transformers supports without code of its own."),
            )
    attention = config.get("attn_implementation")
    if isinstance(attention, str) and "/" in attention:
        raise RefusedError(
            "H440",
            say("The key '{key}' names a kernel on a model hub.", key="attn_implementation"),
            where=str(path),
            next_step=say("Remove the key; the standard attention is used then."),
        )


def _keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


# ---------------------------------------------------------------- shape


def architecture_of(
    config: dict[str, Any], source: str = "config.json", date: str = ""
) -> Architecture:
    """The shape that a transformers configuration (config.json as a mapping) describes.

    Keys that a config.json may leave out get the default of transformers' configuration class.
    Refuses: H443 an unknown `model_type`, H444 missing or impossible values (all missing keys are
    named), H445 an attention pattern that is not "every k-th layer is global".
    """
    kind = config.get("model_type")
    text = config
    wrapped = isinstance(kind, str) and kind in WRAPPERS
    if wrapped:
        inner = config.get("text_config")
        if not isinstance(inner, dict):
            raise _missing(["text_config"], source)
        text, kind = inner, inner.get("model_type", WRAPPERS[str(kind)])
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise RefusedError(
            "H443",
            say("The architecture '{kind}' is not known to the formulas.", kind=str(kind)),
            where=source,
            next_step=say("hauslm plan --evidence trace builds the real model instead."),
        )
    layout = LAYOUTS[kind]
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if tied is None:
        # The wrapper's class and the text model's class disagree about the default for mistral3.
        tied = None if wrapped and kind != "gemma3_text" else layout.tied
    shape = _counts(
        text, layout, source, missing=[] if tied is not None else ["tie_word_embeddings"]
    )
    window, global_every = _window(text, layout, shape["n_layers"], source)
    return Architecture(
        **shape,
        tied_embeddings=bool(tied),
        sliding_window=window,
        global_every=global_every,
        family=layout.family,
        rope_theta=_rope_theta(text),
        source=source,
        date=date,
        max_context_source=source,
        max_context_date=date,
        **_experts(text, source),
    )


def _counts(
    text: dict[str, Any], layout: _Layout, source: str, missing: list[str]
) -> dict[str, Any]:
    wanted = {
        "n_layers": ("num_hidden_layers", None),
        "hidden_size": ("hidden_size", None),
        "n_heads": ("num_attention_heads", layout.heads),
        "intermediate_size": ("intermediate_size", None),
        "vocab_size": ("vocab_size", layout.vocab_size),
        "max_context": ("max_position_embeddings", layout.max_context),
    }
    shape: dict[str, Any] = {}
    for name, (key, default) in wanted.items():
        value = text.get(key) if text.get(key) is not None else default
        if value is None:
            missing.append(key)
        else:
            shape[name] = _count(key, value, source)
    if missing:
        raise _missing(missing, source)
    heads, hidden = shape["n_heads"], shape["hidden_size"]
    # An explicit null means "as many as heads"; an absent key means the class's default.
    kv_default = heads if "num_key_value_heads" in text else layout.kv_heads or heads
    kv_heads = text.get("num_key_value_heads") or kv_default
    head_dim = text.get("head_dim") or layout.head_dim or hidden // heads
    shape["n_kv_heads"] = _count("num_key_value_heads", kv_heads, source)
    shape["head_dim"] = _count("head_dim", head_dim, source)
    if heads % shape["n_kv_heads"]:
        raise _impossible("num_key_value_heads", shape["n_kv_heads"], source)
    return shape


def _experts(text: dict[str, Any], source: str) -> dict[str, Any]:
    experts = text.get("num_experts") or text.get("num_local_experts")
    if experts is None:
        return {}
    active = text.get("num_experts_per_tok") or text.get("experts_per_token")
    if active is None:
        raise _missing(["num_experts_per_tok"], source)
    width = text.get("moe_intermediate_size")
    return {
        "n_experts": _count("num_experts", experts, source),
        "experts_per_token": _count("num_experts_per_tok", active, source),
        "moe_intermediate_size": None
        if width is None
        else _count("moe_intermediate_size", width, source),
    }


def _window(
    text: dict[str, Any], layout: _Layout, n_layers: int, source: str
) -> tuple[int | None, int | None]:
    """Sliding window and every how many layers attention is global (None: no layer is)."""
    window = text.get("sliding_window", layout.window)
    if window is None or (layout.switched_window and not text.get("use_sliding_window")):
        return None, None
    window = _count("sliding_window", window, source)
    types = text.get("layer_types")
    if isinstance(types, list):
        return _pattern(types, window, n_layers, source)
    if layout.switched_window:
        first = text.get("max_window_layers", n_layers)
        local = [isinstance(first, int) and layer >= first for layer in range(n_layers)]
        names = ["sliding_attention" if is_local else "full_attention" for is_local in local]
        return _pattern(names, window, n_layers, source)
    saved = text.get("_sliding_window_pattern", layout.global_every)
    every = text.get("sliding_window_pattern", saved)
    return window, None if every is None else _count("sliding_window_pattern", every, source)


def _pattern(
    types: list[Any], window: int, n_layers: int, source: str
) -> tuple[int | None, int | None]:
    known = {"sliding_attention": False, "full_attention": True}
    if len(types) != n_layers or any(not isinstance(t, str) or t not in known for t in types):
        raise _irregular(source)
    is_global = [known[t] for t in types]
    if all(is_global):
        return None, None
    if not any(is_global):
        return window, None
    every = is_global.index(True) + 1
    if every == 1 or is_global != [(layer + 1) % every == 0 for layer in range(n_layers)]:
        raise _irregular(source)
    return window, every


def _rope_theta(text: dict[str, Any]) -> float | None:
    nested = text.get("rope_parameters")
    theta = text.get("rope_theta")
    if theta is None and isinstance(nested, dict):
        inner = nested.get("full_attention", nested)
        theta = inner.get("rope_theta") if isinstance(inner, dict) else None
    return float(theta) if isinstance(theta, (int, float)) and not isinstance(theta, bool) else None


def _count(key: str, value: Any, source: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
        raise _impossible(key, value, source)
    return value


# ---------------------------------------------------------------- refusals


def _trace() -> Sentence:
    return say("hauslm plan --evidence trace builds the real model instead.")


def _missing(keys: list[str], source: str) -> RefusedError:
    what = say("The model's configuration lacks {keys}.", keys=", ".join(keys))
    return RefusedError("H444", what, where=source, next_step=_trace())


def _impossible(key: str, value: Any, source: str) -> RefusedError:
    shown = str(value)[:60] if isinstance(value, (int, float, str)) else type(value).__name__
    what = say("'{key}' in the model's configuration cannot be {value}.", key=key, value=shown)
    return RefusedError("H444", what, where=source, next_step=_trace())


def _irregular(source: str) -> RefusedError:
    what = say("The layers mix local and global attention in a way the formulas do not know.")
    return RefusedError("H445", what, where=source, next_step=_trace())
