"""How much faster is hauslm's training than what people run today, on this CPU, on real documents?

    python benchmarks/train_cpu.py [--base embedded|mistral-30m] [--data FOLDER] [--tokens 10000] [--rounds 3]
                                   [--trl-python PATH] [--lock FILE] [--json FILE]

Same base, same documents, same LoRA, same documents per optimizer step, in turn, several rounds:

    padded        transformers' Trainer + PEFT, every document padded to the full length
    dynamic       the same, padded to the longest of its batch (what most scripts do: the lab's path)
    trl           TRL's SFTTrainer with packing
    trl-unpacked  TRL's SFTTrainer without
    ours          hauslm.train

Each contender runs in a process of its own. Counted are real tokens per second of the optimizer steps
(no padding), the same per second of processor time (for machines that are not quiet), peak resident
memory, and the validation loss after the same documents once, always by plain transformers and PEFT in
float32. TRL may live in an environment of its own (`--trl-python`); where it is nowhere it is left out and
the result says so. `--lock` holds a file lock during each run, so that two benchmarks never run at once.
The result is JSON with machine and versions; scripts/performance.py makes docs/performance.md of it.

The documents are a corpus as a research group has it: of each article the title with the abstract to
write (an instruction example), its sections (long ones cut into pieces), and the sentences of one
structured abstract with the role to name (instruction examples of some sixty tokens). Without the
shared data: paragraphs of the embedded documents.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

CONTENDERS = ("padded", "dynamic", "trl", "trl-unpacked", "ours")
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
SEQ_LEN = 1024
DOCUMENTS_PER_STEP = 8
DOCUMENTS_PER_PASS = 8
ROWS_PER_PASS = 2  # hauslm's own choice at this length (presets.MICRO_BATCH_TOKENS_CPU)
LEARNING_RATE = 1e-3
WARM_UP = 0.03
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BASES = ("embedded", "mistral-30m")
# 31 million parameters with the embedded tokenizer's vocabulary: hidden 512, 8 layers.
MISTRAL_30M = {
    "hidden_size": 512,
    "intermediate_size": 1792,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
NOT_TRIED = {
    "llama-factory": "LLaMA-Factory 0.9.5 does not run beside this stack: it asks for transformers 5.6, "
    "huggingface_hub below 2 and peft 0.18, and imports torchaudio, of which no build for this torch was at hand"
}


class Document(TypedDict):
    """One document: token ids, and the labels (-100 where nobody is asked)."""

    input_ids: list[int]
    labels: list[int]


# ---------------------------------------------------------------- documents


def articles(
    folder: Path, generator: np.random.Generator
) -> tuple[list[list[tuple[str, str]]], str]:
    """Groups of (prompt, text) pairs, one group per article, and what they are."""
    from hauslm import embedded

    corpus = folder / "corpus_crops" / "train.jsonl"
    roles_file = folder / "task_roles_structured_abstracts" / "train.jsonl"
    if not corpus.is_file() or not roles_file.is_file():
        paths = sorted(embedded.DOCUMENTS.glob("*.md"))
        groups = [
            [("", p) for p in path.read_text(encoding="utf-8").split("\n\n") if len(p) > 40]
            for path in paths
        ]
        return groups, "embedded documents, paragraphs"
    roles = [json.loads(line) for line in roles_file.read_text(encoding="utf-8").splitlines()]
    lines = corpus.read_text(encoding="utf-8").splitlines()
    groups = []
    for place, index in enumerate(generator.permutation(len(lines))):
        article, abstract = json.loads(lines[index]), roles[place % len(roles)]
        first, *rest = article["text"].split("\n\n")[1:]
        group = [(f"Write the abstract.\nTitle: {article['title']}\nAbstract: ", first)]
        group += [("", section) for section in rest if len(section) > 40]
        group += [
            (f"Which role has this sentence of an abstract?\n{sentence}\nRole: ", str(label))
            for sentence, label in zip(abstract["sentences"], abstract["labels"], strict=True)
        ]
        groups.append(group)
    name = (
        "corpus_crops and task_roles_structured_abstracts: title to abstract, sections "
        f"(pieces of at most {SEQ_LEN} tokens), sentence to role"
    )
    return groups, name


def tokenised(folder: Path, tokens: int) -> dict[str, Any]:
    """Documents of at most SEQ_LEN tokens, about `tokens` to train on and a third more to validate."""
    from transformers import AutoTokenizer

    from hauslm import embedded

    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    generator = np.random.default_rng(0)
    groups, name = articles(folder, generator)
    found: list[Document] = []
    for group in groups:
        for prompt, text in group:
            asked = tokenizer(prompt, verbose=False)["input_ids"] if prompt else []
            told = tokenizer(text, add_special_tokens=not prompt, verbose=False)["input_ids"]
            ids = [*asked, *told, tokenizer.eos_token_id]
            labels = [-100] * len(asked) + ids[len(asked) :]
            found += [
                Document(input_ids=ids[i : i + SEQ_LEN], labels=labels[i : i + SEQ_LEN])
                for i in range(0, len(ids), SEQ_LEN)
                if len(ids) - i > 8
            ]
        if sum(len(d["input_ids"]) for d in found) > tokens * 1.5:
            break
    parts: dict[str, list[Document]] = {"train": [], "validation": []}
    count = 0
    for index in generator.permutation(len(found)):
        part = "train" if count < tokens else "validation"
        count += len(found[index]["input_ids"])
        if count > tokens * 4 / 3 and parts["validation"]:
            break
        parts[part].append(found[index])
    return {"name": name, **parts}


def base_folder(name: str, folder: Path) -> Path:
    """The base as a local folder; the random one is made there, in bfloat16 like the embedded one."""
    from hauslm import embedded

    if name == "embedded":
        return embedded.MODEL
    return random_mistral(MISTRAL_30M, folder)


def random_mistral(shape: dict[str, int], folder: Path, dtype: str = "bfloat16") -> Path:
    """A random Mistral of that shape with the embedded tokenizer, as a local folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig

    from hauslm import embedded

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)
    own = json.loads((embedded.MODEL / "config.json").read_text(encoding="utf-8"))
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "sliding_window")
    config = MistralConfig(**shape, **{k: own[k] for k in kept}, max_position_embeddings=4096)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- contenders


def _clock() -> Any:
    """A Trainer callback that sums wall and processor seconds of the optimizer steps."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
        seconds, cpu, started, cpu_started = 0.0, 0.0, 0.0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started, self.cpu_started = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds += time.perf_counter() - self.started
            self.cpu += time.process_time() - self.cpu_started

    return Clock()


def _shared_arguments(folder: Path) -> dict[str, Any]:
    """What both Trainers are told alike."""
    return {
        "output_dir": str(folder / "trainer"),
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "cosine",
        "warmup_steps": WARM_UP,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def _result(clock: Any, documents: dict[str, Any]) -> dict[str, Any]:
    tokens = sum(len(d["input_ids"]) for d in documents["train"])
    return {"seconds": clock.seconds, "cpu_seconds": clock.cpu, "tokens": tokens}


def plain(documents: dict[str, Any], base: Path, folder: Path, *, full: bool) -> dict[str, Any]:
    """Trainer + PEFT as in the tutorials, padding and all."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    before = rss_gib()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, local_files_only=True),
        LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    clock = _clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            per_device_train_batch_size=DOCUMENTS_PER_PASS,
            gradient_accumulation_steps=DOCUMENTS_PER_STEP // DOCUMENTS_PER_PASS,
            **_shared_arguments(folder),
        ),
        train_dataset=documents["train"],
        # Pads labels with -100 as well; its name is historical, nothing in it needs an encoder.
        data_collator=DataCollatorForSeq2Seq(
            tokenizer, padding=True, pad_to_multiple_of=SEQ_LEN if full else None
        ),
        callbacks=[clock],
    )
    trainer.train()
    model.save_pretrained(folder / "adapter")
    return _result(clock, documents) | {"rss_before_gib": before}


def trl(documents: dict[str, Any], base: Path, folder: Path, *, packing: bool) -> dict[str, Any]:
    """TRL's trainer, packed its own way (rows of SEQ_LEN, nothing cut off) or not at all."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    before = rss_gib()
    torch.manual_seed(0)
    per_pass = 1 if packing else DOCUMENTS_PER_PASS
    per_step = _rows_per_step(documents) if packing else DOCUMENTS_PER_STEP
    clock = _clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, local_files_only=True),
        processing_class=AutoTokenizer.from_pretrained(base, local_files_only=True),
        args=SFTConfig(
            packing=packing,
            packing_strategy="bfd_split",
            max_length=SEQ_LEN,
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=max(1, per_step // per_pass),
            bf16=False,  # the weights are bfloat16 already; autocast on top only costs
            gradient_checkpointing=False,  # its default would cost it a third
            **_shared_arguments(folder),
        ),
        train_dataset=Dataset.from_list(documents["train"]),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    return _result(clock, documents) | {"rss_before_gib": before}


def _rows_per_step(documents: dict[str, Any]) -> int:
    """Packed rows that hold about DOCUMENTS_PER_STEP documents."""
    from hauslm.data.pack import pack

    lengths = [len(d["input_ids"]) for d in documents["train"]]
    rows = len(pack(lengths, SEQ_LEN, 0, 0))
    return max(1, round(DOCUMENTS_PER_STEP * rows / len(lengths)))


def ours(documents: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """hauslm.train on the same documents."""
    from hauslm.base.files import ProjectFolder
    from hauslm.base.progress import Silent
    from hauslm.data.store import Example, write_store
    from hauslm.records import Corpus, Documents, Split
    from hauslm.scenario import parse
    from hauslm.train import inputs, leg, trainer  # noqa: F401 - loaded before memory is read
    from hauslm.train.loop import train

    project = ProjectFolder(folder)
    for split in ("train", "validation"):
        examples = [
            Example(
                np.array(d["input_ids"], dtype=np.uint32),
                np.array(d["labels"]) != -100,
                {"id": str(i)},
            )
            for i, d in enumerate(documents[split])
        ]
        write_store(project.work / "prepared" / split, examples)
    per_step = _rows_per_step(documents)
    # What does not divide the step would make it longer, and the steps fewer than the others have.
    micro = next(n for n in range(min(ROWS_PER_PASS, per_step), 0, -1) if per_step % n == 0)
    scenario = parse(
        json.dumps(
            {
                "model": {"base": "benchmark", "path": str(base)},
                "adapter": LORA,
                "training": {
                    "seq_len": SEQ_LEN,
                    "learning_rate": LEARNING_RATE,
                    "lr_scheduler_type": "cosine",
                    "warmup_ratio": WARM_UP,
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
    before = rss_gib()
    run = train(scenario, project, plan=None, corpus=corpus, progress=Silent())
    lines = (project.work / "train" / "metrics.jsonl").read_text().splitlines()
    cpu = sum(json.loads(line).get("cpu_seconds", 0.0) for line in lines)
    return {
        "seconds": run.tokens / run.tokens_per_second.value,
        "cpu_seconds": cpu,
        "tokens": run.tokens,
        "steps": run.steps,
        "rss_before_gib": before,
    }


def rss_gib() -> float:
    """Resident memory now."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / (1 << 20)
    return 0.0


def validation_loss(documents: dict[str, Any], base: Path, adapter: Path | None) -> float:
    """Mean loss of plain transformers + PEFT over the held-out documents, float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    total = count = 0.0
    with torch.no_grad():
        for document in documents["validation"]:
            ids, labels = torch.tensor([document["input_ids"]]), torch.tensor([document["labels"]])
            counted = int((labels[:, 1:] != -100).sum())
            if counted:
                loss = float(model(input_ids=ids, labels=labels, use_cache=False).loss)
                total, count = total + loss * counted, count + counted
    return total / count


def one(name: str, documents_file: Path, base: Path, threads: int) -> dict[str, Any]:
    """Run a contender here and measure it."""
    if name == "ours":
        from hauslm.train import threads as waiting

        waiting.settle()  # as the command does, before torch is loaded
    import resource

    import torch

    torch.set_num_threads(threads)
    documents = json.loads(documents_file.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name in ("padded", "dynamic"):
            result = plain(documents, base, folder, full=name == "padded")
        elif name.startswith("trl"):
            result = trl(documents, base, folder, packing=name == "trl")
        else:
            result = ours(documents, base, folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        result["peak_rss_gib"] = peak
        result["working_gib"] = peak - result.pop("rss_before_gib")
        result["validation_loss"] = validation_loss(documents, base, folder / "adapter")
    result["tokens_per_second"] = result["tokens"] / result["seconds"]
    result["tokens_per_cpu_second"] = result["tokens"] / result["cpu_seconds"]
    return result


# ---------------------------------------------------------------- rounds


def _python_of(name: str, trl_python: Path | None) -> str | None:
    """The interpreter that can run a contender; None: TRL is nowhere."""
    if not name.startswith("trl"):
        return sys.executable
    if trl_python is not None:
        return str(trl_python)
    return sys.executable if importlib.util.find_spec("trl") else None


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turn, `rounds` times."""
    pythons = {n: _python_of(n, arguments.trl_python) for n in arguments.contenders}
    names = [n for n, python in pythons.items() if python]
    documents = tokenised(arguments.data, arguments.tokens)
    lengths = [len(d["input_ids"]) for d in documents["train"]]
    counted = sum(x != -100 for d in documents["train"] for x in d["labels"])
    about = {
        "name": documents["name"],
        "count": len(lengths),
        "tokens": sum(lengths),
        "labels": counted,
        "length_quartiles": [float(q) for q in np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1])],
        "seq_len": SEQ_LEN,
        "per_step": DOCUMENTS_PER_STEP,
    }
    rows = _earlier(arguments, about, names)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "documents.json"
        file.write_text(json.dumps(documents))
        base = base_folder(arguments.base, Path(temporary) / "base")
        untrained = validation_loss(documents, base, None)
        for _ in range(arguments.rounds):
            this = {}
            for name in names:
                this[name] = _in_child(pythons[name] or sys.executable, name, file, base, arguments)
                print(f"{name}: {this[name]['tokens_per_second']:,.0f} tokens/s", file=sys.stderr)
            for name in names:
                rows[name].append(this[name])
            result = {
                "machine": machine(arguments.threads, arguments.trl_python),
                "base": arguments.base,
                "documents": about,
                "rounds": len(rows["ours"]),
                "learning_rate": arguments.learning_rate,
                "untrained_validation_loss": untrained,
                "contenders": {n: summary(r, rows["ours"]) for n, r in rows.items()},
                "absent": {
                    n: "TRL is not installed" for n in arguments.contenders if n not in names
                }
                | NOT_TRIED,
                "rows": rows,
            }
            _keep(arguments.json, result)  # after every round: a long comparison may be cut short
    return result


def _earlier(
    arguments: argparse.Namespace, about: dict[str, Any], names: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The rounds that `--add` continues: those of the same documents and contenders, else none."""
    if arguments.add and arguments.json and arguments.json.is_file():
        found = json.loads(arguments.json.read_text(encoding="utf-8"))
        if found["documents"] == about and list(found["rows"]) == names:
            rows: dict[str, list[dict[str, Any]]] = found["rows"]
            return rows
    return {n: [] for n in names}


def _keep(path: Path | None, result: dict[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _in_child(
    python: str, name: str, file: Path, base: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One run of one contender in a process of its own."""
    command = [
        python,
        __file__,
        "--one",
        name,
        "--documents",
        str(file),
        "--base-folder",
        str(base),
    ]
    command += ["--threads", str(arguments.threads)]
    command += ["--learning-rate", str(arguments.learning_rate)]
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",  # for all: threads that spin measure the neighbours
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "HF_HUB_OFFLINE": "1",
    }
    with arguments.lock.open("a") if arguments.lock else nullcontext() as lock:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        child = subprocess.run(command, env=environment, capture_output=True, check=False)
    if child.returncode:
        sys.exit(f"{name} failed:\n{child.stderr.decode()[-3000:]}")
    row: dict[str, Any] = json.loads(child.stdout.decode().splitlines()[-1])
    return row


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of each operator's own time in a whole run of ours, the ten largest and the rest."""
    from hauslm.train import threads

    threads.settle()
    import torch

    torch.set_num_threads(arguments.threads)
    documents = tokenised(arguments.data, arguments.tokens)
    with tempfile.TemporaryDirectory() as temporary:
        base = base_folder(arguments.base, Path(temporary) / "base")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            ours(documents, base, Path(temporary) / "project")
    own = {e.key: e.self_cpu_time_total for e in profiled.key_averages()}
    # Trainer and the loader put spans of their own around the operators; what is in them is no operator.
    own = {k: v for k, v in own.items() if k.startswith(("aten::", "_FrozenHead"))}
    total = sum(own.values())
    largest = sorted(own, key=lambda k: -own[k])[:10]
    shares = {k: own[k] / total for k in largest}
    return {
        "machine": machine(arguments.threads),
        "base": arguments.base,
        "operators": shares | {"all others": 1 - sum(shares.values())},
    }


def summary(rows: list[dict[str, Any]], our_rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread of a contender, and of the ratio ours / it, round by round."""

    def figures(key: str) -> dict[str, Any]:
        values = [r[key] for r in rows]
        ratios = [o[key] / v for o, v in zip(our_rows, values, strict=True)]
        return {
            key: statistics.median(values),
            f"{key}_range": [min(values), max(values)],
            f"{key}_ours_over_it": statistics.median(ratios),
            f"{key}_ours_over_it_range": [min(ratios), max(ratios)],
        }

    return {
        **figures("tokens_per_second"),
        **figures("tokens_per_cpu_second"),
        "peak_rss_gib": max(r["peak_rss_gib"] for r in rows),
        "working_gib": max(r["working_gib"] for r in rows),
        "validation_loss": statistics.median(r["validation_loss"] for r in rows),
    }


def machine(threads: int, trl_python: Path | None = None) -> dict[str, Any]:
    """What the figures belong to."""
    processor = platform.processor() or platform.machine()
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            flags = set(line.split(":", 1)[1].split())
            break
    names = ("torch", "transformers", "peft", "accelerate", "trl")
    versions = {n: metadata.version(n) for n in names if importlib.util.find_spec(n)}
    if trl_python is not None:
        asked = "import importlib.metadata as m; print(m.version('trl'))"
        done = subprocess.run([str(trl_python), "-c", asked], capture_output=True, check=False)
        versions["trl"] = done.stdout.decode().strip()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=False,
    )
    return {
        "processor": processor,
        "matrix_units": sorted(flags & {"avx512f", "avx512_bf16", "amx_bf16"}),
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
        f"{result['base']}; {d['name']}: {d['count']} documents, {d['tokens']:,} tokens, "
        f"{d['labels']:,} with a label, lengths {'/'.join(f'{q:.0f}' for q in d['length_quartiles'])}",
        f"{m['processor']}, {m['threads']} threads, load before {m['load_before']:.1f}, {m['date']}",
        f"{'':14}{'tokens/s':>10}{'ours/it':>10}{'range':>14}{'per CPU s':>11}{'ours/it':>9}"
        f"{'peak GiB':>10}{'val loss':>10}",
    ]
    for name, c in result["contenders"].items():
        low, high = c["tokens_per_second_ours_over_it_range"]
        lines.append(
            f"{name:14}{c['tokens_per_second']:>10,.0f}{c['tokens_per_second_ours_over_it']:>10.2f}"
            f"{f'{low:.2f}-{high:.2f}':>14}{c['tokens_per_cpu_second']:>11,.0f}"
            f"{c['tokens_per_cpu_second_ours_over_it']:>9.2f}"
            f"{c['peak_rss_gib']:>10.2f}{c['validation_loss']:>10.3f}"
        )
    lines += [f"{name}: {reason}" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def main() -> None:
    global LEARNING_RATE
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--base", choices=BASES, default="embedded")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE,
        help="peak, the same for all; a higher one where it is to be seen that all learn alike",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--trl-python", type=Path, help="interpreter of an environment with TRL")
    parser.add_argument("--lock", type=Path, help="file that is locked while a contender runs")
    parser.add_argument(
        "--profile", action="store_true", help="where a run of ours spends its time"
    )
    parser.add_argument("--add", action="store_true", help="further rounds to those in --json")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base-folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    LEARNING_RATE = arguments.learning_rate
    if arguments.one:
        row = one(arguments.one, arguments.documents, arguments.base_folder, arguments.threads)
        print(json.dumps(row))
        return
    if "ours" not in arguments.contenders:
        parser.error("ours must be among the contenders")
    result = profile(arguments) if arguments.profile else compare(arguments)
    print(json.dumps(result["operators"], indent=1) if arguments.profile else text(result))
    _keep(arguments.json, result)


if __name__ == "__main__":
    main()
