"""Is nothing sent without a permit, and is what is sent and answered exactly what it should be?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hauslm.base import egress
from hauslm.base.errors import DataError, HauslmError, MissingError, RefusedError, UsageError
from hauslm.lm.interface import BASE, Message, Request
from hauslm.lm.permit import Permit, permit_for
from hauslm.lm.remote import RemoteModel
from hauslm.scenario import Scenario

HOST = "api.example.org"
CLEARED = {
    "may_leave": "yes",
    "personal": "no",
    "special_category": "no",
    "copyright": "own",
    "processor_contract": "yes",
    "eu_residency_required": "no",
}


def scenario(**answers: Any) -> Scenario:
    return Scenario.model_validate({"scenario": {"data": CLEARED | answers}})


def test_cleared_documents_get_a_permit() -> None:
    assert permit_for(scenario(), HOST).host == HOST
    assert permit_for(scenario(copyright="open", processor_contract="unknown"), HOST).host == HOST


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        ({"may_leave": "no"}, "D1"),
        ({"may_leave": "unknown"}, "D2"),
        ({"personal": "yes"}, "P1"),
        ({"personal": "unknown"}, "P1"),
        ({"personal": "yes", "legal_basis": "yes", "processor_contract": "no"}, "P2"),
        ({"personal": "yes", "legal_basis": "yes"}, "P5"),
        ({"max_retention_days": 0}, "P6"),
        ({"eu_residency_required": "yes"}, "P7"),
        ({"processor_contract": "unknown"}, "P9"),
        ({"copyright": "third_party", "lawful_access": "unknown"}, "C1"),
        ({"copyright": "third_party"}, "C4"),
    ],
)
def test_each_missing_answer_refuses_and_names_its_rule(answers: dict[str, Any], rule: str) -> None:
    with pytest.raises(RefusedError, match=f"rule {rule}\\b") as caught:
        permit_for(scenario(**answers), HOST)
    assert caught.value.exit_code == 4 and caught.value.code == "H811"


def test_the_default_scenario_lets_nothing_out() -> None:
    with pytest.raises(RefusedError, match="D2"):
        permit_for(Scenario(), HOST)


def test_this_machine_needs_no_release() -> None:
    for host in ("localhost", "127.0.0.1", "::1"):
        assert permit_for(Scenario(), host).host == host
    for host in ("127.0.0.1.example.org", "localhost.example.org", "0.0.0.0", "10.0.0.1"):  # noqa: S104
        with pytest.raises(RefusedError):
            permit_for(Scenario(), host)


def test_what_is_known_of_a_host_counts() -> None:
    answers = CLEARED | {"eu_residency_required": "yes"}
    options = [{"id": HOST, "kind": "hosted", "eu": "yes"}]
    known = Scenario.model_validate({"scenario": {"data": answers, "options": options}})
    assert permit_for(known, HOST).host == HOST


def test_permits_cannot_be_made_or_changed_by_hand() -> None:
    with pytest.raises(RefusedError, match="H811"):
        Permit(HOST, "x")
    permit = permit_for(scenario(), HOST)
    with pytest.raises(AttributeError):
        permit.host = "elsewhere.example.org"
    with pytest.raises(RefusedError, match="H811"):
        RemoteModel(f"https://{HOST}/v1", {BASE: "m"}, None, context_length=100)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="not for other"):
        RemoteModel("https://other.example.org/v1", {BASE: "m"}, permit, context_length=100)


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "https://", "https://user:key@h/v1", "https://h/v1?key=1", "h/v1"]
)
def test_addresses_with_keys_or_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="H810"):
        RemoteModel(url, {BASE: "m"}, permit_for(scenario(), "h"), context_length=100)


def test_nothing_travels_unencrypted() -> None:
    with pytest.raises(RefusedError, match="H811"):
        RemoteModel(
            f"http://{HOST}/v1", {BASE: "m"}, permit_for(scenario(), HOST), context_length=9
        )


# ---------------------------------------------------------------- against a server on this machine

Answer = Callable[[str, dict[str, Any], dict[str, str]], tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, value = answer(self.path, body, dict(self.headers.items()))
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Retry-After", "7")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def completion(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": text}, "text": text, "finish_reason": finish, **more}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


def model(url: str, **options: Any) -> RemoteModel:
    permit = permit_for(Scenario(), "127.0.0.1")
    settings: dict[str, Any] = {"context_length": 1000, "sleep": lambda _: None} | options
    return RemoteModel(url, {BASE: "big", "team": "big-team"}, permit, **settings)


def test_requests_carry_everything_that_was_asked(serve: Any) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        seen.append((path, body))
        content = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1}]}]
        return 200, completion("ok", "length", logprobs={"content": content})

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    request = Request(
        (Message("system", "s"), Message("user", "u")),
        max_new_tokens=7,
        adapter="team",
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=("x",),
        json_schema=schema,
        top_logprobs=1,
    )
    reply = model(serve(answer)).generate([request])[0]
    path, body = seen[0]
    assert path == "/v1/chat/completions" and body["model"] == "big-team"
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
    ]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (
        7,
        0.5,
        0.9,
        3,
    )
    assert body["stop"] == ["x"] and body["response_format"]["json_schema"]["schema"] == schema
    assert (reply.text, reply.finish_reason, reply.usage.prompt_tokens) == ("ok", "length", 3)
    assert reply.logprobs[0].logprob == -0.5 and reply.logprobs[0].top[0][1] == "b"


def test_answers_keep_the_order_of_the_requests(serve: Any) -> None:
    url = serve(lambda path, body, headers: (200, completion(body["prompt"].upper())))
    asked = [Request((), raw_prompt=f"p{i}") for i in range(20)]
    assert [r.text for r in model(url).generate(asked)] == [f"P{i}" for i in range(20)]


def test_the_key_is_sent_and_never_told(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-canary-0123456789"
    monkeypatch.setenv("HAUSLM_API_KEY", key)
    seen: list[str] = []

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        seen.append(headers["Authorization"])
        return 401, {"error": {"message": f"Incorrect API key provided: {key}"}}

    remote = model(serve(answer))
    with pytest.raises(MissingError, match="HTTP 401") as caught:
        remote.generate([Request((Message("user", "u"),))])
    assert seen == [f"Bearer {key}"], "a refused key is not tried again"
    told = str(caught.value) + repr(remote) + repr(vars(remote)) + repr(caught.value.what)
    assert key not in told and "***" in str(caught.value)


def test_passing_faults_are_tried_again(serve: Any) -> None:
    pauses: list[float] = []
    states = iter([503, 429, 200])

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        status = next(states)
        return status, completion("ok") if status == 200 else {"error": "busy"}

    reply = model(serve(answer), sleep=pauses.append).generate([Request((Message("user", "u"),))])
    assert reply[0].text == "ok" and pauses == [7.0, 7.0]


def test_lasting_faults_end_with_a_sentence(serve: Any) -> None:
    ask = [Request((Message("user", "u"),))]
    cases: list[tuple[Answer, type[HauslmError], str]] = [
        (lambda p, b, h: (500, {"error": "down"}), MissingError, "H812"),
        (
            lambda p, b, h: (400, {"error": {"message": "no such model"}}),
            UsageError,
            "no such model",
        ),
        (lambda p, b, h: (200, b"<html>"), DataError, "H813"),
        (lambda p, b, h: (200, {"choices": []}), DataError, "H813"),
        (lambda p, b, h: (200, completion("x") | {"usage": None}), DataError, "H813"),
        (lambda p, b, h: (302, {}), UsageError, "HTTP 302"),
    ]
    for answer, family, words in cases:
        with pytest.raises(family, match=words):
            model(serve(answer)).generate(ask)
    with pytest.raises(MissingError, match="did not answer"):
        model("http://127.0.0.1:9/v1", timeout_s=0.5).generate(ask)


def test_the_door_is_shut_again_afterwards(serve: Any) -> None:
    before = egress.mode()
    url = serve(lambda path, body, headers: (200, completion("ok")))
    model(url).generate([Request((Message("user", "u"),))])
    assert egress.mode() == before


def test_what_an_endpoint_cannot_do_is_refused(serve: Any) -> None:
    remote = model("http://127.0.0.1:9/v1")
    assert remote.adapters() == ("team",) and remote.count_tokens("ab ü") == 3
    with pytest.raises(RefusedError, match="H814"):
        remote.score([("a", "b")])
    with pytest.raises(RefusedError, match="H814"):
        remote.render([Message("user", "u")])
    with pytest.raises(UsageError, match="H800"):
        remote.generate([Request((Message("user", "u"),), adapter="other")])
