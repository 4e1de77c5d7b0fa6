"""How does one HTTP request get its answers out of the engine? Waiting, and giving up.

Whoever stops waiting (the client hung up, the time is over, something failed) frees the places of
all its answers; `Answering.close` may be called more than once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from starlette.types import Receive

from hauslm.base.words import Sentence, say
from hauslm.lm.interface import Reply, Usage
from hauslm.lm.schema import parse
from hauslm.serve.engine import Closing, Engine, Job, Piece, QueueFull
from hauslm.serve.refusal import NO_RETRY, SERVER, ApiError, of_error
from hauslm.serve.wire import Ask


class ClientGone(Exception):
    """Nobody is listening any more."""


class Mailbox:
    """Carries pieces from the engine's thread into the event loop: one wake-up for all that a step
    brought, where a wake-up per piece would cost more than the piece. Made inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._posted: deque[tuple[Answering, int, Piece | Exception]] = deque()
        self._woken = False

    def post(self, to: Answering, index: int, item: Piece | Exception) -> None:
        """From any thread."""
        self._posted.append((to, index, item))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody is there to read it
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False  # first, so that what is posted from here on wakes us again
        while self._posted:
            to, index, item = self._posted.popleft()
            to.arrived(index, item)


class Answering:
    """The answers to one `Ask`, on their way. Made inside the event loop; 429 if it is full.

    `receive` is ASGI's, of a request whose body has been read: the next thing it brings is the
    disconnect. One task waits for that and one timer for the end of the time, however many pieces come.
    """

    def __init__(
        self, engine: Engine, mailbox: Mailbox, ask: Ask, timeout_s: float, receive: Receive
    ) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._ask = ask
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[int, Piece | Exception]] = deque()
        self._wanted: asyncio.Future[None] | None = None  # somebody waits for the inbox to fill
        self._late = self._gone = False
        self._jobs = [
            Job(request, self._deliver_to(i), streams=ask.stream)
            for i, request in enumerate(ask.requests)
        ]
        self.replies: list[Reply | None] = [None] * len(self._jobs)
        try:
            engine.submit(self._jobs)
        except QueueFull as full:
            raise _too_busy(full.retry_after_s) from full
        except Closing as closing:
            raise stopping() from closing
        self._timer = self._loop.call_later(timeout_s, self._time_over)
        self._watch = self._loop.create_task(self._until_gone(receive))

    def _deliver_to(self, index: int) -> Callable[[Piece | Exception], None]:
        return lambda item: self._mailbox.post(self, index, item)

    # ------------------------------------------------------------ what can happen while it waits

    def arrived(self, index: int, item: Piece | Exception) -> None:
        self._inbox.append((index, item))
        self._wake()

    def _time_over(self) -> None:
        self._late = True
        self._wake()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    # ------------------------------------------------------------ waiting

    @property
    def finished(self) -> bool:
        return all(r is not None for r in self.replies)

    @property
    def more_is_here(self) -> bool:
        """Would `next` answer at once?"""
        return bool(self._inbox)

    async def next(self) -> tuple[int, Piece]:
        """The next piece of any choice, as (index, piece); `ApiError` if it will not come,
        `ClientGone` as soon as the client hangs up."""
        while not self._gone and not self._inbox:
            if self._late:  # what came in time is given out first
                raise self._too_late()
            self._wanted = self._loop.create_future()
            await self._wanted
        if self._gone:
            raise ClientGone
        index, item = self._inbox.popleft()
        if isinstance(item, Closing):
            raise stopping() from item
        if isinstance(item, Exception):
            raise of_error(item, self._ask.prompt_param) from item
        if item.reply is not None:
            self.replies[index] = item.reply
            self._check(item.reply)
        return index, item

    def _too_late(self) -> ApiError:
        return ApiError(
            504,
            say("The answer was not finished within {seconds:g} seconds.", seconds=self._timeout_s),
            None,
            "timeout",
            SERVER,
            NO_RETRY,
        )

    def _check(self, reply: Reply) -> None:
        """What should obey a schema is looked at again; cut-off answers say `length` themselves."""
        reason: Sentence | str = ""
        if reply.finish_reason == "error":
            reason = say("it was broken off")
        elif self._ask.checked_schema is not None and reply.finish_reason == "stop":
            _, reason = parse(reply.text, self._ask.checked_schema)
        if not reason:
            return
        raise ApiError(
            500,
            say("The answer does not obey the schema ({reason}).", reason=reason),
            "response_format",
            "schema_violation",
            SERVER,
            NO_RETRY,
        )

    def close(self) -> None:
        self._timer.cancel()
        self._watch.cancel()
        if not self.finished:
            self._engine.cancel(self._jobs)

    @property
    def usages(self) -> list[Usage]:
        return [r.usage for r in self.replies if r is not None]


def _too_busy(retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        say("The queue is full; try again in {seconds} seconds.", seconds=retry_after_s),
        None,
        "rate_limit_exceeded",
        "rate_limit_error",
        {"retry-after": str(retry_after_s)},
    )


def stopping() -> ApiError:
    return ApiError(
        503, say("The server is being stopped."), None, "server_stopping", SERVER, NO_RETRY
    )


async def all_replies(answering: Answering) -> list[Reply]:
    while not answering.finished:
        await answering.next()
    return [r for r in answering.replies if r is not None]
