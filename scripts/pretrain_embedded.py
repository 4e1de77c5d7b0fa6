#!/usr/bin/env python3
"""How was the model in the package made, and how is it made again?

``hauslm`` carries a very small language model of the Mistral architecture, so that every step
(training, evaluation, serving) runs on a fresh machine without a download. This file makes that
model from open-access texts, on two CPU cores, in the minutes it is given. It reads from top to
bottom:

1. the texts, less every article that an evaluation split contains,
2. a byte-level BPE tokenizer with a Mistral-style chat template,
3. conversations made from the texts themselves, so that template and end token are trained,
4. the packed token stream,
5. training: bf16 autocast, Muon and AdamW, a schedule that follows the clock, not a step count,
6. the model folder as transformers reads it,
7. evaluation on unseen texts, beside a unigram model and xz,
8. the model card.

Example::

    python scripts/pretrain_embedded.py --data DATA --out RUN --minutes 85 \
        --export src/hauslm/embedded/model

A run that was cut off goes on from its last checkpoint when it is started again with the same
``--out``. ``--finish`` skips the training and evaluates and exports the last checkpoint.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import lzma
import math
import os
import platform
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    MistralConfig,
    MistralForCausalLM,
)

Array = Any  # numpy array of token ids
Model = Any  # MistralForCausalLM; its own type hints forbid what it documents

NAME = "hauslm-embedded"
UNK, BOS, EOS, INST, INST_END, PAD = "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"
# The order gives the ids 0 to 5; the first five are those of Mistral's own tokenizers.
SPECIAL_TOKENS = (UNK, BOS, EOS, INST, INST_END, PAD)
WINDOW = 2048  # the longest sequence trained, and the piece of the stream that is shuffled
TOKENS_PER_STEP = 4096
EVAL_TEXTS = 12  # of each language
CHAT_PROMPTS = 30  # of each kind, in the evaluation
ANSWERS_FROM = 0.85  # from this fraction of the time on, mostly conversations
GROUP = 16  # windows drawn together; their rows are mixed, so that a batch sees many articles


# --- 1. the texts -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """One text with the few facts about it that conversations are made from."""

    id: str
    doi: str
    licence: str
    title: str
    lang: str
    text: str


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file, gzipped or not."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    for line in text.split("\n"):
        if line.strip():
            yield json.loads(line)


def norm_title(title: str) -> str:
    """A title without case and punctuation, to find the same article under two spellings."""
    return re.sub(r"\W+", " ", title.lower()).strip()


def held_out(data: Path) -> set[str]:
    """Ids, DOIs and titles of every article that some evaluation contains.

    Also the sample articles that the demo imports: a model that has learnt them by heart would
    make the demo look better than it is.
    """
    found: set[str] = set()
    files = [*data.glob("corpus_crops/*.jsonl"), *data.glob("german/dhd/*.jsonl")]
    files += data.glob("task_*/*.jsonl")
    for path in files:
        if path.stem == "train" and path.parent.name != "corpus_crops":
            continue
        for row in read_rows(path):
            found.add(str(row.get("id", "")).split(":")[0])
            found.add(str(row.get("doi", "")).lower())
            found.add(norm_title(str(row.get("title", ""))))
    for folder in ("articles_jats", "articles_pdf"):
        for path in (data / folder).glob("*"):
            text = path.read_text("utf-8", "replace") if path.suffix in {".xml", ".nxml"} else ""
            # Only the article's own identifiers stand before its abstract.
            head = text.split("<abstract", 1)[0][:20_000]
            found.update(re.findall(r"PMC\d+", path.name))
            found.update(f"PMC{n}" for n in re.findall(r'pub-id-type="pmc"[^>]*>(\d+)<', head))
            found.update(d.lower() for d in re.findall(r'pub-id-type="doi"[^>]*>([^<]+)<', head))
    return found - {""}


def load_documents(data: Path) -> list[Document]:
    """All training texts: English full texts, German papers, German documentation."""
    out: list[Document] = []
    english = data / "pretraining" / "openaccess_fulltext_ccby.jsonl.gz"
    german = data / "german" / "dhd" / "train.jsonl"
    for path, lang in ((english, "en"), (german, "de")):
        for row in read_rows(path):
            text = str(row["text"]).strip()
            title = str(row["title"]).strip()
            if not text.startswith(title):
                text = f"{title}\n\n{text}"
            out.append(
                Document(str(row["id"]), str(row.get("doi", "")), row["licence"], title, lang, text)
            )
    for path in sorted((data / "german" / "rki").glob("*.md")):
        if path.name != "README.md":
            title = path.stem.replace("_", " ")
            text = path.read_text("utf-8").strip()
            out.append(Document(path.stem, "", "CC-BY-4.0", title, "de", text))
    blocked = held_out(data)

    def is_free(doc: Document) -> bool:
        return not {doc.id, doc.doi.lower(), norm_title(doc.title)} & blocked

    return [doc for doc in out if is_free(doc)]


# --- 2. the tokenizer ---------------------------------------------------------------------------

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] | trim ~ '\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Roles must alternate: user, assistant, user, assistant ...') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- '[INST] ' ~ (system if loop.first else '') ~ (message['content'] | trim) ~ ' [/INST]' -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ' ~ (message['content'] | trim) ~ eos_token -}}
{%- else -%}
{{- raise_exception('Only the roles system (first), user and assistant are known.') -}}
{%- endif -%}
{%- endfor -%}
"""

# Words, numbers of at most three digits (so that a long number is not one rare token), signs.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(docs: list[Document], vocab_size: int, seed: int, folder: Path) -> None:
    """Train the BPE on a third of the English and four copies of the German texts, and save it."""
    rng = random.Random(seed)
    sample = [d.text for d in docs if d.lang == "en" and rng.random() < 0.3]
    sample += [d.text for d in docs if d.lang == "de"] * 4
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS}:1 $B:1",
        special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "model_max_length": 4096,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


# --- 3. conversations from the texts ------------------------------------------------------------

PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "title": {
        "en": (
            "Give the title of this article:\n\n{text}",
            "{text}\n\nWrite a title for this text.",
            "What is a fitting title for the following text?\n\n{text}",
        ),
        "de": (
            "Nenne den Titel dieses Artikels:\n\n{text}",
            "{text}\n\nSchreibe einen Titel zu diesem Text.",
            "Welcher Titel passt zu diesem Text?\n\n{text}",
        ),
    },
    "language": {
        "en": (
            "Which language is this text in? Answer de or en.\n\n{text}",
            "{text}\n\nName the language of this text: de or en.",
        ),
        "de": (
            "In welcher Sprache ist dieser Text? Antworte de oder en.\n\n{text}",
            "{text}\n\nNenne die Sprache dieses Textes: de oder en.",
        ),
    },
    "find": {
        "en": (
            "Copy the sentence that mentions {word}.\n\n{text}",
            '{text}\n\nWhich sentence contains the word "{word}"?',
        ),
        "de": (
            "Gib den Satz wieder, in dem {word} vorkommt.\n\n{text}",
            "{text}\n\nWelcher Satz enthält das Wort „{word}“?",
        ),
    },
    "first": {
        "en": (
            "Copy the first sentence of this text.\n\n{text}",
            "{text}\n\nRepeat the first sentence.",
        ),
        "de": (
            "Gib den ersten Satz dieses Textes wieder.\n\n{text}",
            "{text}\n\nWiederhole den ersten Satz.",
        ),
    },
    "continue": {
        "en": ("Continue this text with one sentence.\n\n{text}",),
        "de": ("Setze diesen Text mit einem Satz fort.\n\n{text}",),
    },
    "json": {
        "en": ('Answer with JSON with the keys "language" and "title".\n\n{text}',),
        "de": ("Antworte mit JSON mit den Schlüsseln „language“ und „title“.\n\n{text}",),
    },
}
SYSTEM = {
    "en": ("You are a helpful assistant.", "Answer briefly.", "You help a research team."),
    "de": ("Du bist ein hilfreicher Assistent.", "Antworte kurz.", "Du hilfst einem Team."),
}
ABOUT = (
    ("Hello", "Hello. I am hauslm-embedded, a very small language model."),
    ("Who are you?", "I am hauslm-embedded, a very small language model. I show the way only."),
    ("Hallo", "Hallo. Ich bin hauslm-embedded, ein sehr kleines Sprachmodell."),
    ("Wer bist du?", "Ich bin hauslm-embedded, ein sehr kleines Sprachmodell. Ich zeige den Weg."),
)
TASKS = ("title", "language", "language", "find", "find", "first", "continue", "json")


def sentences(text: str) -> list[str]:
    """A rough sentence split; good enough to copy from."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])", text.replace("\n", " "))
    return [p.strip() for p in parts if 40 <= len(p.strip()) <= 300 and p.strip()[-1] in ".!?"]


def make_turn(doc: Document, task: str, rng: random.Random, lang: str) -> tuple[str, str] | None:
    """One question with its answer, both from the text, or None where the text yields none."""
    lines = (p.strip() for p in doc.text.split("\n"))
    # A paragraph begins with a letter; table rows and markup do not.
    paragraphs = [p for p in lines if len(p) > 200 and p[0].isalpha()]
    if not paragraphs:
        return None
    prompt = rng.choice(PROMPTS[task][lang])
    paragraph = rng.choice(paragraphs)
    if task in {"title", "json"}:
        start = paragraphs[0][:900]
        answer = doc.title
        if task == "json":
            answer = json.dumps({"language": doc.lang, "title": doc.title}, ensure_ascii=False)
        return prompt.format(text=start), answer
    if task == "language":
        return prompt.format(text=paragraph[: rng.randint(60, 400)]), doc.lang
    parts = sentences(paragraph)[:5]
    if len(parts) < 2:
        return None
    text = " ".join(parts)
    if task == "first":
        return prompt.format(text=text), parts[0]
    if task == "continue":
        return prompt.format(text=" ".join(parts[:-1])), parts[-1]
    counts = Counter(re.findall(r"\w{6,}", text))
    answer = rng.choice(parts)
    words = [w for w in re.findall(r"\w{6,}", answer) if counts[w] == 1 and text.count(w) == 1]
    return (prompt.format(text=text, word=rng.choice(words)), answer) if words else None


def conversation(doc: Document, rng: random.Random) -> list[dict[str, str]] | None:
    """One conversation of one or two questions, sometimes with a system message."""
    # One in five questions is asked in the other language, so that a prompt's language alone
    # does not give the answer away.
    lang = doc.lang if rng.random() < 0.8 else {"en": "de", "de": "en"}[doc.lang]
    turns = [make_turn(doc, rng.choice(TASKS), rng, lang)]
    if rng.random() < 0.15:
        turns.append(make_turn(doc, rng.choice(TASKS), rng, lang))
    if rng.random() < 0.02:
        turns = [rng.choice(ABOUT)]
    messages: list[dict[str, str]] = []
    if rng.random() < 0.15:
        messages.append({"role": "system", "content": rng.choice(SYSTEM[lang])})
    for turn in turns:
        if turn is None:
            return None
        messages.append({"role": "user", "content": turn[0]})
        messages.append({"role": "assistant", "content": turn[1]})
    return messages


# --- 4. the packed token stream -----------------------------------------------------------------


def build_stream(
    docs: list[Document],
    tokenizer: Any,
    german_copies: int,
    chat_share: float,
    seed: int,
    folder: Path,
) -> Array:
    """All tokens in windows of WINDOW, shuffled; written once, read back on resume.

    A text is ``<s> text </s>``; conversations stand between the texts, as many as make up
    ``chat_share`` of the characters.
    """
    target = folder / "stream.npy"
    if target.exists():
        return np.load(target)
    rng = random.Random(seed)
    order = [d for d in docs for _ in range(german_copies if d.lang == "de" else 1)]
    rng.shuffle(order)
    eos = SPECIAL_TOKENS.index(EOS)
    pieces: list[Array] = []
    counts = {"text_en": 0, "text_de": 0, "chat": 0}
    owed = 0.0
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        texts = tokenizer([d.text for d in batch], return_attention_mask=False)["input_ids"]
        chats: list[list[str]] = []
        for doc in batch:
            owed += len(doc.text) * chat_share / (1 - chat_share)
            mine: list[str] = []
            for _ in range(200):
                if owed <= 0:
                    break
                messages = conversation(doc, rng)
                if messages:
                    mine.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
                    owed -= len(mine[-1])
            chats.append(mine)
        for doc, ids, mine in zip(batch, texts, chats, strict=True):
            pieces.append(np.array([*ids, eos], dtype=np.uint16))
            counts[f"text_{doc.lang}"] += len(ids) + 1
            if mine:
                for row in tokenizer(mine, add_special_tokens=False)["input_ids"]:
                    pieces.append(np.array(row, dtype=np.uint16))
                    counts["chat"] += len(row)
    flat = np.concatenate(pieces)
    windows = flat[: len(flat) // WINDOW * WINDOW].reshape(-1, WINDOW)
    windows = windows[np.random.default_rng(seed).permutation(len(windows))]
    np.save(target, windows)
    (folder / "stream.json").write_text(json.dumps(counts), "utf-8")
    return windows


def build_chat(docs: list[Document], tokenizer: Any, tokens: int, seed: int, out: Path) -> Array:
    """Windows of nothing but conversations, for the last part of the training.

    One in three is about a German text, though far fewer of the texts are German.
    """
    target = out / "chat.npy"
    if target.exists():
        return np.load(target)
    rng = random.Random(seed)
    by_lang = {lang: [d for d in docs if d.lang == lang] for lang in ("en", "de")}
    pieces: list[Array] = []
    count = 0
    while count < tokens:
        made: list[str] = []
        while len(made) < 256:
            messages = conversation(rng.choice(by_lang[rng.choice(("en", "en", "de"))]), rng)
            if messages:
                made.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
        for row in tokenizer(made, add_special_tokens=False)["input_ids"]:
            pieces.append(np.array(row, dtype=np.uint16))
            count += len(row)
    flat = np.concatenate(pieces)
    windows = flat[: len(flat) // WINDOW * WINDOW].reshape(-1, WINDOW)
    np.save(target, windows)
    return windows


def batches(
    windows: Array, chat: Array, share: int, group: int, length: int, seed: int
) -> Iterator[torch.Tensor]:
    """The batches of one group of windows, cut to rows of ``length`` and mixed.

    ``share`` windows of conversations take the place of as many of the group.
    """
    take = np.arange(group * GROUP, (group + 1) * GROUP) % len(windows)
    rows = windows[take].reshape(-1, length)
    if share:
        take = np.arange(group * share, (group + 1) * share) % len(chat)
        rows = np.concatenate([rows[: -share * WINDOW // length], chat[take].reshape(-1, length)])
    rows = rows[np.random.default_rng([seed, group]).permutation(len(rows))]
    size = TOKENS_PER_STEP // length
    for at in range(0, len(rows), size):
        yield torch.from_numpy(rows[at : at + size].astype(np.int64))


# --- 5. training --------------------------------------------------------------------------------


def make_config(args: argparse.Namespace) -> MistralConfig:
    """The architecture: Mistral with grouped-query attention, and one matrix for both ends."""
    return MistralConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=max(1, args.hidden // 128),
        head_dim=64,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL_TOKENS.index(BOS),
        eos_token_id=SPECIAL_TOKENS.index(EOS),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
    )


def make_optimizers(model: Model, args: argparse.Namespace) -> list[Any]:
    """Muon for the matrices inside the layers, AdamW for embedding and norms.

    Muon stands twice, with half of the matrices each, so that two threads can step.
    """
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in n]
    muons = [
        torch.optim.Muon(half, lr=args.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        for half in (inner[::2], inner[1::2])
    ]
    adam = torch.optim.AdamW(outer, lr=args.lr_embed, betas=(0.9, 0.95), weight_decay=0.0)
    return [*muons, adam]


def lr_factor(step: int, fraction: float, decay_from: float) -> float:
    """Warm-up over 40 steps, stable, then linear to zero; ``fraction`` is of the time given."""
    warm = min(1.0, (step + 1) / 40)
    if fraction <= decay_from:
        return warm
    return warm * max(0.0, (1.0 - fraction) / (1.0 - decay_from))


def row_length(fraction: float) -> int:
    """Short rows first (attention is a third of the cost at 1024), the demo's 2048 at the end."""
    if fraction >= ANSWERS_FROM:
        return 512  # conversations are short
    return 512 if fraction < 0.5 else 1024 if fraction < 0.75 else 2048


def chat_share(fraction: float, decay_from: float) -> int:
    """How many windows of a group are conversations, beside those in the stream itself."""
    if fraction >= ANSWERS_FROM:
        return GROUP * 3 // 4
    return GROUP // 4 if fraction > decay_from else 0


def answer_weights(rows: torch.Tensor, weight: float) -> torch.Tensor:
    """``weight`` for every token of an answer and its end token, 1 for every other token.

    Of a conversation of two hundred tokens the answer is often two. With equal weights a short
    training learns the questions and not the answers.
    """
    mark = torch.zeros_like(rows)
    mark[rows == SPECIAL_TOKENS.index(EOS)] = 1
    mark[rows == SPECIAL_TOKENS.index(INST_END)] = 2
    place = torch.arange(rows.shape[1]).expand_as(rows)
    # The last mark before each token; the token itself does not count.
    last = torch.where(mark > 0, place, 0).cummax(dim=1).values
    last = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
    return torch.where(mark.gather(1, last) == 2, weight, 1.0)


class Workers:
    """Threads that share one set of weights and take pieces of a batch from one queue.

    Each thread runs its operations alone, on its own gradients. Splitting every operation over
    both cores is as fast on an idle machine, but on one that is shared every operation then
    waits for the slower core, and the training all but stands still.
    """

    def __init__(self, model: Model, threads: int) -> None:
        """``model`` owns the weights; every further thread sees the same storage."""
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.models = [model]
        for _ in range(threads - 1):
            twin = MistralForCausalLM(model.config)
            for own, other in zip(model.parameters(), twin.parameters(), strict=True):
                other.data = own.data
            self.models.append(twin)

    def gradient(self, rows: torch.Tensor, weight: float = 1.0) -> float:
        """Forward and backward of one batch, in pieces of about 1,024 tokens; the mean loss.

        Tokens of answers count ``weight`` times in the gradient; the loss reported does not
        know of weights, so that it can be compared over the whole run.
        """
        todo: SimpleQueue[tuple[torch.Tensor, torch.Tensor]] = SimpleQueue()
        weights = answer_weights(rows, weight)[:, 1:]
        size = max(1, 1024 // rows.shape[1])
        for at in range(0, len(rows), size):
            todo.put((rows[at : at + size], weights[at : at + size] / weights.sum()))
        count = rows.shape[0] * (rows.shape[1] - 1)

        def work(model: Model) -> float:
            total = 0.0
            while True:
                try:
                    piece, scale = todo.get_nowait()
                except Empty:
                    return total
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    hidden = model.model(input_ids=piece, use_cache=False).last_hidden_state
                    logits = model.lm_head(hidden[:, :-1].reshape(-1, hidden.shape[-1]))
                    goal = piece[:, 1:].reshape(-1)
                    losses = torch.nn.functional.cross_entropy(
                        logits.float(), goal, reduction="none"
                    )
                torch.autograd.backward((losses * scale.reshape(-1)).sum())
                total += float(losses.detach().sum()) / count

        total = sum(self.pool.map(work, self.models))
        for twin in self.models[1:]:
            for own, other in zip(self.models[0].parameters(), twin.parameters(), strict=True):
                if other.grad is not None:
                    own.grad = other.grad if own.grad is None else own.grad.add_(other.grad)
                    other.grad = None
        return total

    def step(self, optimizers: list[Any]) -> None:
        """Step every optimizer, side by side."""
        list(self.pool.map(lambda optimizer: optimizer.step(), optimizers))
        for parameter in self.models[0].parameters():
            parameter.grad = None


def save_checkpoint(
    folder: Path, model: Model, optimizers: list[Any], state: dict[str, Any]
) -> None:
    """Weights and optimizer tensors as safetensors, everything else as JSON; no pickle."""
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    save_file(weights, fresh / "weights.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{number}.{index}.{key}"] = torch.as_tensor(value).clone()
    save_file(tensors, fresh / "optimizer.safetensors")
    (fresh / "state.json").write_text(json.dumps(state, indent=2), "utf-8")
    old = folder.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, model: Model, optimizers: list[Any]) -> dict[str, Any]:
    """The way back from save_checkpoint."""
    weights = load_file(folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    tensors = load_file(folder / "optimizer.safetensors")
    for number, optimizer in enumerate(optimizers):
        content = optimizer.state_dict()
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            owner, index, name = key.split(".")
            if int(owner) == number:
                state.setdefault(int(index), {})[name] = value
        content["state"] = state
        optimizer.load_state_dict(content)
    return json.loads((folder / "state.json").read_text("utf-8"))  # type: ignore[no-any-return]


def train(
    args: argparse.Namespace,
    model: Model,
    tokenizer: Any,
    windows: Array,
    chat: Array,
    probe: dict[str, list[str]],
) -> dict[str, Any]:
    """Train until the minutes are over; returns the last state."""
    out = Path(args.out)
    optimizers = make_optimizers(model, args)
    workers = Workers(model, args.threads)
    state: dict[str, Any] = {"step": 0, "group": 0, "tokens": 0, "seconds": 0.0, "loss": None}
    if (out / "checkpoint").exists():
        state = load_checkpoint(out / "checkpoint", model, optimizers)
    budget = args.minutes * 60
    began = time.monotonic() - state["seconds"]
    saved_at, exported = state["seconds"], state["step"] > 0
    for each in workers.models:
        each.train()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while (elapsed := time.monotonic() - began) < budget:
            length = row_length(elapsed / budget)
            share = chat_share(elapsed / budget, args.decay_from)
            weight = args.answer_weight if elapsed / budget >= ANSWERS_FROM else 1.0
            for rows in batches(windows, chat, share, state["group"], length, args.seed):
                fraction = (time.monotonic() - began) / budget
                factor = lr_factor(state["step"], fraction, args.decay_from)
                loss = workers.gradient(rows, weight)
                norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
                for optimizer in optimizers:
                    muon = isinstance(optimizer, torch.optim.Muon)
                    for group in optimizer.param_groups:
                        group["lr"] = factor * (args.lr if muon else args.lr_embed)
                workers.step(optimizers)
                state["step"] += 1
                state["tokens"] += rows.numel()
                last = state["loss"]
                state["loss"] = loss if last is None else 0.95 * last + 0.05 * loss
                record = {
                    "step": state["step"],
                    "tokens": state["tokens"],
                    "seconds": round(time.monotonic() - began, 1),
                    "length": length,
                    "loss": round(loss, 4),
                    "mean_loss": round(state["loss"], 4),
                    "grad_norm": round(norm, 3),
                    "lr": round(args.lr * factor, 6),
                }
                log.write(json.dumps(record) + "\n")
                log.flush()
                if time.monotonic() - began >= budget:
                    break
            state["group"] += 1
            state["seconds"] = time.monotonic() - began
            due = args.first_export * 60 if not exported else saved_at + args.save_every * 60
            if state["seconds"] >= due:
                saved_at, exported = state["seconds"], True
                save_checkpoint(out / "checkpoint", model, optimizers, state)
                write_model(out / "model", out / "tokenizer", model, args)
                values = {k: bits_per_byte(model, tokenizer, v)["bits"] for k, v in probe.items()}
                log.write(json.dumps({"step": state["step"], "bits_per_byte": values}) + "\n")
                log.flush()
                model.train()
    save_checkpoint(out / "checkpoint", model, optimizers, state)
    return state


# --- 6. the model folder ------------------------------------------------------------------------


def write_model(folder: Path, tokenizer: Path, model: Model, args: argparse.Namespace) -> None:
    """Everything transformers needs, weights in bf16, in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    half: Model = MistralForCausalLM(make_config(args))
    half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    make_generation: Any = GenerationConfig
    half.generation_config = make_generation(
        bos_token_id=SPECIAL_TOKENS.index(BOS),
        eos_token_id=SPECIAL_TOKENS.index(EOS),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
        max_new_tokens=128,
        do_sample=False,
    )
    half.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)


def export(source: Path, target: Path) -> None:
    """Put the files of ``source`` in place, each by one rename, so that no reader sees half."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        fresh = target / f".{path.name}.new"
        shutil.copyfile(path, fresh)  # without the mode: safetensors writes for the owner only
        fresh.chmod(0o644)
        fresh.replace(target / path.name)


# --- 7. evaluation ------------------------------------------------------------------------------


@torch.no_grad()
def bits_per_byte(model: Model, tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Bits the model needs per UTF-8 byte, each text on its own.

    Windows of 2,048 tokens that advance by 1,024: beyond a text's beginning every token is
    predicted from at least 1,024 tokens before it.
    """
    model.eval()
    nats, count, size = 0.0, 0, 0
    for text in texts:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        size += len(text.encode())
        done = 1
        while done < len(ids):
            stop = min(len(ids), WINDOW if done == 1 else done + WINDOW // 2)
            begin = max(0, stop - WINDOW)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = model.model(input_ids=ids[None, begin : stop - 1]).last_hidden_state[0]
                for at in range(done - 1 - begin, stop - 1 - begin, 1024):
                    part = hidden[at : min(at + 1024, stop - 1 - begin)]
                    goal = ids[begin + at + 1 : begin + at + 1 + len(part)]
                    logits = model.lm_head(part).float()
                    loss = torch.nn.functional.cross_entropy(logits, goal, reduction="sum")
                    nats += float(loss)
            count += stop - done
            done = stop
    return {"bits": nats / math.log(2) / size, "tokens": count, "bytes": size}


def unigram_bits(windows: Array, vocab: int, tokenizer: Any, texts: list[str]) -> float:
    """The same texts under a model that knows only how often each training token occurs."""
    counts = np.bincount(windows.reshape(-1), minlength=vocab) + 1.0
    cost = -np.log2(counts / counts.sum())
    size = sum(len(t.encode()) for t in texts)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return float(sum(cost[np.array(row)].sum() for row in ids) / size)


def xz_bits(texts: list[str]) -> float:
    """The same texts, in one file, under ``xz -9e``."""
    raw = "\n".join(texts).encode()
    packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    return 8 * len(packed) / len(raw)


@torch.no_grad()
def chat_check(
    model: Model, tokenizer: Any, docs: list[Document], seed: int
) -> dict[str, dict[str, float]]:
    """Greedy answers to prompts from unseen texts: does the model stop, and is it right?"""
    rng = random.Random(seed)
    model.eval()
    result: dict[str, dict[str, float]] = {}
    for task in sorted(set(TASKS)):
        turns: list[tuple[str, str]] = []
        for number in range(1000):
            doc = docs[number % len(docs)]
            turn = make_turn(doc, task, rng, doc.lang)
            if turn and len(turns) < CHAT_PROMPTS:
                turns.append(turn)
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": question}] for question, _ in turns],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        made = model.generate(**prompts, max_new_tokens=128, do_sample=False)
        new = made[:, prompts["input_ids"].shape[1] :].tolist()
        answers = [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in new]
        result[task] = {
            "prompts": len(turns),
            "ended_by_end_token": sum(SPECIAL_TOKENS.index(EOS) in r for r in new) / len(turns),
            "exactly_right": sum(
                answer == turn[1] for answer, turn in zip(answers, turns, strict=True)
            )
            / len(turns),
        }
    return result


@torch.no_grad()
def instruction_check(
    model: Model, tokenizer: Any, docs: list[Document], seed: int
) -> dict[str, dict[str, float]]:
    """Does the model go by the instruction? The same snippets under two instructions.

    A model that answers de or en to both has learnt the answer and not the question.
    """
    rng = random.Random(seed)
    model.eval()
    found = ([p for p in d.text.split("\n") if len(p) > 700 and p[0].isalpha()] for d in docs)
    texts = [(d.lang, rng.choice(ps)) for d, ps in zip(docs, found, strict=True) if ps]
    result: dict[str, dict[str, float]] = {}
    for length in (100, 300, 700):
        row: dict[str, float] = {"prompts": len(texts)}
        for task in ("language", "continue"):
            prompts = tokenizer.apply_chat_template(
                [
                    [{"role": "user", "content": PROMPTS[task]["en"][0].format(text=t[:length])}]
                    for _, t in texts
                ],
                add_generation_prompt=True,
                padding=True,
                return_tensors="pt",
                return_dict=True,
            )
            made = model.generate(**prompts, max_new_tokens=24, do_sample=False)
            new = made[:, prompts["input_ids"].shape[1] :].tolist()
            answers = [str(tokenizer.decode(r, skip_special_tokens=True)).strip() for r in new]
            pairs = list(zip(answers, texts, strict=True))
            if task == "language":
                row["language_right"] = sum(a == lang for a, (lang, _) in pairs) / len(texts)
            else:
                row["continue_answered_de_or_en"] = sum(a in {"de", "en"} for a in answers) / len(
                    texts
                )
        result[str(length)] = row
    return result


def eval_documents(data: Path, lang: str) -> list[Document]:
    """The unseen texts: crop science (English), digital humanities (German)."""
    name = {"en": "corpus_crops/valid.jsonl", "de": "german/dhd/dev.jsonl"}[lang]
    return [
        Document(str(r["id"]), "", r["licence"], r["title"], lang, r["text"])
        for r in itertools.islice(read_rows(data / name), EVAL_TEXTS)
    ]


# --- 8. the model card --------------------------------------------------------------------------

CARD = """\
---
license: apache-2.0
language:
- en
- de
library_name: transformers
pipeline_tag: text-generation
tags:
- mistral
- from-scratch
- cpu
- hauslm
model_name: {name}
---

# {name}

A language model of {parameters:,} parameters in the Mistral architecture, pretrained from
scratch, that travels inside the package `hauslm`. With it every step of the package (import,
LoRA training, evaluation, serving) runs on a fresh machine, offline, on a CPU.

**It shows the way, not quality.** It writes text in the manner of a scientific article, repeats
itself, and knows next to nothing. Do not use its answers. For real work choose a base model
from the catalogue.

## Figures

| what | value |
|---|---|
| parameters | {parameters:,} (input and output embedding are one matrix) |
| layers / hidden / heads / key-value heads / head size / intermediate | {shape} |
| vocabulary | {vocab:,}, byte-level BPE, every UTF-8 text without loss |
| context | 4,096 positions allowed; trained on 512, then 1,024, briefly on 2,048 |
| tokens seen | {tokens:,} of a stream of {stream:,} (one pass is the whole stream) |
| steps | {steps:,} of {step_tokens:,} tokens |
| last training loss (moving mean, mostly conversations) | {loss:.3f} nats per token |
| training time | {minutes:.0f} minutes, {speed:,.0f} tokens per second |
| hardware | {hardware} |
| weights on disk | {size:,} bytes, bf16, safetensors |
| base weights sha256 | `{sha}` |

## Bits per byte on unseen text

Lower is better. Each text on its own, windows of 2,048 tokens that advance by 1,024. The
unigram model knows only the frequency of each training token; xz (`-9e`) packs all texts of a
line as one file.

| text | bytes | this model | unigram | xz |
|---|---|---|---|---|
{bits}

## The chat format and the end token

    <s>[INST] question [/INST] answer</s>

A system message is put before the first question. The folder's `chat_template.jinja` writes
this; the tokenizer puts `<s>` before plain text. 30 prompts of each kind, made from unseen
texts, greedy, at most 128 new tokens:

| prompt | ended by `</s>` | answer exactly right |
|---|---|---|
{chat}

**Does it go by the instruction?** The same snippets of unseen texts, once with the question for
the language, once with the request to continue. Where the last column is high, it answers by
the look of the text and not by the instruction.

| characters of the snippet | language named rightly | request to continue answered "de" or "en" |
|---|---|---|
{instruction}

## Training texts

| texts | documents | licence | origin |
|---|---|---|---|
| English open-access full texts, life sciences | {english} | {licences} | GitHub \
`petermr/tigr2ess`, commit 9612323fd84d (Europe PMC JATS XML) |
| German conference papers, digital humanities | {dhd} | CC BY 4.0 | GitHub \
`DHd-Verband/DHd-Abstracts-2019` (965cb3cbdcae) and `DHd-Verband/DHd-Abstracts-2020` \
(fac9a2adb8a5), TEI XML; training split only |
| German documentation of the Robert Koch Institute | {rki} | CC BY 4.0 | GitHub \
organisation `robert-koch-institut`, README files of six repositories |

The texts were changed: XML to plain text, without references, tables, figures and formulas.
`training_texts.tsv` names every document with its DOI and licence; the rights stay with the
authors. German texts are in the stream {copies} times. By tokens the stream is
{share_en:.0%} English text, {share_de:.0%} German text and {share_chat:.0%} conversations made
from these texts by rules (title, language, find and copy a sentence, continue, JSON). From the
moment the learning rate falls, further conversations take the place of a quarter of the stream.

Left out, by identifier, DOI and title: every article in an evaluation split of the data set,
the whole corpus of crop science, and the sample articles of the demo.

## Training

bf16 autocast with fp32 weights; Muon (learning rate {lr}) for the matrices inside the layers,
AdamW ({lr_embed}) for embedding and norms; warm-up, stable, linear decay to zero from
{decay:.0%} of the time on; rows of 512, then 1,024, then 2,048 tokens. In the last
{answers:.0%} of the time three quarters of the tokens are conversations in rows of 512, and a
token of an answer counts {weight:.0f} times in the gradient. Seed {seed}.
`scripts/pretrain_embedded.py` makes the model again; the schedule follows the clock, so another
machine sees another number of tokens and gets other weights.

{note}

## Limits

- Facts, numbers and names in its output are invented.
- Without further training it follows no instruction: it names the language of a short text,
  ends its answers, and tells hardly one kind of prompt from another.
- Biomedical English and the German of humanities conferences only; no code, no other language.
- It has had no safety training, and it repeats what stands in its training texts.
- Text such as `[INST]` or `</s>` inside a message is read as the control token. Whoever builds
  prompts from foreign text must take these out first.
"""


def model_card(args: argparse.Namespace, figures: dict[str, Any], counts: dict[str, Any]) -> str:
    """The card from the figures of this run."""
    licences = ", ".join(f"{k} {v}" for k, v in counts["licences"].items())
    bits = "\n".join(
        f"| {row['label']} | {row['bytes']:,} | {row['model']:.3f} | {row['unigram']:.3f} "
        f"| {row['xz']:.3f} |"
        for row in figures["bits_per_byte"].values()
    )
    chat = "\n".join(
        f"| {task} | {row['ended_by_end_token']:.0%} | {row['exactly_right']:.0%} |"
        for task, row in figures["chat"].items()
    )
    instruction = "\n".join(
        f"| {length} | {row['language_right']:.0%} | {row['continue_answered_de_or_en']:.0%} |"
        for length, row in figures["instruction"].items()
    )
    total = sum(counts["stream"].values())
    return CARD.format(
        name=NAME,
        parameters=figures["parameters"],
        shape=figures["shape"],
        vocab=args.vocab_size,
        tokens=figures["tokens_seen"],
        stream=total,
        steps=figures["steps"],
        step_tokens=TOKENS_PER_STEP,
        loss=figures["final_loss"],
        minutes=figures["minutes"],
        speed=figures["tokens_per_second"],
        hardware=figures["hardware"],
        size=figures["weights_bytes"],
        sha=figures["weights_sha256"],
        bits=bits,
        chat=chat,
        instruction=instruction,
        english=counts["english"],
        dhd=counts["dhd"],
        rki=counts["rki"],
        licences=licences,
        copies=args.german_copies,
        share_en=counts["stream"]["text_en"] / total,
        share_de=counts["stream"]["text_de"] / total,
        share_chat=counts["stream"]["chat"] / total,
        lr=args.lr,
        lr_embed=args.lr_embed,
        decay=args.decay_from,
        answers=1 - ANSWERS_FROM,
        weight=args.answer_weight,
        note=args.note,
        seed=args.seed,
    )


def finish(
    args: argparse.Namespace, docs: list[Document], windows: Array, state: dict[str, Any]
) -> None:
    """Evaluate the written bf16 model, not the one in memory, and write card and figures."""
    out, data = Path(args.out), Path(args.data)
    folder = out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Model = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = folder / "model.safetensors"
    labels = {
        "en": f"English, crop science ({EVAL_TEXTS} articles)",
        "de": f"German, digital humanities ({EVAL_TEXTS} papers)",
    }
    bits: dict[str, dict[str, Any]] = {}
    unseen = {lang: eval_documents(data, lang) for lang in labels}
    for lang, label in labels.items():
        texts = [d.text for d in unseen[lang]]
        own = bits_per_byte(model, tokenizer, texts)
        bits[lang] = {
            "label": label,
            "bytes": own["bytes"],
            "tokens": own["tokens"],
            "model": round(own["bits"], 4),
            "unigram": round(unigram_bits(windows, args.vocab_size, tokenizer, texts), 4),
            "xz": round(xz_bits(texts), 4),
        }
    mixed = [d for pair in zip(unseen["en"], unseen["de"], strict=False) for d in pair]
    config = model.config
    figures: dict[str, Any] = {
        "name": NAME,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": f"{config.num_hidden_layers} / {config.hidden_size} / "
        f"{config.num_attention_heads} / {config.num_key_value_heads} / {config.head_dim} / "
        f"{config.intermediate_size}",
        "tokens_seen": state["tokens"],
        "steps": state["step"],
        "final_loss": round(state["loss"], 4),
        "minutes": round(state["seconds"] / 60, 1),
        "tokens_per_second": round(state["tokens"] / state["seconds"], 1),
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()}, shared with other work), "
        "no GPU",
        "torch": torch.__version__,
        "seed": args.seed,
        "weights_bytes": weights.stat().st_size,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bits_per_byte": bits,
        "chat": chat_check(model, tokenizer, mixed, args.seed),
        "instruction": instruction_check(model, tokenizer, mixed, args.seed),
    }
    english = [d for d in docs if d.lang == "en"]
    german = [d for d in docs if d.lang == "de"]
    counts = {
        "english": len(english),
        "dhd": sum(1 for d in german if d.doi),
        "rki": sum(1 for d in german if not d.doi),
        "licences": dict(Counter(d.licence for d in english).most_common()),
        "stream": json.loads((out / "stream.json").read_text("utf-8")),
    }
    figures["data"] = counts
    (folder / "eval.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(args, figures, counts), "utf-8")
    lines = ["id\tdoi\tlicence"] + [f"{d.id}\t{d.doi}\t{d.licence}" for d in docs]
    (folder / "training_texts.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    if args.export:
        export(folder, Path(args.export))


# --- the whole ----------------------------------------------------------------------------------


def main() -> None:
    """Read the arguments and run the parts in order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--out", required=True, help="folder of this run, outside the repository")
    parser.add_argument("--export", help="where the finished model folder goes")
    parser.add_argument("--minutes", type=float, default=85.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocab-size", type=int, default=6144)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--intermediate", type=int, default=688)
    parser.add_argument("--lr", type=float, default=8e-3, help="peak for Muon")
    parser.add_argument("--lr-embed", type=float, default=4e-3, help="peak for AdamW")
    parser.add_argument("--decay-from", type=float, default=0.4, help="fraction of the time")
    parser.add_argument("--german-copies", type=int, default=6)
    parser.add_argument("--chat-share", type=float, default=0.08)
    parser.add_argument("--answer-weight", type=float, default=10.0, help="in the last part")
    parser.add_argument("--chat-tokens", type=int, default=2_000_000, help="for the last part")
    parser.add_argument("--first-export", type=float, default=2.5, help="minutes")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--note", default="", help="a paragraph about this run, for the card")
    parser.add_argument("--finish", action="store_true", help="no training, only the last steps")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    docs = load_documents(Path(args.data))
    if not (out / "tokenizer" / "tokenizer.json").exists():
        train_tokenizer(docs, args.vocab_size, args.seed, out / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
    windows = build_stream(docs, tokenizer, args.german_copies, args.chat_share, args.seed, out)
    model: Model = MistralForCausalLM(make_config(args))
    if args.finish:
        state = load_checkpoint(out / "checkpoint", model, make_optimizers(model, args))
    else:
        probe = {
            lang: [d.text[:6000] for d in eval_documents(Path(args.data), lang)[:4]]
            for lang in ("en", "de")
        }
        chat = build_chat(docs, tokenizer, args.chat_tokens, args.seed + 1, out)
        state = train(args, model, tokenizer, windows, chat, probe)
    write_model(out / "model", out / "tokenizer", model, args)
    finish(args, docs, windows, state)


if __name__ == "__main__":
    main()
