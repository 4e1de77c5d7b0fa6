"""How does a base model get from its folder into memory, and what does it say about itself?

Local files only, safetensors only, no code from the folder; `checks.check_base` has looked before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hauslm.base.errors import RefusedError, UsageError, did_you_mean
from hauslm.base.words import say


def _device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def load_folder(base: Path, dtype: str, device: str, quantisation: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder that passed `checks.check_base`. H805, H810."""
    device = _device(device)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    disable: Any = transformers_logging.disable_progress_bar
    disable()
    safe = {"local_files_only": True, "trust_remote_code": False}
    extra: dict[str, Any] = {}
    if quantisation != "none":
        extra["quantization_config"] = _quantisation(quantisation, device)
        extra["device_map"] = {"": device}
    wanted: Any = getattr(torch, dtype) if dtype != "auto" else "auto"
    if wanted == "auto" and device == "cpu":
        wanted = torch.float32  # half precision is emulated on most CPUs and slower
    from safetensors import SafetensorError

    failures = (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base), **safe)
        model = AutoModelForCausalLM.from_pretrained(
            str(base), dtype=wanted, use_safetensors=True, **safe, **extra
        )
    except failures as error:
        raise RefusedError(
            "H805",
            say(
                "The base model could not be loaded ({reason}).",
                reason=str(error).split("\n")[0][:200],
            ),
            where=str(base),
            next_step=say("Copy the model folder again and compare its hashes."),
        ) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise RefusedError(
            "H805",
            say("The base model has no tokenizer.json."),
            where=str(base),
            next_step=say("Copy the complete model folder, tokenizer.json included."),
        )
    module: Any = model
    if quantisation == "none":
        module = module.to(device)
    module.requires_grad_(False)
    return module.eval(), tokenizer


def _quantisation(kind: str, device: str) -> Any:
    import transformers

    make: Any = transformers.BitsAndBytesConfig

    if device == "cpu":
        raise UsageError(
            "H810",
            say("Quantisation {kind} needs a GPU.", kind=kind),
            next_step=say("Use quantisation none on a CPU."),
        )
    if kind == "nf4":
        return make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if kind == "int8":
        return make(load_in_8bit=True)
    raise UsageError(
        "H810",
        say("'{key}' must not be {value}.", key="quantisation", value=kind),
        next_step=did_you_mean(kind, ("none", "nf4", "int8")),
    )


def context_length(config: Any, tokenizer: Any) -> int:
    """Most tokens of prompt and answer together; H808 if the base does not say."""
    length = getattr(config, "max_position_embeddings", None) or getattr(
        config, "n_positions", None
    )
    if length is None and tokenizer.model_max_length < 10_000_000:
        length = tokenizer.model_max_length
    if length is None:
        raise RefusedError(
            "H808",
            say("config.json does not say how long the context is (max_position_embeddings)."),
            next_step=say("Use a base model that states its context length."),
        )
    return int(length)


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: of the generation settings and of the tokenizer."""
    found: set[int] = set()
    for value in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        found |= {
            int(v)
            for v in (value if isinstance(value, (list, tuple)) else [value])
            if v is not None
        }
    if not found:
        raise RefusedError(
            "H808",
            say("The base model names no token that ends an answer (eos_token_id)."),
            next_step=say("Add eos_token_id to generation_config.json."),
        )
    return frozenset(found)


def sliding_window(config: Any) -> tuple[int | None, bool]:
    """(sliding window in tokens or None, whether full and sliding layers are mixed)."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or getattr(config, "use_sliding_window", True) is False:
        return None, False
    if kinds and "sliding_attention" not in kinds:
        return None, False
    return int(window), len(kinds) > 1 or bool(kinds)


# ---------------------------------------------------------------- the tokenizer


def rust_tokenizers(tokenizer: Any) -> tuple[Any, Any]:
    """(for rendered templates, whose control tokens are meant; for raw text, which has none)."""
    from tokenizers import Tokenizer

    pair = [Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) for _ in range(2)]
    for one in pair:
        one.no_truncation()
        one.no_padding()
    pair[1].encode_special_tokens = True
    return pair[0], pair[1]


def text_prefix(rust: Any) -> list[int]:
    """The ids that the tokenizer adds before a text of its own accord."""
    added = rust.encode("a", add_special_tokens=True).ids
    plain = rust.encode("a", add_special_tokens=False).ids
    return next((added[:i] for i in range(len(added)) if added[i : i + len(plain)] == plain), [])


def special_spellings(rust: Any) -> list[str]:
    """Spelling of every token that is control, not text."""
    return [t.content for t in rust.get_added_tokens_decoder().values() if t.special]


def named_tokens(tokenizer: Any) -> dict[str, str]:
    """bos_token, eos_token, ... as templates ask for them; '' where there is none."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {n: str(getattr(tokenizer, n, None) or "") for n in names}


def chat_template(tokenizer: Any) -> str | None:
    """The base's own chat template ('default' where it has several), or None."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return template if isinstance(template, str) and template else None


def without_control_spellings(rust: Any) -> str:
    """The tokenizer as JSON for llguidance, its control tokens under names that no text contains.

    Where a grammar leaves one continuation only, llguidance 1.9 tokenizes that text as it would a
    prompt: "[/INST]" in a quoted sentence became the control token, which its own parser then
    refuses. Under another name it is spelt out.
    """
    spec = json.loads(rust.to_str())
    vocabulary = spec["model"].get("vocab")
    for token in spec.get("added_tokens", []):
        if not token["special"]:
            continue
        old, new = token["content"], f"\u0001control-{token['id']}\u0001"
        token["content"] = new
        if isinstance(vocabulary, dict) and old in vocabulary:
            vocabulary[new] = vocabulary.pop(old)
        elif isinstance(vocabulary, list):  # unigram: [[piece, score], ...]
            for entry in vocabulary:
                entry[0] = new if entry[0] == old else entry[0]
        if spec["model"].get("unk_token") == old:
            spec["model"]["unk_token"] = new
    spec["post_processor"] = None
    return json.dumps(spec, ensure_ascii=False)
