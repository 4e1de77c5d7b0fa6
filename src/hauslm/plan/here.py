"""Is the machine that was planned for the one at hand? Said, when it is not.

A plan for a card that this computer does not have is a normal thing (that is what plans are for), but
`hauslm train` run here would then use another device. No torch: the NVIDIA driver lists its cards below
/proc, and where it does not (WSL), nvidia-smi is asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from hauslm.base.words import Sentence, say
from hauslm.plan.subject import Machine

DRIVER = Path("/proc/driver/nvidia/gpus")
TIME_LIMIT_S = 5


@lru_cache(maxsize=1)
def cards_here() -> tuple[str, ...]:
    """Names of the NVIDIA cards in this computer, as the driver calls them; empty if there are none."""
    found = []
    for file in sorted(DRIVER.glob("*/information")):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += re.findall(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE)
    return tuple(found) or _by_tool()


def _by_tool() -> tuple[str, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=TIME_LIMIT_S, check=True,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def is_card(catalog_name: str, driver_name: str) -> bool:
    """Whether the driver's name means the card of that catalog name: every word with a digit agrees."""
    here = set(re.split(r"[\s-]+", driver_name.lower()))
    wanted = [w for w in re.split(r"[\s-]+", catalog_name.lower()) if any(c.isdigit() for c in w)]
    models = [w for w in wanted if not re.fullmatch(r"\d+gb", w)]
    return bool(models) and all(w in here for w in models)


def differs(machine: Machine, cards: tuple[str, ...] | None = None) -> Sentence | None:
    """The sentence H420's reader would have wanted before: planned for one device, another is here."""
    cards = cards_here() if cards is None else cards
    if machine.gpu is None:
        if not cards:
            return None
        return say(
            "Planned for this computer's processor, though it has {cards}; name it under "
            "scenario.hardware.gpu to plan for it. [H170]",
            cards=", ".join(cards),
        )
    right = [c for c in cards if is_card(machine.gpu.name, c)]
    if len(right) >= machine.count:
        return None
    if not cards:
        return say(
            "Planned for {gpu}; this computer has no such card, so training here would use the processor. "
            "Train on the machine that has it, or plan with gpu: none. [H170]",
            gpu=machine.gpu.name,
        )
    return say(
        "Planned for {count} x {gpu}; this computer has {cards}. Plan for the machine that will train. [H170]",
        count=machine.count, gpu=machine.gpu.name, cards=", ".join(cards),
    )  # fmt: skip
