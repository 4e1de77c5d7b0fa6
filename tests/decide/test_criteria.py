"""Every criterion of the folder fills both cells with figures, argues, and speaks German."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hauslm.base.words import speaking
from hauslm.catalog import load
from hauslm.decide import criteria as folder
from hauslm.decide.comparison import compare
from hauslm.decide.context import Context
from hauslm.decide.criteria import Criterion, criteria
from hauslm.decide.scores import key_of, panels, stale_price, stale_score
from hauslm.decide.verdict import situation
from hauslm.records import Comparison
from hauslm.scenario import Scenario

Lab = Callable[..., Scenario]


@pytest.fixture(scope="module")
def context(lab: Lab) -> Context:
    return situation(lab()).context


def test_the_folder_is_the_registry() -> None:
    files = {p.stem for p in Path(folder.__file__).parent.glob("*.py")} - {"__init__"}
    assert {c.id for c in criteria()} == files
    assert (
        len({c.place for c in criteria()})
        == len({c.place_in_verdict for c in criteria()})
        == len(files)
    )


@pytest.mark.parametrize("criterion", criteria(), ids=lambda c: c.id)
def test_a_cell_is_never_a_bare_adjective(criterion: Criterion, context: Context) -> None:
    cloud, local, ahead = criterion.judge(context)
    assert ahead in ("cloud", "local", "")
    for cell in (cloud, local):
        assert len(cell.judgement.text.split()) >= 5
        assert re.search(r"\d", cell.judgement.text), cell.judgement.text


@pytest.mark.parametrize("criterion", criteria(), ids=lambda c: c.id)
def test_a_criterion_argues_in_full_sentences_in_both_languages(
    criterion: Criterion, context: Context
) -> None:
    arguments = criterion.argue(context)
    assert arguments
    for sentence, _ in arguments:
        english, german = sentence.text("en"), sentence.text("de")
        assert english[-1] in ".?!" or english.endswith(")")
        assert english != german
        assert "{" not in english + german


@pytest.mark.parametrize("criterion", criteria(), ids=lambda c: c.id)
def test_a_criterion_has_a_line_for_every_option(criterion: Criterion, context: Context) -> None:
    for row in range(0, len(context.judged.candidates), 37):
        assert criterion.brief(context, row).text("en")


@pytest.mark.parametrize(
    "answers",
    [
        {"hardware": {"gpu": "none"}},
        {"people": {"staff_available": False}},
        {"adaptation": {"needed": False}},
        {"workload": {"documents_per_month": 0, "backlog_documents": 0}},
        {"workload": {"languages": ["de"]}},
        {
            "data": {"may_leave": "no"},
            "hardware": {"gpu": "none"},
            "people": {"staff_available": False},
        },
    ],
)
def test_the_table_stands_in_every_scenario(
    lab: Lab, answers: dict[str, dict[str, object]]
) -> None:
    table = compare(lab(**answers))
    assert [r.criterion for r in table.rows] == [c.id for c in criteria()]
    assert all(r.cloud.judgement.text and r.local.judgement.text for r in table.rows)


def test_the_table_has_the_labs_four_rows_first_and_survives_its_file(
    lab: Lab, tmp_path: Path
) -> None:
    table = compare(lab())
    assert [r.criterion for r in table.rows[:4]] == ["performance", "cost", "privacy", "upkeep"]
    table.save(tmp_path)
    assert Comparison.load(tmp_path / "comparison.json") == table


def test_the_table_is_german_in_german(lab: Lab) -> None:
    with speaking("de"):
        table = compare(lab())
    assert table.rows[1].title.text == "Kosten"
    assert re.search(r"\d,\d", table.rows[1].local.judgement.text)  # decimal comma


def test_only_scores_of_one_harness_stand_in_a_panel() -> None:
    for key, panel in panels(load.models()).items():
        assert {key_of(s) for s in panel.scores.values()} == {key}
        assert key.harness != "not stated"
        best = panel.best(panel.scores)
        values = [s.score for s in panel.scores.values()]
        assert best is not None
        expected = min(values) if key.lower_is_better else max(values)
        assert panel.scores[best].score == expected


def test_old_prices_and_scores_are_marked() -> None:
    assert stale_price("2026-08-01", "2026-11-23") and not stale_price("2026-11-09", "2026-11-23")
    assert stale_score("2025-07", "2026-11-23") and not stale_score("2026-04-20", "2026-11-23")
    assert stale_price("undated", "2026-11-23")
