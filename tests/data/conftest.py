"""Base model folders of several kinds, made here: byte-level with template, Metaspace without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Rust
from tokenizers.trainers import BpeTrainer

from hauslm.data.tokens import Tokenizer
from hauslm.embedded import DOCUMENTS, MODEL

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (  # drops the reasoning of earlier turns, as some templates do
    "{% for m in messages %}{% set c = m.content if loop.last else m.content.split('</think>')[-1] %}"
    "{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BARE = "{% for m in messages %}{{ '\nQ: ' + m.content if m.role == 'user' else '\nA: ' + m.content }}{% endfor %}{{ '\nA:' if add_generation_prompt }}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
)


def corpus() -> list[str]:
    return [p.read_text(encoding="utf-8") for p in sorted(DOCUMENTS.glob("*.md"))]


def build(folder: Path, kind: str, template: str | None) -> Path:
    """A small tokenizer folder. Kinds: byte (byte-level), meta (SentencePiece-like)."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    if kind == "byte":
        rust = Rust(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        rust = Rust(models.BPE(unk_token="<unk>", byte_fallback=True))
        rust.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        rust.decoder = decoders.Sequence(
            [
                decoders.Replace(Regex("▁"), " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        alphabet = []
        special += [f"<0x{i:02X}>" for i in range(256)]
    trainer = BpeTrainer(
        vocab_size=900,
        special_tokens=[
            AddedToken(t, special=not t.startswith("<0x"), normalized=False) for t in special[:5]
        ]
        + special[5:],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    rust.train_from_iterator(corpus()[:8], trainer)
    rust.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The embedded model's."""
    return Tokenizer(MODEL)


@pytest.fixture(scope="session")
def tokenizer_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str | None], Tokenizer]:
    known: dict[tuple[str, str | None], Tokenizer] = {}

    def make(kind: str, template: str | None) -> Tokenizer:
        if (kind, template) not in known:
            folder = tmp_path_factory.mktemp("base") / "model"
            known[kind, template] = Tokenizer(build(folder, kind, template))
        return known[kind, template]

    return make
