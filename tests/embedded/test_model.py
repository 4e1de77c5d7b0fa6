"""Is the model in the package a real, complete, pretrained language model?

The folder must load through plain transformers, hold no pickle, stay small, stop at the end of
an answer, and predict text that it has never seen better than counting tokens or packing does.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralForCausalLM

import hauslm

FOLDER = Path(hauslm.__file__).parent / "embedded" / "model"

# Written for this test; it stands in no training text.
ENGLISH = """\
Drought during flowering reduces the number of grains per ear, and the loss cannot be repaired \
by rain that comes later. We therefore measured leaf temperature, soil moisture and grain weight \
of twelve wheat varieties in two dry years and in one wet year. The varieties differed strongly: \
some closed their stomata early and kept their leaves green, while others went on growing until \
the upper soil was empty. The results suggest that deep roots are more important for yield under \
drought than any single gene, and that field trials should be repeated at more than one site."""
GERMAN = """\
Viele Briefe des neunzehnten Jahrhunderts liegen in den Archiven, ohne dass sie bisher \
erschlossen wurden. In unserem Projekt haben wir eine digitale Edition aufgebaut, in der die \
Texte mit den Bildern der Handschriften verbunden sind. Die Daten werden in einem offenen Format \
gespeichert, damit sie auch von anderen Forschenden genutzt werden können. Dabei zeigt sich, dass \
die automatische Erkennung der Schrift zwar schnell ist, die Ergebnisse aber von Menschen geprüft \
werden müssen, weil Namen und Orte oft falsch gelesen werden."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer as every other part of the package loads it."""
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    """The model in fp32; the weights on disk are bf16."""
    loaded = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert isinstance(loaded, MistralForCausalLM)
    return loaded.eval()


def test_folder_is_small_and_holds_no_pickle() -> None:
    """At most 25 MB, and of formats that run no code when they are read."""
    files = [p for p in FOLDER.iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 25_000_000
    assert {p.suffix for p in files} <= {".json", ".jinja", ".md", ".safetensors", ".tsv"}
    assert [p.name for p in files if p.suffix == ".safetensors"] == ["model.safetensors"]


def test_card_and_figures_belong_to_these_weights() -> None:
    """The hash in card and eval.json is that of the weights beside them."""
    sha = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    figures = json.loads((FOLDER / "eval.json").read_text("utf-8"))
    assert figures["weights_sha256"] == sha
    card = (FOLDER / "README.md").read_text("utf-8")
    assert card.startswith("---\n")
    assert sha in card
    for lang in ("en", "de"):
        row = figures["bits_per_byte"][lang]
        assert row["model"] < min(row["unigram"], row["xz"])


def test_text_comes_back_unchanged(tokenizer: Any) -> None:
    """Byte-level: no character is lost, and plain text gets the begin token and no end token."""
    text = "Größe: 12,5 µm; „naïve“ αβγ 漢字 🧪\n\n\tEnd  of line"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_chat_template_round_trip(tokenizer: Any) -> None:
    """The template's text, its control tokens, and that a prompt is a prefix of its answer."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is wheat?"},
        {"role": "assistant", "content": "A crop."},
        {"role": "user", "content": "And rye?"},
        {"role": "assistant", "content": "Another crop."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<s>[INST] Be brief.\n\nWhat is wheat? [/INST] A crop.</s>"
        "[INST] And rye? [/INST] Another crop.</s>"
    )
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.eos_token_id) == 2
    assert ids.count(tokenizer.bos_token_id) == 1
    prompt = tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=False
    )
    assert ids[: len(prompt)] == prompt
    answers = re.findall(r"\[/INST\] (.*?)</s>", tokenizer.decode(ids))
    assert answers == ["A crop.", "Another crop."]


def test_template_refuses_wrong_roles(tokenizer: Any) -> None:
    """Two questions in a row would be a format that the model has never seen."""
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(Exception, match="alternate"):
        tokenizer.apply_chat_template(messages, tokenize=False)


def answer(model: Any, tokenizer: Any, prompt: str) -> tuple[str, bool]:
    """The greedy answer, and whether the end token closed it within 100 tokens."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = model.generate(**inputs, max_new_tokens=100, do_sample=False)
    new = made[0, inputs["input_ids"].shape[1] :].tolist()
    text = tokenizer.decode(new, skip_special_tokens=True).strip()
    return text, tokenizer.eos_token_id in new


def test_answers_end(model: Any, tokenizer: Any) -> None:
    """The end token is trained: most answers stop by themselves."""
    prompts = [
        f"Give the title of this article:\n\n{ENGLISH}",
        f"Nenne den Titel dieses Artikels:\n\n{GERMAN}",
        f"Continue this text with one sentence.\n\n{ENGLISH}",
        f"Setze diesen Text mit einem Satz fort.\n\n{GERMAN}",
        f"Which language is this text in? Answer de or en.\n\n{ENGLISH}",
        f"In welcher Sprache ist dieser Text? Antworte de oder en.\n\n{GERMAN}",
    ]
    ended = [answer(model, tokenizer, prompt)[1] for prompt in prompts]
    assert sum(ended) >= 5


@pytest.mark.parametrize(("text", "code"), [(ENGLISH, "en"), (GERMAN, "de")])
def test_language_is_named(model: Any, tokenizer: Any, text: str, code: str) -> None:
    """The one task it has learnt, on snippets as long as those it was trained on (to 400)."""
    prompt = f"Which language is this text in? Answer de or en.\n\n{text[:300]}"
    assert answer(model, tokenizer, prompt)[0] == code


def xz_bits_per_byte(text: str) -> float:
    """xz at its strongest and without its file header, which would decide on so short a text."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed = lzma.compress(text.encode(), format=lzma.FORMAT_RAW, filters=filters)
    return 8 * len(packed) / len(text.encode())


@pytest.mark.parametrize(("text", "bound"), [(ENGLISH, 1.8), (GERMAN, 1.8)])
def test_unseen_text_is_predicted(model: Any, tokenizer: Any, text: str, bound: float) -> None:
    """Bits per byte: guessing any token alike takes 2.7 (English) and 3.2 (German).

    Measured: 1.52 and 1.42. xz has no chance on so short a text; eval.json has it on long ones.
    """
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    bits = loss * (ids.shape[1] - 1) / math.log(2) / len(text.encode())
    assert bits < bound
    assert bits < 0.5 * xz_bits_per_byte(text)
