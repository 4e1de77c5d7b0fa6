"""How do many GPUs or machines work on one analysis? As Ray actors, each with the model; extra `ray`.

This process reads the articles, hands out shards, keeps the journal and writes the files; the actors
answer. A shard goes out with what the journal knows of it, and its rows come back group by group: they are
on the disk before the next group is waited for. When an actor or its machine dies, the shard goes to
another one with the rows that are there by then, so nothing is lost and nothing is double. Shards are
worked off by the same code and in the same groups as by one process (sections.py): the rows are the same.

Articles and rows travel as JSON. Which cluster: `lm/workers.py`; the machines of one that runs already
need hauslm and the project folder under the same path.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hauslm.analyse.journal import RowJournal
from hauslm.analyse.sections import WINDOW_TOKENS, Done, Sections
from hauslm.analyse.sources import Placed, engine_for
from hauslm.analyse.templates import for_project
from hauslm.base import egress, errors, words
from hauslm.base.errors import HauslmError, Interrupted, MissingError, RefusedError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, as_text, say
from hauslm.lm.workers import START_VARIABLE, Cluster, first_line, start_seconds
from hauslm.records import Run
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.analyse.run import Told

Row = dict[str, Any]

DEATHS = 4  # of actors over one shard, after which the shard itself is the suspect
AHEAD = 2  # shards of each actor that may be out or wait for an earlier one


# ---------------------------------------------------------------- one actor


class Answering:
    """The model in a process of the cluster. Speaks JSON: see `shard`."""

    def __init__(
        self, scenario: str, root: str, run: str, window_tokens: int, language: str, guard: str
    ) -> None:
        if guard != "open":
            egress.shut(guard, kernel=False)
        words.use_language(language)
        self._problem: dict[str, Any] | None = None
        try:
            given = Scenario.model_validate_json(scenario)
            trained = Run.model_validate_json(run) if run else None
            engine = engine_for(given, ProjectFolder(root), trained, None, Silent())
            self._sections = Sections(
                given,
                for_project(given),
                engine,
                keep=self._keep,
                on_rows=lambda rows: self._say("told", len(rows)),
                on_tasks=lambda count: self._say("tasks", count),
                window_tokens=window_tokens,
            )
            self._facts = dict(engine.facts)
            self._notices = [as_text(n) for n in getattr(engine.model, "notices", ())]
        except HauslmError as error:
            self._problem = _plain(error)
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def hello(self) -> str:
        """Facts of the rows and notices of the engine, or what is in the way."""
        if self._problem is not None:
            return json.dumps({"problem": self._problem})
        return json.dumps({"facts": self._facts, "notices": self._notices})

    def _say(self, what: str, value: Any) -> None:
        self._said.put((what, value))

    def _keep(self, rows: Sequence[Row]) -> None:
        self._say("rows", list(rows))

    def shard(self, documents: bytes, known: bytes) -> Iterator[bytes]:
        """Messages as JSON pairs: ("tasks", n), ("rows", new rows), ("told", n), at the end ("done",
        what `Done` holds) or ("problem", an error of the family)."""
        thread = threading.Thread(target=self._work, args=(documents, known), daemon=True)
        thread.start()
        what = ""
        while what not in ("done", "problem", "defect"):
            what, value = self._said.get()
            yield json.dumps([what, value], ensure_ascii=False).encode("utf-8", "surrogatepass")
        thread.join()

    def _work(self, documents: bytes, known: bytes) -> None:
        from hauslm.data.document import Document, Section

        try:
            found = []
            for row in json.loads(documents):
                sections = tuple(Section(*s) for s in row.pop("sections"))
                found.append(Document(**row, sections=sections))
            done = self._sections.shard(found, json.loads(known))
            value = [done.documents, done.sections, done.resumed, done.differing]
            self._say("done", value)
        except HauslmError as error:
            self._say("problem", _plain(error))
        except BaseException as error:
            self._say("defect", f"{type(error).__name__}: {error}")


def _plain(error: HauslmError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "code": error.code,
        "what": as_text(error.what),
        "where": error.where,
        "next_step": as_text(error.next_step),
    }


def _raised(plain: Mapping[str, Any]) -> HauslmError:
    """The actor's error, as it would have been here."""
    kind = getattr(errors, str(plain["kind"]), HauslmError)
    made: HauslmError = kind(
        plain["code"], plain["what"], where=plain["where"], next_step=plain["next_step"]
    )
    return made


def _document_row(placed: Placed) -> dict[str, Any]:
    """What is needed of an article to answer about it."""
    document = placed.document
    flags = ("invisible_text", "white_text", "tiny_text", "hidden_characters")
    return {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "language": document.language,
        "sha256": document.sha256,
        "sections": [[s.title, s.start, s.end] for s in document.sections],
        "metadata": {f: True for f in flags if document.metadata.get(f)},
    }


# ---------------------------------------------------------------- handing out


class _Lost(Exception):
    """The actor is gone."""


@dataclass
class _Shards:
    """Shards in their order; those of an actor that died come first. For several threads."""

    source: Iterator[list[Placed]]
    room: threading.Semaphore
    lock: threading.Lock = field(default_factory=threading.Lock)
    again: deque[tuple[int, list[Placed], int]] = field(default_factory=deque)
    out: int = 0  # taken, not done
    count: int = 0
    ended: bool = False
    stopped: bool = False

    def take(self) -> tuple[int, list[Placed], int] | None:
        """(number, articles, deaths over it); None: there is none and none will come."""
        while not self.stopped:
            with self.lock:
                if self.again:
                    self.out += 1
                    return self.again.popleft()
                if self.ended and not self.out:
                    return None
            if not self.ended and self.room.acquire(timeout=0.2):
                with self.lock:
                    shard = next(self.source, None) if not self.ended else None
                    if shard is not None:
                        self.count += 1
                        self.out += 1
                        return self.count - 1, shard, 0
                    self.ended = True
                    self.room.release()
            else:
                time.sleep(0.02)
        return None

    def done(self) -> None:
        with self.lock:
            self.out -= 1

    def finished(self) -> bool:
        with self.lock:
            return self.ended and not self.again and not self.out

    def back(self, number: int, shard: list[Placed], deaths: int) -> None:
        with self.lock:
            self.out -= 1
            self.again.append((number, shard, deaths))


class Spread:
    """The workforce of `analyse --engine ray`; see the module."""

    def __init__(
        self,
        scenario: Scenario,
        folder: ProjectFolder,
        run: Run | None,
        progress: Progress,
        *,
        workers: int | None = None,
        address: str = "",
    ) -> None:
        self._progress = progress
        self._cluster = Cluster(scenario, address, max(workers or 0, os.cpu_count() or 1))
        try:
            self._start(scenario, folder, run, workers)
        except BaseException:
            self._cluster.close()
            raise

    def _start(
        self, scenario: Scenario, folder: ProjectFolder, run: Run | None, workers: int | None
    ) -> None:
        cluster = self._cluster
        self.workers = workers or cluster.gpus or max(1, cluster.cpus // 2)
        share = max(1, cluster.cpus // self.workers) if not cluster.gpus else 1
        needs: dict[str, Any] = {"num_cpus": share, "num_gpus": 1 if cluster.gpus else 0}
        guard = egress.mode()
        self._arguments = (
            scenario.model_dump_json(by_alias=True), str(folder.root),
            run.model_dump_json(by_alias=True) if run is not None else "",
            WINDOW_TOKENS, words.language(), guard,
        )  # fmt: skip
        self._actor_class = cluster.ray.remote(Answering).options(
            max_restarts=0, max_task_retries=0, **needs
        )
        self._progress.say(
            say(
                "{workers} Ray workers, nodes: {nodes}; for that this command runs without the kernel's filter, the audit hook is in mode {mode}.",
                workers=self.workers,
                nodes=cluster.nodes,
                mode=guard,
            )
        )
        self._actors = [self._actor_class.remote(*self._arguments) for _ in range(self.workers)]
        self.facts: Mapping[str, Any] = {}
        self.notices: list[Sentence | str] = []
        for number, actor in enumerate(self._actors):
            try:
                self._greet(actor)
            except _Lost as error:
                raise MissingError(
                    "H842",
                    say(
                        "Ray worker {number} of {count} did not start: {reason}",
                        number=number + 1, count=self.workers, reason=str(error),
                    ),
                    next_step=say(
                        "Ask for fewer with --workers, allow more time with {variable} (now {seconds:g}), or look into the logs of Ray.",
                        variable=START_VARIABLE, seconds=start_seconds(),
                    ),
                ) from error  # fmt: skip

    def _greet(self, actor: Any) -> None:
        """Wait for an actor's model; it must name the same facts as the others."""
        ray = self._cluster.ray
        try:
            found = json.loads(ray.get(actor.hello.remote(), timeout=start_seconds()))
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            with suppress(Exception):  # mostly dead already; that it was lost is told below
                ray.kill(actor)
            raise _Lost(first_line(error)) from error
        if "problem" in found:
            raise _raised(found["problem"])
        if self.facts and found["facts"] != self.facts:
            raise RefusedError(
                "H842",
                say("The Ray workers do not answer with the same model, adapter and versions."),
                next_step=say("Give all machines the same project folder and the same versions."),
            )
        self.facts = found["facts"]
        self.notices = self.notices or list(found["notices"])

    # ------------------------------------------------------------ the work

    def work(
        self, shards: Iterator[list[Placed]], journal: RowJournal, told: Told
    ) -> Iterator[tuple[list[Placed], Done]]:
        window = threading.Semaphore(AHEAD * len(self._actors))
        shared = _Shards(shards, window)
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threads = [
            threading.Thread(
                target=self._one_actor, args=(a, shared, journal, told, results), daemon=True
            )
            for a in self._actors
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._in_order(results, len(threads), window, shared)
        finally:
            shared.stopped = True
            for thread in threads:
                thread.join(timeout=1)

    def _in_order(
        self, results: Any, open_threads: int, window: threading.Semaphore, shared: _Shards
    ) -> Iterator[tuple[list[Placed], Done]]:
        waiting: dict[int, tuple[list[Placed], Done]] = {}
        turn = itertools.count()
        following = next(turn)
        while open_threads and not (shared.finished() and following == shared.count):
            try:
                found = results.get(timeout=0.2)
            except queue.Empty:
                continue  # a thread may still look for an actor that is no longer needed
            if isinstance(found, BaseException):
                raise found
            if found is None:
                open_threads -= 1
                continue
            number, shard, done = found
            waiting[number] = (shard, done)
            while following in waiting:
                yield waiting.pop(following)
                window.release()
                following = next(turn)
        if not shared.finished():
            raise Interrupted(
                "H843",
                say("No Ray worker is left; every finished section is kept."),
                next_step=say("Run the same command again when there are machines."),
            )

    def _one_actor(
        self, actor: Any, shared: _Shards, journal: RowJournal, told: Told, results: Any
    ) -> None:
        """One thread for each actor: shards until there are none, or no actor can be had."""
        try:
            with words.speaking(self._arguments[4]):
                while (taken := shared.take()) is not None:
                    number, shard, deaths = taken
                    try:
                        done = self._answered(actor, number, shard, journal, told)
                        shared.done()
                        results.put((number, shard, done))
                    except _Lost as error:
                        shared.back(number, shard, deaths + 1)
                        if deaths + 1 >= DEATHS:
                            raise self._suspect(shard, error) from error
                        actor = self._another(error)
                        if actor is None:
                            break
            results.put(None)
        except BaseException as error:
            results.put(error)

    def _suspect(self, shard: Sequence[Placed], error: _Lost) -> MissingError:
        return MissingError(
            "H843",
            say(
                "{deaths} Ray workers were lost over the same articles, {first} to {last}: {reason}",
                deaths=DEATHS, first=shard[0].document.id, last=shard[-1].document.id,
                reason=str(error),
            ),
            next_step=say("Give each worker more memory, or take these articles out."),
        )  # fmt: skip

    def _another(self, error: _Lost) -> Any | None:
        """An actor in place of one that died; None if the cluster has no room for one."""
        self._progress.say(
            say("A Ray worker was lost ({reason}); its articles go to another.", reason=str(error))
        )
        actor = self._actor_class.remote(*self._arguments)
        try:
            self._greet(actor)
        except _Lost:
            self._progress.say(say("The cluster has no room for another Ray worker."))
            return None
        return actor

    def _answered(
        self, actor: Any, number: int, shard: list[Placed], journal: RowJournal, told: Told
    ) -> Done:
        ray = self._cluster.ray
        known = journal.known(p.identity for p in shard)
        documents = json.dumps([_document_row(p) for p in shard], ensure_ascii=False)
        call = actor.shard.options(num_returns="streaming")
        try:
            messages = call.remote(
                documents.encode("utf-8", "surrogatepass"),
                json.dumps(known, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            )
            for message in messages:
                what, value = json.loads(ray.get(message))
                if what == "tasks":
                    told.tasks(number, len(shard), value)
                elif what == "rows":
                    journal.append(value)
                elif what == "told":
                    told.rows(number, value)
                elif what == "problem":
                    raise _raised(value)
                elif what == "defect":
                    raise RuntimeError(value)
                else:
                    pairs = tuple((own, merged) for own, merged in value[0])
                    return Done(pairs, *value[1:])
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            with suppress(Exception):  # mostly dead already; that it was lost is told below
                ray.kill(actor)
            raise _Lost(first_line(error)) from error
        raise _Lost("it ended without a word")

    def close(self) -> None:
        self._cluster.close()
