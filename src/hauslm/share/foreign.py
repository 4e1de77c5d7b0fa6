"""How does an adapter made elsewhere come in? Unsloth, LLaMA-Factory, Axolotl, TRL, plain PEFT.

All of them save PEFT's two files, and much beside them: optimizer states and arguments as pickles,
checkpoints, tokenizers. Only the two files (and the text side of the tokenizer) are taken; the rest is
named and left. The configuration is brought to the form that `lm.checks` asks for where nothing is lost
by it: a pattern for modules becomes the list of those that have tensors, empty keys of other versions
go. Then it passes the checks of `verify`, against this project's base model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hauslm.base.files import disk_error
from hauslm.base.words import Sentence, say
from hauslm.lm import checks
from hauslm.share import archive, tensors
from hauslm.share.source import Source, opened
from hauslm.share.verify import MANIFEST, verify

CONFIG = "adapter_config.json"
_TEXT_SIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")  # fmt: skip
# What licences ask to be passed on stays with the adapter.
_PAPERS = ("NOTICE", "NOTICE.txt", "Notice.txt", "CHANGES.md", "USE_POLICY.md", "README.md")
# Files that tell which tool wrote the folder.
_MARKS = {
    "LLaMA-Factory": ("llamaboard_config.yaml", "trainer_log.jsonl", "all_results.json"),
    "Axolotl": ("axolotl_config.yml", "axolotl.yaml", "debug.log"),
    "TRL or Trainer": ("training_args.bin", "trainer_state.json"),
}


def read(path: Path, base: Path, base_id: str) -> tuple[dict[str, bytes], list[Sentence], str]:
    """(small files to keep, what a reader must know, the tool that wrote it). RefusedError otherwise."""
    with opened(path) as source:
        sealed = not path.is_dir() or MANIFEST in source.names()
    if sealed:
        verify(path, base=base, remember=True)  # a plain folder is checked after its mending
    with opened(path) as source:
        return _taken(source, base, base_id)


def copy_weights(path: Path, target: Path) -> str:
    """Copy the weights of a source that `read` let pass, in pieces; their sha256."""
    digest = hashlib.sha256()
    with opened(path) as source, source.stream(archive.TENSORS) as stream:
        try:
            with target.open("xb") as out:
                while chunk := stream.read(tensors.CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise disk_error(error, target) from error
    return digest.hexdigest()


def _taken(
    source: Source, base: Path, base_id: str
) -> tuple[dict[str, bytes], list[Sentence], str]:
    names = source.names()
    if archive.TENSORS not in names:
        pickled = [n for n in names if n in ("adapter_model.bin", "pytorch_model.bin")]
        if pickled:
            raise archive.refused(
                "H716", say("{file} could run code when loaded.", file=pickled[0]), source.path
            )
        raise archive.refused("H705", say("{file} is missing.", file=archive.TENSORS), source.path)
    size = source.size(archive.TENSORS)
    with source.stream(archive.TENSORS) as stream:
        header = tensors.read_header(stream, size)
    if isinstance(header, Sentence):
        raise archive.refused("H713", header, source.path)
    raw = _loads(source)
    config, notes = mended(raw, [n for n in header if n != "__metadata__"], source.path)
    tool = _tool(names, raw)
    with source.stream(archive.TENSORS) as stream:
        problem = tensors.problem(stream, size, config, _base_config(base))
    if problem is not None:
        raise archive.refused("H713", problem, source.path)
    named = str(config.get("base_model_name_or_path") or "")
    if named and named != base_id:
        notes.append(
            say(
                "The adapter names the base '{theirs}'; here it goes with '{ours}', whose widths and layers fit. Whether it is the same model, its sender must say.",
                theirs=named[:200], ours=base_id,
            )
        )  # fmt: skip
    config["base_model_name_or_path"] = base_id
    kept = {CONFIG: (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()}
    kept |= {
        n: read_text(source, n)
        for n in names
        if n in _TEXT_SIDE or n in _PAPERS or n.startswith("LICENSE")
    }
    if "tokenizer.json" not in names:
        notes.append(say("It brings no tokenizer; the base model's is used."))
    left = sorted({n.split("/")[0] for n in names} - {*kept, archive.TENSORS})
    if left:
        shown = ", ".join(left[:12]) + (f" (+{len(left) - 12})" if len(left) > 12 else "")
        notes.append(say("Not taken: {names}", names=shown))
    return kept, notes, tool


def read_text(source: Source, name: str) -> bytes:
    with source.stream(name) as stream:
        data = stream.read(checks.MAX_CONFIG_BYTES * 64 + 1)
    if len(data) > checks.MAX_CONFIG_BYTES * 64:
        raise archive.refused("H703", say("{file} is larger than 64 MiB.", file=name), source.path)
    return data


def _loads(source: Source) -> dict[str, Any]:
    try:
        value = json.loads(read_text(source, CONFIG)) if CONFIG in source.names() else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise archive.refused("H704", say("{file} is not a JSON object.", file=CONFIG), source.path)
    return value


def _base_config(base: Path) -> dict[str, Any]:
    return dict(json.loads((base / "config.json").read_text(encoding="utf-8")))


def mended(
    raw: Mapping[str, Any], tensor_names: list[str], where: Path
) -> tuple[dict[str, Any], list[Sentence]]:
    """The configuration in the form that is allowed here, and what was changed. H712 otherwise."""
    config, notes = dict(raw), []
    if not isinstance(config.get("target_modules"), list):
        modules = sorted({m for n in tensor_names if (m := _module(n))})
        notes.append(
            say(
                "The pattern for target modules was replaced by the modules that have tensors: {names}",
                names=", ".join(modules)[:200],
            )
        )
        config["target_modules"] = modules
    for key in [k for k in config if k not in checks.ADAPTER_KEYS]:
        if config[key] in (None, False, "", [], {}, 0):
            del config[key]  # an empty key of another PEFT version says nothing
    config["inference_mode"] = True
    config["auto_mapping"] = None
    problem = checks.adapter_config_problem(config)
    if problem is not None:
        raise archive.refused("H712", problem, where)
    return config, notes


def _module(tensor: str) -> str | None:
    """`...layers.0.self_attn.q_proj.lora_A.weight` -> `q_proj`."""
    for part in (".lora_A", ".lora_B", ".lora_embedding_A"):
        if part in tensor:
            return tensor.split(part)[0].rsplit(".", 1)[-1]
    return None


def _tool(names: list[str], config: Mapping[str, Any]) -> str:
    for tool, marks in _MARKS.items():
        if any(mark in names for mark in marks):
            return tool
    named = str(config.get("base_model_name_or_path") or "").lower()
    if "unsloth" in named or "unsloth" in str(config.get("auto_mapping") or "").lower():
        return "Unsloth"
    return "PEFT"


__all__ = ["mended", "read"]
