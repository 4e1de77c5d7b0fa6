"""Rows that are on the disk are found by article, once, whatever broke off in between."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.analyse import journal as module
from hauslm.analyse.journal import RowJournal
from hauslm.base.errors import DataError


def row(article: str, n: int, text: str = "x") -> dict[str, Any]:
    key = hashlib.sha256(f"{article}/{n}".encode()).hexdigest()
    return {"key": key, "article": article, "article_sha256": "0" * 64, "n": n, "text": text}


def test_rows_are_found_by_article_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    rows = [row(f"a{i % 5}", i, "ü\u2028\x85") for i in range(40)]
    with RowJournal(path) as journal:
        for start in range(0, 40, 8):
            assert journal.append(rows[start : start + 8]) == 8
        assert journal.append(rows[3:7]) == 0, "what is there is not written again"
    assert not (tmp_path / "journal.index").exists()
    with RowJournal(path) as journal:
        assert journal.rows == 40
        known = journal.known([("a1", "0" * 64), ("a9", "0" * 64)])
        assert known == {r["key"]: r for r in rows if r["article"] == "a1"}
        assert journal.known([("a1", "1" * 64)]) == {}, "another text is another article"


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 4000), tail=st.binary(max_size=20))
def test_a_torn_end_costs_the_torn_row_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    rows = [row("a", i) for i in range(12)]
    with RowJournal(path) as journal:
        journal.append(rows)
    data = path.read_bytes()[:cut] if cut < path.stat().st_size else path.read_bytes()
    path.write_bytes(data + tail.replace(b"\n", b""))
    with RowJournal(path) as journal:
        assert journal.rows == data.count(b"\n")
        journal.append(rows)
        assert journal.known([("a", "0" * 64)]) == {r["key"]: r for r in rows}
    keys = [json.loads(line)["key"] for line in path.read_bytes().split(b"\n")[:-1]]
    assert len(keys) == len(set(keys)) == 12


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with RowJournal(path) as journal:
        journal.append([row("a", 1), row("a", 2)])
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":,', 1))
    with pytest.raises(DataError, match=r"H839.*"):
        RowJournal(path)


def test_threads_that_write_the_same_rows_write_each_once(tmp_path: Path) -> None:
    rows = [row(f"a{i % 7}", i) for i in range(140)]
    with RowJournal(tmp_path / "journal.jsonl") as journal:

        def work(shift: int) -> None:
            for start in range(0, 140, 7):
                at = (start + shift) % 140
                journal.append(rows[at : at + 7])

        threads = [threading.Thread(target=work, args=(7 * i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.rows == 140
    assert (tmp_path / "journal.jsonl").read_bytes().count(b"\n") == 140


def test_the_index_is_made_in_bounded_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 16)
    monkeypatch.setattr(module, "READ_BYTES", 64)
    path = tmp_path / "journal.jsonl"
    with RowJournal(path) as journal:
        journal.append([row("a", i) for i in range(100)])
    with path.open("ab") as stream:
        stream.write(b'{"key": "' + b"0" * 500)
    with RowJournal(path) as journal:
        assert (journal.rows, journal.torn_bytes) == (100, 509)
