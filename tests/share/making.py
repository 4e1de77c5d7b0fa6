"""A small adapter, its configuration and the records of a run: what the share tests are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from hauslm.base.files import ProjectFolder, sha256_bytes
from hauslm.base.quantity import measured
from hauslm.records import AdapterFile, Corpus, Documents, Loss, Run, Said, Sample, Split

HIDDEN, LAYERS, RANK = 16, 2, 4
BASE = {
    "model_type": "mistral",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
}
SECRET = "a sentence of a training document"


def tensors(**replace: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for layer in range(LAYERS):
        for module, width in (("q_proj", HIDDEN), ("v_proj", HIDDEN // 2)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            out[f"{name}.lora_A.weight"] = rng.normal(size=(RANK, HIDDEN)).astype(np.float32)
            out[f"{name}.lora_B.weight"] = rng.normal(size=(width, RANK)).astype(np.float32)
    return out | replace


def config(**replace: object) -> dict[str, object]:
    values: dict[str, object] = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "/home/anna/secret/place",
    }
    return values | replace


def adapter(folder: Path, **replace: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config(**replace)))
    (folder / "adapter_model.safetensors").write_bytes(save(tensors()))
    return folder


def records(folder: ProjectFolder) -> tuple[Run, Corpus]:
    weights = (folder.adapter / "adapter_model.safetensors").read_bytes()
    run = Run(
        created="2026-11-24T12:00:00+00:00",
        adapter=AdapterFile(path="adapter", sha256=sha256_bytes(weights), parameters=7, config=config()),
        base={"id": "embedded", "path": "x", "sha256": "0" * 64},
        method="lora", steps=1, epochs=1, tokens=10,
        tokens_per_second=measured(1, "tokens/s", "2026-11-24"),
        peak_memory_gib=measured(1, "GiB", "2026-11-24"),
        seconds=1, loss=Loss(first=2, last=1), determinism="bitwise",
    )  # fmt: skip
    one = Split(train=3, validation=1, test=1)
    corpus = Corpus(
        created="2026-11-24T12:00:00+00:00",
        documents=Documents(read=5, by_language={"en": 5}),
        documents_split=one, examples=one, tokens=one, fingerprint="f" * 64, rights={"open": 5},
        samples=(Sample(id="s", pieces=((SECRET, True),)),), checks=(Said(text=SECRET),),
    )  # fmt: skip
    return run, corpus
