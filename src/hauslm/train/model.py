"""Where do base and adapter come from, and how is the adapter written?

Loading the frozen base (float32, bfloat16, nf4, int8), attaching the adapter of the chosen variant,
saving it as a plain PEFT folder that loads without hauslm.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.files import disk_error, fsync_folder, sha256_file
from hauslm.base.words import say
from hauslm.train import kernels, tokens, whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hauslm.train.settings import Settings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
FULL_WEIGHTS = "model.safetensors"


def has_fast_bfloat16(device: str) -> bool:
    """Does this device multiply bfloat16 in hardware? CPU: AVX512-BF16 or AMX; GPU: from Ampere on.

    Measured on a Zen 4 CPU (AVX512-BF16), 6 M parameters: 1.4 times the tokens per CPU second of float32.
    """
    if device == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def load_base(path: Path, settings: Settings, device: str) -> Any:
    """The base model, local files and safetensors only, in the number format of the settings."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, settings.precision)
    # A model that is trained itself keeps float32 weights: an update of 1e-5 is lost in bfloat16.
    kept = torch.float32 if settings.method == "full" else dtype
    arguments: dict[str, Any] = {}
    if settings.quantisation != "none":
        arguments["quantization_config"] = _quantisation(settings.quantisation, dtype)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=kept,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            **arguments,
        )
    except ImportError as error:
        raise MissingError(
            "H547",
            say("A package for this base is missing: {reason}.", reason=_first_line(error)),
            next_step=say("Install it, or set model.quantisation to none."),
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise RefusedError(
            "H605",
            say("The base model could not be loaded: {reason}.", reason=_first_line(error)),
            where=str(path),
            next_step=say("hauslm check looks at the base model."),
        ) from error
    if settings.quantisation == "none":
        model = model.to(device)
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights for good as soon as a CPU evaluates them; training on
        # them is then impossible, and widths that are no multiple of 32 fail.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if settings.liger:
        kernels.use_liger(model)
    model.config.use_cache = False
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _quantisation(name: str, dtype: torch.dtype) -> Any:
    import transformers

    make: Any = transformers.BitsAndBytesConfig

    if name == "int8":
        return make(load_in_8bit=True)
    return make(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def attach(model: nn.Module, settings: Settings, base_path: Path, base_id: str) -> nn.Module:
    """The base with the adapter of the chosen variant; its values are a function of the seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    from hauslm.train import adapters

    if settings.method == "full":
        return model.requires_grad_(True)
    variant = adapters.find(settings.adapter["variant"])
    _check_variant(variant, settings)
    _check_targets(model, settings.adapter["target_modules"])
    whole.check(model, settings)
    torch.manual_seed(settings.seed)
    config = LoraConfig(**variant.config(whole.in_layers(model, settings.adapter)))
    config.base_model_name_or_path = base_id
    adapted: nn.Module = get_peft_model(model, config)
    whole.in_float32(adapted)
    tokens.in_float32(adapted)
    variant.prepare(adapted, base_path)
    return adapted


def _check_variant(variant: Any, settings: Settings) -> None:
    bases = variant.BASES
    if settings.quantisation not in bases:
        raise RefusedError(
            "H606",
            say(
                "The variant {variant} does not work on a base stored as {stored}.",
                variant=variant.NAME,
                stored=settings.quantisation,
            ),
            next_step=say(
                "Set adapter.variant to lora, or model.quantisation to {bases}.",
                bases=", ".join(bases),
            ),
        )


def _check_targets(model: nn.Module, targets: list[str] | str) -> None:
    """Every named module must exist: PEFT ignores those that do not, as long as one does."""
    if isinstance(targets, str):
        return
    from hauslm.base.errors import did_you_mean

    ends = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name}
    for target in targets:
        if target not in ends:
            linear = {
                name.rsplit(".", 1)[-1]
                for name, module in model.named_modules()
                if module.__class__.__name__.startswith("Linear")
            }
            raise RefusedError(
                "H607",
                say("The base has no module '{name}' to adapt.", name=target),
                where="adapter.target_modules",
                next_step=did_you_mean(target, linear),
            )


def checkpoint_layers(model: Any, layers: int) -> None:
    """Recompute the activations of the first `layers` layers (-1: of all) in the backward pass."""
    if layers == 0:
        return
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if layers < 0:
        return
    stack = [
        module
        for module in causal.modules()
        if getattr(module, "gradient_checkpointing", None) is True
        and type(module).__name__.endswith("Layer")
    ]
    for module in stack[layers:]:
        module.gradient_checkpointing = False


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that learn, by name (one entry for tied ones)."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_trainable(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put saved values back; names and shapes must be exactly those of the model."""
    import torch

    own = trainable(model)
    if set(own) != set(tensors) or any(own[n].shape != tensors[n].shape for n in own):
        raise RefusedError(
            "H608",
            say("The checkpoint belongs to an adapter of another shape."),
            next_step=say("Start a new run with --fresh."),
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def save(
    model: nn.Module, settings: Settings, target: Path, tokenizer_from: Path, base_id: str
) -> str:
    """Write the adapter (or the whole model) as one folder, old or new but never half; returns the
    sha256 of its weights file."""
    from safetensors import SafetensorError

    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.mkdir()
        _write(model, settings, staged, base_id)
        _copy_tokenizer(tokenizer_from, staged)
        _sync(staged)
        _exchange(staged, target)
    except OSError as error:
        raise disk_error(error, target) from error
    except SafetensorError as error:  # its own kind, also when the disk refuses
        raise disk_error(_os_error(error), target) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return sha256_file(target / weights_name(settings))


def _os_error(error: Exception) -> OSError:
    """safetensors tells the system's error in words: '... (os error 28)'."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))


def weights_name(settings: Settings) -> str:
    return FULL_WEIGHTS if settings.method == "full" else ADAPTER_WEIGHTS


def _write(model: Any, settings: Settings, folder: Path, base_id: str) -> None:
    import json

    from hauslm.train import adapters

    if settings.method == "full":
        implementation = model.config._attn_implementation
        model.set_attn_implementation("sdpa")  # ours is not for the reader's config.json
        model.save_pretrained(folder, max_shard_size="1000GB")
        model.set_attn_implementation(implementation)
        return
    variant = adapters.find(settings.adapter["variant"])
    # "auto" would ask a hub whether the vocabulary grew, and save both matrices whole if it did.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form; the bundle writes a real card
    variant.finish(model, folder)
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_id
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # a set has no order
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copy_tokenizer(base: Path, folder: Path) -> None:
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
    )
    for name in names:
        if (base / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(folder)


def _exchange(staged: Path, target: Path) -> None:
    """Put the staged folder in the target's place; a crash in between leaves the old one beside it."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    staged.replace(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
