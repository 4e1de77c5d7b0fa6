"""The packed facts are the YAML facts, and never stand in for other bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hauslm.catalog import packed
from hauslm.catalog.load import FACTS
from hauslm.catalog.reader import plain_yaml


@pytest.fixture
def packed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own packed file of all facts, in place of the one that the build made."""
    target = tmp_path / "facts.json"
    packed.pack(FACTS, target)
    monkeypatch.setattr(packed, "PACKED", target)
    packed._packed.cache_clear()
    yield target
    packed._packed.cache_clear()


def test_every_fact_file_is_packed_as_yaml_reads_it(packed_at: Path) -> None:
    paths = sorted(FACTS.glob("*/*.yaml"))
    assert len(paths) > 250
    for path in paths:
        raw = path.read_bytes()
        assert packed.plain(raw) == plain_yaml(raw, path.name), path.name
        again = packed.plain(raw)
        assert again is not None and again is not packed.plain(raw), "a fresh object each time"


def test_an_edited_file_is_not_answered_from_the_packed_one(packed_at: Path) -> None:
    raw = next(FACTS.glob("gpus/*.yaml")).read_bytes()
    assert packed.plain(raw + b"\n# edited\n") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_packed_file_is_as_good_as_none(packed_at: Path, content: bytes) -> None:
    packed_at.write_bytes(content)
    packed._packed.cache_clear()
    assert packed.plain(next(FACTS.glob("gpus/*.yaml")).read_bytes()) is None


def test_what_json_cannot_hold_and_what_is_malformed_stays_yaml(tmp_path: Path) -> None:
    folder = tmp_path / "facts" / "gpus"
    folder.mkdir(parents=True)
    (folder / "numbers.yaml").write_text("1: one\n", encoding="utf-8")  # JSON has text keys only
    (folder / "broken.yaml").write_text("a: [\n", encoding="utf-8")
    (folder / "fine.yaml").write_text("a: 1.5\n", encoding="utf-8")
    target = tmp_path / "facts.json"
    assert packed.pack(tmp_path / "facts", target) == 1
    assert list(json.loads(target.read_text(encoding="utf-8")).values()) == ['{"a":1.5}']
