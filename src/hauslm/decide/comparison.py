"""The lab's table: cloud/API against local models, criterion by criterion, every cell with figures."""

from __future__ import annotations

from hauslm.base.words import Sentence
from hauslm.decide.context import Context
from hauslm.decide.criteria import criteria
from hauslm.decide.gates import legal_notice
from hauslm.decide.verdict import Measured, situation
from hauslm.records import Comparison, ComparisonRow, Decision, Evaluation, Said
from hauslm.scenario import Scenario


def compare(
    scenario: Scenario,
    *,
    decision: Decision | None = None,
    evaluation: Evaluation | None = None,
    measured: Measured = (),
) -> Comparison:
    """The table for a scenario. With a `decision` the winner stands on its side of it.

    Raises what `verdict.situation` raises; a scenario in which no option is admissible has a table
    all the same, for the reader has to see what was compared.
    """
    place = situation(scenario, measured=measured, evaluation=evaluation)
    context = place.context
    if decision is not None:
        row = context.judged.row.get(decision.verdict.option)
        context = Context(context.judged, row, evaluation)
    rows = []
    for criterion in criteria():
        cloud, local, ahead = criterion.judge(context)
        rows.append(
            ComparisonRow(
                criterion=criterion.id,
                title=Said.of(Sentence(criterion.title, {})),
                cloud=cloud,
                local=local,
                ahead=ahead,
            )
        )
    return Comparison(
        notices=(Said.of(legal_notice()),),
        rows=tuple(rows),
        cloud_option=context.candidate(context.cloud).id if context.cloud is not None else "",
        local_option=context.candidate(context.local).id if context.local is not None else "",
        cloud_title=_title(context, context.cloud),
        local_title=_title(context, context.local),
    )


def _title(context: Context, row: int | None) -> Said | None:
    return None if row is None else Said.of(context.name(row))
