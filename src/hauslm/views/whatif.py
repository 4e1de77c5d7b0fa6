"""What would the verdict be with other answers? The decision while somebody moves a slider.

Two depths: `quick` gives verdict, cost, curve, options and tornado; `deep` adds what needs thousands of
races (flips, probability) and the criteria. Where only figures change that the candidates do not depend
on, the candidates of the last full look are judged again at the new figures (about 1 ms a race); with
anything else they are generated anew. Formulas and rules are those of `decide`, nothing is approximated.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.base.files import canonical_json, sha256_bytes
from hauslm.base.words import speaking
from hauslm.decide.context import Context
from hauslm.decide.settings import parameters
from hauslm.decide.verdict import Situation, situation
from hauslm.records import Evaluation, Record
from hauslm.scenario import Scenario
from hauslm.views.form import names, shown
from hauslm.views.verdict import Answered, answered, depth

# The candidates do not depend on these (tests/views compares with a full look for each).
FIGURES = (
    "workload.backlog_documents",
    "horizon.months",
    "people.setup_hours_local",
    "people.setup_hours_cloud",
    "people.upkeep_hours_per_month_local",
    "people.upkeep_hours_per_month_cloud",
    "people.hourly_cost_eur",
    "hardware.price_eur_per_kwh",
    "adaptation.epochs",
    "adaptation.runs_per_year",
)
# Beyond some demand a machine is left out; below, the same holds for the demand itself.
DEMAND = "workload.documents_per_month"


class WhatIf:
    """The decision of one project under changed answers. Safe to use from several threads."""

    def __init__(
        self,
        scenario: Scenario,
        measured: Mapping[str, Record] | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        self.scenario = scenario
        self._measured = dict(measured or {})
        self._evaluation = evaluation
        self._known: dict[str, Situation] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------ answers -> scenario

    def scenario_with(self, answers: Mapping[str, str]) -> Scenario:
        """The project's scenario with these answers; UsageError names the field of a faulty one."""
        from hauslm.start import typed_answer

        data = self.scenario.model_dump(mode="json", exclude_unset=True)
        for dotted, text in sorted(answers.items()):
            if dotted not in names():
                continue
            _, section, name = dotted.split(".")
            now = getattr(getattr(self.scenario.scenario, section), name)
            if text.strip() == shown(now):
                continue
            node = data.setdefault("scenario", {}).setdefault(section, {})
            node[name] = typed_answer(dotted, text)
            if node[name] is None:
                del node[name]
        return _checked(data)

    # ------------------------------------------------------------ scenario -> situation

    def situation(self, scenario: Scenario, *, exact: bool = False) -> tuple[Situation, bool]:
        """(candidates judged at the scenario's figures, whether they were generated for it)."""
        loose = FIGURES if exact else (*FIGURES, DEMAND)
        key = _key(scenario, ()) if exact else _key(scenario, loose)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = situation(scenario, measured=self._measured, evaluation=self._evaluation)
                self._known[_key(scenario, ())] = known
                self._known[_key(scenario, (*FIGURES, DEMAND))] = known
                while len(self._known) > 16:
                    del self._known[next(iter(self._known))]
                return known, True
        if known.context.judged.scenario == scenario.scenario:
            return known, exact
        return _moved(known, scenario), False

    # ------------------------------------------------------------ the answer

    def quick(self, answers: Mapping[str, str], language: str) -> Answered:
        """Verdict, cost, curve, options, tornado."""
        with speaking(language):
            place, full = self.situation(self.scenario_with(answers))
            return answered(place.context, language, full)

    def deep(self, answers: Mapping[str, str], language: str) -> tuple[Answered, str]:
        """The same from candidates made for exactly these answers, and what would overturn it."""
        with speaking(language):
            place, _ = self.situation(self.scenario_with(answers), exact=True)
            return answered(place.context, language, True), depth(place.context, language)


def _checked(data: dict[str, Any]) -> Scenario:
    """Validate; the project file's own sentences for what is wrong."""
    from pydantic import ValidationError

    try:
        return Scenario.model_validate(data)
    except ValidationError:
        import io

        from ruamel.yaml import YAML

        from hauslm.scenario import parse

        stream = io.StringIO()
        YAML(typ="safe", pure=True).dump(data, stream)
        try:
            return parse(stream.getvalue(), "hauslm.yaml")
        except UsageError as error:
            raise UsageError(error.code, error.what, next_step=error.next_step) from error


def _key(scenario: Scenario, without: tuple[str, ...]) -> str:
    data = scenario.model_dump(mode="json")
    data["set"] = sorted(
        f"{s}.{f}"
        for s in type(scenario.scenario).model_fields
        if hasattr(section := getattr(scenario.scenario, s), "model_fields_set")
        for f in section.model_fields_set
        if f"{s}.{f}" not in without
    )
    for dotted in without:
        section, name = dotted.split(".")
        data["scenario"][section].pop(name)
    return ("exact " if not without else "loose ") + sha256_bytes(canonical_json(data))


def _moved(known: Situation, scenario: Scenario) -> Situation:
    """The known candidates, judged at the new figures."""
    judged = dataclasses.replace(
        known.context.judged,
        scenario=scenario.scenario,
        parameters=parameters(scenario.scenario),
    )
    context = Context(judged, judged.choose(), known.context.evaluation)
    return Situation(context, known.collected, known.notices)
