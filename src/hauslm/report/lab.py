"""The lab sheet's three answers, from the records: the table, the choice with reasons, the LoRA code.

The sheet (Lab 2, "Infrastruktur verstehen") asks for a comparison, a judged scenario and the LoRA
configuration; this writes each in the sheet's own structure, with figures and today's API.
"""

from __future__ import annotations

from typing import Any

from hauslm.base.words import N_, say
from hauslm.records import Comparison, Decision, Record
from hauslm.report.blocks import Writer
from hauslm.report.chapters.decision import CRITERIA
from hauslm.report.script import lab_script
from hauslm.scenario import Scenario

# The sheet's order; the table has four rows, the reasons four bullets.
TABLE = ("performance", "cost", "privacy", "upkeep")
REASONS = ("cost", "adaptability", "privacy", "resources")

CHANGED = (
    N_(
        "The sheet says '7-Billionen-Parameter-Modell'. In German that would be seven trillion: 7B means 7 billion parameters, in German 7 Milliarden."
    ),
    N_(
        "GPT-4 Turbo, the sheet's cloud example, was shut down on 2026-10-23; prices of today's small cloud models are far lower, so cost alone no longer carries the choice."
    ),
    N_(
        "Cloud fine-tuning is being withdrawn by the large vendors; adaptability and permanence now weigh more than in the sheet."
    ),
    N_(
        "The sheet's code loads the model in full precision: with sequences of 2,048 tokens training needs 28 to 32 GiB and does not fit a 24-GB card. 4-bit weights (nf4) make it fit."
    ),
    N_(
        "The sheet saves the adapter right after creating it: without training it changes nothing. The script below trains first."
    ),
    N_(
        "A folder called mistral_with_lora.pt suggests one file; PEFT writes a folder with adapter_config.json and adapter_model.safetensors."
    ),
    N_(
        "Since transformers 5, quantisation is given by quantization_config, and Trainer takes processing_class instead of tokenizer."
    ),
)


def write(w: Writer, scenario: Scenario, records: dict[str, Record]) -> None:
    """All three answers; what is missing in the folder is said, with the command that makes it."""
    _table(w, records.get("comparison"))
    _choice(w, records.get("decision"))
    w.heading(say("Task 3: LoRA configuration"))
    w.text(say("The whole code as a script that runs with today's libraries, on your own texts:"))
    w.code("python", lab_script(scenario))
    w.heading(say("What the sheet gets wrong, or what has changed since"))
    w.bullets([w.t(c) for c in CHANGED])


def _missing(w: Writer, command: str) -> None:
    w.callout("warning", say("The record is missing; run: {command}", command=command))


def _table(w: Writer, comparison: Any) -> None:
    w.heading(say("Task 1: comparison"))
    if not isinstance(comparison, Comparison):
        _missing(w, "hauslm compare")
        return
    by_name = {r.criterion: r for r in comparison.rows}
    rows = []
    for criterion in TABLE:
        row = by_name.get(criterion)
        if row is None:
            continue
        cloud, local = (
            w.t(c.judgement) + (" " + "; ".join(w.facts(c.facts, 3)) + "." if c.facts else "")
            for c in (row.cloud, row.local)
        )
        rows.append((w.t(row.title), cloud, local))
    w.table([say("Criterion"), say("Cloud/API models"), say("Local open-weight models")], rows)


def _choice(w: Writer, decision: Any) -> None:
    w.heading(say("Task 2: judging the scenario"))
    if not isinstance(decision, Decision):
        _missing(w, "hauslm decide")
        return
    w.callout("verdict", say("Choice: {title}", title=w.t(decision.verdict.title)))
    w.heading(say("Reasons"), 3)
    for criterion in REASONS:
        for reason in decision.verdict.reasons:
            if reason.criterion == criterion:
                w.bullets([f"{w.t(CRITERIA[criterion])}: {w.t(reason)}"])
