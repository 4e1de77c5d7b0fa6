"""The licence gate over 275 real statements: nothing non-open passes, contradictions go to a human."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hauslm.data.rights import CLASSES, classify, find_statement, statement_at_ends


def rows(shared_data: Path) -> list[dict[str, str]]:
    path = shared_data / "licence_statements" / "licence_statements.tsv"
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_no_statement_that_is_not_open_passes(shared_data: Path) -> None:
    found = [(r["gold_class"], classify(r["statement"]).licence_class) for r in rows(shared_data)]
    assert len(found) == 275
    assert not [f for f in found if f[0] != "open" and f[1] == "open"]
    assert sum(gold == "open" == got for gold, got in found) >= 168, "and open ones do pass"


def test_contradictions_go_to_a_human(shared_data: Path) -> None:
    contradicting = [r for r in rows(shared_data) if r["conflicting_statement"] == "yes"]
    assert len(contradicting) == 8
    for row in contradicting:
        rights = classify(row["statement"])
        assert (
            rights.licence_class == "conflicting"
            and rights.why is not None
            and rights.why.text("de")
        )


def test_the_others_are_named_or_handed_to_a_human(shared_data: Path) -> None:
    wrong = [
        r
        for r in rows(shared_data)
        if classify(r["statement"]).licence_class not in (r["gold_class"], "conflicting")
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("statement", "expected", "label"),
    [
        ("CC-BY-4.0", "open", "CC-BY-4.0"),
        ("CC0-1.0", "open", "CC0-1.0"),
        ("CC BY-SA 3.0", "sa", "CC-BY-SA-3.0"),
        ("cc-by-nc-nd", "nc+nd", "CC-BY-NC-ND"),
        ("Creative Commons Namensnennung 4.0 International", "open", "CC-BY-4.0"),
        ("Creative Commons Namensnennung - Nicht kommerziell 4.0", "nc", "CC-BY-NC-4.0"),
        ("CC-BY 4.0; für kommerzielle und nicht-kommerzielle Zwecke nutzbar", "open", "CC-BY-4.0"),
        ("dl-de/by-2-0", "open", "DL-DE-BY-2.0"),
        ("Apache-2.0", "open", "Apache-2.0"),
        ("MIT", "open", "MIT"),
        ("GPLv3", "sa", "share-alike"),
        ("All rights reserved.", "restricted", "copyright, no licence"),
        (
            "Alle Rechte vorbehalten. Keine Weitergabe ohne Genehmigung",
            "restricted",
            "copyright, no licence",
        ),
        ("This work is not in the public domain.", "unknown", ""),
        ("CC BY 4.0, but for non-commercial use only", "conflicting", "CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by-xx/4.0/", "conflicting", ""),
        ("The CC0 waiver applies to the data. Article: CC BY-NC 4.0", "nc", "CC-BY-NC-4.0"),
        ("permission is granted to the committee", "unknown", ""),
        ("", "unknown", ""),
    ],
)
def test_single_statements(statement: str, expected: str, label: str) -> None:
    rights = classify(statement)
    assert (rights.licence_class, rights.label) == (expected, label)
    assert expected in CLASSES


def test_text_and_link_are_compared() -> None:
    words = "distributed under the Creative Commons Attribution License"
    assert classify(words, ["http://creativecommons.org/licenses/by/4.0/"]).licence_class == "open"
    assert (
        classify(words, ["http://creativecommons.org/licenses/by-nc/4.0/"]).licence_class
        == "conflicting"
    )


def test_a_statement_is_found_at_the_ends_only() -> None:
    middle = "Text. " * 2000
    assert "CC BY" in statement_at_ends(f"{middle} It is licensed under CC BY 4.0. End.")
    assert not statement_at_ends(f"{middle} We discuss CC BY here. {middle}")
    assert not find_statement("A pipe is licensed by nobody.")
