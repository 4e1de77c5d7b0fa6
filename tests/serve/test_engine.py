"""The queue under load: full, late, hung up, broken, stopped. No place is ever lost."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from hauslm.lm.decode import Event
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import Message, Reply, Request, TokenLogprob, Usage
from hauslm.lm.local import LocalModel
from hauslm.serve.app import create_app
from hauslm.serve.engine import PIECES_PER_SECOND, Engine, Job, Piece
from hauslm.serve.metrics import server_metrics

TOKEN = "t" * 43
AUTH = {"Authorization": f"Bearer {TOKEN}"}
CHAT = "/v1/chat/completions"


def body(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]} | more


class Held(EchoModel):
    """Answers nothing until `go` is set; counts its calls."""

    def __init__(self) -> None:
        super().__init__(["a"])
        self.go = threading.Event()
        self.calls: list[list[Request]] = []

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.calls.append(list(requests))
        assert self.go.wait(20)
        return super().generate(requests)


def in_background(count: int, call: Callable[[int], Any]) -> tuple[list[Any], Callable[[], None]]:
    """`call(0..count-1)` in threads; (results by index, a function that waits for them)."""
    results: list[Any] = [None] * count

    def one(index: int) -> None:
        results[index] = call(index)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join(30)

    return results, join


def test_a_full_queue_answers_429_and_says_when_to_come_again(
    client_of: Callable[..., TestClient], until: Callable[..., None]
) -> None:
    model = Held()
    client = client_of(model, max_queue=2, batch_size=1)
    engine: Engine = client.app.state.engine  # type: ignore[attr-defined]
    first, join_first = in_background(1, lambda _: client.post(CHAT, json=body("first")))
    until(lambda: len(model.calls) == 1)
    others, join = in_background(2, lambda i: client.post(CHAT, json=body(f"other {i}")))
    until(lambda: engine.waiting == 2)
    refused = client.post(CHAT, json=body("too much"))
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/healthz").status_code == 200  # busy, not ill
    assert "hauslm_queue_waiting 2" in client.get("/metrics").text
    model.go.set()
    join_first()
    join()
    assert [r.status_code for r in (*first, *others)] == [200] * 3
    assert client.post(CHAT, json=body()).status_code == 200


def test_choices_that_could_never_fit_are_refused_for_good(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(max_queue=1, batch_size=2)
    answer = client.post(CHAT, json=body(n=4))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert len(client.post(CHAT, json=body(n=3)).json()["choices"]) == 3


def test_what_waits_together_is_one_generate_call_with_mixed_adapters(
    client_of: Callable[..., TestClient], until: Callable[..., None]
) -> None:
    model = Held()
    client = client_of(model, batch_size=8)
    engine: Engine = client.app.state.engine  # type: ignore[attr-defined]
    _, join_first = in_background(1, lambda _: client.post(CHAT, json=body("first")))
    until(lambda: len(model.calls) == 1)
    models = ["echo", "a"] * 3
    results, join = in_background(
        6, lambda i: client.post(CHAT, json=body(f"text {i}", model=models[i]))
    )
    until(lambda: engine.waiting == 6)
    model.go.set()
    join_first()
    join()
    assert len(model.calls) == 2
    assert {r.adapter for r in model.calls[1]} == {"base", "a"}
    for i, answer in enumerate(results):
        prefix = "[a] " if i % 2 else ""
        assert answer.json()["choices"][0]["message"]["content"] == f"{prefix}text {i}"


def test_a_finished_text_is_streamed_in_pieces(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    asked = body("one two three", stream=True, stream_options={"include_usage": True})
    with client.stream("POST", CHAT, json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    texts = [c["choices"][0]["delta"].get("content") for c in chunks[:-1]]
    assert texts == ["", "one", " two three", None]  # what comes at once travels together
    assert chunks[-1]["usage"]["completion_tokens"] == 3


class Ticking:
    """A model whose running batch writes one token a step, without a pause."""

    name, context_length = "ticking", 4096

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def adapters(self) -> tuple[str, ...]:
        return ()

    def decoder(self, batch_size: int) -> Ticking:
        self.written = 0
        return self

    def admit(self, request: Request) -> int:
        return 7

    def cancel(self, handle: int) -> None: ...

    def step(self) -> list[Any]:
        self.written += 1
        text, last = f"{self.written} ", self.written == self.tokens
        reply = Reply("", "stop", Usage(1, self.tokens), 0.0) if last else None
        time.sleep(0.001)
        return [Event(7, text, (TokenLogprob(self.written, text, -1.0),), reply)]


def test_tokens_of_a_fast_model_travel_together_and_none_is_lost() -> None:
    count = 200
    pieces: list[Piece] = []
    times: list[float] = []
    done = threading.Event()

    def deliver(piece: Piece | Exception) -> None:
        assert isinstance(piece, Piece)
        pieces.append(piece)
        times.append(time.monotonic())
        if piece.reply is not None:
            done.set()

    model: Any = Ticking(count)
    engine = Engine(model, server_metrics(), max_queue=4, batch_size=8)
    engine.start()
    engine.submit([Job(Request((Message("user", "x"),)), deliver, streams=True)])
    assert done.wait(30)
    engine.close()
    assert "".join(p.text for p in pieces) == "".join(f"{i} " for i in range(1, count + 1))
    assert [t.token_id for p in pieces for t in p.logprobs] == list(range(1, count + 1))
    assert pieces[0].text == "1 "  # the first word does not wait
    assert len(pieces) < count / 2
    gaps = [b - a for a, b in itertools.pairwise(times[:-1])]  # the end does not wait
    assert min(gaps) > 0.9 / PIECES_PER_SECOND


class TickingTogether(Ticking):
    """Several answers; each token is the number of the step that wrote it."""

    def decoder(self, batch_size: int) -> TickingTogether:
        self.written = 0
        self.rows: list[int] = []
        return self

    def admit(self, request: Request) -> int:
        self.rows.append(len(self.rows))
        return self.rows[-1]

    def step(self) -> list[Any]:
        self.written += 1
        time.sleep(0.001)
        last = self.written == self.tokens
        reply = Reply("", "stop", Usage(1, self.tokens), 0.0) if last else None
        return [Event(row, f"{self.written} ", (), reply) for row in self.rows]


def test_streams_that_began_at_different_times_get_their_pieces_together() -> None:
    steps: tuple[list[int], list[int]] = ([], [])  # at whose end a piece went out, per stream
    begun, done = threading.Event(), threading.Event()

    def deliver_to(stream: int) -> Callable[[Piece | Exception], None]:
        def deliver(piece: Piece | Exception) -> None:
            assert isinstance(piece, Piece)
            steps[stream].append(int(piece.text.split()[-1]))
            begun.set()
            if stream == 1 and piece.reply is not None:
                done.set()

        return deliver

    model: Any = TickingTogether(300)
    engine = Engine(model, server_metrics(), max_queue=4, batch_size=8)
    engine.start()
    request = Request((Message("user", "x"),))
    engine.submit([Job(request, deliver_to(0), streams=True)])
    assert begun.wait(30)
    engine.submit([Job(request, deliver_to(1), streams=True)])
    assert done.wait(30)
    engine.close()
    first, *later = steps[1]
    assert (
        first > 1
    )  # it came while the other was being written, and did not wait for a common moment
    assert set(later) <= set(steps[0])


# ---------------------------------------------------------------- too late, hung up


def test_time_outs_free_the_place(client_of: Callable[..., TestClient]) -> None:
    model = Held()
    client = client_of(model, request_timeout_s=0.2)
    answer = client.post(CHAT, json=body())
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    model.go.set()
    assert client.post(CHAT, json=body()).status_code == 200


HEAD = """POST /v1/chat/completions HTTP/1.1
Host: 127.0.0.1:{port}
Authorization: Bearer {token}
Content-Type: application/json
Content-Length: {length}

"""


def send(raw: Callable[..., Any], port: int, asked: dict[str, Any]) -> Any:
    content = json.dumps(asked).encode()
    return raw(port, HEAD.format(port=port, token=TOKEN, length=len(content)), content)


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_frees_the_place_at_once(
    live: Any, raw: Callable[..., Any], until: Callable[..., None], stream: bool
) -> None:
    engine: Engine = live.app.state.engine
    cancelled = live.app.state.metrics.value("hauslm_answers_total", finish="cancelled")
    asked = body("a long story", model="tiny", max_tokens=480, temperature=1.9, n=4, stream=stream)
    connection = send(raw, live.port, asked)
    until(lambda: engine.running == 4)
    if stream:
        assert b"200 OK" in connection.recv(1000)
    connection.close()
    until(lambda: engine.running == 0)
    until(
        lambda: (
            live.app.state.metrics.value("hauslm_answers_total", finish="cancelled")
            >= cancelled + 1
        )
    )


def test_who_hangs_up_while_waiting_is_forgotten(
    serving: Callable[..., Any], raw: Callable[..., Any], until: Callable[..., None]
) -> None:
    model = Held()
    with serving(create_app(model, token=TOKEN, batch_size=1)) as live:
        engine: Engine = live.app.state.engine
        connections = [send(raw, live.port, body(f"number {i}")) for i in range(20)]
        until(lambda: engine.waiting == 19)
        for connection in connections:
            connection.close()
        until(lambda: engine.waiting == 0)
        model.go.set()
        until(lambda: engine.running == 0)
        assert len(model.calls) == 1


def test_a_body_that_dawdles_is_given_up_and_health_stays_quick(
    serving: Callable[..., Any], raw: Callable[..., Any]
) -> None:
    with serving(create_app(EchoModel(), token=TOKEN, body_timeout_s=4.0)) as live:
        head = HEAD.format(port=live.port, token=TOKEN, length=100)
        slow = [raw(live.port, head, b"{") for _ in range(100)]
        began = time.monotonic()
        assert httpx.get(f"{live.url}/healthz").status_code == 200
        assert time.monotonic() - began < 4  # while the others still dawdle
        assert b"408" in slow[0].recv(1000)
        for connection in slow:
            connection.close()


# ---------------------------------------------------------------- broken


class OutOfMemoryError(RuntimeError):
    """Named as torch names it; the engine looks at the name alone."""


class Fragile(EchoModel):
    """Breaks like a GPU: too many rows at once, or a poisonous text."""

    def __init__(self, rows: int = 99) -> None:
        super().__init__()
        self.rows = rows
        self.sizes: list[int] = []

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.sizes.append(len(requests))
        if len(requests) > self.rows:
            raise OutOfMemoryError
        if any("poison" in r.messages[-1].content for r in requests):
            raise RuntimeError("secret detail")
        return super().generate(requests)


def test_out_of_memory_halves_the_batch_and_loses_nobody(
    client_of: Callable[..., TestClient],
) -> None:
    model = Fragile(rows=2)
    client = client_of(model, batch_size=8)
    answer = client.post(CHAT, json=body("still here", n=8))
    texts = [c["message"]["content"] for c in answer.json()["choices"]]
    assert texts == ["still here"] * 8
    assert model.sizes[:3] == [8, 4, 1] or model.sizes[:3] == [8, 4, 2]
    assert "hauslm_batch_size 2" in client.get("/metrics").text


def test_one_answer_that_does_not_fit_at_all_is_told(client_of: Callable[..., Any]) -> None:
    client = client_of(Fragile(rows=0))
    answer = client.post(CHAT, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_memory")
    assert answer.headers["x-should-retry"] == "false"


def test_a_request_that_breaks_the_batch_breaks_only_itself(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(Fragile())
    texts = ["poison" if i == 2 else f"text {i}" for i in range(6)]
    results, join = in_background(6, lambda i: client.post(CHAT, json=body(texts[i])))
    join()
    for i, answer in enumerate(results):
        if i == 2:
            assert answer.status_code == 500 and "secret" not in answer.text
        else:
            assert answer.json()["choices"][0]["message"]["content"] == texts[i]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_an_answer_that_does_not_obey_its_schema_is_never_passed_on(
    client_of: Callable[..., TestClient],
) -> None:
    class Liar(EchoModel):
        def generate(self, requests: Sequence[Request]) -> list[Reply]:
            return [Reply('{"a": "x"}', "stop", Usage(1, 1), 0.0) for _ in requests]

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    bound = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    client = client_of(Liar())
    answer = client.post(CHAT, json=body(response_format=bound))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "schema_violation")


# ---------------------------------------------------------------- stopped


def test_closing_tells_everybody_and_takes_nobody_more() -> None:
    model = Held()
    engine = Engine(model, server_metrics(), max_queue=8, batch_size=1)
    told: list[Piece | Exception] = []
    engine.start()
    engine.submit([Job(Request((), raw_prompt="x"), told.append) for _ in range(3)])
    while not model.calls:
        time.sleep(0.01)
    threading.Timer(0.1, model.go.set).start()
    engine.close()
    assert not engine.alive
    assert isinstance(told[0], Piece) and len(told) == 3
    assert all(type(t).__name__ == "Closing" for t in told[1:])
    with pytest.raises(Exception) as caught:
        engine.submit([Job(Request((), raw_prompt="x"), told.append)])
    assert type(caught.value).__name__ == "Closing"


def test_what_is_under_way_when_the_server_stops_is_still_answered(
    serving: Callable[..., Any], tiny: LocalModel
) -> None:
    results: list[Any] = []

    def ask(url: str) -> None:
        asked = body("long", model="tiny", max_tokens=200, temperature=1.9, seed=3)
        results.append(httpx.post(f"{url}{CHAT}", json=asked, headers=AUTH, timeout=30))

    with serving(create_app(tiny, token=TOKEN)) as live:
        thread = threading.Thread(target=ask, args=(live.url,))
        thread.start()
        while not live.app.state.engine.running:
            time.sleep(0.005)
    thread.join(30)
    assert results[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{live.url}/healthz")


# ---------------------------------------------------------------- metrics


def test_metrics_are_prometheus_text_and_count(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    client.post(CHAT, json=body("one two"))
    client.post(CHAT, json=body("one two", model="a"))
    client.get("/v1/nothing")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'hauslm_http_requests_total{route="/v1/chat/completions",status="200"} 2' in lines
    assert 'hauslm_http_requests_total{route="other",status="404"} 1' in lines
    assert 'hauslm_completion_tokens_total{model="a"} 3' in lines
    assert 'hauslm_answers_total{finish="stop"} 2' in lines
    assert 'hauslm_queue_seconds_bucket{le="+Inf"} 2' in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    kinds = {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}
    suffixes = ("_bucket", "_sum", "_count")
    for name in names:
        stem = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        assert stem in kinds or name in kinds
    for line in lines:
        if not line.startswith("#"):
            float(line.rsplit(" ", 1)[1])


def test_the_api_describes_itself(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    chat = found["paths"][CHAT]["post"]
    properties = chat["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"messages", "stream_options", "response_format"} <= set(properties)
    assert "$defs" not in json.dumps(found) and "default" in chat["responses"]
