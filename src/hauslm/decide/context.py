"""What does a criterion look at? The judged candidates, the winner, and its counterpart.

One side of the comparison is the best API (cloud or hosted), the other the best machine of one's own
(or rented, if there is none); "best" as the verdict would choose within that side. Criteria read
from here and compute nothing twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import Sentence, say
from hauslm.decide import choice
from hauslm.decide.candidate import Candidate, fact
from hauslm.decide.gates import obstacles
from hauslm.decide.judge import Judged
from hauslm.records import Evaluation, Fact, Gate

APIS = ("cloud", "hosted")
MACHINES = ("local",)


@dataclass(frozen=True)
class Context:
    """Everything a criterion may use. `chosen` is a row of `judged`, None before a verdict."""

    judged: Judged
    chosen: int | None = None
    evaluation: Evaluation | None = None

    # ---- the two sides

    @cached_property
    def cloud(self) -> int | None:
        """Row of the best API, rules aside: what the cloud could offer."""
        return self._side(lambda c: c.kind in APIS)

    @cached_property
    def local(self) -> int | None:
        """Row of the best own machine, else of the best rented one, rules aside."""
        own = self._side(lambda c: c.kind in MACHINES)
        return own if own is not None else self._side(lambda c: c.kind == "rented")

    def _side(self, wanted: Callable[[Candidate], bool]) -> int | None:
        """The winner itself if it is of that side, else the side's best by cost and score."""
        if self.chosen is not None and wanted(self.judged.candidates[self.chosen]):
            return self.chosen
        rows = [
            r
            for r, c in enumerate(self.judged.candidates)
            if wanted(c) and not self.judged.misses_a_floor(r)
        ]
        return self.best_of(rows)

    def best_of(self, rows: Iterable[int]) -> int | None:
        """Cheapest setting among rows, and in it the better model: the verdict's own order."""
        rows = list(rows)
        if not rows:
            return None
        judged = self.judged
        need = judged.contenders.meets_need
        pool = [r for r in rows if need[r]] or rows
        least = min(pool, key=lambda r: (judged.cost(r), judged.candidates[r].id))
        setting = judged.candidates[least].setting
        bound = judged.cost(least) * (1 + choice.TIE_SHARE)
        return judged.better(
            [r for r in pool if judged.candidates[r].setting == setting and judged.cost(r) <= bound]
        )

    @cached_property
    def rival(self) -> int | None:
        """Row of the best option of another kind (as the verdict would choose it) that only a rule
        can keep out: machines against APIs, APIs and rented ones against an own machine."""
        if self.chosen is None:
            return None
        kind = self.judged.candidates[self.chosen].kind
        apis = kind in APIS
        rows = [
            r
            for r, c in enumerate(self.judged.candidates)
            if (c.kind not in APIS if apis else c.kind != kind)
            and not self.judged.misses_a_floor(r)
        ]
        return self.best_of(rows)

    @cached_property
    def cheapest(self) -> int | None:
        """Row of the cheapest option that only a rule can keep out."""
        rows = [r for r in range(len(self.judged.candidates)) if not self.judged.misses_a_floor(r)]
        return min(rows, key=self.judged.cost, default=None)

    def obstacles(self, row: int) -> tuple[Gate, ...]:
        """The rules and floors that keep a row from being admissible."""
        return obstacles(self.judged.gates(self.judged.candidates[row]))

    # ---- figures

    def candidate(self, row: int) -> Candidate:
        return self.judged.candidates[row]

    def monthly(self, row: int) -> float:
        return float(self.judged.costs.monthly[row, 0])

    def per_document(self, row: int) -> float | None:
        """EUR per document; None where no documents are demanded."""
        value = float(self.judged.costs.per_document[row, 0])
        return None if math.isnan(value) else value

    def line(self, row: int, *names: str) -> float:
        """EUR over the horizon of some lines of the bill."""
        return float(sum(self.judged.costs.lines[n][row, 0] for n in names))

    def cost_facts(self, row: int) -> tuple[Fact, ...]:
        source = "cost formula over the horizon"
        each = self.per_document(row)
        found = [
            fact(say("Cost per month"), derived(self.monthly(row), "EUR/month", source)),
            fact(say("Cost over the horizon"), derived(self.judged.cost(row), "EUR", source)),
        ]
        if each is not None:
            found.append(fact(say("Cost per document"), derived(each, "EUR/document", source)))
        return tuple(found)

    def parameter(self, name: str) -> Quantity:
        return self.judged.parameters[name].quantity

    def facts_named(self, row: int, *starts: str) -> tuple[Fact, ...]:
        """Those figures of a candidate whose label begins with one of the English words."""
        return tuple(f for f in self.candidate(row).facts if f.label.template.startswith(starts))

    def name(self, row: int) -> Sentence:
        return self.candidate(row).title
