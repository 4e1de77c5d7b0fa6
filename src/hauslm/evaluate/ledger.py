"""What has been measured already? A journal of model answers, so that an evaluation can be resumed.

Each row is one unit of work (an item with its labels, a document with its windows) under a key over
everything that determines its result: the texts, the base model, the adapter. A unit with a known key
costs nothing the second time; rows of the base survive a new adapter. Texts of documents are not
stored, only their hash: a journal must not become a second copy of copyrighted works. What a model
wrote in reply is stored.

Work is done in batches and each batch is on the disk before the next begins; what is kept in memory
are a few numbers per unit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from hauslm.base.energy import Counter
from hauslm.base.files import Journal, canonical_json, sha256_bytes, write_sealed
from hauslm.base.progress import Progress
from hauslm.base.words import N_, Sentence
from hauslm.lm.interface import BASE, LanguageModel, Request, Scored

FORMAT = 2  # raise it when rows change their meaning: old ones are then measured again
BATCH_CHARACTERS = 200_000  # text per call: enough for the model to sort by length, little to lose
STALE_SHARE = 0.5
ALONE = "alone"  # part of the rows that tell how long one item takes by itself


@dataclass(frozen=True)
class Unit:
    """Pairs (prompt, continuation) that belong together. `note` is stored beside the result."""

    part: str
    id: str
    document: str
    pairs: tuple[tuple[str, str], ...]
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """Something to answer in the model's own words."""

    part: str
    id: str
    document: str
    request: Request
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Meter:
    """What a system has cost: tokens read and written, seconds of model time, joules, units.

    `joules` is None as soon as one unit was measured where nothing counts energy. `waits` are the
    seconds that single requests took, where each was one of its own.
    """

    tokens: int = 0
    written: int = 0  # of the tokens: those that the model wrote
    seconds: float = 0.0
    units: int = 0
    joules: float | None = 0.0
    waits: list[float] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        self.tokens += int(row["tokens"])
        self.written += int(row.get("written", 0))
        self.seconds += float(row["seconds"])
        self.units += 1
        used = row.get("joules")
        self.joules = None if used is None or self.joules is None else self.joules + float(used)
        if "latency" in row:
            self.waits.append(float(row["latency"]))


class Ledger:
    """Scores and answers through the journal. `identities`: adapter name -> sha256 ('' for the base).

    `meters` tells per system what its results cost, also when they come from the journal.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        # Synced once per batch; a torn last line is dropped by the journal itself.
        self._journal = Journal(path, fsync_every=1 << 30)
        self._progress = progress
        self._rows: dict[str, dict[str, Any]] = {str(r["key"]): r for r in self._journal.rows}
        self._journal.rows = []
        self._used: set[str] = set()
        self.meters: dict[tuple[str, str], Meter] = {}  # (system, part)
        self.reused = 0

    # ------------------------------------------------------------ the two kinds of work

    def score(
        self,
        system: System,
        units: Sequence[Unit],
        title: Sentence,
    ) -> list[list[Scored]]:
        """Per unit the scores of its pairs, in the order given."""
        keys = [self._key(system, "score", [list(p) for p in u.pairs], len(u.pairs)) for u in units]
        todo = [i for i, key in enumerate(keys) if key not in self._rows]
        self.reused += len(units) - len(todo)
        done = len(units) - len(todo)
        for batch in _batches(todo, [sum(len(p) + len(c) for p, c in u.pairs) for u in units]):
            self._progress.step(title, done, len(units))
            clock = _Clock(system.counter)
            pairs = [pair for i in batch for pair in units[i].pairs]
            scored = iter(system.model.score(pairs, system.adapter))
            seconds, joules = clock.read()
            results = {i: [next(scored) for _ in units[i].pairs] for i in batch}
            tokens = {
                i: _prompt_tokens(system.model, units[i]) + sum(s.tokens for s in results[i])
                for i in batch
            }
            for i in batch:
                self._store(
                    keys[i], system, units[i],
                    seconds=_share(seconds, tokens, i),
                    joules=None if joules is None else _share(joules, tokens, i),
                    tokens=tokens[i],
                    scored=[[s.logprob, s.tokens, s.bytes, s.greedy] for s in results[i]],
                )  # fmt: skip
            self._journal.sync()
            done += len(batch)
        self._progress.step(title, len(units), len(units))
        return [[Scored(*v) for v in self._take(k, system, u)["scored"]]
                for k, u in zip(keys, units, strict=True)]  # fmt: skip

    def generate(
        self, system: System, questions: Sequence[Question], title: Sentence
    ) -> list[dict[str, Any]]:
        """Per question a row with `text`, `finish_reason`, `tokens`, `seconds`."""
        keys = [
            self._key(system, "generate", _request_json(q.request), q.request.max_new_tokens)
            for q in questions
        ]
        todo = [i for i, key in enumerate(keys) if key not in self._rows]
        self.reused += len(questions) - len(todo)
        done = len(questions) - len(todo)
        sizes = [len(str(_request_json(q.request))) for q in questions]
        for batch in _batches(todo, sizes, BATCH_CHARACTERS // 4):
            self._progress.step(title, done, len(questions))
            clock = _Clock(system.counter)
            replies = system.model.generate(
                [replace(questions[i].request, adapter=system.adapter) for i in batch]
            )
            seconds, joules = clock.read()
            tokens = {
                i: r.usage.prompt_tokens + r.usage.completion_tokens
                for i, r in zip(batch, replies, strict=True)
            }
            for i, reply in zip(batch, replies, strict=True):
                self._store(
                    keys[i], system, questions[i],
                    seconds=_share(seconds, tokens, i),
                    joules=None if joules is None else _share(joules, tokens, i),
                    latency=reply.seconds,
                    tokens=tokens[i],
                    written=reply.usage.completion_tokens,
                    text=reply.text,
                    finish_reason=reply.finish_reason,
                )  # fmt: skip
            self._journal.sync()
            done += len(batch)
        self._progress.step(title, len(questions), len(questions))
        return [self._take(k, system, q) for k, q in zip(keys, questions, strict=True)]

    def alone(
        self, system: System, groups: Sequence[Sequence[Unit | Question]], title: Sentence
    ) -> list[float]:
        """Seconds that each group (one item, in one or several parts) takes when nothing else runs.

        The time of a batch divided by its items is not how long somebody waits, so this is asked again.
        """
        keys = [self._key(system, "alone", [_content(w) for w in g], len(g)) for g in groups]
        for done, (key, group) in enumerate(zip(keys, groups, strict=True)):
            self._progress.step(title, done, len(groups))
            if key in self._rows:
                self.reused += 1
                continue
            clock = _Clock(system.counter)
            for work in group:
                if isinstance(work, Unit):
                    list(system.model.score(work.pairs, system.adapter))
                else:
                    system.model.generate([replace(work.request, adapter=system.adapter)])
            seconds, joules = clock.read()
            self._store(key, system, replace(group[0], part=ALONE, note={}),
                        seconds=seconds, joules=joules, tokens=0)  # fmt: skip
            self._journal.sync()
        self._progress.step(title, len(groups), len(groups))
        return [
            float(self._take(k, system, replace(g[0], part=ALONE))["seconds"])
            for k, g in zip(keys, groups, strict=True)
        ]

    # ------------------------------------------------------------ keeping

    def _key(self, system: System, kind: str, content: Any, size: int) -> str:
        identity = [FORMAT, kind, size, system.base_sha256, system.adapter_sha256, content]
        return sha256_bytes(canonical_json(identity))

    def _store(self, key: str, system: System, unit: Unit | Question, **result: Any) -> None:
        row = {
            "key": key,
            "system": system.name,
            "base": system.base_sha256,
            "adapter": system.adapter_sha256,
            "part": unit.part,
            "id": unit.id,
            "document": unit.document,
            **dict(unit.note),
            **result,
        }
        self._journal.append(row)
        self._rows[key] = row

    def _take(self, key: str, system: System, unit: Unit | Question) -> dict[str, Any]:
        row = self._rows[key]
        if key not in self._used:
            self._used.add(key)
            self.meters.setdefault((system.name, unit.part), Meter()).add(row)
        return row

    def close(self) -> None:
        self._journal.close()

    def forget_unused(self) -> int:
        """Drop rows that this evaluation did not need, once they are the larger part; how many."""
        stale = [k for k in self._rows if k not in self._used]
        if len(stale) <= STALE_SHARE * len(self._rows):
            return 0
        self._journal.close()
        kept = b"".join(canonical_json(r) + b"\n" for k, r in self._rows.items() if k in self._used)
        write_sealed(self._journal.path, kept)
        self._rows = {k: r for k, r in self._rows.items() if k in self._used}
        return len(stale)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


SHOWN = {"base": N_("Base"), "adapter": N_("Adapter"), "cloud": N_("Cloud model")}


@dataclass(frozen=True)
class System:
    """One of the compared systems: a model behind the seam, with an adapter or without."""

    name: str
    model: LanguageModel
    adapter: str = BASE
    base_sha256: str = ""
    adapter_sha256: str = ""
    counter: Counter | None = None  # of the energy of the machine that it runs on

    @property
    def shown(self) -> Sentence | str:
        """The name for a reader; `name` is that of records, the same in every language."""
        return Sentence(SHOWN[self.name], {}) if self.name in SHOWN else self.name


class _Clock:
    """Seconds and, where something counts them, joules since it was made."""

    def __init__(self, counter: Counter | None) -> None:
        self._counter = counter
        self._energy = counter.read() if counter else None
        self._started = time.monotonic()

    def read(self) -> tuple[float, float | None]:
        seconds = time.monotonic() - self._started
        return seconds, self._counter.joules(self._energy) if self._counter else None


def _content(work: Unit | Question) -> Any:
    if isinstance(work, Unit):
        return [list(p) for p in work.pairs]
    return [_request_json(work.request), work.request.max_new_tokens]


def _batches(
    todo: Sequence[int], sizes: Sequence[int], limit: int = BATCH_CHARACTERS
) -> Iterator[list[int]]:
    """Indices in batches of about `limit` characters, longest first: the peak comes at the start."""
    batch: list[int] = []
    held = 0
    for i in sorted(todo, key=lambda i: (-sizes[i], i)):
        if batch and held + sizes[i] > limit:
            yield batch
            batch, held = [], 0
        batch.append(i)
        held += sizes[i]
    if batch:
        yield batch


def _prompt_tokens(model: LanguageModel, unit: Unit) -> int:
    """Tokens of the unit's distinct prompts."""
    return sum(model.count_tokens(p) for p in {prompt for prompt, _ in unit.pairs} if p)


def _share(seconds: float, tokens: Mapping[int, int], unit: int) -> float:
    """A unit's part of the time of its batch, by tokens."""
    return seconds * tokens[unit] / max(1, sum(tokens.values()))


def _request_json(request: Request) -> dict[str, Any]:
    return {
        "messages": [[m.role, m.content] for m in request.messages],
        "raw_prompt": request.raw_prompt,
        "max_new_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop),
        "json_schema": request.json_schema,
    }
