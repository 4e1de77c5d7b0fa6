"""The fake-tensor trace of real models agrees with the formula, and with published peaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hauslm.base.errors import UsageError
from hauslm.catalog import load
from hauslm.estimate.memory import training_memory
from hauslm.estimate.setup import TrainingSetup

trace = pytest.importorskip("hauslm.estimate.trace")

MISTRAL = load.model("mistral-7b-v0.3").architecture
assert MISTRAL is not None
LAB = {"rank": 8, "targets": ("q_proj", "k_proj", "v_proj", "o_proj")}

CASES = [
    ("mistral-7b-v0.3", {"loss": "naive", "dropout": 0.05, "arithmetic": "mixed", **LAB}, 0.01),
    ("mistral-7b-v0.3", {"loss": "naive", "arithmetic": "autocast", **LAB, "checkpointed_layers": 32}, 0.01),
    ("mistral-7b-v0.3", {"loss": "fused", "checkpointed_layers": 12}, 0.02),
    ("mistral-7b-v0.3", {"method": "qlora", "quantisation": "nf4_dq", "checkpointed_layers": 32}, 0.05),
    ("mistral-7b-v0.3", {"method": "full", "loss": "naive"}, 0.01),
    ("qwen3-8b", {"loss": "fused"}, 0.02),
    ("gemma-2-9b", {"loss": "naive"}, 0.02),
    ("phi-3-mini-4k", {"loss": "fused"}, 0.03),
    ("gpt-oss-20b", {"loss": "fused", "targets": "attention"}, 0.06),
]  # fmt: skip


@pytest.mark.parametrize(("model", "changes", "within"), CASES, ids=lambda v: str(v)[:40])
def test_formula_and_trace_agree(model, changes, within):
    shape = load.model(model).architecture
    s = TrainingSetup(shape, **{"method": "lora", "seq_len": 2048, **changes})
    traced = trace.trace_training_peak(trace.config_of(shape), s)
    assert training_memory(s).allocated_gib == pytest.approx(traced.allocated_gib, rel=within)
    parts = traced.memory.parts.model_dump()
    assert sum(p["value"] for p in parts.values()) == pytest.approx(traced.peak.value)


def test_published_peak_and_time_limit():
    """Mistral-7B LoRA r16, 4 x 4096, checkpointing: 24.87 GiB (fms-acceleration, A100)."""
    shape = load.model("mistral-7b-v0.1").architecture
    s = TrainingSetup(
        shape, "lora", 4096, 4, rank=16, targets=LAB["targets"], dropout=0.1, arithmetic="mixed",
        loss="naive_shifted", attention="flash", checkpointed_layers=32,
    )  # fmt: skip
    traced = trace.trace_training_peak(trace.config_of(shape), s)
    assert traced.allocated_gib == pytest.approx(24.87, rel=0.01)


def test_extrapolation_equals_tracing_all_layers():
    small = replace(MISTRAL, n_layers=6, hidden_size=512, n_heads=8, n_kv_heads=2, head_dim=64,
                    intermediate_size=1024, vocab_size=2048)  # fmt: skip
    for checkpointed in (0, 3, 6):
        s = TrainingSetup(small, "lora", 512, rank=8, checkpointed_layers=checkpointed)
        config = trace.config_of(small)
        whole = trace.trace_training_peak(config, s, (8, 9))
        assert trace.trace_training_peak(config, s).allocated_gib == pytest.approx(
            whole.allocated_gib, rel=0.002
        )


def test_a_family_that_the_formula_does_not_know():
    config = {
        "model_type": "gpt_neox", "hidden_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 1000,
        "max_position_embeddings": 512,
    }  # fmt: skip
    stand_in = replace(MISTRAL, n_layers=4, hidden_size=256, n_heads=4, n_kv_heads=4, head_dim=64,
                       intermediate_size=1024, vocab_size=1000)  # fmt: skip
    s = TrainingSetup(stand_in, "lora", 256, loss="naive", arithmetic="mixed")
    assert 0.001 < trace.trace_training_peak(config, s).allocated_gib < 1


def test_what_cannot_be_traced_says_so():
    s = TrainingSetup(MISTRAL, "lora", 64)
    with pytest.raises(UsageError) as caught:
        trace.trace_training_peak({"model_type": "nonsense"}, s)
    assert caught.value.code == "H160"
    with pytest.raises(UsageError) as caught:
        trace.trace_training_peak(trace.config_of(MISTRAL), replace(s, ranks=2, sharding="fsdp"))
    assert caught.value.code == "H162"
