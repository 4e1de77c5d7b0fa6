"""The probe measures real steps on this CPU; what it measured agrees with the formula."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hauslm.base.errors import MissingError
from hauslm.base.quantity import given
from hauslm.catalog.config import architecture_of, read_config
from hauslm.catalog.schema import Architecture
from hauslm.embedded import MODEL
from hauslm.estimate import probe
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import GIB, training_memory
from hauslm.estimate.setup import TrainingSetup


def _process_peak_gib(config, s):
    answer = probe.in_child(config, s, "cpu")
    return (answer["at_rest_bytes"] + answer["transient_bytes"]) / GIB


@pytest.fixture
def embedded():
    if not (MODEL / "config.json").is_file():
        pytest.skip("the embedded model is not here")
    config = read_config(MODEL)
    return config, architecture_of(config)


def test_predicted_peak_of_the_embedded_model(embedded, monkeypatch):
    """Peak of the whole process: the runtime's own 0.45 GiB and glibc's heap included."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config, shape = embedded
    s = TrainingSetup(shape, "lora", 512, 2, base_dtype="fp32", attention="documents", device="cpu")
    predicted = training_memory(s).peak.value
    assert _process_peak_gib(config, s) == pytest.approx(predicted, rel=0.10)


def test_predicted_activations_of_the_embedded_model(embedded, monkeypatch):
    """With a heap that gives memory back at once, the activations themselves are seen."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    config, shape = embedded
    s = TrainingSetup(shape, "lora", 512, 2, base_dtype="fp32", attention="documents", device="cpu")
    parts = training_memory(s).bytes
    transient = probe.in_child(config, s, "cpu")["transient_bytes"]
    assert transient == pytest.approx(parts["activations"] + parts["logits"], rel=0.10)


@pytest.mark.slow
def test_predicted_peak_of_a_random_model_with_200_million_parameters(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shape = Architecture(12, 1024, 16, 4, 64, 2816, 32000, False, 4096, None, "llama")
    s = TrainingSetup(shape, "lora", 256, base_dtype="fp32", attention="documents", device="cpu")
    predicted = training_memory(s).peak.value
    assert _process_peak_gib(config_of(shape), s) == pytest.approx(predicted, rel=0.10)


def test_factors_come_from_the_difference_of_two_depths():
    shape = Architecture(8, 256, 4, 2, 64, 688, 1000, True, 4096, None, "llama")
    s = TrainingSetup(shape, "lora", 128, device="cpu", base_dtype="fp32")
    few, more = (training_memory(probe._with_layers(s, n)).bytes for n in probe.LAYERS)
    grown = 1.5 * (more["activations"] - few["activations"])
    answers = [
        {"step_s": 1.0, "transient_bytes": 5e8},
        {"step_s": 1.5, "transient_bytes": 5e8 + grown},
    ]
    found = probe._compare(s, s, answers, "cpu")
    assert found.memory_factor == pytest.approx(1.5)
    assert found.speed.value == pytest.approx(128 / (1.0 + 0.5 * 7))


def test_profile_keeps_other_machines_and_survives_damage(tmp_path):
    path = tmp_path / "machine.json"
    shape = Architecture(4, 256, 4, 2, 64, 688, 1000, True, 4096, None, "llama")
    s = TrainingSetup(shape, "lora", 128, device="cpu")
    answers = [{"step_s": 1.0, "transient_bytes": 1e8}, {"step_s": 2.0, "transient_bytes": 2e8}]
    result = probe._compare(s, s, answers, "cpu")
    memory = training_memory(s)
    probe.store(path, "cpu", result, memory, given(100, "tokens/s"))
    probe.store(path, "rtx-4090", result, memory, given(100, "tokens/s"))
    assert set(json.loads(path.read_text())["machines"]) == {"cpu", "rtx-4090"}
    path.write_text("{broken")
    probe.store(path, "cpu", result, memory, given(100, "tokens/s"))
    assert set(json.loads(path.read_text())["machines"]) == {"cpu"}


def test_a_failing_child_is_told_in_a_sentence(monkeypatch):
    shape = Architecture(1, 64, 4, 2, 16, 128, 100, True, 128, None, "llama")
    s = TrainingSetup(shape, "lora", 16, device="cpu")
    with pytest.raises(MissingError) as caught:
        probe.in_child({"model_type": "nonsense"}, replace(s), "cpu")
    assert caught.value.code == "H546" and caught.value.exit_code == 5
