"""Can every fact be shown, in both languages, with how it is known?"""

from __future__ import annotations

import json

import pytest

from hauslm.base import words
from hauslm.base.errors import UsageError
from hauslm.catalog import load, show

EVERY = [(kind, identity) for kind in load.KINDS for identity in load.ids(kind)]


@pytest.mark.parametrize("kind", load.KINDS)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_listing_has_one_full_row_per_entry(kind: load.Kind, language: str) -> None:
    with words.speaking(language):
        headers, rows = show.listing(kind)
    assert [row[0] for row in rows] == list(load.ids(kind))
    assert all(len(row) == len(headers) for row in rows)


@pytest.mark.parametrize(("kind", "identity"), EVERY)
def test_an_entry_is_shown_and_is_json(kind: load.Kind, identity: str) -> None:
    rows = show.detail(kind, identity)
    assert rows and all(row.label and row.text for row in rows)
    assert all("{" not in row.label for row in rows)
    answer = json.loads(json.dumps(show.answer(kind, identity), allow_nan=False))
    assert answer["id"] == identity and len(answer["facts"]) == len(rows)
    for quantity in answer["quantities"].values():
        assert quantity["source"] and quantity["date"] and quantity["unit"]


def test_a_figure_keeps_its_digits_and_says_how_it_is_known() -> None:
    with words.speaking("de"):
        rows = show.detail("tariffs", "electricity-de-household-2026")
        value = next(r for r in rows if r.label == "Wert")
    assert value.text == "0,372 EUR/kWh"
    assert value.known == "belegt" and value.source and value.date == "2026"
    memory = show.detail("gpus", "rtx-4090")
    assert any(r.text == "24 GiB" and r.known == "derived" for r in memory)


def test_a_gap_is_shown_as_a_gap() -> None:
    gap = next(t for t in load.tariffs() if t.value is None)
    row = next(r for r in show.detail("tariffs", gap.id) if r.label == "Value")
    assert "not known" in row.text


def test_a_shutdown_and_a_scheduled_change_are_shown() -> None:
    texts = " ".join(r.text for r in show.detail("models", "gpt-4o"))
    assert "gpt-6-luna" in texts and "Jan 14, 2027" in texts
    assert any(r.known == "assumed" for r in show.detail("models", "gpt-4o-mini"))


def test_unknown_kinds_and_ids_are_told() -> None:
    with pytest.raises(UsageError) as error:
        show.answer("modells")
    assert error.value.code == "H122" and "models" in str(error.value)
    with pytest.raises(UsageError):
        show.answer("models", "nothing-like-it")


def test_the_listing_as_json() -> None:
    answer = show.answer("gpus")
    assert set(answer) == {"kind", "headers", "rows"}
