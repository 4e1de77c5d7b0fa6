"""A fault of ours: sentences for the user, the traceback in a file, and no secret in either."""

from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.fault import own_fault

KEY = "sk-" + "abcdefghijklmnop1234567890"


def _raised() -> Exception:
    try:
        raise ValueError(f"the endpoint refused {KEY}")
    except ValueError as error:
        return error


def test_the_traceback_is_in_the_file_and_not_in_the_sentence(tmp_path: Path) -> None:
    told = own_fault(_raised(), tmp_path / "logs", "analyse -C here")
    (file,) = (tmp_path / "logs").iterdir()
    assert told.where == str(file) and told.exit_code == 70 and told.code == "H900"
    assert "Traceback" not in told.text() and "ValueError" in told.text()
    assert "analyse -C here" in file.read_text() and "_raised" in file.read_text()
    assert told.next_step


def test_neither_of_them_holds_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_API_KEY", KEY)
    told = own_fault(_raised(), tmp_path, f"analyse --key {KEY}")
    (file,) = tmp_path.iterdir()
    assert KEY not in told.text() and KEY not in file.read_text()


def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_sentence(
    tmp_path: Path,
) -> None:
    (tmp_path / "logs").write_text("in the way")
    told = own_fault(_raised(), tmp_path / "logs", "analyse")
    assert told.where == "" and "ValueError" in told.text()
