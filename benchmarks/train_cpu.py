"""How much faster is hauslm's training than plain Trainer + PEFT, on this CPU, on real documents?

    python benchmarks/train_cpu.py [--data FOLDER] [--tokens 40000] [--rounds 3] [--json FILE]

Same base, same documents, same LoRA, same documents per optimizer step, in turn, several rounds:

    padded    transformers' Trainer + PEFT, every document padded to the full length
    dynamic   the same, padded to the longest of its batch (what most scripts do)
    trl       TRL's SFTTrainer with packing, if it is installed
    ours      hauslm.train

Each contender runs in a process of its own. Counted are real tokens per second of the optimizer steps
(no padding), the same per second of processor time (for machines that are not quiet), peak resident
memory, and the validation loss after the same documents once. The result is JSON with machine and
versions, and a short text.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

CONTENDERS = ("padded", "dynamic", "trl", "ours")
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
SEQ_LEN = 512
DOCUMENTS_PER_STEP = 16
DOCUMENTS_PER_PASS = 8
LEARNING_RATE = 1e-3
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# ---------------------------------------------------------------- documents


def texts(folder: Path, whole: bool) -> tuple[list[str], str]:
    """Paragraphs (or whole articles) of the crop corpus, else of the embedded documents."""
    from hauslm import embedded

    corpus = folder / "corpus_crops" / "train.jsonl"
    if corpus.is_file():
        lines = corpus.read_text(encoding="utf-8").splitlines()
        articles, name = [json.loads(line)["text"] for line in lines], "corpus_crops"
    else:
        paths = sorted(embedded.DOCUMENTS.glob("*.md"))
        articles, name = [p.read_text(encoding="utf-8") for p in paths], "embedded documents"
    if whole:
        return articles, name + ", whole articles"
    parts = [p for a in articles for p in a.split("\n\n") if len(p) > 40]
    return parts, name + ", paragraphs"


def tokenised(folder: Path, tokens: int, whole: bool) -> dict[str, Any]:
    """Documents as token ids, at most SEQ_LEN each (longer ones in pieces), about `tokens` in all."""
    from transformers import AutoTokenizer

    from hauslm import embedded

    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    found, name = texts(folder, whole)
    pieces: list[list[int]] = []
    for index in np.random.default_rng(0).permutation(len(found)):
        ids = [*tokenizer(found[index], verbose=False)["input_ids"], tokenizer.eos_token_id]
        pieces += [ids[i : i + SEQ_LEN] for i in range(0, len(ids), SEQ_LEN)]
        if sum(map(len, pieces)) > tokens * 1.1:
            break
    pieces = [p for p in pieces if len(p) > 8]
    held = max(1, len(pieces) // 11)
    return {"name": name, "train": pieces[held:], "validation": pieces[:held]}


# ---------------------------------------------------------------- contenders


def plain(documents: dict[str, Any], folder: Path, *, full_length: bool) -> dict[str, Any]:
    """Trainer + PEFT as in the tutorials, padding and all."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from hauslm import embedded

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(embedded.MODEL, local_files_only=True)
    model = get_peft_model(base, LoraConfig(**LORA, task_type="CAUSAL_LM"))

    class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
        seconds, cpu, started, cpu_started = 0.0, 0.0, 0.0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started, self.cpu_started = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds += time.perf_counter() - self.started
            self.cpu += time.process_time() - self.cpu_started

    clock = Clock()
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm=False, pad_to_multiple_of=SEQ_LEN if full_length else None
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=DOCUMENTS_PER_PASS,
            gradient_accumulation_steps=DOCUMENTS_PER_STEP // DOCUMENTS_PER_PASS,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=[{"input_ids": d} for d in documents["train"]],
        data_collator=collator,
        callbacks=[clock],
    )
    trainer.train()
    model.save_pretrained(folder / "adapter")
    tokens = sum(map(len, documents["train"]))
    return {"seconds": clock.seconds, "cpu_seconds": clock.cpu, "tokens": tokens}


def trl(documents: dict[str, Any], folder: Path) -> dict[str, Any]:
    """TRL's trainer with its own packing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from hauslm import embedded

    torch.manual_seed(0)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(embedded.MODEL, local_files_only=True),
        processing_class=AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            packing=True,
            packing_strategy="bfd_split",
            max_length=SEQ_LEN,
            per_device_train_batch_size=4,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"input_ids": d} for d in documents["train"]]),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    started, cpu_started = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    trainer.model.save_pretrained(folder / "adapter")
    tokens = sum(map(len, documents["train"]))
    return {"seconds": seconds, "cpu_seconds": cpu, "tokens": tokens}


def ours(documents: dict[str, Any], folder: Path) -> dict[str, Any]:
    """hauslm.train on the same documents."""
    from hauslm.base.files import ProjectFolder
    from hauslm.base.progress import Silent
    from hauslm.data.pack import pack
    from hauslm.data.store import Example, write_store
    from hauslm.records import Corpus, Documents, Split
    from hauslm.scenario import parse
    from hauslm.train.loop import train

    project = ProjectFolder(folder)
    for split in ("train", "validation"):
        examples = [
            Example(np.array(d, dtype=np.uint32), np.ones(len(d), dtype=bool), {"id": str(i)})
            for i, d in enumerate(documents[split])
        ]
        write_store(project.work / "prepared" / split, examples)
    bins = len(pack([len(d) for d in documents["train"]], SEQ_LEN, 0, 0))
    per_step = max(1, round(DOCUMENTS_PER_STEP * bins / len(documents["train"])))
    micro = min(4, per_step)
    scenario = parse(
        json.dumps(
            {
                "adapter": LORA,
                "training": {
                    "seq_len": SEQ_LEN,
                    "learning_rate": LEARNING_RATE,
                    "micro_batch_size": micro,
                    "gradient_accumulation_steps": max(1, round(per_step / micro)),
                    "validate_every_steps": 10**6,
                },
            }
        )
    )
    none = Split(train=0, validation=0, test=0)
    corpus = Corpus(
        documents=Documents(read=0),
        documents_split=none,
        examples=none,
        tokens=none,
        fingerprint="benchmark",
    )
    run = train(scenario, project, plan=None, corpus=corpus, progress=Silent())
    lines = (project.work / "train" / "metrics.jsonl").read_text().splitlines()
    cpu = sum(json.loads(line).get("cpu_seconds", 0.0) for line in lines)
    seconds = run.tokens / run.tokens_per_second.value
    return {"seconds": seconds, "cpu_seconds": cpu, "tokens": run.tokens}


def validation_loss(documents: dict[str, Any], adapter: Path) -> float:
    """Mean loss of plain transformers + PEFT over the held-out documents, float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from hauslm import embedded

    base = AutoModelForCausalLM.from_pretrained(
        embedded.MODEL, dtype=torch.float32, local_files_only=True
    )
    model = PeftModel.from_pretrained(base, adapter).eval()
    total = count = 0.0
    with torch.no_grad():
        for document in documents["validation"]:
            ids = torch.tensor([document])
            loss = float(model(input_ids=ids, labels=ids, use_cache=False).loss)
            total, count = total + loss * (len(document) - 1), count + len(document) - 1
    return total / count


def one(name: str, documents_file: Path, threads: int) -> dict[str, Any]:
    """Run a contender here and measure it."""
    import resource

    import torch

    torch.set_num_threads(threads)
    documents = json.loads(documents_file.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name in ("padded", "dynamic"):
            result = plain(documents, folder, full_length=name == "padded")
        else:
            result = {"trl": trl, "ours": ours}[name](documents, folder)
        result["peak_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        result["validation_loss"] = validation_loss(documents, folder / "adapter")
    result["tokens_per_second"] = result["tokens"] / result["seconds"]
    result["tokens_per_cpu_second"] = result["tokens"] / result["cpu_seconds"]
    return result


# ---------------------------------------------------------------- rounds


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turn, `rounds` times."""
    names = [n for n in arguments.contenders if n != "trl" or importlib.util.find_spec("trl")]
    documents = tokenised(arguments.data, arguments.tokens, arguments.whole)
    lengths = [len(d) for d in documents["train"]]
    rows: dict[str, list[dict[str, Any]]] = {n: [] for n in names}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "documents.json"
        file.write_text(json.dumps(documents))
        for _ in range(arguments.rounds):
            for name in names:
                command = [sys.executable, __file__, "--one", name, "--documents", str(file)]
                command += ["--threads", str(arguments.threads)]
                environment = {
                    "OMP_WAIT_POLICY": "PASSIVE",  # for all: threads that spin measure the neighbours
                    **os.environ,
                    "OMP_NUM_THREADS": str(arguments.threads),
                }
                child = subprocess.run(command, env=environment, capture_output=True, check=False)
                if child.returncode:
                    sys.exit(f"{name} failed:\n{child.stderr.decode()[-3000:]}")
                rows[name].append(json.loads(child.stdout.decode().splitlines()[-1]))
    return {
        "machine": machine(arguments.threads),
        "documents": {
            "name": documents["name"],
            "count": len(lengths),
            "tokens": sum(lengths),
            "length_quartiles": [float(q) for q in np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1])],
            "seq_len": SEQ_LEN,
            "per_step": DOCUMENTS_PER_STEP,
        },
        "contenders": {n: summary(r, rows["ours"]) for n, r in rows.items()},
        "absent": [n for n in arguments.contenders if n not in names],
    }


def summary(rows: list[dict[str, Any]], our_rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread of a contender, and of the ratio ours / it, round by round."""
    speeds = [r["tokens_per_second"] for r in rows]
    ratios = [o["tokens_per_second"] / s for o, s in zip(our_rows, speeds, strict=True)]
    return {
        "tokens_per_second": statistics.median(speeds),
        "tokens_per_second_range": [min(speeds), max(speeds)],
        "ours_is_faster_by": statistics.median(ratios),
        "ours_is_faster_by_range": [min(ratios), max(ratios)],
        "tokens_per_cpu_second": statistics.median(r["tokens_per_cpu_second"] for r in rows),
        "ours_per_cpu_second_is_faster_by": statistics.median(
            o["tokens_per_cpu_second"] / r["tokens_per_cpu_second"]
            for o, r in zip(our_rows, rows, strict=True)
        ),
        "peak_rss_gib": max(r["peak_rss_gib"] for r in rows),
        "validation_loss": statistics.median(r["validation_loss"] for r in rows),
    }


def machine(threads: int) -> dict[str, Any]:
    """What the figures belong to."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    names = ("torch", "transformers", "peft", "accelerate", "trl")
    versions = {n: metadata.version(n) for n in names if importlib.util.find_spec(n)}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=False,
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "versions": versions,
        "commit": commit.stdout.decode().strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def text(result: dict[str, Any]) -> str:
    """The table for a reader."""
    d, m = result["documents"], result["machine"]
    lines = [
        f"{d['name']}: {d['count']} documents, {d['tokens']:,} tokens, "
        f"lengths (quartiles) {'/'.join(f'{q:.0f}' for q in d['length_quartiles'])}",
        f"{m['processor']}, {m['threads']} threads, load before {m['load_before']:.1f}, {m['date']}",
        f"{'':10}{'tokens/s':>10}{'ours/it':>10}{'range':>14}{'per CPU s':>11}{'ours/it':>9}"
        f"{'peak GiB':>10}{'val loss':>10}",
    ]
    for name, c in result["contenders"].items():
        low, high = c["ours_is_faster_by_range"]
        lines.append(
            f"{name:10}{c['tokens_per_second']:>10,.0f}{c['ours_is_faster_by']:>10.2f}"
            f"{f'{low:.2f}-{high:.2f}':>14}{c['tokens_per_cpu_second']:>11,.0f}"
            f"{c['ours_per_cpu_second_is_faster_by']:>9.2f}"
            f"{c['peak_rss_gib']:>10.2f}{c['validation_loss']:>10.3f}"
        )
    lines += [f"{name:10}not installed, not measured" for name in result["absent"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--tokens", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--whole", action="store_true", help="whole articles instead of paragraphs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.documents, arguments.threads)))
        return
    if "ours" not in arguments.contenders:
        parser.error("ours must be among the contenders")
    result = compare(arguments)
    print(text(result))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
