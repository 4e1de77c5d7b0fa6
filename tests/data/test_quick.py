"""kitoken makes what the tokenizer library makes, for every way of splitting that byte-level models use; and where
it does not, the library is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer

from hauslm.data import quick as module
from hauslm.data.quick import DIFFICULT, STRETCH, Disagreement, Quick, Trial, runs_on
from hauslm.data.tokens import Tokenizer
from hauslm.embedded import DOCUMENTS, MODEL

# How published byte-level models split (the expressions stand in their tokenizer.json).
SPLITS = {
    "gpt-2": None,  # the library's own: ByteLevel(use_regex=True)
    "llama-3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen-2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "mistral-nemo": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
ODD = st.text(
    st.sampled_from(" \n\t\r\u00a0\u3000\u2028abAB'sS.,-1٣½é\u0301ß中я👩🏽\u200d</|>_\\\"#") | st.characters(exclude_categories=("Cs",)),
    max_size=80,
)  # fmt: skip
TEXT = st.lists(ODD | st.sampled_from(DIFFICULT), max_size=6).map("".join)


def made(folder: Path, split: str | None, ignore_merges: bool = False) -> Path:
    """A tokenizer.json of a few hundred tokens that splits in this way."""
    library = RustTokenizer(models.BPE(ignore_merges=ignore_merges))
    library.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if split is None
        else pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
    )  # fmt: skip
    texts = [p.read_text(encoding="utf-8") for p in sorted(DOCUMENTS.rglob("*.md"))]
    library.train_from_iterator([*texts, *DIFFICULT], trainer)
    library.add_tokens([AddedToken("<call>", special=False)])
    path = folder / "tokenizer.json"
    library.save(str(path))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return path


def made_with_blanks(folder: Path, *, first: bool = True) -> Path:
    """One as Mistral 7B and Llama 2 have: no splitting, blanks written as U+2581, other characters as bytes."""
    one_byte = [f"<0x{n:02X}>" for n in range(256)]
    control = ["<unk>", "<s>", "</s>"]
    library = RustTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blanks = normalizers.Replace(" ", "\u2581")
    library.normalizer = (
        normalizers.Sequence([normalizers.Prepend("\u2581"), blanks]) if first else blanks
    )
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, special_tokens=[*control, *one_byte], limit_alphabet=90,
        max_token_length=8,
    )  # fmt: skip
    texts = [p.read_text(encoding="utf-8") for p in sorted(DOCUMENTS.rglob("*.md"))]
    library.train_from_iterator([w for t in texts for w in t.split()], trainer)
    spec = json.loads(library.to_str())
    spec["added_tokens"] = [a for a in spec["added_tokens"] if a["content"] in control]
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "unk_token": "<unk>"}')
    return path


def raw(path: Path) -> RustTokenizer:
    library = RustTokenizer.from_file(str(path))
    library.encode_special_tokens = True
    return library


@pytest.fixture(
    scope="module", params=["embedded", "ignore-merges", "mistral-7b", "blanks", *SPLITS]
)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        return MODEL / "tokenizer.json"
    if request.param in ("mistral-7b", "blanks"):
        folder = tmp_path_factory.mktemp(request.param)
        return made_with_blanks(folder, first=request.param == "mistral-7b")
    split = SPLITS.get(request.param, SPLITS["llama-3"])
    folder = tmp_path_factory.mktemp(request.param)
    return made(folder, split, request.param == "ignore-merges")


@pytest.fixture(scope="module")
def both(path: Path) -> tuple[Quick, RustTokenizer]:
    library = raw(path)
    assert Trial(path).passed(library)
    return Quick(path, library), library


@settings(deadline=None, max_examples=150)
@given(text=TEXT)
def test_the_tokens_are_the_librarys(both: tuple[Quick, RustTokenizer], text: str) -> None:
    quick, library = both
    (ids,) = quick.ids_of([text])
    if ids is None:
        assert any(t.content in text for t in library.get_added_tokens_decoder().values())
    else:
        assert ids == library.encode(text, add_special_tokens=False).ids


@settings(deadline=None, max_examples=100)
@given(text=TEXT)
@pytest.mark.parametrize("first", [True, False])
def test_bytes_are_counted_where_blanks_are_written_as_characters(
    blanks: dict[bool, Tokenizer], first: bool, text: str
) -> None:
    tokenizer = blanks[first]
    one, other = tokenizer.encode_texts([text])[0], tokenizer._with_offsets([text])[0]
    assert one.ids.tolist() == other.ids.tolist()
    assert one.raw == text.encode() and (np.diff(one.ends, prepend=0) >= 0).all()
    # The library gives every byte of a character the end of the character, and the blank put first a place.
    inside = [e < len(one.raw) and one.raw[e] & 0xC0 == 0x80 for e in one.ends.tolist()]
    for at, (end, offset) in enumerate(zip(one.ends.tolist(), other.ends.tolist(), strict=True)):
        assert inside[at] or end == offset or (first and at == end == 0)
    assert not len(one.ends) or one.ends[-1] == len(one.raw)


@pytest.fixture(scope="module")
def blanks(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Tokenizer]:
    made = {}
    for first in (True, False):
        folder = made_with_blanks(tmp_path_factory.mktemp("blanks"), first=first).parent
        made[first] = Tokenizer(folder)
        assert made[first]._byte_lengths is not None
        assert made[first]._puts_blank_first is first
    return made


@pytest.mark.slow
def test_every_code_point_is_split_as_the_library_does(both: tuple[Quick, RustTokenizer]) -> None:
    quick, library = both
    for start in range(0, 0x110000, 1 << 14):
        characters = [chr(c) for c in range(start, start + (1 << 14)) if not 0xD800 <= c < 0xE000]
        texts = [f"a{x}b {x}1{x} {x}{x}\n{x}. '{x}s{x}\n {x}" for x in characters]
        wanted = [e.ids for e in library.encode_batch_fast(texts, add_special_tokens=False)]
        for text, ids in zip(texts, wanted, strict=True):
            assert quick._quick.encode(text, False) == ids, ascii(text)


def test_what_is_the_librarys(tmp_path: Path) -> None:
    path = made(tmp_path, SPLITS["llama-3"])
    quick = Quick(path, raw(path))
    long = "x" * (2 * STRETCH)
    texts = [
        "plain",
        "ends with </s>",
        "a <call> here",
        f"a {long}",
        f"a{' ' * 2 * STRETCH}b",
        "ein Wort " * STRETCH,
    ]
    assert [ids is None for ids in quick.ids_of(texts)] == [False, True, True, True, True, False]
    tokenizer = Tokenizer(tmp_path, quick=True)
    plain = Tokenizer(tmp_path)
    for one, other in zip(tokenizer.encode_texts(texts), plain.encode_texts(texts), strict=True):
        assert one.ids.tolist() == other.ids.tolist() and one.ends.tolist() == other.ends.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3 * STRETCH), st.integers(0, 3 * STRETCH), st.sampled_from(" \n\u3000x中"))
def test_no_longer_run_goes_to_kitoken(length: int, before: int, character: str) -> None:
    text = "a b " * (before // 4) + character * length + " a b" * 10
    if length >= 2 * STRETCH:
        assert runs_on(text)
    if length < STRETCH // 2:
        assert not runs_on(text)


def test_a_million_blanks_end_no_process() -> None:
    library = raw(MODEL / "tokenizer.json")
    text = "a" + " " * 1_000_000 + "b"
    encoded = Tokenizer(MODEL, quick=True).encode_texts([text])[0]
    assert encoded.ids.tolist() == library.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, None)
    other = made(tmp_path_of(tmp_path), SPLITS["qwen-2"])
    assert not Trial(path).passed(raw(other))  # other tokens than those of the library
    (tmp_path / "odd.json").write_text("{}")
    assert not Trial(tmp_path / "odd.json").passed(raw(path))  # not one at all
    short = raw(path)
    short.add_tokens(["\u00e9"])
    assert not Trial(path).passed(short)  # a spelling of one character cannot be looked for
    monkeypatch.setattr(module, "_TRIAL", "import os; os.abort()")
    assert not Trial(path).passed(raw(path))  # the process ended
    monkeypatch.setattr(module, "_TRIAL", "import time; time.sleep(600)")
    monkeypatch.setattr(module, "_TRIAL_S", 0.2)
    trial = Trial(path)
    assert not trial.passed(raw(path)) and not trial.passed(raw(path))
    trial.end()


def tmp_path_of(parent: Path) -> Path:
    folder = parent / "other"
    folder.mkdir()
    return folder


def test_without_kitoken_there_is_no_trial_to_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    library = raw(MODEL / "tokenizer.json")
    monkeypatch.setattr(module, "_TRIAL", "import there_is_no_such_module")
    assert not Trial(MODEL / "tokenizer.json").passed(library)
    monkeypatch.setattr("sys.executable", "/there/is/no/such/python")
    trial = Trial(MODEL / "tokenizer.json")
    assert not trial.passed(library)
    trial.end()


def test_vocabularies_that_need_offsets_are_the_librarys(tmp_path: Path) -> None:
    library = RustTokenizer(models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("a", -1.0)], unk_id=0))
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert Tokenizer(tmp_path).trial() is None


class Wrong:
    """Says something else than the library from the second text on."""

    def __init__(self, library: RustTokenizer) -> None:
        self._library, self._count = library, 0

    def encode(self, text: str, _: bool) -> list[int]:
        self._count += 1
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids if self._count == 1 else ids[::-1]


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    path = MODEL / "tokenizer.json"
    quick = Quick(path, raw(path))
    monkeypatch.setattr(quick, "_quick", Wrong(raw(path)))
    monkeypatch.setattr(module, "CHECKED_ONE_IN", 5)
    with pytest.raises(Disagreement, match=r"^5$"):
        quick.ids_of([f"text {n}" for n in range(12)])
