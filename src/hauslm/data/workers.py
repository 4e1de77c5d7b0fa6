"""Where does the heavy work run? In this process for small corpora, one process per core for large ones.

In this process the tokenizer library uses all cores by itself. In worker processes it uses one each, and
everything around it (hashing, cutting, writing) runs in parallel too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from hauslm.base.progress import Progress
from hauslm.base.words import Sentence

PARALLEL_ABOVE = 24 << 20  # bytes; starting processes takes longer than doing less than this here

R = TypeVar("R")


class Team:
    """Runs functions over lists of arguments: one after the other here, or in processes once `grow` has
    been told that there is enough to do."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._before: str | None = None

    def grow(self, size: int) -> bool:
        """Take processes (started on first use) if `size` bytes of text are worth it; are there any?"""
        cores = len(os.sched_getaffinity(0))
        if self._pool is None and size >= PARALLEL_ABOVE and cores >= 2:
            self._before = os.environ.get("RAYON_NUM_THREADS")
            os.environ["RAYON_NUM_THREADS"] = "1"  # for the children; this process has read its own
            self._pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
        return self._pool is not None

    def begin(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """Start one piece of work beside what goes on here. Only after `grow` has said yes."""
        assert self._pool is not None  # noqa: S101 - the condition above
        return self._pool.submit(function, *arguments)

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

    def close(self, *, at_once: bool = False) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(cancel_futures=at_once)
        if self._before is None:
            os.environ.pop("RAYON_NUM_THREADS", None)
        else:
            os.environ["RAYON_NUM_THREADS"] = self._before


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
