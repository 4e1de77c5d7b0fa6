"""How is a tokenizer told to llama.cpp? Tokens, kinds, merges or scores, and how text is cut first.

Two families are known there: byte-level BPE ("gpt2", with a name for the expression that cuts the text
first) and SentencePiece-like BPE ("llama"). llama.cpp knows the cutting expressions by name only; for
one that it does not know the nearest is chosen by trying, and the answer says how often it differs.
Facts: the GGUF specification (ggml-org/ggml, docs/gguf.md) and llama.cpp's list of expressions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.share.weights import refused

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp's name -> the expressions that cut the text, one after the other.
CUTS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "tekken": (_TEKKEN,),
    "refact": (r"\p{N}", _GPT2),
}
# Texts of our own on which the cuts are compared: words, figures, line ends, signs, both languages.
SAMPLES = (
    "The samples were taken from 12 organs built between 1685 and 1902.",
    "Die Proben wurden aus 12 Orgeln entnommen, die zwischen 1685 und 1902 gebaut wurden.",
    "Lead content fell from 98.7 % to 96.25 % (n = 1,204; p < 0.001).",
    "Der Bleigehalt fiel von 98,7 % auf 96,25 % (n = 1.204; p < 0,001).",
    "Methods\n\nWe measured the wall at three heights.\nResults\nIt creeps.",
    "It's the builder's own note: \"don't re-solder\".",
    "Größe, Maß, Zuglöcher und Österreich – naïve Façade.",
    "    indented\ttext  with   spaces \n",
    "CuSO4·5H2O at pH 7.4, 25 °C; see https://example.org/a?b=1&c=2",
    "10000 pipes, 250000 hours, 3.14159265",
)


@dataclass
class Tokens:
    """What the file's tokenizer keys need. `notes`: what a reader must know."""

    model: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    cut: str = ""
    space_prefix: bool = False
    notes: list[Sentence] = field(default_factory=list)


def tokens_of(folder: Path, vocab_size: int) -> Tokens:
    """The tokenizer of a base model's folder; H735 if llama.cpp has no such kind."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise refused(say("The base model has no tokenizer.json."), folder)
    spec = json.loads(file.read_text(encoding="utf-8"))
    model = spec["model"]
    if model.get("type") != "BPE":
        raise refused(say("The tokenizer is of a kind that GGUF export does not know."), file)
    tokens, kinds = _table(spec, vocab_size)
    pairs = [m if isinstance(m, list) else m.split(" ", 1) for m in model.get("merges", [])]
    if model.get("byte_fallback"):
        return _sentencepiece(spec, tokens, kinds, pairs)
    if not any(p["type"] == "ByteLevel" for p in _steps(spec.get("pre_tokenizer"))):
        raise refused(say("The tokenizer is of a kind that GGUF export does not know."), file)
    cut, notes = _cut(spec)
    merges = [" ".join(p) for p in pairs]
    return Tokens("gpt2", tokens, kinds, merges=merges, cut=cut, notes=notes)


def _table(spec: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's text and kind; ids without a token are padding of the embedding."""
    by_id: dict[int, tuple[str, int]] = {i: (t, NORMAL) for t, i in spec["model"]["vocab"].items()}
    unknown = spec["model"].get("unk_token")
    for number, (text, _) in list(by_id.items()):
        if spec["model"].get("byte_fallback") and _is_byte(text):
            by_id[number] = (text, BYTE)
        elif text == unknown:
            by_id[number] = (text, UNKNOWN)
    for added in spec.get("added_tokens", []):
        kind = CONTROL if added["special"] else USER_DEFINED
        if added["content"] != unknown:
            by_id[added["id"]] = (added["content"], kind)
    rows = [by_id.get(i, (f"[PAD{i}]", UNUSED)) for i in range(max(vocab_size, max(by_id) + 1))]
    return [t for t, _ in rows], [k for _, k in rows]


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _sentencepiece(
    spec: dict[str, Any], tokens: list[str], kinds: list[int], pairs: list[list[str]]
) -> Tokens:
    """llama.cpp merges the pair with the best score first: minus the rank of the first merge."""
    rank: dict[str, int] = {}
    for position, pair in enumerate(pairs):
        rank.setdefault("".join(pair), position)
    scores = [-float(rank[t]) if t in rank else -1e6 for t in tokens]
    steps = [*_steps(spec.get("normalizer")), *_steps(spec.get("pre_tokenizer"))]
    prefix = any(
        s["type"] == "Prepend"
        or (s["type"] == "Metaspace" and s.get("prepend_scheme", "always") != "never")
        for s in steps
    )
    return Tokens("llama", tokens, kinds, scores=scores, space_prefix=prefix)


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A (possibly nested) sequence of the tokenizer file as a flat list."""
    if part is None:
        return []
    inner = part.get("pretokenizers") or part.get("normalizers")
    return [part] if inner is None else [s for p in inner for s in _steps(p)]


def _cut(spec: dict[str, Any]) -> tuple[str, list[Sentence]]:
    """The name of the cut that tokenizes the samples as the tokenizer does, or the nearest."""
    from tokenizers import Tokenizer

    ours = Tokenizer.from_str(json.dumps(spec))
    wanted = [ours.encode(t, add_special_tokens=False).ids for t in SAMPLES]
    differs: dict[str, int] = {}
    for name, expressions in CUTS.items():
        split = [
            {"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False}
            for e in expressions
        ]
        level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        other = spec | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*split, level]}}
        theirs = Tokenizer.from_str(json.dumps(other))
        found = [theirs.encode(t, add_special_tokens=False).ids for t in SAMPLES]
        differs[name] = sum(a != b for a, b in zip(wanted, found, strict=True))
    best = min(differs, key=lambda n: differs[n])
    notes = []
    if differs[best]:
        notes.append(
            say(
                "llama.cpp does not know how this tokenizer cuts text; the nearest way it knows ({name}) differs on {count} of {all} test sentences (mostly figures and line ends).",
                name=best, count=differs[best], all=len(SAMPLES),
            )
        )  # fmt: skip
    return best, notes
