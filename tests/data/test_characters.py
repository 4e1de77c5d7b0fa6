"""The quick looks say what the regular expressions say, on odd text too."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.data import document, facts
from hauslm.data.characters import any_of, code_points, runs
from hauslm.data.language import words_of

TEXTS = st.text(
    st.sampled_from(" \n\t\r\u00a0\u200b\u00ad\x0c\u2028\u2029\ufb01\ud800\U000e0041aé1٣+()./-"),
    max_size=500,
)
DIGITS = st.text(st.sampled_from("1234567890 ()/.-+a٣"), max_size=300)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_tidying_is_what_the_expressions_do(text: str) -> None:
    """The rules written as four expressions, without a look beforehand."""
    plain = unicodedata.normalize("NFC", document._ODD.sub(document._plain_character, text))
    plain = re.sub(r" *\n *", "\n", re.sub(r"[^\S\n]{2,}|[^\S\n ]", " ", plain))
    assert document.tidy(text) == re.sub(r"\n{3,}", "\n\n", plain).strip()
    assert document.tidy(document.tidy(text)) == document.tidy(text)
    assert document.hidden_characters(text) == len(re.findall("[\u200b\U000e0041]", text))


@settings(max_examples=200, deadline=None)
@given(DIGITS)
def test_runs_hold_every_long_number(text: str) -> None:
    found = [(m.span(), m.group()) for m in facts._long_digits(text)]
    assert found == [(m.span(), m.group()) for m in facts._DIGITS.finditer(text)]


@settings(max_examples=200, deadline=None)
@given(TEXTS | st.text(max_size=100))
def test_words_are_the_runs_of_letters(text: str) -> None:
    wanted = " ".join(re.findall(r"[^\W\d_]+", text)).casefold()
    assert words_of(text) == wanted.split(" " if wanted else None)


def test_runs_are_the_longest_ones() -> None:
    assert runs("[a-c]", "aaxabcabcxcc", 2) == [(0, 2), (3, 9), (10, 12)]
    assert runs("[a-c]", "xyz", 1) == []
    assert any_of("[é]", "caf\u00e9") and not any_of("[é]", "cafe")
    assert code_points("\ud800a").tolist() == [0xD800, 97]
