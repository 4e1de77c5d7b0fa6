"""Is every character read, within the budget, along sections?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.analyse.windows import Window, quotable, sentences, uncovered, windows


@dataclass(frozen=True)
class Part:
    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Text:
    text: str
    sections: tuple[Part, ...] = ()


def words(text: str) -> int:
    return len(text.split()) + text.count("x" * 40)


texts = st.text(alphabet="abAB .!?\n1Ü", max_size=400)


@given(text=texts, cuts=st.lists(st.integers(0, 400), max_size=5), budget=st.integers(3, 60))
def test_nothing_is_left_out_and_nothing_is_too_long(
    text: str, cuts: list[int], budget: int
) -> None:
    borders = sorted({c for c in cuts if c < len(text)})
    ends = [*borders[1:], len(text)]
    sections = tuple(
        Part(f"S{i}", a, b) for i, (a, b) in enumerate(zip(borders, ends, strict=False))
    )
    parts = windows(Text(text, sections), budget, words)
    assert uncovered(text, parts) == 0
    assert all(
        0 <= w.start < w.end <= len(text) and 0 <= w.overlap < w.end - w.start for w in parts
    )
    assert [w.start for w in parts] == sorted(w.start for w in parts)
    for window in parts:
        assert (
            words(text[window.start : window.end]) <= 2 * budget
        )  # counted by sentence, summed up


@given(texts)
def test_sentences_cover_the_text(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Fig. 3 shows it. We saw it, e.g. in yeast. Done.", 3),
        ("Die Proben, z. B. Zinn, hielten. Das überraschte Dr. Meier nicht.", 2),
        ("One line\n\nAnother paragraph.", 2),
        ('He said "no." Then he left.', 2),
        ("no end", 1),
        ("", 0),
    ],
)
def test_sentences_end_where_people_would_say(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_windows_prefer_the_ends_of_sections_and_overlap_inside_them() -> None:
    one, two = "First words here. " * 8, "Second part goes on. " * 30
    text = one + two
    document = Text(text, (Part("One", 0, len(one)), Part("Two", len(one), len(text))))
    parts = windows(document, 40, words)
    assert parts[0] == Window("One", 0, len(one.rstrip()))
    assert all(w.section == "Two" for w in parts[1:])
    assert parts[1].overlap == 0 and all(w.overlap > 0 for w in parts[2:])
    assert all(a.end - b.start == b.overlap for a, b in pairwise(parts[1:]))


def test_uncovered_counts_what_is_missing() -> None:
    assert uncovered("abc def", [Window("", 0, 3)]) == 3
    assert uncovered("abc def", [Window("", 4, 7)]) == 3
    assert uncovered("abc def", []) == 6
    assert uncovered(" \n", []) == 0


def test_quotes_are_verbatim_sentences() -> None:
    text = "Short. This one is long enough to serve. This one is long enough to serve. And a third one here."
    found = quotable(text, Window("", 0, len(text)), 12, 60, 10)
    assert found == ["This one is long enough to serve.", "And a third one here."]
    assert all(f in text for f in found)
    many = " ".join(f"Sentence number {i} is here." for i in range(50))
    thinned = quotable(many, Window("", 0, len(many)), 12, 60, 10)
    assert len(thinned) == 10 and thinned[0].startswith("Sentence number 0 ")


def test_a_window_without_a_usable_sentence_still_has_something_to_quote() -> None:
    """Tables, formulas, lists without a full stop: their quotes were '' and counted as not found."""
    from hauslm.analyse.evidence import find_quote
    from hauslm.analyse.windows import Window, quotable

    table = " | ".join(f"row {i} 0.{i}" for i in range(200))
    for text in (table, "x = y", "Short.", "word" * 300):
        window = Window("", 0, len(text))
        found = quotable(text, window, 12, 320, 64)
        assert found and all(q in text and len(q) <= 320 for q in found)
        for quote in found:
            place = find_quote(quote, text, 0, len(text))
            assert place.found == (len(quote) >= 12 or quote == text), quote
    assert quotable("  \n ", Window("", 0, 4), 12, 320, 64) == []
    assert not find_quote("Short.", "Short. And more of it.").found, "too short to prove anything"
