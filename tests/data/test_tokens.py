"""The tokenizer wrapper against the library itself, and the template's edge cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers

from hauslm.base.errors import DataError, MissingError
from hauslm.data.tokens import Tokenizer
from hauslm.embedded import MODEL

from . import conftest

Make = Callable[[str, str | None], Tokenizer]


def test_facts_of_the_embedded_model(tokenizer: Tokenizer) -> None:
    assert tokenizer.text_prefix == (tokenizer.bos_id,)
    assert tokenizer.eos_id == tokenizer.special_tokens[tokenizer.eos_token]
    assert tokenizer.vocab_size > 1000 and len(tokenizer.sha256) == 64
    assert tokenizer.encode("Wind", add_special=True)[0] == tokenizer.bos_id
    assert tokenizer.count("Wind and more wind") == len(tokenizer.encode("Wind and more wind"))


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=200))
def test_byte_ends_agree_with_the_librarys_offsets(tokenizer: Tokenizer, text: str) -> None:
    fast, slow = tokenizer.encode_texts([text])[0], tokenizer._with_offsets([text])[0]
    assert fast.ids.tolist() == slow.ids.tolist() == tokenizer.encode(text)
    whole = text.encode()
    assert (int(fast.ends[-1]) if len(fast.ends) else 0) == len(whole)
    starts = np.concatenate(([0], fast.ends))[:-1]
    pieces = [whole[a:b] for a, b in zip(starts, fast.ends, strict=True)]
    assert b"".join(pieces) == whole
    assert tokenizer.decode(fast.ids, skip_special=False) == text


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<s>"),
        models.WordPiece({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<s>"),
        models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_of_other_kinds_have_their_tokens(tmp_path: Path, model: models.Model) -> None:
    library = RustTokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    encoded = Tokenizer(tmp_path).encode_texts(["a b a", "ä b"])
    assert [e.ids.tolist() for e in encoded] == [[2, 3, 2], [0, 3]]
    assert [e.ends.tolist() for e in encoded] == [[1, 3, 5], [2, 4]]


def test_neutral_breaks_control_tokens_only(tokenizer: Tokenizer) -> None:
    spelled = f"a {tokenizer.eos_token} b"
    assert tokenizer.eos_id not in tokenizer.encode_rendered(tokenizer.neutral(spelled))
    assert tokenizer.neutral("a < s > b") == "a < s > b"


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as error:
        Tokenizer(tmp_path)
    assert error.value.code == "H521" and error.value.next_step


def test_a_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError) as error:
        Tokenizer(tmp_path)
    assert error.value.code == "H320"


def test_a_model_without_end_token_is_refused(tmp_path: Path) -> None:
    shutil.copy(MODEL / "tokenizer.json", tmp_path)
    with pytest.raises(DataError) as error:
        _ = Tokenizer(tmp_path).eos_id
    assert error.value.code == "H321"


def test_the_end_token_of_config_json_will_do(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shutil.copy(MODEL / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [tokenizer.eos_id, 0]}))
    assert Tokenizer(tmp_path).eos_id == tokenizer.eos_id


def test_truncation_and_padding_of_the_file_are_switched_off(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    spec = json.loads((MODEL / "tokenizer.json").read_text())
    spec["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert Tokenizer(tmp_path).count("one two three four five six seven") > 4


def test_templates_render_like_transformers_would(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of("byte", conftest.CHATML)
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.render(messages) == "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizer.render(messages, add_generation_prompt=True).endswith(
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Roles must alternate') }}",
        "{% for m in messages %}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ undefined_thing() }}",
    ],
)
def test_broken_and_hostile_templates_are_an_error(tokenizer_of: Make, template: str) -> None:
    with pytest.raises(DataError) as error:
        tokenizer_of("byte", template).render([{"role": "user", "content": "x"}])
    assert error.value.code == "H322"


def test_generation_blocks_dates_and_json(tokenizer_of: Make) -> None:
    template = "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ strftime_now('%d') }}{{ {'ä': 1} | tojson }}"
    text = tokenizer_of("byte", template).render([{"role": "user", "content": "x"}])
    assert text == 'x26 Jul 2024{"ä": 1}', "the same every day"
