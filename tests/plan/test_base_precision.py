"""8-bit products in the plan: offered when asked for, by the card's capability, solved with the rest."""

from __future__ import annotations

from typing import Any

import pytest

from hauslm.catalog import load
from hauslm.estimate.memory import weight_bytes
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.speed import cpu_training_tokens_per_second, training_tokens_per_second
from hauslm.plan.question import VARIANTS
from hauslm.train.adapters import variants
from tests.plan.test_project import made, value


def project(gpu: str, precision: str, more: str = "") -> str:
    return (
        f"model: mistral-7b-v0.3\nscenario: {{hardware: {{gpu: {gpu}}}}}\n"
        f"training: {{seq_len: 2048, base_precision: {precision}{more}}}\n"
    )


@pytest.mark.parametrize(
    ("gpu", "expected"), [("rtx-4090", "fp8"), ("h200-sxm", "fp8"), ("rtx-3090", "int8")]
)
def test_auto_takes_what_the_card_multiplies_fast(tmp_path: Any, gpu: str, expected: str) -> None:
    record = made(project(gpu, "auto"), tmp_path)
    assert value(record, "base_precision") == expected
    assert value(record, "quantisation") == "none" and value(record, "method") == "lora"
    assert "as fast as" in record.settings["base_precision"].reason.text
    plain = made(project(gpu, "full"), tmp_path)
    assert value(plain, "base_precision") == "full"
    speed = record.throughput.tokens_per_second.value
    assert speed > 1.1 * plain.throughput.tokens_per_second.value
    # base format, checkpointed layers and micro-batch are one solution
    assert {c["quantisation"] for c in record.candidates} >= {
        "fp8" if expected == "fp8" else "int8_mm"
    }
    assert record.memory.peak_gib.highest <= load.gpu(gpu).memory_gib.value


def test_an_old_card_gets_none_by_itself(tmp_path: Any) -> None:
    assert value(made(project("t4", "auto"), tmp_path), "base_precision") == "full"


def test_memory_is_a_byte_for_a_weight() -> None:
    mistral = load.model("mistral-7b-v0.3").architecture
    assert mistral is not None
    for name in ("fp8", "int8_mm"):
        assert weight_bytes(mistral, "bf16", name) / 2**30 == pytest.approx(7.0, abs=0.1)  # type: ignore[arg-type]


def test_speed_lies_between_plain_and_the_ratio_of_the_peaks() -> None:
    mistral = load.model("mistral-7b-v0.3").architecture
    assert mistral is not None
    gpu = load.gpu("h200-sxm")
    plain, small = (
        training_tokens_per_second(
            TrainingSetup(mistral, "lora", 2048, micro_batch_size=8, quantisation=q),
            gpu,  # type: ignore[arg-type]
        ).value
        for q in ("none", "fp8")
    )
    assert 1.1 < small / plain < 2
    cpu = [
        cpu_training_tokens_per_second(
            TrainingSetup(mistral, "lora", 512, quantisation=q, base_dtype=d, device="cpu"),
            2,
            True,  # type: ignore[arg-type]
        ).value
        for d in ("fp32", "bf16")
        for q in ("none", "int8_mm", "fp8")
    ]
    assert 1.5 < cpu[1] / cpu[0] < 2.7 and 1 < cpu[4] / cpu[3] < 1.2
    assert cpu[2] < cpu[0]  # fp8 is emulated on a CPU


def test_the_plan_offers_8_bit_to_the_variants_that_bear_it() -> None:
    for name, variant in variants().items():
        bears = getattr(variant.module, "EIGHT_BIT", False)
        assert ({"fp8", "int8_mm"} <= set(VARIANTS[name])) is bears, name
