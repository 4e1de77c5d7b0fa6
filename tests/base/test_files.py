"""Sealed writes are whole or absent, journals lose at most a torn last line, locks exclude."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base import files
from hauslm.base.errors import DataError, MissingError, RefusedError, UsageError


def test_write_sealed_replaces_whole_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    first = files.write_sealed(target, b"one")
    second = files.write_sealed(target, "two")
    assert target.read_bytes() == b"two"
    assert first == files.sha256_bytes(b"one") and second == files.sha256_file(target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_write_that_dies_at_any_call_leaves_the_old_file(tmp_path: Path, call: str) -> None:
    """The process exits inside the n-th system call of the save; the reader must see the old file."""
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom hauslm.base import files\n"
        f"os.{call} = lambda *a, **k: os._exit(9)\n"
        "files.write_sealed(Path(sys.argv[1]), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == 9
    assert target.read_bytes() == b"old"


def test_full_disk_is_a_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(MissingError) as caught:
            files.write_sealed(target, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.code == "H510" and caught.value.exit_code == 5
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3),
        max_size=5,
    ),
    cut=st.integers(min_value=0, max_value=20),
)
def test_journal_survives_any_torn_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "rows.jsonl"
    with files.Journal(path) as journal:
        for row in rows:
            journal.append(row)
    raw = path.read_bytes()
    path.write_bytes(raw[: max(0, len(raw) - cut)])
    whole = path.read_bytes().count(b"\n")
    with files.Journal(path) as journal:
        assert journal.rows == rows[:whole]
        journal.append({"after": 1})
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        *rows[:whole],
        {"after": 1},
    ]


def test_journal_names_a_damaged_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":1}\nnot json\n{"b":2}\n')
    with pytest.raises(DataError, match="Line 2"):
        files.Journal(path)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hauslm.base import files\n"
        "with files.lock(Path(sys.argv[1]), 'train', 'hauslm train'):\n print('in', flush=True)\n time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
    told = f"{holder.pid} is already running 'hauslm train'"
    with pytest.raises(RefusedError, match=told), files.lock(tmp_path, "train"):
        pass
    holder.kill()
    holder.wait()
    with files.lock(tmp_path, "train"):
        pass


def test_paths_stay_inside_the_project(tmp_path: Path) -> None:
    folder = files.ProjectFolder(tmp_path)
    assert folder.inside("work/x") == tmp_path / "work" / "x"
    outside = tmp_path / "link"
    outside.symlink_to("/")
    for name in ("../x", "/etc/passwd", "link/etc"):
        with pytest.raises(UsageError):
            folder.inside(name)


def test_tree_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = files.sha256_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.sha256_tree(tmp_path) != before
