"""Speed, duration and energy: limits of physics, monotonicity, sums."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hauslm.base.errors import RefusedError
from hauslm.base.quantity import given as stated
from hauslm.catalog import load
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.speed import (
    analysis_throughput,
    cpu_training_tokens_per_second,
    energy_kwh,
    training_hours,
    training_tokens_per_second,
)
from hauslm.estimate.work import attention_flops, training_work

MISTRAL = load.model("mistral-7b-v0.3").architecture
assert MISTRAL is not None
LORA = TrainingSetup(MISTRAL, "lora", 2048, rank=8, targets="attention")


def test_flops_of_a_token():
    assert training_work(LORA).total / 1e9 == pytest.approx(30.1, rel=0.01)
    assert training_work(LORA.all_checkpointed).total / 1e9 == pytest.approx(44.6, rel=0.01)
    full = training_work(TrainingSetup(MISTRAL, "full", 2048)).total
    assert full / training_work(LORA).total == pytest.approx(1.48, abs=0.03)


def test_sliding_window_bounds_attention_work():
    window = replace(MISTRAL, sliding_window=4096)
    assert attention_flops(window, 2048) == attention_flops(MISTRAL, 2048)
    assert attention_flops(window, 32768) < 0.3 * attention_flops(MISTRAL, 32768)


@pytest.mark.parametrize("gpu", load.gpus(), ids=lambda g: g.id)
def test_no_card_beats_its_own_peak(gpu):
    speed = training_tokens_per_second(LORA, gpu)
    assert 0 < speed.lowest < speed.value < speed.highest
    if gpu.tflops_bf16 is not None:
        limit = gpu.tflops_bf16.value * 1e12 / training_work(LORA).total
        assert speed.highest < 1.1 * limit


def test_recomputing_and_rounding_cost_speed():
    gpu = load.gpu("rtx-4090")
    plain = training_tokens_per_second(LORA, gpu).value
    assert training_tokens_per_second(LORA.all_checkpointed, gpu).value < plain
    rounded = replace(LORA, method="qlora", quantisation="nf4_dq")
    assert training_tokens_per_second(rounded, gpu).value < plain
    mixed = replace(LORA, arithmetic="mixed", dropout=0.05)
    assert training_tokens_per_second(mixed, gpu).value < plain


def test_hours_and_energy_carry_their_range():
    speed = training_tokens_per_second(LORA, load.gpu("rtx-3090"))
    hours = training_hours(5e6, speed)
    assert hours.value == pytest.approx(5e6 / speed.value / 3600)
    assert hours.lowest < hours.value < hours.highest
    energy = energy_kwh(hours, stated(400, "W"))
    assert energy.value == pytest.approx(hours.value * 0.4)


def test_more_cores_train_faster():
    slow = cpu_training_tokens_per_second(LORA, 2, True).value
    assert cpu_training_tokens_per_second(LORA, 4, True).value > slow
    assert cpu_training_tokens_per_second(LORA, 2, False).value < slow


def test_articles_per_hour_on_a_24_gb_card():
    result = analysis_throughput(
        MISTRAL, load.gpu("rtx-4090"), tokens_in=9400, tokens_out=500, adapter="separate"
    )
    assert result.limited_by == "kv_cache"
    assert 1 <= result.sequences <= 8
    assert 200 < result.documents_per_hour.value < 4000
    merged = analysis_throughput(
        MISTRAL, load.gpu("rtx-4090"), tokens_in=9400, tokens_out=500, adapter="merged"
    )
    assert merged.documents_per_hour.value > result.documents_per_hour.value


def test_quantised_weights_leave_room_for_more_sequences():
    gpu = load.gpu("rtx-4090")
    wide = analysis_throughput(MISTRAL, gpu, tokens_in=2000, tokens_out=200)
    narrow = analysis_throughput(
        MISTRAL, gpu, tokens_in=2000, tokens_out=200, quantisation="nf4_dq"
    )
    assert narrow.sequences > wide.sequences


def test_a_model_that_does_not_fit_is_refused():
    big = load.model("llama-3.1-70b").architecture
    with pytest.raises(RefusedError) as caught:
        analysis_throughput(big, load.gpu("rtx-4090"), tokens_in=1000, tokens_out=100)
    assert caught.value.code == "H430" and caught.value.exit_code == 4
