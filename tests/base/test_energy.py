"""Is the counter of the very card read, and nothing claimed where nothing counts?"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hauslm.base.energy import Counter


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpus_energy_is_never_the_processors(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("1000\n")
    (package / "energy_uj").write_text("100\n")
    assert Counter("cpu", tmp_path).source is not None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # no NVML on this machine
    counter = Counter(device, tmp_path)
    assert counter.source is None and counter.read() is None


@pytest.mark.parametrize(
    ("visible", "device", "card"),
    [("", "cuda", 0), ("", "cuda:1", 1), ("2,0", "cuda:0", 2), ("2,0", "cuda:1", 0),
     ("GPU-abc", "cuda:0", None), ("0", "cuda:1", None)],
)  # fmt: skip
def test_the_counted_card_is_the_one_that_computes(
    visible: str, device: str, card: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    millijoules = {0: 1000.0, 1: 5000.0, 2: 2000.0}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: millijoules[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    counter = Counter(device)
    before = counter.read()
    if card is None:
        assert before is None and counter.source is None
        return
    millijoules[card] += 7200.0
    assert counter.joules(before) == pytest.approx(7.2)
