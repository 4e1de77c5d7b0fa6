"""The verdict under changed answers is the verdict of the changed project file."""

from __future__ import annotations

from typing import Any

import pytest

from hauslm.base.errors import UsageError
from hauslm.decide.verdict import decide, situation
from hauslm.scenario import Scenario
from hauslm.views.form import form, names
from hauslm.views.whatif import DEMAND, FIGURES, WhatIf

BASE = Scenario()
CHANGES = {
    "workload.backlog_documents": 700_000.0, "horizon.months": 84.0, "people.setup_hours_local": 90.0,
    "people.setup_hours_cloud": 40.0, "people.upkeep_hours_per_month_local": 15.0,
    "people.upkeep_hours_per_month_cloud": 6.0, "people.hourly_cost_eur": 120.0,
    "hardware.price_eur_per_kwh": 0.7, "adaptation.epochs": 4.0, "adaptation.runs_per_year": 30.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def what_if() -> WhatIf:
    made = WhatIf(BASE)
    made.quick({}, "en")
    return made


def _changed(dotted: str, value: Any) -> Scenario:
    section, name = dotted.split(".")
    return Scenario.model_validate({"scenario": {section: {name: value}}})


def test_all_figures_are_tried_here() -> None:
    assert set(CHANGES) == set(FIGURES)


@pytest.mark.parametrize("dotted", FIGURES)
def test_candidates_do_not_depend_on_the_figures(what_if: WhatIf, dotted: str) -> None:
    """What the quick way rests on: the known candidates at the new figures are those of a full look."""
    changed = _changed(dotted, CHANGES[dotted])
    moved, full = what_if.situation(changed)
    assert not full  # the quick way was taken
    exact = situation(changed).context
    mine = moved.context
    assert [c.id for c in mine.judged.candidates] == [c.id for c in exact.judged.candidates]
    assert mine.judged.costs.horizon == pytest.approx(exact.judged.costs.horizon, rel=1e-9)
    assert mine.chosen == exact.chosen


@pytest.mark.parametrize("documents", [20, 1_000, 40_000, 900_000])
def test_the_demand_moves_the_verdict_as_a_full_look(what_if: WhatIf, documents: int) -> None:
    quick, _ = what_if.situation(_changed(DEMAND, float(documents)))
    full = decide(_changed(DEMAND, float(documents)))
    assert quick.context.chosen is not None
    assert quick.context.candidate(quick.context.chosen).id == full.verdict.option


def test_answers_reach_the_scenario_as_they_would_through_the_file(what_if: WhatIf) -> None:
    made = what_if.scenario_with({
        "scenario.data.copyright": "open", "scenario.hardware.owned": "false",
        "scenario.workload.languages": "en, de", "scenario.budget.max_monthly_eur": "",
        "scenario.horizon.months": "36", "name": "evil",
    })  # fmt: skip
    answers = made.scenario
    assert answers.data.copyright == "open" and answers.hardware.owned is False
    assert answers.workload.languages == ["en", "de"] and made.name == "team"
    # What was shown and not changed stays an assumption.
    assert "months" not in answers.horizon.model_fields_set


@pytest.mark.parametrize(
    ("field", "text"),
    [("scenario.horizon.months", "many"), ("scenario.horizon.months", "0"),
     ("scenario.data.personal", "perhaps"), ("scenario.workload.languages", " , ")],
)  # fmt: skip
def test_a_faulty_answer_is_a_sentence_that_names_its_field(
    what_if: WhatIf, field: str, text: str
) -> None:
    with pytest.raises(UsageError) as told:
        what_if.quick({field: text}, "de")
    assert field.split(".")[-1] in told.value.text("de")


def test_every_scalar_field_of_the_scenario_is_in_the_form() -> None:
    made = form(BASE, {"scenario.horizon.months": "12"}, "de")
    assert {f.name for f in made} == names() and len(made.asked) == 8
    by_name = {f.name: f for f in made}
    assert by_name["scenario.horizon.months"].value == "12"
    assert dict(by_name["scenario.data.copyright"].choices)["third_party"] == "Werke Dritter"
    assert by_name["scenario.budget.max_monthly_eur"].kind == "number"
