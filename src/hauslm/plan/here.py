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


_SIZE = re.compile(r"(\d+)\s*gb\b")
_NOT_NVIDIA = ("Apple", "Radeon")
_KINDS = frozenset(("ada", "blackwell", "pro", "ti", "super", "xt", "xtx"))


def is_card(catalog_name: str, driver_name: str) -> bool:
    """Whether the driver's name means the card of that catalog name: "NVIDIA H100 80GB HBM3" is the
    "H100 SXM5 80 GB". Model numbers, generations and, where both tell it, memory sizes must agree."""
    wanted, here = catalog_name.lower(), driver_name.lower()
    sizes = [_SIZE.findall(name) for name in (wanted, here)]
    if all(sizes) and sizes[0] != sizes[1]:
        return False
    words = [set(re.split(r"[\s-]+", _SIZE.sub(" ", name))) for name in (wanted, here)]
    numbers = {
        w for w in words[0] if any(c.isdigit() for c in w) and not re.fullmatch(r"sxm\d?|m\d", w)
    }
    kinds = [w & _KINDS for w in words]
    return bool(numbers) and numbers <= words[1] and kinds[0] == kinds[1]


def differs(machine: Machine, cards: tuple[str, ...] | None = None) -> Sentence | None:
    """The sentence H420's reader would have wanted before: planned for one device, another is here."""
    cards = cards_here() if cards is None else cards
    if machine.gpu is None:
        if not cards:
            return None
        return _coded(
            "H170",
            say(
                "Planned for this computer's processor, though it has {cards}; name it under "
                "scenario.hardware.gpu to plan for it.",
                cards=", ".join(cards),
            ),
        )
    if machine.gpu.name.startswith(_NOT_NVIDIA):
        return None  # which of those is here cannot be told
    right = [c for c in cards if is_card(machine.gpu.name, c)]
    if len(right) >= machine.count:
        return None
    if not cards:
        return _coded(
            "H171",
            say(
                "Planned for {gpu}; this computer has no such card, so training here would use the "
                "processor. Train on the machine that has it, or plan with gpu: none.",
                gpu=machine.gpu.name,
            ),
        )
    return _coded(
        "H172",
        say(
            "Planned for {count} x {gpu}; this computer has {cards}. Plan for the machine that will train.",
            count=machine.count, gpu=machine.gpu.name, cards=", ".join(cards),
        ),
    )  # fmt: skip


def _coded(code: str, sentence: Sentence) -> Sentence:
    """A notice that can be looked up in docs/errors.md; it ends nothing."""
    return say("{sentence} [{code}]", sentence=sentence, code=code)
