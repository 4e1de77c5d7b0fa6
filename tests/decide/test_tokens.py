"""Tokens per document: counted on the team's documents, else from the table, never silently guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hauslm.catalog import load
from hauslm.decide.tokens import MEASURED, Counted, density, mix, reference_characters_per_token
from hauslm.decide.verdict import decide
from hauslm.records import Corpus, Documents, Said, Split
from hauslm.scenario import Scenario

Lab = Callable[..., Scenario]

COUNTED = Counted(
    "mistral-7b-v0.3", 3.1, 12, 52_000.0, 900_000, "2026-11-24", ("en",),
    {"mistral-v3": 3.1, "o200k": 3.9},
)  # fmt: skip


def corpus(**changes: object) -> Corpus:
    values: dict[str, object] = {
        "documents": Documents(read=12, characters=12 * 52_000),
        "documents_split": Split(train=9, validation=1, test=2),
        "examples": Split(train=90, validation=10, test=20),
        "tokens": Split(train=900_000, validation=100_000, test=200_000),
        "fingerprint": "0" * 64,
        "characters_per_token": 3.1,
        "tokenizers": {"o200k": 3.9},
        "created": "2026-11-24T10:00:00+00:00",
    }
    return Corpus(**{**values, **changes})  # type: ignore[arg-type]


def test_german_makes_more_tokens_and_mistral_more_than_the_reference() -> None:
    for language in ("en", "de"):
        assert mix("mistral-v3", [language]) < mix("o200k", [language]) / 1.15
    assert mix("mistral-v3", ["de"]) < mix("mistral-v3", ["en"])
    assert mix("o200k", ["en", "de"]) == pytest.approx(2 / (1 / 4.38 + 1 / 4.67))


def test_every_row_of_the_table_has_its_value_inside_its_range() -> None:
    for table in MEASURED.values():
        for value, low, high in table.values():
            assert low <= value <= high


def test_the_own_documents_count_before_the_table() -> None:
    model = load.model("mistral-7b-v0.3")
    assert density(model, ["en"]).quantity.value == pytest.approx(3.70)
    own = density(model, ["en"], COUNTED)
    assert own.known and own.quantity.value == 3.1 and own.quantity.known == "measured"
    sister = density(load.model("mistral-7b-v0.1"), ["en"], COUNTED)  # the same vocabulary
    assert sister.quantity.value == 3.1 and sister.known


def test_a_tokenizer_that_did_not_count_is_scaled_and_says_so() -> None:
    model = load.model("mistral-small-3.2-24b")  # Tekken
    found = density(model, ["en"], COUNTED)
    assert found.quantity.value == pytest.approx(4.30 * 3.9 / 4.38)
    assert found.quantity.known == "assumed" and found.quantity.low is not None
    nobody = next(m for m in load.models() if m.provider == "anthropic")
    assert density(nobody, ["en"], COUNTED).quantity.value == pytest.approx(3.9)


def test_a_base_that_the_table_does_not_know_changes_only_itself() -> None:
    other = replace(COUNTED, model="my-own-base", tokenizers={})
    model = load.model("mistral-7b-v0.3")
    assert density(model, ["en"], other) == density(model, ["en"])
    assert reference_characters_per_token(["en"], other).value == 4.38


def test_the_prepared_documents_replace_defaults_and_the_decision_says_so(lab: Lab) -> None:
    scenario = lab()
    scenario = scenario.model_copy(
        update={"model": scenario.model.model_copy(update={"base": "mistral-7b-v0.3"})}
    )
    decision = decide(scenario, measured={"corpus": corpus()})
    by_label = {f.label.template: f.quantity for f in decision.parameters}
    assert by_label["Characters per document"].value == 52_000
    assert by_label["Characters per document"].known == "measured"
    assert by_label["Training tokens per pass"].value == 900_000
    assert by_label["Characters per token of the reference tokenizer"].value == 3.9
    assert any("12 prepared documents" in n.text for n in decision.notices)
    labels = {f.label.template for f in decision.assumptions}
    assert "Characters per document" not in labels


def test_a_stated_length_stays_and_a_contradiction_is_said(lab: Lab) -> None:
    decision = decide(lab(workload={"characters_per_document": 9_000}), measured=[corpus()])
    by_label = {f.label.template: f.quantity for f in decision.parameters}
    assert by_label["Characters per document"].value == 9_000
    assert any("the project file counts" in n.text for n in decision.notices)


def test_an_empty_corpus_changes_nothing(lab: Lab) -> None:
    empty = corpus(documents=Documents(read=0), characters_per_token=0.0)
    assert decide(lab(), measured=[empty]).verdict == decide(lab()).verdict


def test_notices_are_sentences_in_both_languages(lab: Lab) -> None:
    notices = decide(lab(), measured=[corpus()]).notices
    counted = next(n for n in notices if "prepared documents" in n.text)
    assert isinstance(counted, Said) and "Dokumente" in counted.say("de")
