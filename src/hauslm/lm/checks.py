"""May these files be loaded at all? A base model's folder and an adapter's, before torch sees them.

The loaders behind us accept too much: `config.json` can name code to run, PEFT loads adapters with
missing tensors or NaN, takes names for regular expressions (some never end), falls back to pickle.
So nothing is loaded that does not pass here. What the tensors hold is checked in `local.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.words import Sentence, say

MAX_RANK = 1024
MAX_CONFIG_BYTES = 1 << 20
MAX_NAMES = 4096
MAX_TOKENS = 10_000  # rows of added tokens

# Keys that make transformers run code from the folder or the Hub (CVE-2026-4372 for the second).
_CODE_KEYS = ("auto_map", "_attn_implementation_internal", "_experts_implementation_internal")
_PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}(?:\.[A-Za-z0-9_]{1,64}){0,16}\Z")

# PEFT 0.21 LoraConfig: every key it may hold. Those not named in _PLAIN must be empty.
_PLAIN: dict[str, tuple[type, ...]] = {
    "alpha_pattern": (dict,),
    "auto_mapping": (dict, type(None)),  # names a class to import; dropped, never followed
    "base_model_name_or_path": (str, type(None)),
    "bias": (str,),
    "exclude_modules": (list, type(None)),
    "fan_in_fan_out": (bool,),
    "inference_mode": (bool,),
    "init_lora_weights": (bool, str),
    "layers_pattern": (str, list, type(None)),
    "layers_to_transform": (int, list, type(None)),
    "lora_alpha": (int, float),
    "lora_bias": (bool,),
    "lora_dropout": (int, float),
    "megatron_core": (str, type(None)),
    "modules_to_save": (list, type(None)),
    "peft_type": (str,),
    "peft_version": (str, type(None)),
    "qalora_group_size": (int,),
    "r": (int,),
    "rank_pattern": (dict,),
    "revision": (str, type(None)),
    "target_modules": (list,),
    "task_type": (str, type(None)),
    "trainable_token_indices": (list, dict, type(None)),
    "use_dora": (bool,),
    "use_rslora": (bool,),
}
_MUST_BE_EMPTY = (
    "alora_invocation_tokens", "arrow_config", "corda_config",
    "ensure_weight_tying", "eva_config", "kasa_config", "layer_replication", "loftq_config",
    "lora_ga_config", "megatron_config", "monteclora_config", "target_parameters",
    "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
ADAPTER_KEYS = frozenset((*_PLAIN, *_MUST_BE_EMPTY, "runtime_config"))
# These rewrite the base's own weights when the adapter is attached; such an adapter must be
# converted to plain LoRA first, or base and adapter could not live in one process.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def _read_json(path: Path, refuse: Any) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise refuse(say("{file} is larger than 1 MiB.", file=path.name))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise refuse(say("{file} is not valid JSON.", file=path.name)) from error
    if not isinstance(value, dict):
        raise refuse(say("{file} is not a JSON object.", file=path.name))
    return value


def check_base(folder: Path) -> dict[str, Any]:
    """The base's `config.json`, if the folder is safe to load. H809 if incomplete, H805 if not."""

    def refuse(what: Sentence) -> RefusedError:
        return RefusedError(
            "H805",
            what,
            where=str(folder),
            next_step=say(
                "Use a folder with config.json, tokenizer.json and safetensors files only."
            ),
        )

    if not (folder / "config.json").is_file():
        raise MissingError(
            "H809",
            say("There is no base model here (config.json is missing)."),
            where=str(folder),
            next_step=say("hauslm check names the folders that are looked at."),
        )
    config = _read_json(folder / "config.json", refuse)
    for key in _keys(config):
        if key in _CODE_KEYS:
            raise refuse(say("config.json holds '{key}', which can run foreign code.", key=key))
    code = next((p.name for p in sorted(folder.iterdir()) if p.suffix in (".py", ".so")), None)
    if code:
        raise refuse(say("The folder holds program code ({file}).", file=code))
    if not any(folder.glob("*.safetensors")):
        pickled = any(p.suffix in _PICKLE for p in folder.iterdir())
        if pickled:
            raise refuse(say("The weights are pickle files, which can run code when loaded."))
        raise MissingError(
            "H809",
            say("There are no weights here (no .safetensors file)."),
            where=str(folder),
            next_step=say("Copy the complete model folder."),
        )
    return config


def _keys(node: Any, depth: int = 0) -> list[str]:
    if depth > 32 or not isinstance(node, (dict, list)):
        return []
    inner = node.values() if isinstance(node, dict) else node
    own = [str(k) for k in node] if isinstance(node, dict) else []
    return own + [k for value in inner for k in _keys(value, depth + 1)]


def check_adapter(folder: Path) -> dict[str, Any]:
    """The adapter's configuration, if it is plain LoRA under our rules. H809 missing, H806 not."""

    def refuse(what: Sentence) -> RefusedError:
        return RefusedError(
            "H806",
            what,
            where=str(folder),
            next_step=say(
                "Ask for the adapter as plain LoRA: a list of module names and safetensors."
            ),
        )

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        path = folder / name
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise refuse(say("{file} points outside the adapter's folder.", file=name))
        if not path.is_file():
            if any(p.suffix in _PICKLE for p in _entries(folder)):
                raise refuse(say("The weights are pickle files, which can run code when loaded."))
            raise MissingError(
                "H809",
                say("There is no adapter here ({file} is missing).", file=name),
                where=str(folder),
                next_step=say("hauslm train makes one; hauslm verify unpacks a bundle."),
            )
    config = _read_json(folder / "adapter_config.json", refuse)
    problem = adapter_config_problem(config)
    if problem:
        raise refuse(problem)
    return config


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def adapter_config_problem(config: Mapping[str, Any]) -> Sentence | None:
    """What is wrong with an `adapter_config.json`; None if nothing is."""
    for key, value in config.items():
        if key in _MUST_BE_EMPTY:
            if value:
                return say("adapter_config.json uses '{key}', which is not supported.", key=key)
        elif key == "runtime_config":
            continue
        elif key not in _PLAIN:
            return say("adapter_config.json holds the unknown key '{key}'.", key=key)
        elif not isinstance(value, _PLAIN[key]) or (
            isinstance(value, bool) and bool not in _PLAIN[key]
        ):
            return say("'{key}' in adapter_config.json has the wrong type.", key=key)
    return _values_problem(config)


def _values_problem(config: Mapping[str, Any]) -> Sentence | None:
    if config.get("peft_type") != "LORA":
        return say(
            "The adapter is of type {kind}, not LoRA.", kind=str(config.get("peft_type"))[:40]
        )
    if config.get("bias", "none") != "none":
        return say("The adapter changes biases of the base model.")
    ranks = [config.get("r", 8), *config.get("rank_pattern", {}).values()]
    if not all(
        isinstance(r, int) and not isinstance(r, bool) and 1 <= r <= MAX_RANK for r in ranks
    ):
        return say("The adapter's rank must be a whole number from 1 to {limit}.", limit=MAX_RANK)
    alphas = [config.get("lora_alpha", 8), *config.get("alpha_pattern", {}).values()]
    if not all(isinstance(a, (int, float)) and 0 < a <= 65536 for a in alphas):
        return say("The adapter's scaling (lora_alpha) is not a sensible number.")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        return say(
            "The adapter's start ({name}) changes the base model's weights.", name=start[:40]
        )
    return _names_problem(config)


def token_rows(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Module name -> the rows of its matrix that the adapter replaces; PEFT's list means the embeddings."""
    given = config.get("trainable_token_indices")
    if not given:
        return {}
    return dict(given) if isinstance(given, dict) else {"embed_tokens": given}


def _names_problem(config: Mapping[str, Any]) -> Sentence | None:
    """Module names must be names: PEFT would read anything else as a regular expression."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets:
        return say("'target_modules' in adapter_config.json must be a list of module names.")
    names: list[Any] = [*targets, *token_rows(config)]
    for key in ("exclude_modules", "modules_to_save", "layers_pattern"):
        value = config.get(key) or []
        names += [value] if isinstance(value, str) else value
    for key in ("rank_pattern", "alpha_pattern"):
        names += list(config.get(key, {}))
    layers = config.get("layers_to_transform") or []
    layers = layers if isinstance(layers, list) else [layers]
    if len(names) + len(layers) > MAX_NAMES:
        return say("adapter_config.json lists more than {limit} modules.", limit=MAX_NAMES)
    for rows in token_rows(config).values():
        if not isinstance(rows, list) or not all(type(i) is int and 0 <= i < 1 << 24 for i in rows):
            return say("'trainable_token_indices' in adapter_config.json must list token numbers.")
        if not rows or len(rows) > MAX_TOKENS or len(set(rows)) != len(rows):
            return say("'trainable_token_indices' in adapter_config.json must list token numbers.")
    for name in names:
        if not isinstance(name, str) or not _NAME.match(name):
            return say("'{name}' in adapter_config.json is not a module name.", name=str(name)[:60])
    if not all(type(i) is int and 0 <= i < 10_000 for i in layers):
        return say("'layers_to_transform' in adapter_config.json must list layer numbers.")
    return None
