"""The analysis: how many articles became rows, how fast, and what failed."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Analysis
from hauslm.report.blocks import Writer


def write(w: Writer, analysis: Analysis) -> None:
    w.heading(say("The analysis"))
    w.text(
        say(
            "{documents:,} articles became {rows:,} rows, {valid:,} of them schema-valid; {failed:,} files or answers failed, none was truncated.",
            documents=analysis.documents, rows=analysis.rows,
            valid=analysis.quotes_verified + analysis.quotes_missing,  # each valid row has its quote looked up
            failed=max(analysis.failures, len(analysis.failed)),
        )
    )  # fmt: skip
    planned, energy, cost = (
        analysis.planned_documents_per_hour, analysis.energy_kwh, analysis.cost,
    )  # fmt: skip
    w.table(
        [say("Result"), say("Figure")],
        [
            (w.t(say("Speed")), w.quantity(analysis.tokens_per_second)),
            (w.t(say("Articles per hour")), w.quantity(analysis.documents_per_hour)),
            *([(w.t(say("Articles per hour, planned")), w.quantity(planned))] if planned else []),
            *([(w.t(say("Energy")), w.quantity(energy))] if energy else []),
            *([(w.t(say("Cost")), w.quantity(cost))] if cost else []),
            (w.t(say("Quotes found verbatim in the article")), w.number(analysis.quotes_verified)),
            (w.t(say("Quotes not found (flagged)")), w.number(analysis.quotes_missing)),
            (w.t(say("Rows")), analysis.output.path),
            (w.t(say("Table for pandas or DuckDB")), analysis.output.parquet or "–"),
        ],
    )
    if analysis.failed:
        w.table(
            [say("Article"), say("Why")],
            [(f.document, w.t(f.reason)) for f in analysis.failed[:12]],
        )
    for notice in analysis.notices:
        w.callout("note", notice)
