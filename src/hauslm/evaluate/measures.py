"""One metric of several systems on the same items: values, paired differences, the record's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hauslm.evaluate.scorers import Row, Scorer
from hauslm.evaluate.statistics import (
    Comparison,
    Metric,
    by_document,
    compare,
    ratio,
    with_holm,
)
from hauslm.records import Difference


@dataclass
class Measure:
    """`rows[system]` holds one row of counts per item; `documents` says where each item belongs."""

    name: str
    documents: Sequence[str]
    rows: dict[str, Sequence[Row]] = field(default_factory=dict)
    metric: Metric = ratio
    higher_is_better: bool = True
    secondary: bool = False  # shown in the table, not compared (it belongs to another metric)

    @classmethod
    def of(cls, scorer: Scorer, documents: Sequence[str]) -> Measure:
        return cls(scorer.name, documents, {}, scorer.metric, scorer.higher_is_better)

    def value(self, system: str) -> float | None:
        """The metric over all items; None where the system has none."""
        if system not in self.rows or not self.documents:
            return None
        _, table = by_document(self.documents, self.rows[system])
        return float(self.metric(table.sum(0)))

    def compared(
        self, system: str, other: str, *, seed: int, without: frozenset[str] = frozenset()
    ) -> Comparison | None:
        """System minus other, documents in `without` left out; None if one of them has no rows."""
        if system not in self.rows or other not in self.rows:
            return None
        keep = [i for i, d in enumerate(self.documents) if d not in without]
        if not keep:
            return None
        documents = [self.documents[i] for i in keep]
        tables = [
            by_document(documents, [self.rows[s][i] for i in keep])[1] for s in (system, other)
        ]
        return compare(
            tables[0], tables[1], self.metric, higher_is_better=self.higher_is_better, seed=seed
        )


def family(
    measures: Sequence[Measure], system: str, other: str, *, seed: int
) -> dict[str, Comparison]:
    """All metrics of one pair of systems, Holm-corrected as one family."""
    made = {
        m.name: c
        for m in measures
        if not m.secondary and (c := m.compared(system, other, seed=seed)) is not None
    }
    return with_holm(made)


def differences(
    families: Mapping[tuple[str, str], Mapping[str, Comparison]],
) -> tuple[Difference, ...]:
    """The record's rows; differences without an interval (a single document) are left to the notices."""
    return tuple(
        Difference(
            metric=metric,
            system=system,
            against=other,
            value=c.value,
            low=c.low,
            high=c.high,
            p=c.p,
            p_holm=c.p_holm,
            documents=c.documents,
            detectable=c.detectable if math.isfinite(c.detectable) else None,
            higher_is_better=c.higher_is_better,
        )
        for (system, other), comparisons in families.items()
        for metric, c in comparisons.items()
        if c.documents > 1
    )
