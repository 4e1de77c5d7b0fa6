"""Ray workers: the rows of one process, whoever dies in between. Real Ray, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hauslm.analyse import run as room
from hauslm.analyse.cluster import _document_row, _plain, _raised, _Shards
from hauslm.analyse.runner import essence
from hauslm.analyse.sources import Placed
from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.base.words import say
from hauslm.data.document import Document, Section
from hauslm.lm import workers

Project = Callable[..., Any]
MANY = {
    f"a{i:03}": f"# Article {i}\n\n"
    + f"Sample {i} was heated to {i} degrees in water. " * (4 + i % 7)
    for i in range(40)
}
CHILD = """
import os
import sys
from hauslm.analyse import cluster, run as room, sections
from hauslm.base import egress
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.scenario import load
egress.shut("loopback", kernel=False)
room.SHARD_DOCUMENTS = sections.SHARD_DOCUMENTS = 4
room.WINDOW_TOKENS = cluster.WINDOW_TOKENS = 64
os.environ.setdefault("HAUSLM_RAY_START_S", "40")

class Telling(Silent):
    def say(self, sentence):
        print(sentence, flush=True)

folder = ProjectFolder(sys.argv[1])
record = room.analyse(
    load(folder.file), folder, run=None, corpus=None, engine="ray", workers=2,
    ray_address=sys.argv[2] if len(sys.argv) > 2 else "", progress=Telling(),
)
print("attempts", egress.attempts(), "resumed", record.resumed)
"""


def rows_of(root: Path) -> list[dict[str, Any]]:
    lines = (root / "analysis" / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [essence(json.loads(line)) for line in lines]


def journal_keys(root: Path) -> list[str]:
    path = root / "work" / "analysis" / "journal.jsonl"
    return [json.loads(line)["key"] for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def whole(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """What one process makes of MANY."""
    monkeypatch.setattr(room, "WINDOW_TOKENS", 64)
    monkeypatch.setattr(room, "SHARD_DOCUMENTS", 4)
    scenario, folder = project(
        root=tmp_path / "whole", template="classification", articles=MANY, batch_size=2
    )
    room.analyse(scenario, folder, run=None, corpus=None)
    return rows_of(folder.root)


def start(root: Path, *address: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), *address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


def wait_for_rows(root: Path, count: int, child: subprocess.Popen[str]) -> None:
    path = root / "work" / "analysis" / "journal.jsonl"
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if path.is_file() and path.read_bytes().count(b"\n") >= count:
            return
        assert child.poll() is None, child.stdout.read() if child.stdout else ""
        time.sleep(0.01)
    pytest.fail("no rows came")


@pytest.mark.slow
def test_ray_on_this_machine_makes_the_same_rows_and_goes_on_after_sigkill(
    project: Project, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    _, folder = project(
        root=tmp_path / "ray", template="classification", articles=MANY, batch_size=2
    )
    child = start(folder.root)
    wait_for_rows(folder.root, 12, child)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = journal_keys(folder.root)
    assert 0 < len(before) < sum(r["attempts"] > 0 for r in whole)
    with (folder.work / "analysis" / "journal.jsonl").open("ab") as stream:
        stream.write(b'{"key": "torn')
    again = start(folder.root)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert "attempts [] resumed True" in output, "something asked for another machine"
    assert rows_of(folder.root) == whole
    keys = journal_keys(folder.root)
    assert keys[: len(before)] == before, "what was done is not done again"
    assert len(keys) == len(set(keys)) == sum(r["attempts"] > 0 for r in whole)


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """A cluster of two Ray nodes on this machine: its address, and how the second one is killed."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"},
    )
    second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_dies_in_mid_job_loses_nothing_and_doubles_nothing(
    project: Project,
    tmp_path: Path,
    whole: list[dict[str, Any]],
    two_nodes: tuple[str, Callable[[], None]],
) -> None:
    address, kill = two_nodes
    _, folder = project(
        root=tmp_path / "ray", template="classification", articles=MANY, batch_size=2
    )
    child = start(folder.root, address)
    wait_for_rows(folder.root, 12, child)
    kill()
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    assert "nodes: 2" in output
    assert "was lost" in output, "the node was killed too late to matter"
    assert rows_of(folder.root) == whole
    keys = journal_keys(folder.root)
    assert len(keys) == len(set(keys)) == sum(r["attempts"] > 0 for r in whole)


# ---------------------------------------------------------------- without Ray


def placed(name: str) -> Placed:
    return Placed(Document(name, name, "Text."), name, 0)


def test_shards_of_dead_workers_come_first_and_each_comes_once() -> None:
    """Many threads take shards and lose some of them; all are done once, in bounded number."""
    shards = iter([[placed(f"d{i}")] for i in range(60)])
    room_for = threading.Semaphore(6)
    todo = _Shards(shards, room_for)
    done: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while (taken := todo.take()) is not None:
            number, shard, deaths = taken
            if number % 3 == 0 and deaths < 2:
                todo.back(number, shard, deaths + 1)
                continue
            with lock:
                done.append(number)
            todo.done()
            room_for.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert todo.finished() and todo.count == 60
    assert sorted(done) == list(range(60))


def test_an_error_of_a_worker_is_the_error_of_the_command() -> None:
    error = RefusedError("H832", say("The adapter does not belong."), where="here", next_step="Go.")
    again = _raised(json.loads(json.dumps(_plain(error))))
    assert type(again) is RefusedError and again.text() == error.text()


def test_what_travels_of_an_article_is_what_answers_need() -> None:
    document = Document("d", "T", "Text.", sections=(Section("S", 0, 5),),
                        metadata={"white_text": 1, "authors": ["A"]}).with_hash()  # fmt: skip
    row = json.loads(json.dumps(_document_row(Placed(document, "f", 0))))
    assert row["sections"] == [["S", 0, 5]] and row["metadata"] == {"white_text": True}
    assert row["sha256"] == document.sha256


def test_a_cluster_elsewhere_needs_a_permit_and_options_must_fit(project: Project) -> None:
    scenario, folder = project(template="summary")
    with pytest.raises(RefusedError, match="H811"):
        room.analyse(
            scenario, folder, run=None, corpus=None, engine="ray", ray_address="10.1.2.3:6379"
        )
    with pytest.raises(UsageError, match="H844"):
        room.analyse(scenario, folder, run=None, corpus=None, workers=2)


def test_without_the_package_there_is_a_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    scenario, folder = project(template="summary")
    with pytest.raises(MissingError, match=r"hauslm\[ray\]"):
        room.analyse(scenario, folder, run=None, corpus=None, engine="ray")


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan", "inf"])
def test_a_start_time_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUSLM_RAY_START_S", given)
    with pytest.raises(UsageError, match="H845"):
        workers.start_seconds()


def test_the_start_time_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAUSLM_RAY_START_S", raising=False)
    assert workers.start_seconds() == 120
    monkeypatch.setenv("HAUSLM_RAY_START_S", "300")
    assert workers.start_seconds() == 300


def test_a_cluster_that_does_not_start_is_tried_until_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray gives up after half a minute of its own; here its clock is made to run."""
    clock = [0.0]

    class Slow:
        tried = 0

        def init(self, **_: Any) -> None:
            Slow.tried += 1
            clock[0] += 31
            raise RuntimeError("timed out during startup")

        def shutdown(self) -> None:
            pass

    monkeypatch.setattr(workers.time, "monotonic", lambda: clock[0])
    made = workers.Cluster.__new__(workers.Cluster)
    made.address, made.ray, made._folder, made._start_s = "", Slow(), None, 100.0
    with pytest.raises(MissingError, match="H841") as caught:
        made._init({})
    assert Slow.tried == 4
    assert "HAUSLM_RAY_START_S" in caught.value.text()
