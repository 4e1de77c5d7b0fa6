"""Where do base and adapter differ? Ten items side by side, so that a reader can judge for himself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hauslm.base.words import say
from hauslm.evaluate.inputs import Text, Trial
from hauslm.evaluate.ledger import Ledger, Question
from hauslm.evaluate.measures import Measure
from hauslm.evaluate.sampling import rank
from hauslm.evaluate.systems import Systems
from hauslm.evaluate.task import Answer, gold
from hauslm.evaluate.verdict import ADAPTER, BASE_NAME
from hauslm.lm.interface import Request

SHOWN = 10
OPENING_CHARACTERS = 300
CONTINUATION_TOKENS = 48


def of_task(
    trial: Trial, answers: Mapping[str, Sequence[Answer]], measure: Measure
) -> tuple[dict[str, Any], ...]:
    """Items with different answers: gains and losses in the proportion in which they occur, chosen by
    the hash of the item."""
    found = []
    for place, item in enumerate(trial.test):
        base, adapter = answers[BASE_NAME][place], answers[ADAPTER][place]
        if base.value == adapter.value:
            continue
        rows = measure.rows
        found.append(
            {
                "id": item.id,
                "document": item.document,
                "text": item.text,
                "label": gold(trial.task, item),
                "base": base.value or "",
                "adapter": adapter.value or "",
                "base_right": _right(rows[BASE_NAME][place]),
                "adapter_right": _right(rows[ADAPTER][place]),
            }
        )
    found.sort(key=lambda e: rank(str(e["id"]), "examples"))
    return tuple(found[:SHOWN])


def _right(row: Sequence[float]) -> bool:
    """All that was wanted and nothing else (rows are (right, all) or (right, given, wanted))."""
    return bool(row[0] == row[1] == row[-1])


def of_text(ledger: Ledger, systems: Systems, texts: Sequence[Text]) -> tuple[dict[str, Any], ...]:
    """Without a task: how base and adapter go on from the beginning of held-out documents."""
    chosen = sorted(texts, key=lambda t: rank(t.id, "examples"))[:SHOWN]
    openings = [_opening(t.text) for t in chosen]
    questions = [
        Question("examples", t.id, t.id, Request((), CONTINUATION_TOKENS, raw_prompt=opening))
        for t, opening in zip(chosen, openings, strict=True)
    ]
    said = {
        s.name: ledger.generate(s, questions, say("Examples ({system})", system=s.shown))
        for s in systems.local
    }
    return tuple(
        {
            "id": text.id,
            "document": text.id,
            "text": opening,
            "label": text.text[len(opening) :].strip()[:OPENING_CHARACTERS],
            "base": str(base["text"]).strip(),
            "adapter": str(adapter["text"]).strip(),
        }
        for text, opening, base, adapter in zip(
            chosen, openings, said[BASE_NAME], said[ADAPTER], strict=True
        )
        if base["text"] != adapter["text"]
    )


def _opening(text: str) -> str:
    """The first characters of a text, cut between words; half of a short one."""
    room = min(OPENING_CHARACTERS, max(1, len(text) // 2))
    return text[: max(text.rfind(" ", 0, room), 0) or room]
