"""Parts of one analysis by many processes, merged: what one process would have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.analyse import run as room
from hauslm.analyse.parts import Part, merge_parts
from hauslm.analyse.runner import essence
from hauslm.base.errors import DataError, UsageError
from hauslm.lm.echo import EchoModel

Project = Callable[..., Any]
ARTICLES = {
    f"a{i:02}": f"# Article {i}\n\nSample {i} was heated to {i} degrees." for i in range(25)
}


def rows_of(folder: Any) -> list[dict[str, Any]]:
    lines = (folder.analysis / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [essence(json.loads(line)) for line in lines]


def run_part(made: Any, number: int, of: int) -> Any:
    scenario, folder = made
    return room.analyse(
        scenario, folder, run=None, corpus=None, model=EchoModel(), part=Part(number, of)
    )


def write_lines(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"l{i}", "text": f"Line {i} says a full sentence."}) for i in range(30)
    ]
    (root / "many.jsonl").write_text("\n".join(lines) + "\n")


def test_merged_parts_are_the_analysis_of_one_process(project: Project, tmp_path: Path) -> None:
    options = {
        "template": "classification",
        "articles": ARTICLES,
        "paths": ["articles", "many.jsonl"],
    }
    write_lines(tmp_path / "whole")
    scenario, folder = project(root=tmp_path / "whole", **options)
    room.analyse(scenario, folder, run=None, corpus=None, model=EchoModel())
    whole = rows_of(folder)
    write_lines(tmp_path / "parts")
    made = project(root=tmp_path / "parts", **options)
    records = [run_part(made, n, 4) for n in (3, 1, 4, 2)]
    assert sum(r.documents for r in records) == 55 and all(r.documents for r in records)
    merged = merge_parts(*made)
    assert rows_of(made[1]) == whole
    assert (merged.documents, merged.rows) == (55, len(whole))
    assert merged.tokens == sum(r.tokens for r in records)
    bytes_before = (made[1].analysis / "rows.parquet").read_bytes()
    assert merge_parts(*made).output.sha256 == merged.output.sha256
    assert (made[1].analysis / "rows.parquet").read_bytes() == bytes_before


def test_a_part_that_is_missing_changed_or_of_another_question_is_refused(project: Project) -> None:
    made = project(template="classification", articles=ARTICLES)
    with pytest.raises(DataError, match="no finished part"):
        merge_parts(*made)
    run_part(made, 1, 3)
    run_part(made, 3, 3)
    with pytest.raises(DataError, match="1 of 3 parts are missing: 2"):
        merge_parts(*made)
    other = project(template="summary", articles=ARTICLES)
    run_part(other, 2, 3)
    with pytest.raises(DataError, match="differ in question"):
        merge_parts(*made)
    run_part(made, 2, 3)
    merge_parts(*made)
    rows = made[1].work / "analysis" / Part(2, 3).name / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"heated", b"cooled"))
    with pytest.raises(DataError, match="part 2 were changed"):
        merge_parts(*made)


def test_every_article_is_of_exactly_one_part() -> None:
    for of in (1, 2, 7, 1000):
        names = [f"articles/{i}.xml" for i in range(300)]
        parts = [Part(n, of) for n in range(1, of + 1)]
        assert all(sum(p.holds(name) for p in parts) == 1 for name in names[: 300 if of < 9 else 5])


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/4/4"])
def test_what_is_no_part_is_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="H840"):
        Part.parse(text)
    assert Part.parse("3/16") == Part(3, 16)


def test_a_limit_and_parts_contradict_each_other(project: Project) -> None:
    with pytest.raises(UsageError, match="max_documents"):
        run_part(project(template="summary", max_documents=3), 1, 2)
