"""A job outlives its page and the web server, and its end is known whoever looks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hauslm.web.jobs import KILLED, Jobs

WAIT = "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit(75))\nprint('begun', flush=True)\ntime.sleep(60)"


def _until(jobs: Jobs, seconds: float = 15) -> int | None:
    assert jobs.current is not None
    end = time.monotonic() + seconds
    while jobs.current.exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return jobs.current.exit_code


def _begun(jobs: Jobs) -> None:
    end = time.monotonic() + 15
    while jobs.current is not None and not jobs.current.lines() and time.monotonic() < end:
        time.sleep(0.05)


def test_a_second_server_finds_the_job_and_can_stop_it(tmp_path: Path) -> None:
    first = Jobs(tmp_path)
    assert first.start_command("train", (sys.executable, "-c", WAIT))
    _begun(first)
    second = Jobs(tmp_path)  # another web server, after the first one is gone
    assert second.running and second.runs("train") and not second.runs("plan")
    assert second.current is not None and second.current.lines() == ["begun"]
    assert not second.start_command("plan", (sys.executable, "-c", ""))  # one at a time
    second.stop()
    assert _until(second) == 75 and _until(first) == 75
    assert Jobs(tmp_path).current is not None and not Jobs(tmp_path).running


def test_the_exit_code_is_kept_and_a_killed_keeper_is_not_running(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.start_command("plan", (sys.executable, "-c", "raise SystemExit(3)"))
    assert _until(jobs) == 3
    jobs.start_command(
        "plan", (sys.executable, "-c", "import time; print(1, flush=True); time.sleep(3)")
    )
    _begun(jobs)
    assert jobs.current is not None
    os.kill(jobs.current.pid, signal.SIGKILL)
    assert _until(jobs) == KILLED


def test_a_damaged_state_file_is_no_job(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web-job.json").write_text("{", encoding="utf-8")
    assert Jobs(tmp_path).current is None
