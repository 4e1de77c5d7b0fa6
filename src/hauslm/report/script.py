"""The LoRA code as a script of its own: transformers and PEFT alone, without hauslm.

Written from the project file, so that its `adapter_config.json` carries the same values as `hauslm
train`. It reads text files from the documents folder, cuts them into blocks without dropping anything,
trains with `Trainer` and `TrainingArguments`, and saves adapter and tokenizer.
"""

from __future__ import annotations

from hauslm.scenario import Scenario

_TEMPLATE = '''"""LoRA fine-tuning on your own texts: python {file_name} --base FOLDER --documents FOLDER --out FOLDER"""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model{prepare_import}
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,{quant_import}
    Trainer,
    TrainingArguments,
)


class Blocks(Dataset):
    """All texts, one after the other with an end token between, in blocks of `seq_len` tokens."""

    def __init__(self, tokenizer, files, seq_len):
        ids = []
        for file in files:
            ids += tokenizer(file.read_text(encoding="utf-8"))["input_ids"] + [tokenizer.eos_token_id]
        self.blocks = [ids[i : i + seq_len] for i in range(0, len(ids), seq_len)]

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, index):
        return self.blocks[index]


def collate(tokenizer):
    """Pad the last block; padding never counts in the loss (label -100)."""

    def batch(blocks):
        longest = max(map(len, blocks))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        rest = [longest - len(b) for b in blocks]
        return {{
            "input_ids": torch.tensor([b + [pad] * n for b, n in zip(blocks, rest)]),
            "attention_mask": torch.tensor([[1] * len(b) + [0] * n for b, n in zip(blocks, rest)]),
            "labels": torch.tensor([b + [-100] * n for b, n in zip(blocks, rest)]),
        }}

    return batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default={base!r}, help="name or folder of the base model")
    parser.add_argument("--documents", type=Path, default=Path({documents!r}))
    parser.add_argument("--out", type=Path, default=Path("adapter"))
    parser.add_argument("--seq-len", type=int, default={seq_len})
    parser.add_argument("--max-steps", type=int, default=-1)
    arguments = parser.parse_args()

    # Load model and tokenizer
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    model = AutoModelForCausalLM.from_pretrained(arguments.base{load_arguments})
{prepare}
    # Define the LoRA configuration
    lora_config = LoraConfig(
        r={r},  # rank of the low-rank matrices
        lora_alpha={lora_alpha},  # scaling factor: the update is scaled by alpha / r
        target_modules={target_modules!r},
        lora_dropout={lora_dropout},
        bias="none",
        task_type="CAUSAL_LM",
    )

    # Attach LoRA to the model
    model = get_peft_model(model, lora_config)
    model.print_trainable_parameters()

    # Train on the team's texts
    files = sorted(p for p in arguments.documents.rglob("*") if p.suffix in (".txt", ".md"))
    if not files:
        parser.error(f"no .txt or .md files below {{arguments.documents}}")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.out / "checkpoints"),
            num_train_epochs={epochs},
            max_steps=arguments.max_steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=8,
            learning_rate={learning_rate},
            lr_scheduler_type={scheduler!r},
            warmup_steps={warmup},
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            seed={seed},
        ),
        train_dataset=Blocks(tokenizer, files, arguments.seq_len),
        data_collator=collate(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()

    # Save and share adapter and tokenizer
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
'''

# 2e-4 for LoRA and QLoRA of 7B models: QLoRA's released scripts (github.com/artidoro/qlora, 2023).
DEFAULT_LEARNING_RATE = 2e-4


def _public_name(base: str) -> str:
    """The Hugging Face name of a catalog model; a folder or 'embedded' stays what it is."""
    from hauslm import embedded
    from hauslm.base.errors import UsageError
    from hauslm.catalog.load import model

    if base == "embedded":
        return str(embedded.MODEL)
    try:
        return model(base).hf_id or base
    except UsageError:
        return base


def lab_script(scenario: Scenario, file_name: str = "lora_training.py") -> str:
    """The script's text for this project file."""
    values = scenario.adapter.resolved()
    small = scenario.model.base == "embedded"
    quantised = not small and scenario.model.quantisation in ("auto", "nf4")
    base = scenario.model.path or _public_name(scenario.model.base)
    quant = (
        ",\n        quantization_config=BitsAndBytesConfig(\n"
        '            load_in_4bit=True,\n            bnb_4bit_quant_type="nf4",\n'
        "            bnb_4bit_use_double_quant=True,\n            bnb_4bit_compute_dtype=torch.bfloat16,\n        ),\n    "
    )
    prepare = (
        "    # 4-bit weights are frozen; recomputing activations makes 2,048 tokens fit 24 GB\n"
        "    model.gradient_checkpointing_enable()\n    model.enable_input_require_grads()\n"
    )
    return _TEMPLATE.format(
        file_name=file_name,
        prepare_import="",
        quant_import="\n    BitsAndBytesConfig," if quantised else "",
        load_arguments=quant if quantised else "",
        prepare=prepare if quantised else "",
        base=base,
        documents=scenario.documents.paths[0] if scenario.documents.paths else "documents",
        seq_len=scenario.training.seq_len or (512 if small else 2048),
        r=values["r"],
        lora_alpha=values["lora_alpha"],
        target_modules=values["target_modules"],
        lora_dropout=values["lora_dropout"],
        epochs=scenario.training.epochs,
        learning_rate=scenario.training.learning_rate or DEFAULT_LEARNING_RATE,
        scheduler=scenario.training.lr_scheduler_type,
        warmup=scenario.training.warmup_ratio,
        seed=scenario.training.seed,
    )
