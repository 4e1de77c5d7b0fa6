"""Every operation of the server and of the pages, asked with what schemathesis can think of.

The applications listen on loopback under uvicorn, as users run them; each case is a real request. Half of
the cases follow the OpenAPI document, half break it on purpose. A defect is a 5xx, an undocumented status
or content type, an answer that does not fit its documented schema, or none within the time limit.
Used by tests/security/test_api.py (few cases) and `scripts/security.py` (the whole campaign).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hauslm.serve.start import listening

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip
TOKEN = "t" * 43
SLOWEST_S = 20.0


@dataclass
class Figures:
    """What a campaign met: answers by operation and status, and its defects."""

    cases: int = 0
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def count(self, operation: str, status: int, seconds: float) -> None:
        self.cases += 1
        self.statuses.setdefault(operation, Counter())[str(status)] += 1
        self.slowest_s = max(self.slowest_s, seconds)


@contextmanager
def listening_app(make: Callable[[int], Any]) -> Iterator[str]:
    """`make(port)` under uvicorn on a free loopback port; its address."""
    with listening("127.0.0.1", 0) as listener:
        port = int(listener.getsockname()[1])
        server = uvicorn.Server(
            uvicorn.Config(make(port), log_config=None, access_log=False, ws="none",
                           timeout_graceful_shutdown=2)
        )  # fmt: skip
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            ends = time.monotonic() + 30
            while not server.started and time.monotonic() < ends:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)


def ask_all(
    document: dict[str, Any],
    url: str,
    headers: dict[str, str],
    cases: Callable[[str], int],
    first: int,
) -> Figures:
    """`cases(operation)` requests to each operation of the OpenAPI `document`."""
    figures = Figures()
    schema = schemathesis.openapi.from_dict(document)
    session = requests.Session()
    session.trust_env = False
    for number, result in enumerate(schema.get_all_operations()):
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            count = max(1, cases(operation.label) // 2)
            try:
                _ask(operation, mode, count, first + number, url, headers, session, figures)
            except Exception as error:  # an operation that cannot be broken (no parameters)
                if "negative" not in str(error).lower() and type(error).__name__ not in (
                    "Unsatisfiable", "SkipTest", "Skip",
                ):  # fmt: skip
                    raise
                _ask(operation, GenerationMode.POSITIVE, count, first + 100 + number, url, headers,
                     session, figures)  # fmt: skip
    return figures


def _ask(
    operation: Any, mode: Any, count: int, start: int, url: str, headers: dict[str, str],
    session: Any, figures: Figures,
) -> None:  # fmt: skip
    done = 0

    # hypothesis stops early where it has seen every case there is; what is missing is asked again.
    while done < count:
        before = done

        @seed(start + done)
        @settings(
            max_examples=count - done,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            nonlocal done
            if done >= count:
                return
            done += 1
            _one(case, operation.label, url, headers, session, figures)

        run()
        if done == before:
            return


def _one(
    case: Any, label: str, url: str, headers: dict[str, str], session: Any, figures: Figures
) -> None:
    began = time.monotonic()
    try:
        answer = case.call(
            base_url=url, session=session, headers=headers, timeout=SLOWEST_S, allow_redirects=False
        )
    except requests.RequestException as error:
        if isinstance(error, (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL)):
            return  # the client itself does not send this
        figures.defects.append(f"{label}: {error!r} on {case.body!r:.200}")
        return
    figures.count(label, answer.status_code, time.monotonic() - began)
    try:
        case.validate_response(answer, checks=CHECKS)
    except (Failure, FailureGroup) as error:
        figures.defects.append(
            f"{label}: {answer.status_code} {error!s:.300} on {case.body!r:.200}"
        )


# ---------------------------------------------------------------- the two applications


def server(cases: int, first: int = 0) -> Figures:
    """`hauslm serve` with the stand-in model, `cases` requests in all."""
    from hauslm.lm.echo import EchoModel
    from hauslm.serve.app import create_app

    app = create_app(EchoModel(["a"]), token=TOKEN, max_queue=256)
    document = app.openapi()
    _name_models(document)
    weights = {"POST /v1/chat/completions": 6, "POST /v1/completions": 5}
    total = sum(weights.get(label, 1) for label in _labels(document))
    with listening_app(lambda _: app) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return ask_all(
            document, url, headers, lambda label: -(-cases * weights.get(label, 1) // total), first
        )


def _name_models(document: dict[str, Any]) -> None:
    """Let the generator know which models there are, or every request would end with 404."""
    for path in ("/v1/chat/completions", "/v1/completions"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        properties = content["application/json"]["schema"]["properties"]
        properties["model"]["enum"] = ["echo", "a", "nobody"]
        if "messages" in properties:
            _describe_messages(properties)


def _describe_messages(properties: dict[str, Any]) -> None:
    """What the server accepts beyond 'objects', or the generator would never get past the door."""
    message = {
        "type": "object", "required": ["role", "content"], "additionalProperties": False,
        "properties": {
            "role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string", "minLength": 1},
        },
    }  # fmt: skip
    row = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 8}}}
    properties["messages"] = {"type": "array", "minItems": 1, "maxItems": 4, "items": message}
    properties["response_format"] = {"enum": [
        None, {"type": "text"}, {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "row", "schema": row, "strict": True}},
    ]}  # fmt: skip


def _labels(document: dict[str, Any]) -> list[str]:
    return [
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    ]


def pages(folder: Path, cases: int, first: int = 0) -> Figures:
    """`hauslm web` on a project; what is not described in its routes is asked by hand as well."""
    from hauslm.web.app import create_app
    from hauslm.web.guard import COOKIE

    made: dict[str, Any] = {}

    def make(port: int) -> Any:
        made["app"] = create_app(folder, token=TOKEN, port=port)
        return made["app"]

    with listening_app(make) as url:
        document = made["app"].app.openapi()
        _describe_pages(document)
        labels = _labels(document)
        headers = {"Cookie": f"{COOKIE}={TOKEN}", "Origin": url}
        return ask_all(document, url, headers, lambda _: -(-cases // len(labels)), first)


def _describe_pages(document: dict[str, Any]) -> None:
    """Pages answer HTML, events or a redirect; and the form of the scenario sends fields."""
    anything = {"description": "A page, events, or a redirect.", "content": {
        kind: {"schema": {}} for kind in ("text/html", "text/event-stream", "text/plain", "application/json")
    }}  # fmt: skip
    for path, item in document["paths"].items():
        for method, operation in item.items():
            operation["responses"] = {"303": {"description": "Go there."}, "default": anything}
            if method == "post" and path == "/scenario":
                fields = {"type": "object", "additionalProperties": {"type": "string"}}
                operation["requestBody"] = {
                    "required": True, "content": {"application/x-www-form-urlencoded": {"schema": fields}},
                }  # fmt: skip


def strangers(url: str, headers: dict[str, str], cases: int, first: int = 0) -> Figures:
    """Raw requests that no OpenAPI document describes: methods, paths, headers, bodies at random."""
    figures = Figures()
    rng = random.Random(first)
    text = st.text(max_size=40)
    session = requests.Session()
    session.trust_env = False

    @seed(first)
    @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(
        text,
        st.binary(max_size=300),
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"]),
    )
    def run(path: str, body: bytes, method: str) -> None:
        from urllib.parse import quote

        more = {"Content-Type": rng.choice(["application/json", "text/plain", "x"])}
        began = time.monotonic()
        answer = session.request(
            method, f"{url}/{quote(path)}", data=body, headers={**headers, **more}, timeout=SLOWEST_S,
            allow_redirects=False,
        )  # fmt: skip
        figures.count(f"{method} anything", answer.status_code, time.monotonic() - began)
        if answer.status_code >= 500:
            figures.defects.append(f"{method} {path!r}: {answer.status_code}")

    run()
    return figures
