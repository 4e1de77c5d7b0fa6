"""How much energy did the machine use? Its own counters, where it offers one that can be read.

On a GPU NVML counts the card's energy; on a processor Linux offers the package counter of RAPL, which
only root may read on most machines. Neither knows the computer around it, and both say so in their
source. Without a counter there is no measured figure; whoever wants one derives it and says that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hauslm.base.words import Sentence, say

RAPL = Path("/sys/class/powercap")
MICRO = 1e-6


class Counter:
    """Joules used by this machine between two readings; `source` None where nothing counts."""

    def __init__(self, device: str, rapl: Path = RAPL) -> None:
        self.source: Sentence | None = None
        self._card: Any = None
        self._packages: list[tuple[Path, float]] = []
        if device.startswith("cuda"):
            self._open_card(int(device.partition(":")[2] or 0))
        else:
            self._open_packages(rapl)

    def _open_card(self, number: int) -> None:
        """`number` as torch counts: NVML counts all cards, also those that CUDA_VISIBLE_DEVICES hides."""
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if shown:
            names = [name.strip() for name in shown.split(",")]
            if number >= len(names) or not names[number].isdigit():
                return  # named by its identity or not there: rather no figure than another card's
            number = int(names[number])
        with suppress(Exception):  # no NVML or no counter: nothing is measured
            import pynvml  # type: ignore[import-not-found, unused-ignore]

            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(number)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
            self._card = lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1000
            self.source = say("the GPU's own energy counter, without the computer around it")

    def _open_packages(self, rapl: Path) -> None:
        with suppress(OSError, ValueError):
            for package in sorted(rapl.glob("intel-rapl:[0-9]")):
                wraps_at = float((package / "max_energy_range_uj").read_text(encoding="ascii"))
                float((package / "energy_uj").read_text(encoding="ascii"))
                self._packages.append((package / "energy_uj", wraps_at))
        if self._packages:
            self.source = say(
                "the processor's own energy counter, without the rest of the computer"
            )

    def read(self) -> tuple[float, ...] | None:
        """What the counters show now; None where there is none, or it cannot be read any more."""
        with suppress(Exception):
            if self._card is not None:
                return (self._card(),)
            if self._packages:
                return tuple(float(p.read_text(encoding="ascii")) for p, _ in self._packages)
        return None

    def joules(self, before: tuple[float, ...] | None) -> float | None:
        """Used since the reading `before`."""
        after = self.read()
        if before is None or after is None:
            return None
        if self._card is not None:
            return after[0] - before[0]
        used = 0.0
        for (_, wraps_at), old, new in zip(self._packages, before, after, strict=True):
            used += (new - old if new >= old else new + wraps_at - old) * MICRO
        return used
