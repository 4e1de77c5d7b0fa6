"""The lab's table: cloud/API against local open-weight models, each cell with its figures."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Cell, Comparison
from hauslm.report.blocks import Writer


def _cell(w: Writer, cell: Cell) -> str:
    figures = w.facts(cell.facts, 2 if w.brief else 6)
    return w.t(cell.judgement) + (" " + "; ".join(figures) + "." if figures else "")


def write(w: Writer, comparison: Comparison) -> None:
    w.heading(say("Cloud/API and local models compared"))
    w.table(
        [say("Criterion"), say("Cloud/API models"), say("Local open-weight models")],
        [(w.t(r.title), _cell(w, r.cloud), _cell(w, r.local)) for r in comparison.rows],
    )
    if comparison.cloud_option or comparison.local_option:
        w.text(
            say(
                "Figures compare {cloud} with {local}.",
                cloud=w.t(comparison.cloud_title or "") or comparison.cloud_option or "–",
                local=w.t(comparison.local_title or "") or comparison.local_option or "–",
            )
        )  # fmt: skip
    for notice in comparison.notices:
        w.callout("note", notice)
