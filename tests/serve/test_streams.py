"""What a stream writes: the same bytes as encoding each event whole, in as few writes as there are moments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.lm.interface import Reply, TokenLogprob, Usage
from hauslm.serve import wire
from hauslm.serve.answering import ClientGone
from hauslm.serve.engine import Piece
from hauslm.serve.refusal import SERVER, ApiError
from hauslm.serve.shapes import Shape, event
from hauslm.serve.streams import EventStream

USAGE = Usage(3, 2)


def ask(**more: Any) -> wire.Ask:
    message = {"role": "user", "content": "x"}
    return wire.chat_ask({"model": 'm\0"', "messages": [message], "stream": True} | more)


@given(st.text(), st.sampled_from(["chat", "text", "usage"]))
def test_a_piece_is_written_as_if_encoded_whole(text: str, kind: str) -> None:
    asked = ask()
    if kind == "text":
        asked = wire.text_ask({"model": "m", "prompt": "x", "stream": True})
    if kind == "usage":
        asked = ask(stream_options={"include_usage": True})
    shape = Shape(asked, "fp")
    whole = json.dumps(shape.piece(0, text, ()), ensure_ascii=False, separators=(",", ":"))
    assert shape.piece_event(0, text, ()) == event(shape.piece(0, text, ()))
    assert shape.piece_event(0, text, ()) == f"data: {whole}\n\n"


def test_a_piece_with_log_probabilities_keeps_them() -> None:
    shape = Shape(ask(logprobs=True), None)
    report = (TokenLogprob(1, "a", -0.5),)
    assert shape.piece_event(0, "a", report) == event(shape.piece(0, "a", report))


class Arriving:
    """Answers that arrive in `moments`: what of one moment is there at once."""

    def __init__(self, *moments: Sequence[tuple[int, Piece] | Exception]) -> None:
        self.moments = [list(m) for m in moments]
        self.finished = self.closed = False
        self.usages = [USAGE]

    @property
    def more_is_here(self) -> bool:
        return bool(self.moments and self.moments[0])

    async def next(self) -> tuple[int, Piece]:
        if not self.moments[0]:
            self.moments.pop(0)
        item = self.moments[0].pop(0)
        if isinstance(item, Exception):
            raise item
        self.finished = item[1].reply is not None
        return item

    def close(self) -> None:
        self.closed = True


def written(under_way: Arriving, asked: wire.Ask) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError

    async def answer() -> None:
        stand_in: Any = under_way
        first = await under_way.next()
        stream = EventStream(stand_in, Shape(asked, None), asked, first)
        await stream({"type": "http"}, receive, send)

    asyncio.run(answer())
    assert under_way.closed
    return sent


def end(text: str = "") -> Piece:
    return Piece(text, (), Reply("", "stop", USAGE, 0.0))


def test_what_is_there_at_once_is_one_write_and_the_last_one_ends_the_answer() -> None:
    moments = [[(0, Piece("a"))], [(0, Piece("b")), (0, Piece("c"))], [(0, end("d"))]]
    start, *bodies = written(Arriving(*moments), ask(stream_options={"include_usage": True}))
    assert start["status"] == 200
    assert not any(name == b"content-length" for name, _ in start["headers"])
    events = [b["body"].decode().count("data: ") for b in bodies]
    assert events == [2, 2, 4]  # role and a; b and c; d, the end, the usage, [DONE]
    assert [b["more_body"] for b in bodies] == [True, True, False]
    assert bodies[-1]["body"].endswith(b"data: [DONE]\n\n")


def test_an_error_in_mid_stream_is_the_last_event_after_what_was_there() -> None:
    error = ApiError(500, "broken", None, "internal_error", SERVER)
    _, first, last = written(Arriving([(0, Piece("a"))], [(0, Piece("b")), error]), ask())
    assert first["more_body"] and not last["more_body"]
    piece, refusal = last["body"].decode().split("\n\n")[:2]
    assert json.loads(piece.removeprefix("data: "))["choices"][0]["delta"] == {"content": "b"}
    assert json.loads(refusal.removeprefix("data: "))["error"]["message"] == "broken"
    assert b"[DONE]" not in last["body"]


@pytest.mark.parametrize("pieces", [1, 2])
def test_nothing_is_written_to_a_client_that_is_gone(pieces: int) -> None:
    moments: list[Any] = [[(0, Piece("a"))]] * pieces
    sent = written(Arriving(*moments, [ClientGone()]), ask())
    assert len(sent) == 1 + pieces and sent[-1]["more_body"]
