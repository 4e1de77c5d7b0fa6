"""A base with more tokens: the same bytes everywhere, means of the pieces, nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from hauslm.base.errors import DataError, RefusedError
from hauslm.catalog.added import extended
from hauslm.catalog.local import find_base, weights_sha256

WORDS = ["<s>", "</s>", "[UNK]", "sugar", "beet", "leaf", "drought", "-", "tolerant", "mol"]
TOKENS = ["sugar beet", "drought-tolerant", "<GEN>"]


def make_base(
    folder: Path, dtype: Any = torch.float32, rows: int = len(WORDS), **more: Any
) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        bos_token_id=0, eos_token_id=1, **more,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    rust = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "LICENSE").write_text("a licence")
    return folder


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {n: t for p in sorted(folder.glob("*.safetensors")) for n, t in load_file(p).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_the_means_of_their_pieces(tmp_path: Path, dtype: Any, tied: bool) -> None:
    base = make_base(tmp_path / "base", dtype, tie_word_embeddings=tied)
    made = extended(base, TOKENS, tmp_path / "work")
    assert made.ids == (10, 11, 12)
    before, after = loaded(base), loaded(made.path)
    assert set(before) == set(after)
    pieces = {10: [3, 4], 11: [6, 7, 8]}
    for name, old in before.items():
        new = after[name]
        assert new.dtype == dtype
        if not name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(old, new)
            continue
        assert new.shape == (13, 16) and torch.equal(new[:10], old)
        for row, parts in pieces.items():
            assert torch.equal(new[row], old[parts].float().mean(0).to(dtype))
    assert json.loads((made.path / "config.json").read_text())["vocab_size"] == 13
    assert (made.path / "LICENSE").read_text() == "a licence"  # duties stay with the weights


def test_making_it_is_told_and_finding_it_again_is_not(tmp_path: Path) -> None:
    base, told = make_base(tmp_path / "base"), list[str]()
    for _ in range(2):
        extended(
            base, TOKENS, tmp_path / "work", tell=lambda sentence: told.append(sentence.text())
        )
    assert len(told) == 1 and "3 more tokens" in told[0]


def test_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_base(tmp_path / "base")
    made = extended(base, TOKENS, tmp_path / "work")
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    assert len(tokenizer) == 13
    ids = tokenizer("leaf sugar beet <GEN> drought-tolerant", add_special_tokens=False).input_ids
    assert ids == [5, 10, 12, 11]
    model = AutoModelForCausalLM.from_pretrained(made.path)
    assert model(torch.tensor([ids])).logits.shape[-1] == 13


def test_same_bytes_on_another_machine_and_kept(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    one, two = (extended(base, TOKENS, tmp_path / w) for w in ("a", "b"))
    assert weights_sha256(one.path) == weights_sha256(two.path)
    assert (one.path / "tokenizer.json").read_bytes() == (two.path / "tokenizer.json").read_bytes()
    before = (one.path / "model.safetensors").stat().st_mtime_ns
    assert extended(base, TOKENS, tmp_path / "a") == one
    assert (one.path / "model.safetensors").stat().st_mtime_ns == before
    other = extended(base, TOKENS[:2], tmp_path / "a")
    assert other.path != one.path


def test_changed_weights_are_taken_over(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    one = weights_sha256(extended(base, TOKENS, tmp_path / "work").path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    save_file({n: t + 1 for n, t in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    assert weights_sha256(extended(base, TOKENS, tmp_path / "work").path) != one


def test_spare_rows_are_used_first(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", rows=16)
    made = extended(base, TOKENS, tmp_path / "work")
    old, new = (loaded(f)["model.embed_tokens.weight"] for f in (base, made.path))
    assert new.shape == (16, 16) and made.ids == (10, 11, 12)
    assert torch.equal(new[13:], old[13:]) and not torch.equal(new[10], old[10])


def test_shards_without_embeddings_are_not_copied(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = make_base(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="2KB")
    made = extended(base, TOKENS, tmp_path / "work")
    assert len(list(base.glob("*.safetensors"))) > 2
    same = [(made.path / p.name).samefile(p) for p in base.glob("*.safetensors")]
    assert any(same) and not all(same)
    longer = AutoModelForCausalLM.from_pretrained(made.path)
    assert longer.get_input_embeddings().weight.shape[0] == 13


@pytest.mark.parametrize(
    "tokens", [["leaf"], ["a", "a"], [" a"], [""], ["x" * 101], ["a"] * 3, ["</s>"]]
)
def test_what_is_no_new_token_is_refused(tmp_path: Path, tokens: list[str]) -> None:
    base = make_base(tmp_path / "base")
    with pytest.raises(DataError) as caught:
        extended(base, tokens, tmp_path / "work")
    assert caught.value.code == "H447"
    assert not list((tmp_path / "work").rglob("*.safetensors"))


def test_a_base_that_cannot_be_longer_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(RefusedError) as caught:
        extended(base, TOKENS, tmp_path / "work")
    assert caught.value.code == "H448"


def test_find_base_gives_the_longer_folder(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    plain = find_base("tiny", "base", None, tmp_path)
    longer = find_base("tiny", "base", None, tmp_path, added=TOKENS)
    assert (longer.id, longer.added_ids, plain.added_ids) == (plain.id, (10, 11, 12), ())
    assert longer.config["vocab_size"] == 13
    for weights in (tmp_path / "base").glob("*.safetensors"):
        weights.unlink()
    for folder in (tmp_path / "work").rglob("hauslm-source.json"):
        folder.unlink()
    text = find_base("tiny", "base", None, tmp_path, need_weights=False, added=TOKENS)
    assert text.added_ids == (10, 11, 12)  # preparing needs the tokenizer alone


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    from hauslm.catalog.added import _bfloat16

    values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    wanted = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(_bfloat16(values), wanted)
