"""Where does the heavy work run? In this process for small corpora, one process per core for large ones.

In this process the tokenizer library uses all cores by itself. In worker processes it uses one each, and
everything around it (hashing, cutting, writing) runs in parallel too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from multiprocessing import get_context, parent_process
from threading import Condition, Thread
from typing import Any, TypeVar

from hauslm.base.progress import Progress
from hauslm.base.words import Sentence

PARALLEL_ABOVE = 24 << 20  # bytes; starting processes takes longer than doing less than this here
_AHEAD = 1  # pieces of work handed over beyond one per core, so that no process waits for its next

R = TypeVar("R")


class Team:
    """Runs functions over lists of arguments: one after the other here, or in processes once `grow` has
    been told that there is enough to do."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._leaving: Thread | None = None
        self._cores = len(os.sched_getaffinity(0))
        self._changed = Condition()  # lock of what follows, and told of everything that ends
        self._running = self._number = 0
        self._waiting: list[tuple[bool, int, Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def grow(self, size: int) -> bool:
        """Take processes if `size` bytes of text are worth it; are there any?"""
        if self._pool is None and size >= PARALLEL_ABOVE and self._cores >= 2:
            self._pool = ProcessPoolExecutor(
                self._cores, mp_context=get_context("spawn"), initializer=_join_team
            )
        return self._pool is not None

    def warm(self, function: Callable[[], object]) -> None:
        """Let every process start and run `function` once, beside what goes on here."""
        if self._pool is not None:
            for _ in range(self._cores):
                self._pool.submit(function)

    def begin(self, function: Callable[..., R], *arguments: Any, urgent: bool = False) -> Future[R]:
        """Start one piece of work beside what goes on here, in the order of the calls but urgent work
        first. Only after `grow` has said yes."""
        promise: Future[R] = Future()
        with self._changed:
            self._number += 1
            heappush(self._waiting, (not urgent, self._number, promise, function, arguments))
            self._feed()
        return promise

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """The result, from one of the processes if there are any (then before all that waits)."""
        if self._pool is None:
            return function(*arguments)
        return self.begin(function, *arguments, urgent=True).result()

    def _feed(self) -> None:
        """Hand over no more than keeps all processes busy: what is handed over cannot be overtaken."""
        assert self._pool is not None  # noqa: S101 - the condition of `begin`
        while self._waiting and self._running < self._cores + _AHEAD:
            _, _, promise, function, arguments = heappop(self._waiting)
            try:
                inner = self._pool.submit(function, *arguments)
            except RuntimeError as error:  # the pool has broken down or was closed
                promise.set_exception(error)
                continue
            self._running += 1
            inner.add_done_callback(partial(self._done, promise))

    def _done(self, promise: Future[Any], inner: Future[Any]) -> None:
        """Runs in the pool's own thread."""
        with self._changed:
            self._running -= 1
            self._feed()
            self._changed.notify_all()
        if inner.cancelled():
            promise.cancel()
            return
        error = inner.exception()
        if error is not None:
            promise.set_exception(error)
        else:
            promise.set_result(inner.result())

    def each(
        self,
        function: Callable[..., R],
        arguments: Sequence[tuple[Any, ...]],
        progress: Progress,
        title: Sentence,
    ) -> Iterator[R]:
        """The results of the function over all arguments, in order."""
        if self._pool is None or len(arguments) < 2:
            results: Iterator[R] = (function(*a) for a in arguments)
        else:
            results = self._pool.map(_call, [(function, a) for a in arguments])
        for done, result in enumerate(results, 1):
            progress.step(title, done, len(arguments))
            yield result

    def dismiss(self) -> None:
        """Nothing more is begun: the processes end (which takes a moment) beside what goes on here."""
        if self._pool is not None and self._leaving is None:
            self._leaving = Thread(target=self._end)
            self._leaving.start()

    def _end(self, *, at_once: bool = False) -> None:
        assert self._pool is not None  # noqa: S101 - the callers have looked
        if not at_once:
            with self._changed:
                self._changed.wait_for(lambda: not self._waiting and not self._running)
        self._pool.shutdown(cancel_futures=at_once)

    def close(self, *, at_once: bool = False) -> None:
        if self._pool is None:
            return
        if at_once:
            with self._changed:
                self._waiting.clear()
        if self._leaving is None:
            self._end(at_once=at_once)
        else:
            self._leaving.join()


def _join_team() -> None:
    """First thing in each process: one thread for the tokenizer library, and no life without the team.

    A process that was killed cannot tell its children, and these would wait for work for ever.
    """
    os.environ["RAYON_NUM_THREADS"] = "1"
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # noqa: S101 - this runs in a child
    parent.join()
    os._exit(1)


def _call(work: tuple[Callable[..., R], tuple[Any, ...]]) -> R:
    function, arguments = work
    return function(*arguments)


@contextmanager
def team(size: int = 0) -> Iterator[Team]:
    """A team for `size` bytes of text; it can grow later. What is still waiting after an error is dropped."""
    made = Team()
    made.grow(size)
    try:
        yield made
    except BaseException:
        made.close(at_once=True)
        raise
    made.close()
