"""Break-even, flips, tornado, switching value and probability agree with the cost formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hauslm.decide import sensitivity
from hauslm.decide.cost import single
from hauslm.decide.verdict import decide, situation
from hauslm.records import Decision
from hauslm.scenario import Scenario

Decided = Callable[..., Decision]
Lab = Callable[..., Scenario]

OPEN = {"copyright": "open"}


def dear_api(lab: Lab, **answers: object) -> Scenario:
    """Only one API to choose from, at GPT-4 Turbo's price, and free working time: the sheet's world."""
    own = {
        "id": "turbo", "kind": "cloud", "price_input_eur_per_mtok": 9.0,
        "price_output_eur_per_mtok": 27.0, "processor_contract": "yes", "eu": "yes",
    }  # fmt: skip
    people = {"hourly_cost_eur": 0}
    return lab(options=[own], people=people, **answers)


def test_break_even_put_back_gives_equal_cost(lab: Lab) -> None:
    """A break-even that is found equalises the cost of the two options to the cent."""
    scenario = lab(
        data=OPEN, people={"hourly_cost_eur": 0},
        hardware={"gpu": "none"}, workload={"backlog_documents": 0},
    )  # fmt: skip
    decision = decide(scenario)
    even = decision.break_even
    place = situation(scenario)
    bills = place.context.judged.contenders.bills.rows
    row = place.context.judged.row
    first, second = bills[row[decision.verdict.option]], bills[row[even.against]]
    if even.documents_per_month is None:
        assert even.reason is not None
        return
    settings = place.context.judged.settings.with_(documents_per_month=even.documents_per_month)
    a, b = single(first, settings)["horizon"], single(second, settings)["horizon"]
    assert a == pytest.approx(b, abs=0.005)


def test_every_alternative_says_what_it_saves_what_keeps_it_out_and_where_costs_meet(
    lab: Lab,
) -> None:
    scenario = lab()
    decision = decide(scenario)
    judged = situation(scenario).context.judged
    bills, row = judged.contenders.bills.rows, judged.row
    mine = next(o for o in decision.options if o.id == decision.verdict.option)
    kinds = {a.kind for a in decision.alternatives}
    assert kinds & {"cloud", "hosted"} and "rented" in kinds
    assert decision.alternatives[0].option == decision.break_even.against
    costs_of = [a.monthly.value for a in decision.alternatives]
    assert costs_of == sorted(costs_of)
    met = 0
    for other in decision.alternatives:
        option = next(o for o in decision.options if o.id == other.option)
        assert mine.cost and option.cost
        assert other.difference.value == pytest.approx(
            mine.cost.monthly.value - option.cost.monthly.value
        )
        hard = {g.rule for g in option.gates if g.effect in ("BLOCK", "REQUIRE")}
        assert set(other.obstacles) <= hard and other.obstacles
        if (documents := other.break_even.documents_per_month) is not None:
            settings = judged.settings.with_(documents_per_month=documents)
            a = single(bills[row[mine.id]], settings)["horizon"]
            assert a == pytest.approx(
                single(bills[row[other.option]], settings)["horizon"], abs=0.005
            )
            met += 1
    assert met  # renting breaks even somewhere


def test_the_rival_is_what_wins_once_the_rules_let_it(decided: Decided) -> None:
    """The switching value is the price of the rules: without them this very option is taken."""
    shut, opened = decided(), decided(data={"copyright": "open", "may_leave": "yes"})
    assert opened.verdict.option == shut.break_even.against


def test_what_the_adaptation_costs_is_said(decided: Decided) -> None:
    texts = [r.text for r in decided().verdict.reasons if r.criterion == "cost"]
    assert any("price of the adaptation" in t for t in texts)
    plain = decided(adaptation={"needed": False})
    assert not any("price of the adaptation" in r.text for r in plain.verdict.reasons)


def test_the_sheets_break_even_is_in_the_reasons(decided: Decided) -> None:
    texts = [r.text for r in decided().verdict.reasons if r.criterion == "cost"]
    assert any("cheaper one from" in t and "documents a month" in t for t in texts)


def test_no_break_even_has_a_reason(decided: Decided) -> None:
    even = decided().break_even
    assert even.against
    assert (even.documents_per_month is None) == (even.reason is not None)


def test_the_switching_value_is_the_difference_of_the_monthly_costs(decided: Decided) -> None:
    decision = decided()
    by_id = {o.id: o.cost for o in decision.options}
    mine, other = by_id[decision.verdict.option], by_id[decision.break_even.against]
    assert mine is not None and other is not None and decision.switching_value is not None
    expected = mine.monthly.value - other.monthly.value
    assert decision.switching_value.value == pytest.approx(expected)


def test_the_tornado_is_sorted_and_covers_every_range(decided: Decided) -> None:
    decision = decided()
    spans = [abs(b.advantage_at_high - b.advantage_at_low) for b in decision.sensitivity]
    assert spans == sorted(spans, reverse=True)
    ranged = [f for f in decision.parameters if f.quantity.low is not None]
    assert len(decision.sensitivity) == len(ranged)


def test_figure_flips_come_true_when_the_figure_is_given(decided: Decided, lab: Lab) -> None:
    """Just beyond the value in the table the verdict is what it says, just before it is not."""
    checked = 0
    for answers in ({"data": OPEN}, {"data": OPEN, "people": {"hourly_cost_eur": 5}}):
        decision = decided(**answers)
        for flip in decision.flips:
            field = FIELDS.get(flip.parameter)
            if field is None or not isinstance(flip.to, float) or not isinstance(flip.from_, float):
                continue
            section, name = field
            step = 0.002 if flip.to > flip.from_ else -0.002
            beyond = {**answers, section: {**answers.get(section, {}), name: flip.to * (1 + step)}}
            short = {**answers, section: {**answers.get(section, {}), name: flip.to * (1 - step)}}
            assert decide(lab(**beyond)).verdict.option.split("/")[0] == flip.becomes.split("/")[0]
            before = decide(lab(**short)).verdict.option
            assert before.split("/")[0] == decision.verdict.option.split("/")[0]
            checked += 1
            if checked >= 3:
                return
    assert checked


FIELDS = {
    "hourly_cost_eur": ("people", "hourly_cost_eur"),
    "upkeep_hours_per_month_local": ("people", "upkeep_hours_per_month_local"),
    "upkeep_hours_per_month_cloud": ("people", "upkeep_hours_per_month_cloud"),
    "setup_hours_cloud": ("people", "setup_hours_cloud"),
    "setup_hours_local": ("people", "setup_hours_local"),
    "documents_per_month": ("workload", "documents_per_month"),
    "months": ("horizon", "months"),
    "price_eur_per_kwh": ("hardware", "price_eur_per_kwh"),
}


def test_probability_is_repeatable_and_says_what_it_counted(decided: Decided, lab: Lab) -> None:
    first = decided().probability_verdict_holds
    assert 0 <= first.lowest <= first.value <= first.highest <= 1
    assert "seed 0" in first.source and "figures with a range" in first.source
    assert decide(lab(), seed=1).probability_verdict_holds.value == pytest.approx(
        first.value, abs=0.05
    )


def test_near_the_break_even_the_probability_is_not_one(lab: Lab) -> None:
    """Where the two kinds cost about the same, the draws disagree."""
    cheap = {"id": "uni", "kind": "hosted", "fixed_eur_per_month": 345, "under_own_contract": True,
             "eu": "yes", "processor_contract": "yes", "allows_fine_tuning": True}  # fmt: skip
    decision = decide(lab(options=[cheap]))
    assert 0.05 < decision.probability_verdict_holds.value < 0.95


def test_the_field_holds_the_winner_of_every_setting(lab: Lab) -> None:
    context = situation(lab()).context
    assert context.chosen is not None
    field = sensitivity.field_of(context.judged, context.chosen)
    assert context.chosen in field.rows
    assert set(field.contenders.settings_of) == set(context.judged.contenders.settings_of)
