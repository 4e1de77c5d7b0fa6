"""Are the scores the standard ones, and does awkward input count instead of vanishing?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.evaluate import scorers

LABELS = ("a", "b", "c")


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)
)
def test_accuracy_and_macro_f1_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    gold, given_ = [g for g, _ in pairs], [a for _, a in pairs]
    labels = sorted(set(gold))
    found = scorers.classification(labels)
    rows = {n: [s.row(g, a) for g, a in pairs] for n, s in found.items()}
    assert found["accuracy"].value(rows["accuracy"]) == pytest.approx(accuracy_score(gold, given_))
    expected = f1_score(gold, given_, labels=labels, average="macro", zero_division=0)
    assert found["macro_f1"].value(rows["macro_f1"]) == pytest.approx(expected)


def test_an_answer_outside_the_labels_is_wrong_not_gone() -> None:
    found = scorers.classification(LABELS)
    assert found["accuracy"].value([found["accuracy"].row("a", None)]) == 0
    rows = [found["macro_f1"].row("a", "a"), found["macro_f1"].row("a", "nonsense")]
    assert found["macro_f1"].value(rows) == pytest.approx((2 * 1 / (1 + 2)) / 3)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("Vegetable-tanned leather.", "vegetable-tanned  LEATHER", 1),
        ("ﬁbre", "fibre", 1),
        ("12 %", "12", 0),
        ("-5", "5", 0),
        ("", "", 1),
        ("…", "!", 0),
        ("a", None, 0),
        ("", None, 0),
    ],
)
def test_exact_match(gold: str, answer: str | None, right: int) -> None:
    assert scorers.exact_row(gold, answer)[0] == right


def test_token_f1() -> None:
    assert scorers.token_f1_row("the red rot", "red rot found")[0] == pytest.approx(2 * 2 / 6)
    assert scorers.token_f1_row("", "")[0] == 1
    assert scorers.token_f1_row("", "x")[0] == 0
    assert scorers.token_f1_row("x", None)[0] == 0


def test_entities_need_text_and_type() -> None:
    gold = '[{"text": "mice", "type": "SPECIES"}, {"text": "BMP2", "type": "CHEMICAL"}]'
    answer = '```json\n[{"text": "Mice", "type": "SPECIES"}, {"text": "BMP2", "type": "CELL"}]\n```'
    assert scorers.entity_row(gold, answer) == (1, 2, 2)
    assert scorers.entity_row(gold, "no JSON at all") == (0, 0, 2)
    assert scorers.entity_row("[]", "[]") == (0, 0, 0)
    assert scorers.extraction()["entity_f1"].value([(0, 0, 0)]) == 1
    assert scorers.entity_row(gold, '{"SPECIES": ["mice", {}], "x": null}') == (1, 1, 2)
    assert scorers.entity_row('["a", "b"]', '["b", "b"]') == (1, 1, 2)
    assert scorers.all_entities_row(gold, gold)[0] == 1
    assert scorers.all_entities_row("[]", "nothing found")[0] == 0


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("[]", 1),
        ("{}", 0),
        ("[1", 0),
        ("", 0),
        (None, 0),
        ('"x"', 0),
        ("[" * 100_000, 0),
        ("here: []", 0),
    ],
)
def test_json_validity(answer: str | None, valid: int) -> None:
    assert scorers.json_row("[]", answer)[0] == valid


def test_chrf_of_known_pairs() -> None:
    scorer = scorers.free_text()["chrf"]
    assert scorer.value([scorer.row("Keilbalg", "Keilbalg")]) == pytest.approx(1)
    assert scorer.value([scorer.row("Keilbalg", "")]) == 0
    # "ab" against "abc": unigrams 2/2 and 2/3, bigrams 1/1 and 1/2; trigrams occur on one side only.
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert scorer.value([scorer.row("abc", "ab")]) == pytest.approx(expected)


def test_calibration() -> None:
    assert scorers.calibration_error([0.85] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.35)
    assert scorers.calibration_error([1.0], [True]) == 0
    assert scorers.calibration_error([], []) == 0
