"""Is an article's row checked like a section's, and does it say why it failed?"""

from __future__ import annotations

from typing import Any

import pytest

from hauslm.analyse import merge, templates
from hauslm.analyse.runner import why
from hauslm.base.words import as_text
from hauslm.lm import schema as schemas


def row(answer: Any, start: int = 0) -> dict[str, Any]:
    return {
        "key": f"k{start}", "status": "valid", "answer": answer, "start": start, "end": start + 10,
        "untrusted": [], "quote": "q", "quote_found": True, "quote_start": 0, "quote_end": 1,
    }  # fmt: skip


ITEM = {"kind": "method", "value": ""}
ANSWERS: dict[str, list[Any]] = {
    "classification": [{"label": "methods", "reason": "a"}, {"label": "results", "reason": "b"}],
    "extraction": [
        {"items": [{**ITEM, "name": f"{part}-{n}"} for n in range(5)]} for part in range(3)
    ],
    "questions": [{"answered": "no", "answer": ""}, {"answered": "yes", "answer": "42"}],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_article_row_fits_the_schema_of_articles(name: str) -> None:
    template = templates.load(name, "en")
    rows = [row(answer, 10 * n) for n, answer in enumerate(ANSWERS[name])]
    made = merge.article_row(rows, template.merge, template.schema)
    assert made["status"] == "valid" and made["schema_valid"]
    assert not schemas.invalid(
        made["answer"], merge.article_schema(template.schema, template.merge)
    )


def test_an_article_row_that_does_not_fit_is_a_failure() -> None:
    template = templates.load("questions", "en")
    made = merge.article_row(
        [row({"answered": "perhaps", "answer": ""})], template.merge, template.schema
    )
    assert made["status"] == "failed" and not made["schema_valid"]
    assert made["reason"].startswith("invalid: answered")


def test_a_failure_is_told_as_a_sentence() -> None:
    german = [
        as_text(why(r), "de") for r in ("cut: max_new_tokens", "invalid: x: 'y'", "refused: z")
    ]
    assert german[0].startswith("Die Antwort wurde nicht fertig") and "x: 'y'" in german[1]
    assert german[2] == "z"
