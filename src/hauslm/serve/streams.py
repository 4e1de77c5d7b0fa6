"""How do answers stream? Server-sent events, written to ASGI as they come.

Events that are there at the same time travel in one write: a write (ASGI, HTTP, the system's call) costs
more processor time than the events in it. Hence no generator either: the last events close the answer.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hauslm.serve.answering import Answering, ClientGone
from hauslm.serve.engine import Piece
from hauslm.serve.refusal import ApiError
from hauslm.serve.shapes import Shape, event
from hauslm.serve.wire import Ask


class EventStream(Response):
    """The answer to a streaming request; the places are freed however it ends.

    `first` was awaited before the headers are sent, so that refusals still have their status; what
    goes wrong later is an event of its own.
    """

    media_type = "text/event-stream"

    def __init__(
        self, answering: Answering, shape: Shape, ask: Ask, first: tuple[int, Piece]
    ) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        # Of unknown length, where `Response` counts an empty body.
        self.raw_headers = [h for h in self.raw_headers if h[0] != b"content-length"]
        self._answering = answering
        self._shape = shape
        self._ask = ask
        self._first = first
        self._opened: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive  # `Answering` watches for the disconnect
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            text, more = await self._written(self._first)
            while True:
                body = {"type": "http.response.body", "body": text.encode(), "more_body": more}
                await send(body)
                if not more:
                    return
                text, more = await self._written(None)
        except ClientGone:
            pass
        finally:
            self._answering.close()

    async def _written(self, item: tuple[int, Piece] | None) -> tuple[str, bool]:
        """(the events that are due now, whether more will come). Waits until there are some."""
        text = ""
        try:
            while True:
                text += self._events(*(item or await self._answering.next()))
                item = None
                if self._answering.finished:
                    break
                if text and not self._answering.more_is_here:
                    return text, True
        except ApiError as error:
            return text + event(error.body()), False
        if self._ask.include_usage:
            text += event(self._shape.usage(self._answering.usages))
        return text + "data: [DONE]\n\n", False

    def _events(self, index: int, piece: Piece) -> str:
        text = ""
        if index not in self._opened:
            self._opened.add(index)
            opening = self._shape.opening(index)
            text = "" if opening is None else event(opening)
        if piece.text or piece.logprobs:
            text += self._shape.piece_event(index, piece.text, piece.logprobs)
        if piece.reply is not None:
            text += event(self._shape.end(index, piece.reply.finish_reason))
        return text
