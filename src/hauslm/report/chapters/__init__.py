"""One chapter per record: the record in blocks. `CHAPTERS` gives the order of a full report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hauslm.report.blocks import Writer
from hauslm.report.chapters import (
    analysis,
    bundle,
    comparison,
    corpus,
    decision,
    evaluation,
    plan,
    privacy,
    sweep,
    training,
)

CHAPTERS: dict[str, Callable[[Writer, Any], None]] = {
    "decision": decision.write,
    "comparison": comparison.write,
    "plan": plan.write,
    "corpus": corpus.write,
    "sweep": sweep.write,
    "run": training.write,
    "evaluation": evaluation.write,
    "bundle": bundle.write,
    "analysis": analysis.write,
    "privacy": privacy.write,
}
