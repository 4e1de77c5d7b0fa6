"""A project folder with a few articles, and a tiny random model that reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.files import ProjectFolder
from hauslm.embedded import MODEL
from hauslm.scenario import Scenario, parse

ARTICLES = {
    "bellows": """# Bellows

## Methods
Bellows leather was cut into strips of ten millimetres. Each strip was heated in water until it shrank.
The temperature was read from a calibrated probe at the moment of shrinking.

## Results
The old leather shrank at 41 degrees on average. New leather shrank at 62 degrees on average.
No strip shrank below 35 degrees in this series.
""",
    "zinn": """# Zinnpest

## Methode
Proben aus Orgelpfeifen wurden ein Jahr lang bei minus 20 Grad gelagert. Jede Woche wurde gewogen.

## Ergebnis
Keine Probe zeigte nach einem Jahr Zinnpest an der Oberfläche. Die Masse blieb auf 0,1 mg gleich.
""",
    "kurz": """# Leim

Hautleim löst sich in warmem Wasser wieder an. Das erleichtert spätere Reparaturen am Instrument.
""",
}


@pytest.fixture
def texts() -> dict[str, str]:
    """The articles of `project`, by name."""
    return dict(ARTICLES)


@pytest.fixture(scope="session")
def reader_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with the embedded tokenizer: it says nonsense, always the same."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("reader")
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=6144,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=5,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def reader_adapter(reader_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(4)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(reader_model),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("reader-adapter")
    model.save_pretrained(folder)
    return folder


def write_articles(root: Path, articles: dict[str, str]) -> None:
    (root / "articles").mkdir(parents=True, exist_ok=True)
    for name, text in articles.items():
        (root / "articles" / f"{name}.md").write_text(text, encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, reader_model: Path) -> Callable[..., tuple[Scenario, ProjectFolder]]:
    """project(**analysis fields) -> (scenario, folder); `articles` replaces the texts."""

    def make(
        root: Path | None = None, articles: dict[str, str] | None = None, **analysis: Any
    ) -> tuple[Scenario, ProjectFolder]:
        import json

        root = root or tmp_path / "project"
        write_articles(root, ARTICLES if articles is None else articles)
        section = {"paths": ["articles"], "batch_size": 2} | analysis
        text = json.dumps({"model": {"base": str(reader_model)}, "analysis": section})
        root.mkdir(exist_ok=True)
        (root / "hauslm.yaml").write_text(text)
        return parse(text), ProjectFolder(root)

    return make
