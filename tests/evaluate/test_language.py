"""Is every byte scored exactly once, and are terms found where they stand?"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base.errors import RefusedError
from hauslm.base.progress import Silent
from hauslm.data.glossary import Term
from hauslm.evaluate import language
from hauslm.evaluate.inputs import Text
from hauslm.evaluate.ledger import Ledger, System
from hauslm.evaluate.terms import mined
from hauslm.lm.interface import Scored

from .conftest import Knowing, indifferent


def words(text: str) -> int:
    return len(text.split())


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aä∑ \n", min_size=1, max_size=400), st.integers(4, 40))
def test_windows_cover_every_character_once(text: str, most: int) -> None:
    """Also for text without blanks, for runs of blanks, and with a counter that counts characters."""
    for count in (words, len):
        found = language.windows(text, count, most)
        assert "".join(text[w.start : w.end] for w in found) == text
        assert all(w.context <= w.start < w.end for w in found)
        assert found[0].context == found[0].start == 0
        assert all(count(text[w.context : w.end]) <= most or w.end - w.start == 1 for w in found)


def test_windows_see_what_stands_before_them() -> None:
    text = " ".join(f"word{n}" for n in range(1000))
    found = language.windows(text, words, 100)
    assert len(found) > 10
    for window in found[1:]:
        assert 15 <= words(text[window.context : window.start]) <= 30
        assert text[window.start].isspace()


def test_bits_per_byte_of_long_and_short_texts(tmp_path: Path) -> None:
    """ln 256 / 4 nats per byte are 2 bits, however the text is cut."""
    model = Knowing(indifferent, context_length=64)
    system = System("base", model)
    texts = [Text("a", "", "en", "ä " * 500), Text("b", "", "en", "short")]
    with Ledger(tmp_path / "items.jsonl", Silent()) as ledger:
        rows = language.bits_and_bytes(ledger, system, texts)
    assert rows[0] == (pytest.approx(3000), 1500.0)
    assert rows[1] == (pytest.approx(10), 5.0)
    assert model.scored > 5


class Forgetful(Knowing):
    """Leaves the last byte of every text out."""

    def score(self, pairs, adapter="base"):  # type: ignore[no-untyped-def]
        return [
            Scored(s.logprob, s.tokens, s.bytes - 1, s.greedy)
            for s in super().score(pairs, adapter)
        ]


def test_text_that_was_left_out_is_an_error(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "items.jsonl", Silent()) as ledger,
        pytest.raises(RefusedError) as caught,
    ):
        language.bits_and_bytes(
            ledger, System("base", Forgetful(indifferent)), [Text("a", "", "en", "abc")]
        )
    assert caught.value.code == "H661"


TERMS = [
    Term("gusset", "en", "gusset", ("gussets",), ("gore", "gores")),
    Term("alum", "en", "alum-tawed leather", (), ("white leather",)),
    Term("leder", "de", "Leder"),
]


def test_terms_are_found_as_whole_words_in_their_language() -> None:
    text = "A gusset of alum-tawed leather. Two gussets; gussetted is no term. Leder is German."
    found = language.occurrences([Text("d", "", "en", text)], TERMS)
    assert [(o.term, o.form.strip()) for o in found] == [
        ("gusset", "gusset"),
        ("alum", "alum-tawed leather"),
        ("gusset", "gussets"),
    ]
    first = found[0]
    assert (
        first.before == "A" and first.form == " gusset" and first.forbidden == (" gore", " gores")
    )
    assert text.startswith(first.before + first.form + first.after)
    assert language.occurrences([Text("d", "", "de", "Ein Leder.")], TERMS)[0].term == "leder"
    assert language.occurrences([Text("d", "", "en", "gusset")], TERMS) == []


def test_the_right_form_must_beat_every_forbidden_one(tmp_path: Path) -> None:
    places = language.occurrences([Text("d", "", "en", "A gusset here, two gussets there.")], TERMS)

    def prefers(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
        wrong = continuation.startswith((" gore ", " gores ")) and adapter != "adapter"
        return (0.1 if wrong else 0.5), continuation == " gussets"

    model = Knowing(prefers)
    with Ledger(tmp_path / "items.jsonl", Silent()) as ledger:
        base = language.term_scores(ledger, System("base", model), places)
        adapter = language.term_scores(ledger, System("adapter", model, "adapter"), places)
    assert [r[0] for r in base.chosen] == [0, 0]
    assert [r[0] for r in adapter.written] == [0, 1]
    assert adapter.bits[0] == (pytest.approx(0.5 * 7 / math.log(2)), 7.0)


def test_terms_without_a_glossary_are_words_that_documents_share() -> None:
    train = [
        Text(str(n), "", "en", f"The windchest of organ {n} has a crack, because bicycle.")
        for n in range(4)
    ]
    general = [Text("g", "", "en", "A bicycle chain.")]
    assert [t.canonical for t in mined(train, general)] == ["windchest"]
    assert mined(train[:2], general) == []
