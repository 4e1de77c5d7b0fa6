"""Does a config.json give the right shape, and is what could run code turned away?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base.errors import HauslmError, RefusedError
from hauslm.catalog import load
from hauslm.catalog.config import LAYOUTS, architecture_of, read_config, refuse_code
from hauslm.embedded import MODEL

CLASSES = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "ministral3": "Ministral3Config",
    "mixtral": "MixtralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
    "gemma2": "Gemma2Config",
    "gemma3_text": "Gemma3TextConfig",
    "phi3": "Phi3Config",
    "olmo2": "Olmo2Config",
    "gpt_oss": "GptOssConfig",
    "smollm3": "SmolLM3Config",
}
FROM_CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def config_class(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, CLASSES[kind])


def test_every_layout_is_compared() -> None:
    assert set(CLASSES) == set(LAYOUTS)


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_the_full_configuration_of_transformers_is_read_as_it_means(kind: str) -> None:
    built = config_class(kind)()
    shape = architecture_of(built.to_dict() | {"tie_word_embeddings": built.tie_word_embeddings})
    assert shape.n_layers == built.num_hidden_layers
    assert shape.n_kv_heads == built.num_key_value_heads
    head_dim = getattr(built, "head_dim", None) or built.hidden_size // built.num_attention_heads
    assert shape.head_dim == head_dim
    assert shape.tied_embeddings == built.tie_word_embeddings
    types = getattr(built, "layer_types", None)
    if types:
        wanted = [t == "full_attention" for t in types]
        assert [shape.is_global(i) for i in range(shape.n_layers)] == wanted


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_a_key_that_is_left_out_means_what_transformers_assumes(kind: str) -> None:
    """config.json files hold only what differs from the defaults of the class."""
    built = config_class(kind)()
    whole = built.to_dict()
    keep = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads")
    keep += ("intermediate_size", "vocab_size", "max_position_embeddings")
    keep += ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size")
    sparse = {k: whole[k] for k in keep if whole.get(k) is not None}
    shape = architecture_of(sparse)
    full = architecture_of(whole | {"tie_word_embeddings": built.tie_word_embeddings})
    assert shape.n_kv_heads == full.n_kv_heads
    assert shape.head_dim == full.head_dim
    assert shape.tied_embeddings == full.tied_embeddings
    assert (shape.sliding_window, shape.global_every) == (full.sliding_window, full.global_every)


@pytest.mark.parametrize(
    "identity", [m.id for m in load.models() if m.architecture and m.architecture.family in LAYOUTS]
)
def test_a_catalog_row_written_as_config_reads_back_the_same(identity: str) -> None:
    row = load.model(identity).architecture
    assert row is not None
    config: dict[str, Any] = {
        "model_type": row.family,
        "num_hidden_layers": row.n_layers,
        "hidden_size": row.hidden_size,
        "num_attention_heads": row.n_heads,
        "num_key_value_heads": row.n_kv_heads,
        "head_dim": row.head_dim,
        "intermediate_size": row.intermediate_size,
        "vocab_size": row.vocab_size,
        "max_position_embeddings": row.max_context,
        "tie_word_embeddings": row.tied_embeddings,
        "sliding_window": row.sliding_window,
        "num_experts": row.n_experts,
        "num_experts_per_tok": row.experts_per_token,
        "moe_intermediate_size": row.moe_intermediate_size,
    }
    read = architecture_of(config)
    for name in (
        "n_layers",
        "n_kv_heads",
        "head_dim",
        "sliding_window",
        "global_every",
        "n_experts",
    ):
        assert getattr(read, name) == getattr(row, name), name


def test_a_multimodal_wrapper_is_looked_into() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240}
    text |= {"num_hidden_layers": 34, "sliding_window": 1024}
    shape = architecture_of({"model_type": "gemma3", "text_config": text})
    row = load.model("gemma-3-4b").architecture
    assert row is not None
    for name in (
        "n_heads",
        "n_kv_heads",
        "head_dim",
        "vocab_size",
        "tied_embeddings",
        "global_every",
    ):
        assert getattr(shape, name) == getattr(row, name), name


def test_what_a_wrapper_leaves_open_is_not_guessed() -> None:
    text = FROM_CONFIG | {"model_type": "mistral"}
    with pytest.raises(RefusedError, match="tie_word_embeddings"):
        architecture_of({"model_type": "mistral3", "text_config": text})
    tied = architecture_of(
        {"model_type": "mistral3", "text_config": text, "tie_word_embeddings": False}
    )
    assert not tied.tied_embeddings


def test_a_window_that_is_switched_off_is_none() -> None:
    config = FROM_CONFIG | {"model_type": "qwen2", "sliding_window": 131072}
    assert architecture_of(config).sliding_window is None
    on = config | {"use_sliding_window": True, "max_window_layers": 0}
    assert architecture_of(on).sliding_window == 131072
    with pytest.raises(RefusedError) as error:
        architecture_of(config | {"use_sliding_window": True, "max_window_layers": 28})
    assert error.value.code == "H445"


def test_missing_keys_are_named_and_an_unknown_layout_leads_to_the_trace() -> None:
    with pytest.raises(RefusedError, match=r"hidden_size, vocab_size") as error:
        architecture_of(
            {k: v for k, v in FROM_CONFIG.items() if k not in ("hidden_size", "vocab_size")}
        )
    assert error.value.code == "H444"
    with pytest.raises(RefusedError, match="--evidence trace") as error:
        architecture_of(FROM_CONFIG | {"model_type": "mamba2"})
    assert error.value.code == "H443"


@pytest.mark.parametrize("value", [0, -1, 1.5, "32", True, [1], 1 << 50])
def test_an_impossible_count_is_refused(value: Any) -> None:
    with pytest.raises(RefusedError) as error:
        architecture_of(FROM_CONFIG | {"num_hidden_layers": value})
    assert error.value.code == "H444"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = sorted(
    {*FROM_CONFIG, "head_dim", "sliding_window", "layer_types", "rope_parameters", "num_experts"}
    | {"text_config", "use_sliding_window", "max_window_layers", "sliding_window_pattern"}
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*LAYOUTS, "gemma3", "mistral3"]), st.dictionaries(st.sampled_from(KEYS), JSON)
)
def test_any_configuration_is_read_or_refused(kind: str, changes: dict[str, Any]) -> None:
    try:
        architecture_of({**FROM_CONFIG, "model_type": kind, **changes})
    except HauslmError as error:
        assert error.text("en") and error.text("de")


# ---------------------------------------------------------------- code in a model folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(FROM_CONFIG))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    return tmp_path


def code_of(folder: Path) -> str:
    with pytest.raises(RefusedError) as error:
        refuse_code(folder, read_config(folder))
    return error.value.code


def test_a_plain_folder_is_harmless(folder: Path) -> None:
    refuse_code(folder, read_config(folder))
    harmless = {"_name_or_path": "x", "_attn_implementation_autoset": True}
    (folder / "config.json").write_text(json.dumps(FROM_CONFIG | harmless))
    refuse_code(folder, read_config(folder))


@pytest.mark.parametrize(
    "key",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"_attn_implementation_internal": "org/kernel"},
        {"_attn_implementation": "org/kernel"},
        {"attn_implementation": "org/kernel"},
        {"trust_remote_code": True},
        {"text_config": {"vision": {"auto_map": {}}}},
    ],
)
def test_a_key_that_loads_code_is_refused(folder: Path, key: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(FROM_CONFIG | key))
    assert code_of(folder) == "H440"


def test_a_tokenizer_with_code_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'
    )
    assert code_of(folder) == "H440"


def test_python_files_are_refused(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "modeling.py").write_text("")
    assert code_of(folder) == "H441"


def test_pickled_weights_alone_are_refused(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refuse_code(folder, read_config(folder))  # safetensors lie beside it and are what is loaded
    (folder / "model.safetensors").unlink()
    assert code_of(folder) == "H442"


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, '{"a": ' * 50_000])
def test_a_broken_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert code_of(folder) == "H446"


def test_the_embedded_model_is_understood() -> None:
    if not (MODEL / "config.json").is_file():
        pytest.skip("the embedded model is not built in this checkout")
    config = read_config(MODEL)
    refuse_code(MODEL, config)
    assert architecture_of(config).n_layers > 0
