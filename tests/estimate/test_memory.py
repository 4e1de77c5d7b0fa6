"""Memory by formula: published peaks, traps that other planners fall into, and what must never happen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base.errors import UsageError
from hauslm.catalog import load
from hauslm.catalog.schema import Architecture
from hauslm.estimate.memory import (
    GIB,
    inference_memory,
    kv_cache_bytes,
    training_memory,
    weight_bytes,
)
from hauslm.estimate.setup import InferenceSetup, TrainingSetup


def architecture(name: str) -> Architecture:
    found = load.model(name).architecture
    assert found is not None
    return found


MISTRAL = architecture("mistral-7b-v0.3")
LAB = ("q_proj", "k_proj", "v_proj", "o_proj")


# ---------------------------------------------------------------- known figures


def test_weights_by_format():
    assert weight_bytes(MISTRAL, "bf16", "none") / GIB == pytest.approx(13.50, abs=0.01)
    assert weight_bytes(MISTRAL, "bf16", "nf4_dq") / GIB == pytest.approx(3.85, abs=0.03)
    saved = weight_bytes(MISTRAL, "bf16", "nf4") - weight_bytes(MISTRAL, "bf16", "nf4_dq")
    assert saved / GIB == pytest.approx(0.30, abs=0.01)  # LitGPT publishes 0.30 GB
    assert weight_bytes(MISTRAL, "bf16", "int8") / GIB == pytest.approx(7.0, abs=0.05)


def test_the_lab_code_as_it_stands_does_not_fit_24_gb():
    lab = TrainingSetup(
        architecture("mistral-7b-v0.1"), "lora", 2048, rank=8, targets=LAB, dropout=0.05,
        arithmetic="mixed", loss="naive",
    )  # fmt: skip
    estimate = training_memory(lab)
    assert estimate.allocated_gib == pytest.approx(27.8, abs=0.1)
    assert estimate.peak.value > 24
    padded = training_memory(replace(lab, attention="masked"))
    assert padded.peak.value == pytest.approx(29.1, abs=0.2)
    assert training_memory(lab.all_checkpointed).peak.highest < 24 * 0.97


def test_loss_decides_at_long_sequences():
    llama = architecture("llama-3.1-8b")
    s = TrainingSetup(llama, "lora", 32768, rank=8, targets="attention").all_checkpointed
    saved = training_memory(replace(s, loss="naive")).peak.value - training_memory(s).peak.value
    per_logit = saved * GIB / 32768 / llama.vocab_size
    assert 8 < per_logit <= 12
    assert saved > 32


def test_full_fine_tuning_peaks_at_the_update():
    estimate = training_memory(TrainingSetup(MISTRAL, "full", 2048).all_checkpointed)
    assert estimate.moment == "optimizer"
    assert estimate.allocated_gib == pytest.approx(4 * 13.5, rel=0.01)
    temporary = training_memory(
        TrainingSetup(MISTRAL, "full", 2048, optimizer="adamw_foreach").all_checkpointed
    )
    assert temporary.allocated_gib == pytest.approx(5 * 13.5, rel=0.01)


def test_parts_add_up_to_the_peak():
    estimate = training_memory(TrainingSetup(MISTRAL, "qlora", 4096, quantisation="nf4_dq"))
    parts = estimate.memory.parts.model_dump()
    assert sum(p["value"] for p in parts.values()) == pytest.approx(estimate.peak.value)
    assert estimate.peak.lowest < estimate.peak.value < estimate.peak.highest


# ---------------------------------------------------------------- KV traps


def test_kv_cache_counts_groups_not_heads():
    assert kv_cache_bytes(MISTRAL, 1) == 131_072
    assert kv_cache_bytes(MISTRAL, 9400) / 1e9 == pytest.approx(1.23, abs=0.01)


def test_kv_cache_uses_head_dim_not_hidden_over_heads():
    gemma = architecture("gemma-2-2b")
    assert gemma.head_dim != gemma.hidden_size // gemma.n_heads
    per_token = kv_cache_bytes(replace(gemma, sliding_window=None), 1)
    assert per_token == 2 * gemma.n_layers * gemma.n_kv_heads * gemma.head_dim * 2


def test_sliding_window_caps_local_layers_only():
    gemma = architecture("gemma-3-12b")
    full = kv_cache_bytes(replace(gemma, sliding_window=None), 100_000)
    windowed = kv_cache_bytes(gemma, 100_000)
    assert windowed < 0.2 * full
    local = sum(not gemma.is_global(i) for i in range(gemma.n_layers))
    per_layer = 2 * gemma.n_kv_heads * gemma.head_dim * 2
    expected = per_layer * (local * 1024 + (gemma.n_layers - local) * 100_000)
    assert windowed == expected


def test_inference_counts_cache_per_sequence():
    one = inference_memory(InferenceSetup(MISTRAL, 8192, 1))
    four = inference_memory(InferenceSetup(MISTRAL, 8192, 4))
    assert four.bytes["kv_cache"] == 4 * one.bytes["kv_cache"]
    assert four.bytes["weights"] == one.bytes["weights"]


# ---------------------------------------------------------------- mixtures


def test_experts_stay_in_16_bit_since_transformers_5():
    mixture = architecture("qwen3-30b-a3b")
    s = TrainingSetup(mixture, "qlora", 2048, quantisation="nf4_dq", targets="attention")
    assert training_memory(s).bytes["weights"] / GIB > 50
    before = training_memory(replace(s, quantise_experts=True))
    assert before.bytes["weights"] / GIB < 20


# ---------------------------------------------------------------- impossible


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full", "quantisation": "nf4_dq"},
        {"method": "qlora"},
        {"method": "full", "dora": True},
        {"checkpointed_layers": 33},
        {"micro_batch_size": 0},
    ],
)
def test_impossible_combinations_are_refused_with_exit_2(changes):
    with pytest.raises(UsageError) as caught:
        training_memory(TrainingSetup(MISTRAL, **{"method": "lora", "seq_len": 128, **changes}))
    assert caught.value.code == "H152" and caught.value.exit_code == 2
    assert caught.value.next_step


def test_unknown_architecture_offers_the_trace():
    with pytest.raises(UsageError) as caught:
        training_memory(TrainingSetup(replace(MISTRAL, family="mamba"), "lora", 128))
    assert caught.value.code == "H150" and "trace" in str(caught.value)


# ---------------------------------------------------------------- what must never happen

SETUPS = st.builds(
    TrainingSetup,
    st.sampled_from([MISTRAL, architecture("qwen3-8b"), architecture("gemma-2-9b")]),
    st.just("lora"),
    st.sampled_from([128, 512, 2048, 8192]),
    micro_batch_size=st.integers(1, 8),
    rank=st.sampled_from([1, 8, 64]),
    targets=st.sampled_from(["attention", "all-linear", "mlp"]),
    dropout=st.sampled_from([0.0, 0.1]),
    arithmetic=st.sampled_from(["lean", "autocast", "mixed"]),
    attention=st.sampled_from(["sdpa", "masked", "eager"]),
    loss=st.sampled_from(["naive", "fused"]),
    checkpointed_layers=st.integers(0, 30),
)


@settings(max_examples=60, deadline=None)
@given(SETUPS)
def test_more_never_needs_less(s):
    peak = training_memory(s).peak.value
    slack = 1e-9

    def at_least(**changes: object) -> None:
        assert training_memory(replace(s, **changes)).peak.value >= peak - slack

    at_least(seq_len=2 * s.seq_len)
    at_least(micro_batch_size=s.micro_batch_size + 1)
    at_least(rank=2 * s.rank)
    at_least(dropout=0.1)
    at_least(attention="eager")
    at_least(optimizer="adamw_foreach")
    fewer = training_memory(replace(s, checkpointed_layers=s.checkpointed_layers + 1))
    # The first checkpointed layer brings the recomputation itself, which short models may feel.
    if s.checkpointed_layers:
        assert fewer.peak.value <= peak + slack


@settings(max_examples=40, deadline=None)
@given(SETUPS)
def test_ranges_enclose_and_parts_are_never_negative(s):
    estimate = training_memory(s)
    assert estimate.peak.lowest <= estimate.peak.value <= estimate.peak.highest
    assert all(size >= 0 for size in estimate.bytes.values())
