"""What is done with each shard of the spool, as early as possible: its facts, then its examples.

With processes, both begin while reading still goes on, and facts overtake examples: placing and
measuring need the facts of all documents, and do their work while the examples are made. What a document
becomes does not depend on its split, so tokenizing need not wait for that. Without processes, each thing
is done here when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.data import build
from hauslm.data.build import BATCH_OF_ONE_CORE, Job
from hauslm.data.facts import Facts
from hauslm.data.quick import Trial
from hauslm.data.spool import Shard
from hauslm.data.tokens import Tokenizer
from hauslm.data.workers import Team


class ShardWork:
    """The facts and the examples of the shards, each begun once, fetched in order.

    With processes, `tokenizer` (if one is given) goes on trial for being done by kitoken, and is if it passes;
    `quick` says so.
    """

    def __init__(
        self, team: Team, job: Job, progress: Progress, tokenizer: Tokenizer | None = None
    ) -> None:
        self.job = job
        self.quick = False
        self._tokenizer = tokenizer
        self._trial: Trial | None = None
        self._team = team
        self._progress = progress
        self._read: list[Shard] = []
        self._begun = 0
        self._facts: deque[Future[list[Facts]]] = deque()
        self._examples: deque[Future[dict[str, Any]]] = deque()

    def expect(self, size: int) -> None:
        """So many bytes will be read: processes that pay can start beside the reading."""
        if self._team.grow(size):
            self._team.warm(build.ready)
            self._try()

    def _try(self) -> None:
        if self._tokenizer is not None and self._trial is None:
            self._trial = self._tokenizer.trial()

    def end(self) -> None:
        """Nothing goes on beside what goes on here."""
        if self._trial is not None:
            self._trial.end()

    def closed(self, shard: Shard) -> None:
        """The shard can be read. From where processes pay, they begin with it at once."""
        self._read.append(shard)
        if self._team.grow(shard.end):
            self._begin()

    def all(self, shards: Sequence[Shard]) -> None:
        """Reading is over, and these are all shards (also those that were read in an earlier run)."""
        self._read = list(shards)
        if self._team.grow(sum(s.end - s.start for s in shards)):
            self._begin()

    def _begin(self) -> None:
        self._try()
        if self._tokenizer is not None and self._trial is not None:
            self.quick = self._tokenizer.passed(self._trial)
            if not self.quick and not self._begun:
                self._progress.say(
                    say(
                        "kitoken does not do for this tokenizer; the tokenizer library does it, more slowly."
                    )
                )
        job = replace(self.job, batch_characters=BATCH_OF_ONE_CORE, quick=self.quick)
        for shard in self._read[self._begun :]:
            self._facts.append(self._team.begin(build.facts_of_shard, job, shard, urgent=True))
            self._examples.append(self._team.begin(build.examples_of_shard, job, shard))
        self._begun = len(self._read)

    def facts(self) -> Iterator[list[Facts]]:
        """Of every shard, in order."""
        for done, shard in enumerate(self._read, 1):
            if self._facts:
                yield self._facts.popleft().result()
            else:
                yield build.facts_of_shard(self.job, shard)
            self._progress.step(say("Looking at the documents"), done, len(self._read))

    def examples(self, shard: Shard) -> dict[str, Any]:
        """The counts of `examples_of_shard`; to be asked for in order."""
        if self._examples:
            found = self._examples.popleft().result()
        else:
            found = build.examples_of_shard(self.job, shard)
        self._progress.step(say("Tokenizing the documents"), shard.number + 1, len(self._read))
        return found
