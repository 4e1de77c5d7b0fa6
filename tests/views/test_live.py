"""A running training as it is drawn, and one article with its quotes in place."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm import flow
from hauslm.base.errors import DataError, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.views import articles, training


def _metrics(folder: ProjectFolder, rows: list[dict[str, float]], tail: str = "") -> None:
    path = training.metrics_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + tail, encoding="utf-8")


def _step(k: int) -> dict[str, float]:
    return {"step": k, "of": 100, "loss": 5 - k / 50, "seconds": 2.0 * k, "tokens_per_second": 1000}


def test_the_state_is_that_of_the_file_and_the_torn_last_line_is_left(tmp_path: Path) -> None:
    folder = ProjectFolder(tmp_path)
    assert training.live(folder, "de", running=True) is None
    rows = [_step(k) for k in range(1, 41)]
    rows[19]["validation"] = 4.25
    _metrics(folder, rows, '{"step": 41, "lo')
    now = training.live(folder, "de", running=True, memory_gib=1.5)
    assert now is not None and now.step == 40 and now.share == pytest.approx(0.4)
    said = {t.label: t.value for t in now.tiles}
    assert said["Verlust"] == "4,200" and said["Verlust der Validierung"] == "4,250"
    assert said["Restzeit"] == "2 min 00 s"  # 60 steps of 2 s
    assert "1,50 GiB" in said.values() and now.drawings.count("<svg") == 2
    assert now.drawings.count("<table>") == 2


def test_metrics_of_an_earlier_run_are_not_shown_as_this_one(tmp_path: Path) -> None:
    folder = ProjectFolder(tmp_path)
    _metrics(folder, [_step(1), _step(2)])
    later = training.metrics_file(folder).stat().st_mtime + 10
    assert training.live(folder, "en", running=True, since=later) is None
    assert training.live(folder, "en", running=False) is not None


# ---------------------------------------------------------------- articles


@given(
    st.text(max_size=300),
    st.lists(st.tuples(st.integers(-5, 310), st.integers(-5, 310)), max_size=6),
)
def test_marks_change_nothing_but_the_look(text: str, spans: list[tuple[int, int]]) -> None:
    rows = [{"quote_found": True, "quote_start": a, "quote_end": b} for a, b in spans]
    html, marks = articles._marked(text, rows, 0)
    assert re.sub(r'<mark id="quote-\d+" tabindex="-1">|</mark>', "", html) == escape(text)
    assert len(marks) == len(rows)
    for number in set(marks) - {0}:
        assert f'id="quote-{number}"' in html


def test_a_quote_is_marked_where_it_stands() -> None:
    rows = [{"quote_found": True, "quote_start": 4, "quote_end": 7}, {"quote_found": False}]
    html, marks = articles._marked("abc <b> def", rows, 2)
    assert html == 'abc <mark id="quote-3" tabindex="-1">&lt;b&gt;</mark> def' and marks == [3, 0]


def test_foreign_names_and_formats_do_not_reach_the_disk(tmp_path: Path) -> None:
    folder = ProjectFolder(tmp_path)
    identity = articles.add(folder, "../../..\\evil/\u202eStudie <x>.txt", b"Some text")
    kept = list((articles.shelf(folder) / identity / "file").iterdir())
    assert len(kept) == 1 and kept[0].parent.parent.name == identity and "<" not in kept[0].name
    with pytest.raises(DataError):
        articles.add(folder, "virus.exe", b"MZ")
    with pytest.raises(DataError):
        articles.add(folder, "empty.txt", b"")
    for wrong in ("..", "../x", "0" * 16, "x"):
        with pytest.raises(UsageError):
            articles.place_of(folder, wrong)


def test_a_dropped_article_becomes_rows_with_their_place(tmp_path: Path) -> None:
    flow.init(
        tmp_path,
        {"language": "de", "model.base": "embedded", "analysis.max_new_tokens": 48},
    )
    project = flow.Project.load(tmp_path)
    text = (
        "Zinnpest\n\nReines Zinn zerfällt in der Kälte nach vier bis neun Monaten zu grauem Pulver."
    )
    identity = articles.add(project.folder, "studie.txt", text.encode())
    articles.analyse_one(project, identity, Silent())
    assert not project.folder.record("analysis").exists()  # the project's own analysis is untouched
    found = articles.shown(project, identity, "de")
    assert found.analysed and found.rows and "<mark" in found.text
    assert all(r.mark or not r.found for r in found.rows)
    assert [a.analysed for a in articles.known(project.folder)] == [True]
    articles.remove(project.folder, identity)
    assert articles.known(project.folder) == []
