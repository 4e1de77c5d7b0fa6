"""The edges: who may ask, how much, for what. Every refusal in OpenAI's shape, nothing ignored."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauslm.base.words import speaking
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import Request
from hauslm.serve.guard import LOOPBACK_NAMES
from hauslm.serve.refusal import ApiError
from hauslm.serve.wire import MAX_DEPTH, chat_ask, parse_json, text_ask

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "one two three four five"}]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": HELLO} | more


def error(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert isinstance(found["message"], str) and found["message"]
    return dict(found)


# ---------------------------------------------------------------- who


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Basic dDp0", "Bearer ", "bearer" + "t" * 43, "t" * 43]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/nothing"])
def test_without_the_token_nothing_is_told(
    client: TestClient, path: str, header: str | None
) -> None:
    del client.headers["Authorization"]
    answer = client.get(path, headers={"Authorization": header} if header else {})
    assert error(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_two_tokens_are_none(client: TestClient) -> None:
    token = client.headers.pop("Authorization")
    twice = [("Authorization", token), ("Authorization", token)]
    assert client.get("/v1/models", headers=twice).status_code == 401


def test_health_needs_no_token(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0:8399", "", "localhost:x", "a b"]
)
def test_other_host_names_are_refused(client: TestClient, host: str) -> None:
    for path in ("/healthz", "/v1/models"):
        assert error(client.get(path, headers={"Host": host}), 421)["code"] == "misdirected_request"


@pytest.mark.parametrize("name", LOOPBACK_NAMES)
def test_loopback_names_are_known_with_and_without_port(client: TestClient, name: str) -> None:
    for host in (name, f"{name}:8399", name.upper()):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:8399"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post(CHAT, json=body(), headers=headers)
    assert error(answer, 403)["code"] == "forbidden_origin"


def test_own_origin_passes_and_no_cors_header_is_ever_sent(client: TestClient) -> None:
    answer = client.post(CHAT, json=body(), headers={"Origin": "http://127.0.0.1:8399"})
    assert answer.status_code == 200
    preflight = {"Origin": "http://127.0.0.1:8399", "Access-Control-Request-Method": "POST"}
    refused = client.options(CHAT, headers=preflight)
    assert refused.status_code == 405
    for each in (answer, refused):
        assert not [h for h in each.headers if h.startswith("access-control")]
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["x-request-id"]


# ---------------------------------------------------------------- how much


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json, text/plain"]
)
def test_only_json_is_read(client: TestClient, kind: str) -> None:
    answer = client.post(CHAT, content=json.dumps(body()), headers={"Content-Type": kind})
    assert error(answer, 415)


def test_compressed_bodies_are_refused(client: TestClient) -> None:
    answer = client.post(CHAT, json=body(), headers={"Content-Encoding": "gzip"})
    assert error(answer, 415)


def test_a_body_over_the_limit_is_refused_announced_or_not(client: TestClient) -> None:
    large = json.dumps(body(padding="x" * (1 << 20))).encode()
    json_type = {"Content-Type": "application/json"}
    assert error(client.post(CHAT, content=large, headers=json_type), 413)["code"]
    pieces = (large[i : i + 50_000] for i in range(0, len(large), 50_000))  # sent in chunks
    assert error(client.post(CHAT, content=pieces, headers=json_type), 413)


def test_a_body_just_within_the_limit_is_read(client_of: Callable[..., TestClient]) -> None:
    client = client_of(EchoModel(context_length=10))
    text = "x" * ((1 << 20) - 200)
    raw = json.dumps(body(messages=[{"role": "user", "content": text}])).encode()
    assert len(raw) < 1 << 20
    answer = client.post(CHAT, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def nested(levels: int) -> bytes:
    """A body whose innermost list is `levels` deep."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_depth_is_limited_and_deep_bodies_do_no_harm(client: TestClient) -> None:
    json_type = {"Content-Type": "application/json"}
    assert parse_json(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 500_000):
        answer = client.post(CHAT, content=nested(levels), headers=json_type)
        assert "64 levels" in error(answer, 400)["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe{}",
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_json_is_a_400(client: TestClient, raw: bytes) -> None:
    answer = client.post(CHAT, content=raw, headers={"Content-Type": "application/json"})
    assert error(answer, 400)["code"] == "invalid_request"


# ---------------------------------------------------------------- for what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "auto"),
        ("functions", [{}]),
        ("parallel_tool_calls", True),
        ("user", "anna"),
        ("store", True),
        ("metadata", {"a": "b"}),
        ("modalities", ["audio"]),
        ("reasoning_effort", "low"),
        ("service_tier", "flex"),
        ("prediction", {"type": "content", "content": "x"}),
        ("guided_json", {}),
        ("top_k", 5),
        ("echo", 0),
    ],
)
def test_every_unsupported_parameter_is_named(client: TestClient, name: str, value: Any) -> None:
    refused = error(client.post(CHAT, json=body(**{name: value})), 400)
    assert (refused["param"], refused["code"]) == (name, "unsupported_parameter")
    assert name in refused["message"]


def test_values_that_ask_for_nothing_are_accepted(client: TestClient) -> None:
    nothing = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "user": None,
        "stop": None,
        "seed": None,
        "response_format": {"type": "text"},
        "service_tier": "auto",
    }
    assert client.post(CHAT, json=body(**nothing)).status_code == 200


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 1e999}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "a"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
        ),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "nothing"}},
                }
            },
            "response_format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"$ref": "http://x/y"}},
                }
            },
            "response_format",
        ),
    ],
)
def test_every_wrong_value_is_named(client: TestClient, more: dict[str, Any], param: str) -> None:
    raw = json.dumps(body(**more)).replace("Infinity", "1e999")
    answer = client.post(CHAT, content=raw, headers={"Content-Type": "application/json"})
    assert error(answer, 400)["param"] == param


def test_missing_parameters_are_named(client: TestClient) -> None:
    assert error(client.post(CHAT, json={"messages": HELLO}), 400)["param"] == "model"
    assert error(client.post(CHAT, json={"model": "echo"}), 400)["param"] == "messages"
    assert error(client.post("/v1/completions", json={"model": "echo"}), 400)["param"] == "prompt"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_completions_refuse_by_name(client: TestClient, more: dict[str, Any], param: str) -> None:
    asked = {"model": "echo", "prompt": "a"} | more
    assert error(client.post("/v1/completions", json=asked), 400)["param"] == param


def test_unknown_models_and_paths(client: TestClient) -> None:
    refused = error(client.post(CHAT, json=body(model="ecko")), 404)
    assert (refused["param"], refused["code"]) == ("model", "model_not_found")
    assert "echo" in refused["message"]
    assert error(client.get("/v1/models/no/such"), 404)["code"] == "model_not_found"
    assert error(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error(client.get(CHAT), 405)["code"] == "method_not_allowed"
    assert error(client.get("/docs"), 404)
    assert error(client.get("/redoc"), 404)


def test_embeddings_are_refused_loudly(client: TestClient) -> None:
    refused = error(client.post("/v1/embeddings", json={"model": "echo", "input": "x"}), 400)
    assert refused["code"] == "unsupported_endpoint"


def test_a_text_beyond_the_context_is_refused_not_cut(client_of: Callable[..., Any]) -> None:
    client = client_of(EchoModel(context_length=20))
    refused = error(client.post(CHAT, json=body(max_tokens=30)), 400)
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "messages")
    long = [{"role": "user", "content": "word " * 50}]
    assert error(client.post(CHAT, json=body(messages=long)), 400)["param"] == "messages"


def test_one_bad_request_does_not_spoil_the_batch_it_is_in(client_of: Callable[..., Any]) -> None:
    held = threading.Event()

    def slow(request: Request) -> str:
        held.wait(10)
        return request.messages[-1].content

    client = client_of(EchoModel(context_length=20, answer=slow))
    answers: dict[int, Any] = {}

    def ask(index: int, limit: int) -> None:
        text = [{"role": "user", "content": f"number {index}"}]
        answers[index] = client.post(CHAT, json=body(messages=text, max_tokens=limit))

    threads = [threading.Thread(target=ask, args=(i, 99 if i == 2 else 4)) for i in range(5)]
    for thread in threads:
        thread.start()
    held.set()
    for thread in threads:
        thread.join()
    assert error(answers.pop(2), 400)["code"] == "context_length_exceeded"
    for index, answer in answers.items():
        assert answer.json()["choices"][0]["message"]["content"] == f"number {index}"


# ---------------------------------------------------------------- parsers, by chance

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "stop",
        "n",
        "seed",
        "stream",
        "stream_options",
        "logprobs",
        "temperature",
        "top_p",
        "tools",
        "response_format",
        "max_tokens",
        "logit_bias",
        "role",
        "content",
        "type",
        "text",
        "json_schema",
        "name",
        "schema",
        "top_logprobs",
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | JSON.map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_an_object_or_a_refusal(raw: bytes) -> None:
    try:
        assert isinstance(parse_json(raw), dict)
    except ApiError as refusal:
        assert refusal.status == 400


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3) | st.lists(st.dictionaries(KEYS, JSON))
    )
)
def test_any_object_is_a_sound_request_or_a_refusal(found: dict[str, Any]) -> None:
    for parse in (chat_ask, text_ask):
        for given_body in (found, {"model": "m", "messages": HELLO} | found):
            try:
                ask = parse(given_body)
            except ApiError as refusal:
                assert refusal.status == 400
            else:
                assert ask.requests and all(r.max_new_tokens >= 1 for r in ask.requests)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"temperature": -1}, "„temperature“ muss mindestens 0.0 sein, nicht -1."),
        ({"n": 99}, "„n“ darf höchstens 16 sein, nicht 99."),
        ({"model": ""}, "„model“ darf nicht leer sein."),
        ({"stop": 3}, "ein Text oder eine Liste von Texten wird erwartet."),
    ],
)
def test_refusals_speak_german(changed: dict[str, Any], said: str) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | changed
    with speaking("de"), pytest.raises(ApiError) as caught:
        chat_ask(asked)
    with speaking("de"):
        assert said in caught.value.body()["error"]["message"]
