"""Who is answered when? A bounded queue before one running batch, driven by one thread.

With a model that offers a running batch (`LocalModel.decoder`), answers enter and leave it as places
get free: mixed adapters and schemas share each forward pass, text is given out as it is written, and
a cancelled answer frees its place at the next step (continuous batching; Yu et al., "Orca", OSDI
2022). Any other model answers whole batches, one `generate` call for what has been collected; its
"stream" is then the finished text in pieces.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from hauslm.base.errors import HauslmError, RefusedError
from hauslm.base.words import say
from hauslm.lm.interface import BASE, LanguageModel, Reply, Request, TokenLogprob
from hauslm.serve.metrics import Metrics

log = logging.getLogger("hauslm.serve")

MOST_RETRIES = 4  # of an answer whose batch broke
ALONE_AFTER = 2  # retries; then it runs by itself, so that it can break nothing but itself
# A stream gets at most this many pieces a second; a faster model's tokens travel together. Nobody reads
# faster, and each piece costs a write of its own (as vLLM's --stream-interval, there counted in tokens).
PIECES_PER_SECOND = 20
# An idle engine waits so long for whoever comes right behind the first: prompts read together cost little
# more than one, and requests of the same moment reach the queue some tenths of a millisecond apart.
GATHER_S = 0.002
_WORD = re.compile(r"\s*\S+|\s+")


class QueueFull(Exception):
    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class Closing(Exception):
    """The server is being stopped."""


@dataclass(frozen=True)
class Piece:
    """New text of an answer, its log-probabilities, and, at the end, the whole reply."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    reply: Reply | None = None


@dataclass(eq=False)
class Job:
    """One answer asked for. `deliver` is called from the engine's thread, with an error at most once
    and nothing after it; without `streams` only the final piece is delivered."""

    request: Request
    deliver: Callable[[Piece | Exception], None]
    streams: bool = False
    submitted: float = field(default_factory=time.monotonic)
    told: bool = False  # the client has seen a part of it: it cannot be begun anew
    begun: bool = False  # its first token was observed
    retries: int = 0
    held_text: str = ""  # written, not yet delivered
    held_logprobs: tuple[TokenLogprob, ...] = ()
    delivered: float = -math.inf  # when the last piece went out


@dataclass(frozen=True)
class Failed:
    handle: int
    error: Exception


class RunningBatch(Protocol):
    """What the engine drives: `lm.decode.Decoder`, or `WholeBatch` below."""

    def admit(self, request: Request) -> int: ...
    def cancel(self, handle: int) -> None: ...
    def step(self) -> Sequence[Any]:
        """Events with handle, text, logprobs, reply; or `Failed`."""


@dataclass(frozen=True)
class _Whole:
    handle: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reply: Reply | None = None


class WholeBatch:
    """A model that only knows `generate`: everything admitted is answered in one call."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._admitted: dict[int, Request] = {}
        self._next_handle = 0

    def admit(self, request: Request) -> int:
        self._next_handle += 1
        self._admitted[self._next_handle] = request
        return self._next_handle

    def cancel(self, handle: int) -> None:
        self._admitted.pop(handle, None)

    def step(self) -> Sequence[_Whole | Failed]:
        rows, self._admitted = self._admitted, {}
        try:
            replies = self._model.generate(list(rows.values()))
        except HauslmError as error:
            if len(rows) == 1:
                return [Failed(next(iter(rows)), error)]
            # One of them cannot be answered; the others must not suffer for it.
            return [e for handle, request in rows.items() for e in self._alone(handle, request)]
        return [e for h, reply in zip(rows, replies, strict=True) for e in _in_pieces(h, reply)]

    def _alone(self, handle: int, request: Request) -> Sequence[_Whole | Failed]:
        try:
            return _in_pieces(handle, self._model.generate([request])[0])
        except HauslmError as error:
            return [Failed(handle, error)]


def _in_pieces(handle: int, reply: Reply) -> list[_Whole]:
    words = _WORD.findall(reply.text) or [""]
    pieces = [_Whole(handle, w) for w in words[:-1]]
    return [*pieces, _Whole(handle, words[-1], reply.logprobs, reply)]


@dataclass
class _Order:
    """Something to be done between two steps, once no row uses `adapter` any more."""

    action: Callable[[], Any]
    adapter: str | None
    done: Future[Any] = field(default_factory=Future)


class Engine:
    """The queue and the thread. `max_queue`: answers that may wait; `batch_size`: places."""

    def __init__(
        self, model: LanguageModel, metrics: Metrics, *, max_queue: int, batch_size: int
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_queue = max_queue
        self.batch_size = batch_size
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._cancelled: set[Job] = set()
        self._orders: list[_Order] = []
        self._closing = False
        self._seconds_per_answer = 1.0
        self._given_out = -math.inf  # when streams last got their pieces
        self._batch = self._fresh_batch()
        self._thread: threading.Thread | None = None

    def _fresh_batch(self) -> RunningBatch:
        make: Callable[[int], RunningBatch] | None = getattr(self._model, "decoder", None)
        return make(self.batch_size) if make is not None else WholeBatch(self._model)

    # ------------------------------------------------------------ from other threads

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="hauslm-engine", daemon=True)
        self._thread.start()

    def close(self, wait_s: float = 10.0) -> None:
        """Stop after the step that is running; what is unfinished is told `Closing`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(wait_s)

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._closing

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def most_at_once(self) -> int:
        """Answers that fit into the queue and the batch together."""
        return self._max_queue + self.batch_size

    def submit(self, jobs: Sequence[Job]) -> None:
        """All of them or none: `QueueFull` if they do not fit, `Closing` while stopping."""
        with self._changed:
            if self._closing:
                raise Closing
            free = max(0, self.batch_size - len(self._running))
            if len(self._waiting) + len(jobs) > self._max_queue + free:
                self._metrics.add("hauslm_refused_full_total")
                raise QueueFull(self._retry_after())
            self._waiting.extend(jobs)
            self._changed.notify()

    def _retry_after(self) -> int:
        """Whole seconds in which the queue as it stands will be worked off, 1 to 60."""
        ahead = len(self._waiting) * self._seconds_per_answer / self.batch_size
        return max(1, min(60, math.ceil(ahead)))

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody wants these any more: waiting ones go at once, running ones at the next step."""
        with self._changed:
            wanted = set(jobs)
            self._waiting = deque(j for j in self._waiting if j not in wanted)
            self._cancelled |= wanted
            self._changed.notify()

    def between_steps(self, action: Callable[[], Any], adapter: str | None = None) -> Future[Any]:
        """Do `action` in the engine's thread, after the running answers of `adapter` are done."""
        order = _Order(action, adapter)
        with self._changed:
            if self._closing:
                order.done.set_exception(Closing())
            else:
                self._orders.append(order)
                self._changed.notify()
        return order.done

    # ------------------------------------------------------------ the engine's thread

    def _work(self) -> None:
        while self._wait():
            self._drop_cancelled()
            self._carry_out_orders()
            for job in self._take():
                self._admit(job)
            if self._running:
                self._step()
        self._say_goodbye()

    def _wait(self) -> bool:
        """Until there is something to do; False when it is time to stop."""
        with self._changed:
            idle = False
            while not (self._closing or self._waiting or self._running or self._orders):
                idle = True
                self._changed.wait()
            if idle:
                self._gather()
            return not self._closing

    def _gather(self) -> None:
        """Let the queue fill as long as answers keep coming, up to a full batch. Holds the lock."""
        seen = 0
        while not self._closing and seen < len(self._waiting) < self.batch_size:
            seen = len(self._waiting)
            self._changed.wait(GATHER_S)

    def _take(self) -> list[Job]:
        """The first in the queue, as many as there are places; an adapter about to go gets none."""
        if not self._waiting or len(self._running) >= self.batch_size:
            return []
        with self._changed:
            leaving = {o.adapter for o in self._orders}
            taken: list[Job] = []
            for job in list(self._waiting):
                beside = [*self._running.values(), *taken]
                suspect = any(j.retries >= ALONE_AFTER for j in (job, *beside))
                if len(beside) >= self.batch_size or (suspect and beside):
                    break
                if job.request.adapter not in leaving:
                    taken.append(job)
            chosen = set(taken)
            self._waiting = deque(j for j in self._waiting if j not in chosen)
            return taken

    def _admit(self, job: Job) -> None:
        try:
            handle = self._batch.admit(job.request)
        except Exception as error:
            if not isinstance(error, HauslmError):
                log.exception("admitting a request failed")
            job.deliver(error)
            return
        self._metrics.observe("hauslm_queue_seconds", time.monotonic() - job.submitted)
        with self._changed:
            self._running[handle] = job

    def _drop_cancelled(self) -> None:
        if not self._cancelled:  # as before nearly every step
            return
        with self._changed:
            gone = [h for h, job in self._running.items() if job in self._cancelled]
            self._cancelled.clear()
            for handle in gone:
                del self._running[handle]
        for handle in gone:
            self._batch.cancel(handle)
            self._metrics.add("hauslm_answers_total", finish="cancelled")

    def _carry_out_orders(self) -> None:
        if not self._orders:
            return
        with self._changed:
            used = {job.request.adapter for job in self._running.values()}
            ready = [o for o in self._orders if o.adapter is None or o.adapter not in used]
            self._orders = [o for o in self._orders if o not in ready]
        for order in ready:
            try:
                order.done.set_result(order.action())
            except Exception as error:  # it belongs to whoever gave the order
                order.done.set_exception(error)

    def _step(self) -> None:
        self._metrics.add("hauslm_steps_total")
        self._metrics.add("hauslm_step_rows_total", len(self._running))
        try:
            events = self._batch.step()
        except Exception as error:  # whatever broke, the server goes on with a fresh batch
            self._mend(error)
            return
        now = time.monotonic()
        give_out = now - self._given_out >= 1 / PIECES_PER_SECOND
        if give_out:
            self._given_out = now
        for event in events:
            job = self._running.get(event.handle)
            if job is not None:
                self._hand_over(job, event, now, give_out)

    def _hand_over(self, job: Job, event: Any, now: float, give_out: bool) -> None:
        """Deliver what is due: an answer's first piece and its end at once, what lies between with
        that of all other streams, so that one wake-up of the event loop serves them all."""
        if isinstance(event, Failed):
            self._remove(event.handle)
            job.deliver(event.error)
            return
        if not job.begun:
            job.begun = True
            self._metrics.observe("hauslm_first_token_seconds", now - job.submitted)
        if event.reply is not None:
            self._remove(event.handle)
            self._count(job.request, event.reply)
        elif not job.streams or not (event.text or event.logprobs):
            return
        text, logprobs = job.held_text + event.text, (*job.held_logprobs, *event.logprobs)
        due = give_out and now - job.delivered >= 1 / PIECES_PER_SECOND
        if event.reply is None and job.told and not due:
            job.held_text, job.held_logprobs = text, logprobs
            return
        job.held_text, job.held_logprobs, job.delivered, job.told = "", (), now, True
        job.deliver(Piece(text, logprobs, event.reply))

    def _remove(self, handle: int) -> None:
        with self._changed:
            del self._running[handle]

    def _count(self, request: Request, reply: Reply) -> None:
        name = self._model.name if request.adapter == BASE else request.adapter
        self._metrics.add("hauslm_prompt_tokens_total", reply.usage.prompt_tokens, model=name)
        self._metrics.add(
            "hauslm_completion_tokens_total", reply.usage.completion_tokens, model=name
        )
        self._metrics.add("hauslm_answers_total", finish=reply.finish_reason)
        self._seconds_per_answer += 0.1 * (reply.seconds - self._seconds_per_answer)

    def _mend(self, error: Exception) -> None:
        """The batch broke: begin anew, with half the places if memory ran out. An answer of which
        the client has seen nothing is tried again; the others are told."""
        log.error("the running batch failed", exc_info=error)
        if type(error).__name__ == "OutOfMemoryError":
            if self.batch_size > 1:
                self.batch_size //= 2
                log.warning("out of memory: the batch now has %d rows", self.batch_size)
            error = RefusedError(
                "H859",
                say("Not even one answer fits into the device memory."),
                next_step=say("Use shorter texts, a smaller model or quantisation."),
            )
        with self._changed:
            rows, self._running = list(self._running.values()), {}
            again = [j for j in rows if not j.told and j.retries < MOST_RETRIES]
            for job in again:
                job.retries += 1
                job.held_text, job.held_logprobs = "", ()
            self._waiting.extendleft(reversed([j for j in again if j not in self._cancelled]))
            self._cancelled.clear()
        self._batch = self._fresh_batch()
        for job in rows:
            if job not in again:
                job.deliver(error)

    def _say_goodbye(self) -> None:
        with self._changed:
            rest = [*self._running.values(), *self._waiting]
            orders, self._orders = self._orders, []
            self._running.clear()
            self._waiting.clear()
        for job in rest:
            job.deliver(Closing())
        for order in orders:
            order.done.set_exception(Closing())
