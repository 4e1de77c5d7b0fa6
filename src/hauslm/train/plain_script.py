"""The training of this folder once more, with torch, transformers and PEFT alone.

    python train.py                         # base model and examples as training.json names them
    python train.py --base FOLDER --data PREFIX --out FOLDER --compare ADAPTER_FOLDER
    python train.py --plain                 # the libraries' own arithmetic alone

`training.json` beside this file says what the run was made of: the settings in force and, for every
optimizer step, which examples stood in which row. The examples themselves (the team's texts as token
ids) stay where they are: PREFIX.tokens.bin (uint32), PREFIX.trained.bin (uint8: 1 where the token is a
label that counts) and PREFIX.offsets.bin (int64: example i is tokens[offsets[i]:offsets[i + 1]]).

The folder `arithmetic` holds how the run multiplied (four short modules that need torch, transformers
and PEFT alone): with them the adapter is the run's own, on the same processor and versions to the last
bit. With --plain, or without that folder, the libraries' own arithmetic is used (whole logits, PEFT's
LoRA layers, one attention mask for a row): the same function, other rounding, slower. --compare says how
near the result is.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

# Threads that wait by spinning cost a busy machine several times the work; read when torch starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Compiled kernels kept for shapes that hardly come again fill the memory.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, get_scheduler

HERE = Path(__file__).resolve().parent


class Examples:
    """The prepared examples, mapped from disk."""

    def __init__(self, prefix: Path, sha256: dict[str, str]) -> None:
        files = {s: Path(f"{prefix}.{s}.bin") for s in ("tokens", "trained", "offsets")}
        for name, path in files.items():
            if not path.is_file():
                sys.exit(f"{path} is missing. Name the prepared examples with --data PREFIX.")
            wanted = sha256.get(f"train.{name}.bin")
            if wanted and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                sys.exit(f"{path} is not what the run was trained on (its sha256 differs).")
        self.tokens = np.memmap(files["tokens"], dtype="<u4", mode="r")
        self.trained = np.memmap(files["trained"], dtype="u1", mode="r")
        self.offsets = np.fromfile(files["offsets"], dtype="<i8")

    def row(self, examples: list[int], device: str) -> list[Any]:
        """(ids, positions, places, labels, lengths): examples one after the other, positions from 0 in each.

        Transformers keeps documents apart by the positions; an example's first token is nobody's label.
        """
        ids, positions, places, labels, lengths, at = [], [], [], [], [], 0
        for example in examples:
            start, end = self.offsets[example], self.offsets[example + 1]
            tokens = self.tokens[start:end].astype(np.int64)
            counted = np.flatnonzero(self.trained[start + 1 : end])
            ids.append(tokens)
            positions.append(np.arange(len(tokens)))
            places.append(counted + at)
            labels.append(tokens[1:][counted])
            lengths.append(len(tokens))
            at += len(tokens)
        parts = (ids, positions, places, labels)
        return [*(torch.from_numpy(np.concatenate(x)).to(device) for x in parts), lengths]


def load_base(folder: Path, settings: dict[str, Any], device: str) -> Any:
    """The frozen base in the number format of the run."""
    dtype = getattr(torch, settings["precision"])
    more: dict[str, Any] = {}
    if settings["quantisation"] in ("nf4", "int8"):
        import transformers

        quantised: Any = transformers.BitsAndBytesConfig
        more["quantization_config"] = (
            quantised(load_in_8bit=True)
            if settings["quantisation"] == "int8"
            else quantised(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        )
    kept = torch.float32 if settings["method"] == "full" else dtype
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=kept, attn_implementation="sdpa", **more
    )
    for module in model.modules():
        # On a CPU bitsandbytes would repack 4-bit weights for good, and training stops working.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model.config.use_cache = False
    return model.to(device) if settings["quantisation"] == "none" else model


def parameter_groups(
    model: Any, settings: dict[str, Any], plus_ratio: float | None
) -> list[dict[str, Any]]:
    """What AdamW steps on: everything that learns; B faster than A for LoRA+."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if plus_ratio:
        rate, spread = settings["learning_rate"], plus_ratio**0.5
        slow = [p for n, p in named if ".lora_B." not in n]
        fast = [p for n, p in named if ".lora_B." in n]
        return [{"params": slow, "lr": rate / spread}, {"params": fast, "lr": rate * spread}]
    decayed = [p for n, p in named if p.ndim > 1 or "magnitude" in n]
    others = [p for n, p in named if not (p.ndim > 1 or "magnitude" in n)]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def dropout_seed(seed: int, step: int, row: int) -> int:
    """Each row of each step has a stream of its own."""
    digest = hashlib.sha256(f"{seed},{step},{row}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PlainArithmetic:
    """Loss of a row by the libraries' own layers."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def summed_loss(self, ids: Any, positions: Any, places: Any, labels: Any, lengths: Any) -> Any:
        """Sum of -log p over the labels that count."""
        logits = self.model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=places,
        ).logits[0]
        return cross_entropy(logits.float(), labels, reduction="sum")


class SameArithmetic:
    """Loss of a row as the run computed it."""

    def __init__(self, model: Any, packing: bool) -> None:
        sys.path.insert(0, str(HERE / "arithmetic"))
        names = ("attention", "lean", "loss", "rows")
        attention, lean, loss, rows = map(importlib.import_module, names)

        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.decoder, self.head = causal.get_decoder(), causal.get_output_embeddings()
        self.documents = attention.Documents.of if packing else None
        self.loss = loss.summed_loss
        if packing:
            causal.set_attn_implementation(attention.register())
        lean.make_lean(model)
        rows.make_lean(model)

    def summed_loss(self, ids: Any, positions: Any, places: Any, labels: Any, lengths: Any) -> Any:
        """Sum of -log p over the labels that count."""
        more = {"documents": self.documents(lengths, ids.device)} if self.documents else {}
        states = self.decoder(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, **more
        ).last_hidden_state
        return self.loss(states[0][places], self.head, labels)


def train(
    model: Any, examples: Examples, recipe: dict[str, Any], device: str, arithmetic: Any
) -> None:
    """The steps up to the one whose adapter was kept."""
    settings = recipe["settings"]
    groups = parameter_groups(model, settings, recipe["lora_plus_ratio"])
    optimizer = torch.optim.AdamW(
        groups, lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
    )
    scheduler = get_scheduler(
        settings["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=recipe["warmup_steps"],
        num_training_steps=settings["steps"],
    )
    learning = [p for p in model.parameters() if p.requires_grad]
    mixed = settings["method"] == "full" and settings["precision"] == "bfloat16"
    model.train()
    for step, groups_of_examples in enumerate(recipe["steps"][: settings["kept_step"]]):
        rows = [examples.row(g, device) for g in groups_of_examples]
        count = sum(len(row[3]) for row in rows)
        total = 0.0
        for place, row in enumerate(rows):
            torch.manual_seed(dropout_seed(settings["seed"], step, place))
            with torch.autocast(device, torch.bfloat16) if mixed else contextlib.nullcontext():
                loss = arithmetic.summed_loss(*row) / count
            loss.backward()
            total += float(loss.detach())
        if settings["max_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(learning, settings["max_grad_norm"])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"step {step + 1} of {settings['kept_step']}: loss {total:.4f}", flush=True)


def attach(model: Any, recipe: dict[str, Any], start: Path) -> Any:
    """The adapter with the run's own start values."""
    torch.manual_seed(recipe["settings"]["seed"])
    model = get_peft_model(model, LoraConfig(**recipe["lora"]))
    whole_in_float32(model)
    if start.is_file():
        set_peft_model_state_dict(model, load_file(start))
    return model


def whole_in_float32(model: Any) -> None:
    """What is trained whole, modules or rows, keeps float32: a small update is lost in bfloat16."""
    for name, parameter in model.named_parameters():
        if ".trainable_tokens_delta." in name:
            parameter.data = parameter.data.float()

    def inwards(module: Any, given: Any) -> Any:
        return tuple(x.float() if torch.is_floating_point(x) else x for x in given)

    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            dtype = next(module.original_module.parameters()).dtype
            for copy in module.modules_to_save.values() if dtype != torch.float32 else ():
                copy.float()
                copy.register_forward_pre_hook(inwards)
                copy.register_forward_hook(lambda _, __, out, dtype=dtype: out.to(dtype))


def save(model: Any, out: Path, start_folder: Path | None) -> None:
    """A plain PEFT folder; an adapter that started from a part of the base becomes one on the whole base."""
    if start_folder is None:
        model.save_pretrained(out)
    else:
        model.save_pretrained(out, path_initial_model_for_weight_conversion=str(start_folder))


def weights_of(folder: Path) -> dict[str, Any]:
    """The tensors of an adapter folder, or of a model that was trained whole."""
    for name in ("adapter_model.safetensors", "model.safetensors"):
        if (Path(folder) / name).is_file():
            found: dict[str, Any] = load_file(Path(folder) / name)
            return found
    sys.exit(f"{folder} holds neither adapter_model.safetensors nor model.safetensors.")


def compare(out: Path, other: Path) -> dict[str, float]:
    """How near two adapters are, as relative distances: of the updates B A, and of all else that learned
    (rows of added tokens, modules trained whole, magnitudes), which is compared as it stands."""
    mine, theirs = weights_of(out), weights_of(other)
    if set(mine) != set(theirs):
        sys.exit("The two adapters have other tensors.")
    sums = {"updates": [0.0, 0.0], "other tensors": [0.0, 0.0]}
    for name in mine:
        if ".lora_B." in name:
            continue
        kind, pair = "other tensors", (mine[name].double(), theirs[name].double())
        if ".lora_A." in name:
            b = name.replace(".lora_A.", ".lora_B.")
            kind = "updates"
            pair = (mine[b].double() @ pair[0], theirs[b].double() @ pair[1])
        sums[kind][0] += float((pair[0] - pair[1]).pow(2).sum())
        sums[kind][1] += float(pair[1].pow(2).sum())
    return {kind: (d / size) ** 0.5 for kind, (d, size) in sums.items() if size}


def main() -> None:
    recipe = json.loads((HERE / "training.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default=recipe["base"]["path"], help="folder of the base model")
    parser.add_argument(
        "--data", default=recipe["data"]["prefix"], help="prepared examples: PREFIX"
    )
    parser.add_argument("--out", type=Path, default=HERE / "adapter")
    parser.add_argument("--plain", action="store_true", help="the libraries' own arithmetic alone")
    parser.add_argument("--compare", type=Path, help="an adapter folder to compare the result with")
    arguments = parser.parse_args()

    settings = recipe["settings"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(int(recipe["versions"].get("threads", torch.get_num_threads())))
    base, prefix = (HERE / p for p in (arguments.base, arguments.data))
    examples = Examples(prefix, recipe["data"]["sha256"])
    model = load_base(base, settings, device)
    start_folder = None
    if settings["method"] == "full":
        model.requires_grad_(True)
    else:
        model = attach(model, recipe, HERE / "start.safetensors")
        if str(recipe["lora"].get("init_lora_weights")).startswith(("pissa", "olora")):
            start_folder = arguments.out / "start"
            config = model.peft_config["default"]
            kept, config.init_lora_weights = config.init_lora_weights, True
            model.save_pretrained(start_folder)
            config.init_lora_weights = kept
    if settings["checkpointed_layers"]:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    same = (HERE / "arithmetic").is_dir() and not arguments.plain
    arithmetic = SameArithmetic(model, settings["packing"]) if same else PlainArithmetic(model)
    train(model, examples, recipe, device, arithmetic)
    save(model, arguments.out, start_folder)
    for pattern in ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                    "merges.txt", "chat_template.jinja"):  # fmt: skip
        for path in base.glob(pattern):
            shutil.copyfile(path, arguments.out / path.name)
    print(f"written: {arguments.out}")
    if arguments.compare is not None:
        for kind, distance in compare(arguments.out, arguments.compare).items():
            print(f"relative distance of the {kind}: {distance:.2e}")


if __name__ == "__main__":
    main()
