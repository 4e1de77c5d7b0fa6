"""How fast does a GPU train, and which share of what it could do is that?

    python benchmarks/gpu/train.py [--models mistral-7b-v0.3 llama-3.1-8b] [--lengths 2048 4096] [--caps 0 24]
                                   [--formats bf16 nf4 fp8] [--contenders ours plain trl unsloth]
                                   [--trl-python PATH] [--unsloth-python PATH] [--json FILE]
    python benchmarks/gpu/train.py --dry-run

Random weights of the real shape (from the catalog), saved once as a local folder; every contender loads it
in its own way, in a process of its own, and trains the same LoRA (r 16, all linear layers, dropout 0) on the
same full-length documents:

    ours     hauslm.train
    plain    transformers' Trainer + PEFT (nf4: with prepare_model_for_kbit_training, as its documentation says)
    trl      TRL's SFTTrainer, packed
    unsloth  Unsloth's FastLanguageModel with TRL's SFTTrainer, its own checkpointing

For each, the largest pass of a fixed ladder that fits (8, 4, 2, 1 documents, then 4, 1 with all layers
checkpointed) under a cap on the card's memory (0: none). Rows hold tokens per second (median of the steps
after the first two), the allocator's peak, and the fraction of the limit: (4N + attention) operations per
token, forward 2N + 2ShL and backward 2N + 4ShL, over the bfloat16 product rate measured here first.
fp8 is `training.base_precision: fp8`; no other contender has such a path. What is absent is said.

`--dry-run` goes the same way on the processor with a model of some million parameters: it tests the
script, its figures say nothing. On a GPU it has not been run yet: none was there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_cpu

from hauslm.catalog import load
from hauslm.catalog.schema import Architecture
from hauslm.estimate.configs import config_of
from hauslm.estimate.work import attention_flops, matrix_parameters

CONTENDERS = ("ours", "plain", "trl", "unsloth")
FORMATS = ("bf16", "nf4", "fp8")
LORA = train_cpu.LORA
LADDER = ((8, False), (4, False), (2, False), (1, False), (4, True), (1, True))
DOCUMENTS_PER_STEP = 8
WARM_UP_STEPS = 2
OUT_OF_MEMORY = 9  # exit code of a child that did not fit
GIB = 1 << 30
TINY = Architecture(2, 128, 4, 2, 32, 344, 6144, False, 4096, None, "llama")


# ---------------------------------------------------------------- the limit


def flops_per_token(shape: Architecture, length: int) -> float:
    """4N + attention: forward 2N + 2ShL, backward 2N + 4ShL; no gradients of weights."""
    return 4 * matrix_parameters(shape)[0] + 3 * attention_flops(shape, length)


def product_rate(device: str) -> float:
    """Floating-point operations per second of a large bfloat16 product, the best of several."""
    import torch

    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    best = float("inf")
    for _ in range(20):
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


# ---------------------------------------------------------------- contenders (in a child)


class _Steps:
    """Wall seconds of each optimizer step, as a Trainer callback."""

    def __init__(self, device: str) -> None:
        from transformers import TrainerCallback

        outer = self
        self.seconds: list[float] = []
        self.started = 0.0

        class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                _wait(device)
                outer.started = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                _wait(device)
                outer.seconds.append(time.perf_counter() - outer.started)

        self.callback = Clock()

    def tokens_per_second(self, tokens_per_step: int) -> float:
        return tokens_per_step / statistics.median(self.seconds[WARM_UP_STEPS:])


def _arguments(order: dict[str, Any]) -> dict[str, Any]:
    return {
        "output_dir": order["folder"],
        "per_device_train_batch_size": order["per_pass"],
        "gradient_accumulation_steps": max(1, DOCUMENTS_PER_STEP // order["per_pass"]),
        "max_steps": order["steps"],
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": order["device"] == "cpu",
        "gradient_checkpointing": order["checkpointing"],
    }


def _base(order: dict[str, Any]) -> Any:
    """The base in the way of transformers' documentation."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    more: dict[str, Any] = {}
    if order["format"] == "nf4":
        make: Any = BitsAndBytesConfig
        more["quantization_config"] = make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(
        order["base"], dtype=torch.bfloat16, device_map={"": order["device"]},
        local_files_only=True, **more,
    )  # fmt: skip


def plain(order: dict[str, Any]) -> float:
    """transformers' Trainer + PEFT."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainingArguments, default_data_collator

    model = _base(order)
    if order["format"] == "nf4":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=order["checkpointing"]
        )
    elif order["checkpointing"]:
        model.enable_input_require_grads()
    clock = _Steps(order["device"])
    trainer = Trainer(
        model=get_peft_model(model, LoraConfig(**LORA, task_type="CAUSAL_LM")),
        args=TrainingArguments(bf16=order["device"] == "cuda", **_arguments(order)),
        train_dataset=[{"input_ids": d, "labels": d} for d in _documents(order)],
        data_collator=default_data_collator,
        callbacks=[clock.callback],
    )
    trainer.train()
    return clock.tokens_per_second(DOCUMENTS_PER_STEP * order["length"])


def trl(order: dict[str, Any], model: Any = None) -> float:
    """TRL's SFTTrainer; rows are full, so that packing has nothing to join."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    clock = _Steps(order["device"])
    own = model is None
    trainer = SFTTrainer(
        model=_base(order) if own else model,
        processing_class=AutoTokenizer.from_pretrained(order["base"], local_files_only=True),
        args=SFTConfig(
            packing=True,
            max_length=order["length"],
            bf16=order["device"] == "cuda",
            **_arguments(order),
        ),
        train_dataset=Dataset.from_list([{"input_ids": d} for d in _documents(order)]),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM") if own else None,
        callbacks=[clock.callback],
    )
    trainer.train()
    return clock.tokens_per_second(DOCUMENTS_PER_STEP * order["length"])


def unsloth(order: dict[str, Any]) -> float:
    """Unsloth as its notebooks use it."""
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        order["base"],
        max_seq_length=order["length"],
        load_in_4bit=order["format"] == "nf4",
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model, r=LORA["r"], lora_alpha=LORA["lora_alpha"], lora_dropout=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if order["checkpointing"] else False,
    )  # fmt: skip
    return trl(order | {"checkpointing": False}, model)


def ours(order: dict[str, Any]) -> float:
    """hauslm.train."""
    from hauslm.base.files import ProjectFolder
    from hauslm.base.progress import Silent
    from hauslm.data.store import Example, write_store
    from hauslm.records import Corpus, Documents, Split
    from hauslm.scenario import parse
    from hauslm.train.loop import train

    project = ProjectFolder(Path(order["folder"]))
    for split, documents in (("train", _documents(order)), ("validation", _documents(order)[:1])):
        examples = [
            Example(np.array(d, dtype=np.uint32), np.ones(len(d), dtype=bool), {"id": str(i)})
            for i, d in enumerate(documents)
        ]
        write_store(project.work / "prepared" / split, examples)
    training = {
        "method": "qlora" if order["format"] == "nf4" else "lora",
        "max_steps": order["steps"],
        "seq_len": order["length"],
        "micro_batch_size": order["per_pass"],
        "gradient_accumulation_steps": max(1, DOCUMENTS_PER_STEP // order["per_pass"]),
        "learning_rate": 1e-4,
        "activation_checkpointing": "on" if order["checkpointing"] else "off",
        "validate_every_steps": 10**6,
    }
    if order["format"] == "fp8":
        training["base_precision"] = "fp8"
    model = {"base": "random", "path": order["base"]}
    model["quantisation"] = "nf4" if order["format"] == "nf4" else "none"
    none = Split(train=0, validation=0, test=0)
    corpus = Corpus(
        documents=Documents(read=0), documents_split=none, examples=none, tokens=none,
        fingerprint="benchmark",
    )  # fmt: skip
    scenario = parse(json.dumps({"model": model, "adapter": LORA, "training": training}))
    train(scenario, project, plan=None, corpus=corpus, progress=Silent())
    lines = (project.work / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [r for r in map(json.loads, lines) if "tokens_per_second" in r]
    return statistics.median(r["tokens_per_second"] for r in rows[WARM_UP_STEPS:])


def _documents(order: dict[str, Any]) -> list[list[int]]:
    """Full-length documents of random tokens: their cost does not depend on what they say."""
    generator = np.random.default_rng(0)
    count = DOCUMENTS_PER_STEP * order["steps"]
    ids = generator.integers(10, order["vocabulary"], (count, order["length"]))
    return [[int(i) for i in row] for row in ids]


def one(order: dict[str, Any]) -> dict[str, Any]:
    """Run a contender here; exits with OUT_OF_MEMORY when it does not fit."""
    import torch

    cuda = order["device"] == "cuda"
    if cuda and order["cap_gib"]:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, order["cap_gib"] * GIB / total))
    names = {"ours": ours, "plain": plain, "trl": trl, "unsloth": unsloth}
    try:
        speed = names[order["contender"]](order)
    except Exception as error:
        if _is_out_of_memory(error):
            sys.exit(OUT_OF_MEMORY)
        raise
    peak = torch.cuda.max_memory_allocated() / GIB if cuda else None
    return {"tokens_per_second": speed, "peak_gib": peak}


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's own error, or ours that says so (H640)."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or getattr(error, "code", "") == "H640"


# ---------------------------------------------------------------- the grid


def obstacle(contender: str, form: str, device: str, pythons: dict[str, str | None]) -> str | None:
    """Why a cell is empty; None: it is not."""
    if pythons[contender] is None:
        return f"{contender} is not installed"
    if form == "fp8" and contender != "ours":
        return f"{contender} has no frozen base in fp8"
    if form == "fp8":
        from hauslm.scenario import Scenario

        training = Scenario.model_fields["training"].annotation
        if "base_precision" not in getattr(training, "model_fields", {}):
            return "this version of hauslm has no training.base_precision"
    if device == "cpu" and form == "fp8":
        return "fp8 products are for the GPU"
    if device == "cpu" and contender == "unsloth":
        return "unsloth needs a GPU"
    return None


def save_random(shape: Architecture, folder: Path, device: str) -> Path:
    """Random weights of that shape in bfloat16, with the embedded tokenizer, as a local folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from hauslm import embedded

    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    config = AutoConfig.for_model(**config_of(shape))
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(
    order: dict[str, Any], python: str, ladder: tuple[tuple[int, bool], ...]
) -> dict[str, Any]:
    """The first rung of the ladder that fits."""
    for per_pass, checkpointing in ladder:
        with tempfile.TemporaryDirectory() as folder:
            full = order | {"per_pass": per_pass, "checkpointing": checkpointing, "folder": folder}
            child = subprocess.run(
                [python, __file__, "--one", json.dumps(full)], capture_output=True, check=False
            )
        rung = {"documents_per_pass": per_pass, "checkpointing": checkpointing}
        if child.returncode == 0:
            return rung | json.loads(child.stdout.decode().splitlines()[-1])
        if child.returncode != OUT_OF_MEMORY:
            return rung | {"failed": child.stderr.decode().strip().splitlines()[-1][:300]}
    return {"failed": "out of memory on every rung"}


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Every cell of the grid; empty ones say why."""
    device = "cpu" if asked.dry_run else "cuda"
    pythons: dict[str, str | None] = {"ours": sys.executable, "plain": sys.executable}
    for name, given in (("trl", asked.trl_python), ("unsloth", asked.unsloth_python)):
        own = sys.executable if importlib.util.find_spec(name) else None
        pythons[name] = str(given) if given else own
    rate = product_rate(device)
    rows: list[dict[str, Any]] = []
    shapes = {"tiny-llama": TINY} if asked.dry_run else {m: _shape(m) for m in asked.models}
    for model, shape in shapes.items():
        with tempfile.TemporaryDirectory() as temporary:
            base = save_random(shape, Path(temporary) / "base", device)
            for length, cap, form, contender in (
                (s, c, f, n)
                for s in asked.lengths for c in asked.caps
                for f in asked.formats for n in asked.contenders
            ):  # fmt: skip
                cell = {"model": model, "length": length, "cap_gib": cap, "format": form}
                cell["contender"] = contender
                why = obstacle(contender, form, device, pythons)
                if why:
                    rows.append(cell | {"absent": why})
                    continue
                order = cell | {
                    "base": str(base), "device": device, "steps": asked.steps,
                    "vocabulary": min(shape.vocab_size, 6000),
                }  # fmt: skip
                row = measure(order, pythons[contender] or sys.executable, asked.ladder)
                if "tokens_per_second" in row:
                    needed = row["tokens_per_second"] * flops_per_token(shape, length)
                    row["fraction_of_limit"] = needed / rate
                rows.append(cell | row)
                print(rows[-1], file=sys.stderr, flush=True)
    return {
        "machine": train_cpu.machine(0) | {"gpu": _gpu()},
        "dry_run": asked.dry_run,
        "product_tflops": rate / 1e12,
        "rows": rows,
    }


def _shape(model: str) -> Architecture:
    shape = load.model(model).architecture
    if shape is None:
        raise SystemExit(f"the catalog does not know the shape of {model}")
    return shape


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=["mistral-7b-v0.3", "llama-3.1-8b"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 4096])
    parser.add_argument("--caps", nargs="+", type=float, default=[0.0, 24.0], help="GiB; 0: none")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trl-python", type=Path)
    parser.add_argument("--unsloth-python", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the processor")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(json.loads(asked.one))))
        return
    asked.ladder = LADDER
    if asked.dry_run:
        asked.lengths, asked.caps, asked.steps, asked.ladder = [64], [0.0], 3, LADDER[1:2]
    elif _gpu() is None:
        raise SystemExit("There is no CUDA device here; --dry-run tests the script without one.")
    result = run(asked)
    print(json.dumps(result["rows"], indent=1))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
