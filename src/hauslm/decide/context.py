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


def _side_of(kind: str) -> str:
    return "api" if kind in APIS else kind


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
        by_setting: dict[str, list[int]] = {}
        rows = list(rows)
        need = self.judged.contenders.meets_need
        for row in [r for r in rows if need[r]] or rows:
            by_setting.setdefault(self.judged.candidates[row].setting, []).append(row)
        best = [self._representative(members) for members in by_setting.values()]
        return min(best, key=lambda r: (self.judged.cost(r), self.candidate(r).id), default=None)

    def _representative(self, rows: list[int]) -> int:
        """Of one setting: among those that tie with the cheapest, the better model."""
        judged = self.judged
        bound = min(judged.cost(r) for r in rows) * (1 + choice.TIE_SHARE)
        return judged.better([r for r in rows if judged.cost(r) <= bound])

    @cached_property
    def alternatives(self) -> tuple[int, ...]:
        """Rows of the best option of every other kind that only a rule can keep out, cheapest first.

        Kinds are APIs, rented machines and machines of one's own; "best" as the verdict would choose
        it within the kind: able to be adapted where that is wanted and possible, then cost.
        """
        if self.chosen is None:
            return ()
        mine = _side_of(self.candidate(self.chosen).kind)
        rows: dict[str, list[int]] = {}
        for row, candidate in enumerate(self.judged.candidates):
            side = _side_of(candidate.kind)
            if side != mine and not self.judged.misses_a_floor(row):
                rows.setdefault(side, []).append(row)
        best = [self.best_of(members) for members in rows.values()]
        return tuple(sorted((r for r in best if r is not None), key=self.judged.cost))

    @property
    def rival(self) -> int | None:
        """Row of the cheapest alternative: what would win if the rules did not exclude it."""
        return self.alternatives[0] if self.alternatives else None

    @cached_property
    def unadapted(self) -> int | None:
        """Row of the chosen machine's model in the same form without an adapter, if chosen has one."""
        if self.chosen is None or not self.candidate(self.chosen).tuned:
            return None
        mine = self.candidate(self.chosen)
        for row, other in enumerate(self.judged.candidates):
            same = (other.setting, other.model, other.quantisation)
            if same == (mine.setting, mine.model, mine.quantisation) and not other.tuned:
                return row
        return None

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
