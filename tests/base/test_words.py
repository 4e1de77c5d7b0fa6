"""Sentences are said in every language; numbers, money and dates the local way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from hauslm.base import words
from hauslm.base.errors import UsageError, nearest
from hauslm.base.words import say

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "words.py"


def test_numbers_are_local() -> None:
    sentence = say(
        "{a:.1f} {b:,} {c:.1%} {d:EUR} {e:date}",
        a=21.44,
        b=7_000_000_000,
        c=0.125,
        d=1.5,
        e="2026-11-24",
    )
    english, german = sentence.text("en"), sentence.text("de").replace("\xa0", " ")
    assert english == "21.4 7,000,000,000 12.5% €1.50 Nov 24, 2026"
    assert german == "21,4 7.000.000.000 12,5 % 1,50 € 24.11.2026"


def test_sentences_nest_and_lists_are_joined() -> None:
    inner = say("yes")
    assert say("{x}: {names}", x=inner, names=["a", "b"]).text("en") == "yes: a, b"


def test_a_translation_with_a_foreign_field_is_not_a_traceback() -> None:
    assert words.Sentence("{missing}", {}).text("en") == "{missing}"


@pytest.mark.parametrize("language", [x for x in words.available_languages() if x != "en"])
def test_every_sentence_is_translated_and_compiled(language: str) -> None:
    spec = importlib.util.spec_from_file_location("words_script", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.check([language]) == 0


def test_errors_say_what_where_and_what_next_in_both_languages() -> None:
    error = UsageError(
        "H220",
        say("There is no project file here."),
        where="x/hauslm.yaml",
        next_step=say("hauslm init --yes writes one; -C DIR names another folder."),
    )
    assert error.text("en").startswith(
        "x/hauslm.yaml: There is no project file here. [H220]\nNext step: "
    )
    assert "Projektdatei" in error.text("de") and "H220" in error.text("de")


def test_nearest_names() -> None:
    assert nearest("mistral-7b", ["mistral-7b-v0.3", "llama-3-8b", "qwen"])[0] == "mistral-7b-v0.3"
    assert nearest("zzz", ["a", "b"]) == []
