"""Where does the heavy work run? In this process for small corpora, one process per core for large ones.

In this process the tokenizer library uses all cores by itself. In worker processes it uses one each, and
everything around it (hashing, cutting, writing) runs in parallel too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from hauslm.base.progress import Progress
from hauslm.base.words import Sentence

PARALLEL_ABOVE = 24 << 20  # bytes; starting processes takes longer than doing less than this here

R = TypeVar("R")


class Team:
    """Runs functions over lists of arguments; `pool` None: one after the other, here."""

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool = pool

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


def _call(work: tuple[Callable[..., R], tuple[Any, ...]]) -> R:
    function, arguments = work
    return function(*arguments)


@contextmanager
def team(size: int) -> Iterator[Team]:
    """A team for `size` bytes of text: processes (started on first use) only where that pays."""
    cores = len(os.sched_getaffinity(0))
    if size < PARALLEL_ABOVE or cores < 2:
        yield Team(None)
        return
    before = os.environ.get("RAYON_NUM_THREADS")
    os.environ["RAYON_NUM_THREADS"] = "1"  # the children inherit it, this process has read its own
    try:
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            yield Team(pool)
    finally:
        if before is None:
            os.environ.pop("RAYON_NUM_THREADS", None)
        else:
            os.environ["RAYON_NUM_THREADS"] = before
