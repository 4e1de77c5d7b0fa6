from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.errors import DataError
from hauslm.data.glossary import load_glossary
from hauslm.embedded import DOCUMENTS


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "g.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_embedded_glossary() -> None:
    terms = load_glossary(DOCUMENTS / "glossary.yaml")
    assert {t.language for t in terms} == {"de", "en"}
    gusset = next(t for t in terms if t.canonical == "gusset")
    assert gusset.forms[0] == "gusset"


def test_flat_and_plain_terms(tmp_path: Path) -> None:
    terms = load_glossary(
        write(
            tmp_path,
            "- Balg\n- {canonical: Lade, language: de, variants: Laden, forbidden: [Truhe]}\n",
        )
    )
    assert [t.canonical for t in terms] == ["Balg", "Lade"]
    assert terms[1].variants == ("Laden",) and terms[1].forbidden == ("Truhe",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "terms: 3",
        "- 5",
        "- {variants: [x]}",
        "- {canonical: '', language: de}",
        "a: &x [1]\nb: *x",
        "- [",
        "- {canonical: a, variants: [1]}",
    ],
)
def test_wrong_glossaries_say_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError) as error:
        load_glossary(write(tmp_path, text))
    assert error.value.code == "H345" and error.value.next_step
