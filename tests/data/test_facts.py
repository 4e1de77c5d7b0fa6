"""Personal-data hints: found where they are, not invented in scientific prose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.data.facts import identities, is_iban, personal_hints
from hauslm.data.language import detect, normal_code
from hauslm.data.reading import read_documents


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.l@uni-x.example.org today", {"email": 1}),
        ("Tel.: 030 123 45 67-8 or +49 (30) 1234567", {"phone": 2}),
        ("IBAN DE89 3704 0044 0532 0130 00", {"iban": 1}),
        ("pay to DE89370400440532013000 please", {"iban": 1}),
        ("IBAN GB82 WEST 1234 5698 7654 32 and GB00 WEST 1234 5698 7654 32", {"iban": 1}),
        ("card 4111 1111 1111 1111", {"card": 1}),
        ("card 4111 1111 1111 1112", {}),
        ("geboren am 3. Mai 1901", {"birth date": 1}),
        (
            "Values were 10.1234/abc and 2018-05-18, 0.123 (0.100-0.200), p = 0.0001; pp. 1234567-1234589.",
            {},
        ),
    ],
)
def test_hints(text: str, expected: dict[str, int]) -> None:
    assert personal_hints(text) == expected


def test_an_iban_has_a_checksum() -> None:
    assert (
        is_iban("DE89370400440532013000")
        and not is_iban("DE88370400440532013000")
        and not is_iban("DE89")
    )


@settings(deadline=None)
@given(st.text(alphabet="AZDE+-0123456789 ()./@telIBAN²\n", max_size=200))
def test_hints_never_raise(text: str) -> None:
    assert all(count > 0 for count in personal_hints(text).values())


def test_identities() -> None:
    assert identities("PMC5840452#2", "a/b/PMC5840452.xml") == ("5840452", "pmc5840452")
    assert identities("7", "rows.jsonl") == ("7",)


ENGLISH = "The wind in the organ is made by the bellows and it is held in the reservoir, which was built for that. "
GERMAN = "Der Wind in der Orgel wird von den Bälgen gemacht und in dem Magazin gehalten, das für ihn gebaut ist. "


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH * 3, "en"),
        (GERMAN * 3, "de"),
        (
            "Le vent est fait par les soufflets et il est tenu dans le réservoir qui est sur la table. "
            * 3,
            "unknown",
        ),
        (
            "De wind in het orgel wordt door de balgen gemaakt en is niet altijd van dezelfde kracht. "
            * 3,
            "unknown",
        ),
        ("ACGT TTAG CCGA " * 40, "unknown"),
        ("Too short.", "unknown"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert detect(text) == language


@pytest.mark.parametrize(
    ("code", "normal"), [("de-DE", "de"), ("ger", "de"), ("EN_us", "en"), ("x", ""), (None, "")]
)
def test_language_codes(code: str | None, normal: str) -> None:
    assert normal_code(code) == normal


def test_real_texts_have_their_language(shared_data: Path) -> None:
    english, _ = read_documents(["corpus_crops/test.jsonl"], shared_data)
    german, _ = read_documents(["german/dhd/dev.jsonl"], shared_data)
    assert {detect(d.text) for d in english} == {"en"} and {detect(d.text) for d in german} == {
        "de"
    }
