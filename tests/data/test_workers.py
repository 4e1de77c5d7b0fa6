"""A team of processes: what is urgent comes first, errors come back, little is handed over ahead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hauslm.base.progress import Silent
from hauslm.data import workers
from hauslm.data.workers import Team, team


def note(path: Path, name: str, gate: Path | None = None) -> str:
    """Write the name down, after the gate has opened."""
    while gate is not None and not gate.exists():
        time.sleep(0.01)
    with path.open("a") as stream:
        stream.write(f"{name}\n")
    return name


def fails() -> None:
    raise ValueError("as planned")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PARALLEL_ABOVE", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def test_a_small_corpus_needs_no_processes() -> None:
    made = Team()
    assert not made.grow(1000)
    assert made.call(len, "abc") == 3
    assert list(made.each(len, [("a",), ("bc",)], Silent(), "x")) == [1, 2]  # type: ignore[arg-type]


@pytest.mark.usefixtures("small")
def test_urgent_work_overtakes_what_waits(tmp_path: Path) -> None:
    done, gate = tmp_path / "done", tmp_path / "gate"
    with team() as one:
        held = [
            one.begin(note, done, f"held{n}", gate) for n in range(3)
        ]  # two run, one waits next
        later = [one.begin(note, done, f"later{n}") for n in range(3)]
        urgent = one.begin(note, done, "urgent", urgent=True)
        gate.touch()
        assert urgent.result(60) == "urgent"
        assert [f.result(60) for f in [*held, *later]] == [
            "held0", "held1", "held2", "later0", "later1", "later2"
        ]  # fmt: skip
        names = done.read_text().split()
        one.dismiss()  # the processes end beside what goes on here; `team` waits for them
    assert len(names) == 7
    assert max(names.index("later1"), names.index("later2")) > names.index("urgent")


KILLED = """
import os, sys, time
from pathlib import Path
from hauslm.data import workers
from tests.data.test_workers import tell_and_wait

if __name__ == "__main__":
    workers.PARALLEL_ABOVE = 0
    os.sched_getaffinity = lambda _: {0, 1}
    with workers.team(1) as one:
        for n in range(2):
            one.begin(tell_and_wait, Path(sys.argv[1]) / f"pid{n}")
        time.sleep(600)
"""


def tell_and_wait(path: Path) -> None:
    """Put down which process this is and that the library may use one thread; then be busy for long."""
    half = path.with_suffix(".half")
    half.write_text(f"{os.getpid()} {os.environ['RAYON_NUM_THREADS']}")
    half.rename(path)
    time.sleep(600)


def test_no_process_outlives_a_team_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    with subprocess.Popen([sys.executable, script, tmp_path], env=environment) as killed:
        told = [tmp_path / f"pid{n}" for n in range(2)]
        assert soon(lambda: all(t.exists() for t in told))
        killed.kill()
    pids, threads = zip(*(map(int, t.read_text().split()) for t in told), strict=True)
    assert threads == (1, 1)
    assert soon(lambda: not any(alive(pid) for pid in pids))


def soon(true: Callable[[], bool], most_s: float = 60) -> bool:
    end = time.monotonic() + most_s
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def alive(pid: int) -> bool:
    """Also no for one that has ended and that nobody has asked after yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("small")
def test_an_error_comes_back_and_the_rest_goes_on(tmp_path: Path) -> None:
    with team() as one:
        broken = one.begin(fails)
        assert one.call(len, "abc") == 3
        whole = [one.begin(note, tmp_path / "done", str(n)) for n in range(6)]
        with pytest.raises(ValueError, match="as planned"):
            broken.result(60)
        assert [f.result(60) for f in whole] == [str(n) for n in range(6)]


@pytest.mark.usefixtures("small")
def test_what_was_begun_is_done_when_the_team_parts(tmp_path: Path) -> None:
    with team() as one:
        for n in range(12):
            one.begin(note, tmp_path / "done", str(n))
    assert sorted((tmp_path / "done").read_text().split(), key=int) == [str(n) for n in range(12)]


@pytest.mark.usefixtures("small")
def test_after_an_error_here_nothing_more_is_begun(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pytest.raises(RuntimeError, match="here"), team() as one:
        for n in range(20):
            one.begin(note, tmp_path / "done", str(n), gate)
        gate.touch()
        raise RuntimeError("here")
    assert len((tmp_path / "done").read_text().split() if (tmp_path / "done").exists() else []) < 20
