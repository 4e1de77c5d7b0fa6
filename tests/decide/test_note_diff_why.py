"""The note is readable in both languages, the diff names what changed, `why` answers for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hauslm.base.errors import UsageError
from hauslm.decide.diff import diff
from hauslm.decide.note import note
from hauslm.decide.verdict import decide
from hauslm.decide.why import why
from hauslm.records import Decision
from hauslm.scenario import Scenario

Decided = Callable[..., Decision]
Lab = Callable[..., Scenario]


def test_the_note_has_the_sections_of_madr(decided: Decided) -> None:
    text = note(decided(), "en")
    for heading in ("Context and problem", "Decision drivers", "Considered options",
                    "Decision outcome", "When to revisit"):  # fmt: skip
        assert f"## {heading}" in text
    assert decided().revisit_on in text and "no legal advice" in text
    assert all(o.id in text for o in decided().options)


def test_the_note_is_german_in_german(decided: Decided) -> None:
    text = note(decided(), "de")
    assert "## Betrachtete Möglichkeiten" in text
    for english in ("Considered options", "The cloud is cheaper", " a month", "The weights stay"):
        assert english not in text
    assert "{" not in text


def test_nothing_changed_is_said(decided: Decided) -> None:
    (said,) = diff(decided(), decided())
    assert said.text.startswith("Nothing changed")


def test_the_diff_names_verdict_gates_and_figures(decided: Decided) -> None:
    other = decided(data={"copyright": "open"}, workload={"documents_per_month": 5000})
    text = "\n".join(s.text for s in diff(decided(), other))
    assert "The verdict went from" in text
    assert "Admissible now" in text
    assert "Documents per month: 5,000" in text
    assert "a month instead of" in text


def test_a_previous_decision_gives_the_changes(decided: Decided, lab: Lab) -> None:
    decision = decide(lab(data={"copyright": "open"}), previous=decided())
    assert any("The verdict went from" in s.text for s in decision.changes)


def test_why_answers_for_shown_and_cut_options(decided: Decided) -> None:
    decision = decided()
    assert "This is the verdict." in [s.text() for s in why(decision, decision.verdict.option)]
    cloud = "\n".join(s.text() for s in why(decision, decision.verdict.cheaper_option))
    assert "C4 (REQUIRE)" in cloud
    for name in ("own-rtx-4090/qwen3-8b/nf4/lora", "rent-l4/qwen3-8b/nf4/lora", *decision.pruned):
        assert why(decision, name)
    incomplete = why(decision, "hosted/institution/unnamed")
    assert any("not known" in s.text() for s in incomplete)


def test_why_names_the_nearest_option(decided: Decided) -> None:
    with pytest.raises(UsageError) as caught:
        why(decided(), "api/openai/gpt-6-lunar/batch")
    assert caught.value.code == "H242" and "gpt-6-luna" in str(caught.value)
