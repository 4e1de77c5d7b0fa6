"""Small real projects for the training tests: random models, random documents, one thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.data.store import Example, write_store
from hauslm.records import Corpus, Documents, Run, Split
from hauslm.scenario import parse

VOCABULARY = 96
END = 2
FAMILIES = ("mistral", "llama", "qwen2")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_base(folder: Path, family: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A random model of the family, as a local folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,  # large, so that documents that see each other show clearly
        "bos_token_id": 1,
        "eos_token_id": END,
    }
    if family == "mistral":
        values["sliding_window"] = None
    config = AutoConfig.for_model(family, **(values | changes))
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_examples(count: int, seed: int = 0, longest: int = 40) -> list[Example]:
    """Random documents of uneven length that close with the end token; a part is prompt (untrained)."""
    generator = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        length = int(generator.integers(6, longest))
        tokens = generator.integers(3, VOCABULARY, length).astype(np.uint32)
        tokens[-1] = END
        trained = np.ones(length, dtype=bool)
        if number % 2:
            trained[: length // 3] = False
        examples.append(Example(tokens, trained, {"id": str(number), "document": f"d{number}"}))
    return examples


def corpus_of(folder: ProjectFolder, fingerprint: str = "f") -> Corpus:
    return Corpus(
        documents=Documents(read=1),
        documents_split=Split(train=1, validation=0, test=0),
        examples=Split(train=1, validation=0, test=0),
        tokens=Split(train=1, validation=0, test=0),
        fingerprint=fingerprint,
    )


class Project:
    """A project folder with a base and prepared examples; `run` trains it."""

    def __init__(self, root: Path, **base: Any) -> None:
        self.folder = ProjectFolder(root)
        make_base(root / "base", **base)
        self.prepare(make_examples(30), make_examples(6, seed=1))
        self.progress = Silent()

    def prepare(self, train: list[Example], validation: list[Example]) -> None:
        write_store(self.folder.work / "prepared" / "train", train)
        write_store(self.folder.work / "prepared" / "validation", validation)

    def scenario(self, training: dict[str, Any], adapter: dict[str, Any], **sections: Any) -> Any:
        values = {
            "max_steps": 4,
            "seq_len": 64,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "precision": "float32",
        }
        model = {"base": "tiny", "path": "base"} | sections.pop("model", {})
        document = {
            "model": model,
            "training": values | training,
            "adapter": {"r": 4} | adapter,
            **sections,
        }
        return parse(json.dumps(document))

    def run(
        self,
        training: dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        *,
        resume: bool = False,
        accept_change: bool = False,
        fingerprint: str = "f",
        **sections: Any,
    ) -> Run:
        from hauslm.train.loop import train

        self.progress = Silent()
        return train(
            self.scenario(training or {}, adapter or {}, **sections),
            self.folder,
            plan=None,
            corpus=corpus_of(self.folder, fingerprint),
            resume=resume,
            accept_change=accept_change,
            progress=self.progress,
        )

    @property
    def said(self) -> str:
        return "\n".join(str(s) for s in self.progress.sentences)

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder.work / "train" / "checkpoints").glob("step-*"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Project]:
    """Several projects in one test."""
    count = iter(range(100))
    return lambda **base: Project(tmp_path / f"project-{next(count)}", **base)
