"""The plan as a picture for the terminal: memory by part, stacked against the card."""

from __future__ import annotations

from hauslm.base.words import N_, say, translate
from hauslm.records import Plan

PARTS = {
    "weights": (N_("Weights"), "█"),
    "adapter": (N_("Adapter"), "▓"),
    "gradients": (N_("Gradients"), "▒"),
    "optimizer": (N_("Optimizer"), "░"),
    "activations": (N_("Activations"), "▞"),
    "logits": (N_("Logits"), "▚"),
    "kv_cache": (N_("KV cache"), "▤"),
    "overhead": (N_("Context and workspace"), "·"),
}
BELOW_SHOWN_GIB = 0.005
LONGEST = 1.5  # times the cells that were asked for


def stacked_bar(plan: Plan, memory_gib: float, width: int = 60, language: str | None = None) -> str:
    """Several lines: the bar up to the card's end (|) or beyond, then one line per part.

    `width` is the number of cells that stand for the card's memory; a peak beyond it makes the bar
    longer than the frame, so that "too much" is seen. Beyond one and a half times that, the frame
    shrinks instead: a bar that wraps on the terminal is no picture.
    """
    total = sum(getattr(plan.memory.parts, name).value for name in PARTS)
    cells = width / max(memory_gib, total / LONGEST)
    width = max(1, round(memory_gib * cells))
    bar, end = "", 0.0
    for name, (_, mark) in PARTS.items():
        end += getattr(plan.memory.parts, name).value
        bar += mark * max(0, round(end * cells) - len(bar))
    frame = bar[:width].ljust(width) + "|" + bar[width:]
    peak = plan.memory.peak_gib
    lines = [
        "[" + frame,
        say(
            "{peak:.1f} of {memory:.0f} GiB (range {low:.1f} to {high:.1f})",
            peak=peak.value, memory=memory_gib, low=peak.lowest, high=peak.highest,
        ).text(language),
    ]  # fmt: skip
    for name, (title, mark) in PARTS.items():
        size = getattr(plan.memory.parts, name)
        if size.value >= BELOW_SHOWN_GIB:
            amount = say("{size:.2f} GiB", size=size.value).text(language)
            lines.append(f"  {mark} {translate(title, language):<28}{amount:>12}")
    return "\n".join(lines)
