"""How does one HTTP request get its answers out of the engine? Waiting, streaming, giving up.

Whoever stops waiting (the client hung up, the time is over, something failed) frees the places of
all its answers; `Answering.close` may be called more than once.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hauslm.base.words import Sentence, say
from hauslm.lm.interface import Reply, Usage
from hauslm.lm.schema import parse
from hauslm.serve.engine import Closing, Engine, Job, Piece, QueueFull
from hauslm.serve.refusal import NO_RETRY, SERVER, ApiError, of_error
from hauslm.serve.shapes import Shape
from hauslm.serve.wire import Ask


class ClientGone(Exception):
    """Nobody is listening any more."""


Item = tuple[int, Piece | Exception]


class Mailbox:
    """Carries pieces from the engine's thread into the event loop: one wake-up for all that a step
    brought, where a wake-up per piece would cost more than the piece. Made inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._posted: deque[tuple[asyncio.Queue[Item], Item]] = deque()
        self._woken = False

    def post(self, inbox: asyncio.Queue[Item], item: Item) -> None:
        """From any thread."""
        self._posted.append((inbox, item))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody is there to read it
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False  # first, so that what is posted from here on wakes us again
        while self._posted:
            inbox, item = self._posted.popleft()
            inbox.put_nowait(item)


class Answering:
    """The answers to one `Ask`, on their way. Made inside the event loop; 429 if it is full."""

    def __init__(self, engine: Engine, mailbox: Mailbox, ask: Ask, timeout_s: float) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._ask = ask
        self._timeout_s = timeout_s
        self._ends = asyncio.get_running_loop().time() + timeout_s
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
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

    def _deliver_to(self, index: int) -> Callable[[Piece | Exception], None]:
        return lambda item: self._mailbox.post(self._inbox, (index, item))

    @property
    def finished(self) -> bool:
        return all(r is not None for r in self.replies)

    async def next(self) -> tuple[int, Piece]:
        """The next piece of any choice, as (index, piece); `ApiError` if it will not come."""
        if self._inbox.empty():  # only waiting needs a timer
            try:
                async with asyncio.timeout_at(self._ends):
                    index, item = await self._inbox.get()
            except TimeoutError as error:
                raise self._too_late() from error
        else:
            index, item = self._inbox.get_nowait()
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


# ---------------------------------------------------------------- whole answers


async def unless_gone(receive: Receive, work: Awaitable[Any]) -> Any:
    """The result of `work`, or `ClientGone` as soon as the client hangs up. The body must have been
    read: then the next thing that ASGI's `receive` brings is the disconnect."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({watch, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (watch, task):
            each.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def all_replies(answering: Answering) -> list[Reply]:
    while not answering.finished:
        await answering.next()
    return [r for r in answering.replies if r is not None]


# ---------------------------------------------------------------- streams


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def events(
    answering: Answering, shape: Shape, ask: Ask, first: tuple[int, Piece]
) -> AsyncIterator[str]:
    """Server-sent events of the whole stream. `first` was awaited before the headers were sent, so
    that refusals still have their status; what goes wrong later is an event of its own. Events that are
    there at the same time travel in one write, which costs more than the events."""
    opened: set[int] = set()
    item = first
    try:
        while True:
            text = "".join(_event(c) for c in _chunks(shape, *item, opened))
            if answering.finished:
                break
            if text:
                yield text
            item = await answering.next()
    except ApiError as error:
        yield _event(error.body())
        return
    if ask.include_usage:
        text += _event(shape.usage(answering.usages))
    yield text + "data: [DONE]\n\n"


def _chunks(shape: Shape, index: int, piece: Piece, opened: set[int]) -> Sequence[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []
    if index not in opened:
        opened.add(index)
        opening = shape.opening(index)
        chunks += [opening] if opening is not None else []
    if piece.text or piece.logprobs:
        chunks.append(shape.piece(index, piece.text, piece.logprobs))
    if piece.reply is not None:
        chunks.append(shape.end(index, piece.reply.finish_reason))
    return chunks


class EventStream(StreamingResponse):
    """Server-sent events; the places are freed however the stream ends."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], answering: Answering) -> None:
        super().__init__(content, headers={"x-accel-buffering": "no"})
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.close()
