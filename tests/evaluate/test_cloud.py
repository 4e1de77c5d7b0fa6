"""Is the cloud model asked only with permit, name and price, and with the very prompts of the others?"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.evaluate.cloud import cloud_model, prices
from hauslm.evaluate.run import evaluate
from hauslm.lm.interface import Request
from hauslm.records import Evaluation

from .conftest import Knowing, Prepared
from .test_run import labelled, learned, metrics, notices, scenario, told

KEY = "sk-test-0123456789"
PRICED = "price_input_eur_per_mtok: 2.0, price_output_eur_per_mtok: 8.0"


class Endpoint:
    """An OpenAI-compatible stand-in: knows every label; `fail_after` answers it dies."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.fail_after = 1 << 30
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.keys.add(self.headers.get("Authorization", ""))
                broken = len(endpoint.bodies) >= endpoint.fail_after
                if not broken:
                    endpoint.bodies.append(body)
                said = told(body["messages"][-1]["content"])
                answer = {
                    "choices": [{"message": {"content": f"{said}."}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 30, "completion_tokens": 2},
                }
                data = json.dumps({"error": "model"} if broken else answer).encode()
                self.send_response(404 if broken else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def project(url: str, more: str = PRICED) -> str:
    comma = ", " if more else ""
    return (
        "name: test\n"
        "scenario: {hardware: {price_eur_per_kwh: 0.3, host_power_w: 100}}\n"
        f"evaluation: {{cloud: {{endpoint: '{url}', model: big, concurrency: 2{comma}{more}}}}}\n"
    )


def local() -> Knowing:
    return Knowing(learned, answer=lambda r: "TOOL" if r.adapter == "adapter" else "no idea")


def judged(prepared: Prepared, text: str, model: Knowing) -> Evaluation:
    corpus, run = prepared.write()
    return evaluate(scenario(text), prepared.folder, corpus=corpus, run=run, model=model)


def test_the_project_file_brings_the_cloud_model_in(
    prepared: Prepared, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAUSLM_API_KEY", KEY)
    labelled(prepared)
    seen: list[Request] = []

    def answer(request: Request) -> str:
        seen.append(request)
        return "TOOL"

    result = judged(prepared, project(endpoint.url), Knowing(learned, answer=answer))
    assert metrics(result, "cloud")["accuracy"] == 1
    assert any(d.against == "cloud" and d.metric == "accuracy" for d in result.differences)
    assert endpoint.keys == {f"Bearer {KEY}"}
    sent = {json.dumps(b["messages"], sort_keys=True) for b in endpoint.bodies}
    asked = {
        json.dumps([{"role": m.role, "content": m.content} for m in r.messages], sort_keys=True)
        for r in seen
        if r.raw_prompt is None
    }
    assert sent == asked and len(sent) == 100  # the same items in the same words
    assert {b["temperature"] for b in endpoint.bodies} == {0.0}
    stored = (prepared.folder.work / "evaluate" / "items.jsonl").read_text(encoding="utf-8")
    assert KEY not in stored and KEY not in result.model_dump_json()


def test_its_cost_is_tokens_times_price_and_says_so(prepared: Prepared, endpoint: Endpoint) -> None:
    labelled(prepared)
    result = judged(
        prepared, project(endpoint.url, PRICED + ", price_source: offer of 2026"), local()
    )
    cost = next(s.per_item for s in result.systems if s.name == "cloud")
    assert cost is not None and cost.unit == "item" and cost.items == 100
    assert cost.tokens is not None and cost.tokens.value == 32 and cost.tokens.known == "measured"
    assert cost.money is not None and cost.money.unit == "EUR"
    assert cost.money.value == pytest.approx((30 * 2.0 + 2 * 8.0) / 1e6)
    assert cost.money.known == "derived" and "offer of 2026" in cost.money.source
    assert cost.energy is None and "does not tell" in cost.absent["energy"].text
    assert cost.seconds_p95 is not None and cost.seconds_p50 is not None
    assert 0 < cost.seconds_p50.value <= cost.seconds_p95.value
    assert "up to 2 at once" in cost.seconds_p50.source


def test_what_was_answered_before_a_failure_is_not_paid_again(
    prepared: Prepared, endpoint: Endpoint
) -> None:
    labelled(prepared, documents=450)  # more than one batch
    endpoint.fail_after = 1100
    text = project(endpoint.url).replace("evaluation: {", "evaluation: {max_items: 1500, ")
    with pytest.raises(Exception, match="refused the request"):
        judged(prepared, text, local())
    first = len(endpoint.bodies)
    endpoint.fail_after = 1 << 30
    result = judged(prepared, text, local())
    again = len(endpoint.bodies) - first
    assert result.n == 1500 and again < 1000  # the finished batches came from the journal
    count = len(endpoint.bodies)
    judged(prepared, text, local())
    assert len(endpoint.bodies) == count


def test_without_a_price_nothing_is_asked(prepared: Prepared, endpoint: Endpoint) -> None:
    labelled(prepared)
    for more in ("", "price_input_eur_per_mtok: 2.0"):
        with pytest.raises(UsageError, match="H666"):
            judged(prepared, project(endpoint.url, more), local())
    with pytest.raises(UsageError, match="H120"):
        judged(prepared, project(endpoint.url, "price_model: no-such-model"), local())
    with pytest.raises(UsageError, match="H665"):
        judged(prepared, project(endpoint.url).replace("model: big", "model: ''"), local())
    assert endpoint.bodies == []


def test_without_a_permit_nothing_is_asked(prepared: Prepared) -> None:
    labelled(prepared)
    with pytest.raises(RefusedError, match="H811"):
        judged(prepared, project("https://api.example.org/v1"), local())


def test_an_endpoint_that_is_down_is_told(prepared: Prepared, endpoint: Endpoint) -> None:
    labelled(prepared)
    endpoint.server.shutdown()
    endpoint.server.server_close()
    made = scenario(project(endpoint.url))
    model = cloud_model(made)
    model._sleep = lambda _: None  # type: ignore[union-attr]
    with pytest.raises(MissingError, match="H812"):
        corpus, run = prepared.write()
        evaluate(made, prepared.folder, corpus=corpus, run=run, model=local(), cloud=model)


def test_list_prices_are_taken_at_the_day_of_the_decision(endpoint: Endpoint) -> None:
    more = "price_model: mistral-small-2603"
    text = project(endpoint.url, more).replace(
        "hardware:", "horizon: {decision_date: '2026-10-01'}, hardware:"
    )
    found = prices(scenario(text))
    assert found.input.unit == found.output.unit == "EUR/Mtok"
    assert 0 < found.input.value < found.output.value and found.input.source
    own = text.replace(
        "scenario: {", "scenario: {prices: [{model: mistral-small-2603, input_usd_per_mtok: 100, "
        "output_usd_per_mtok: 200, source: our contract, date: '2026-09-01'}], budget: {eur_per_usd: 0.5}, "
    )  # fmt: skip
    mine = prices(scenario(own))
    assert mine.input.value == pytest.approx(50) and mine.output.value == pytest.approx(100)
    assert "our contract" in mine.input.source


def test_without_a_task_the_cloud_model_is_left_out_and_that_is_said(
    prepared: Prepared, endpoint: Endpoint
) -> None:
    for n in range(8):
        text = " ".join(f"w{n}x{i}" for i in range(200))
        prepared.document(f"t{n}", text, "test" if n % 2 else "train")
    result = judged(prepared, project(endpoint.url), local())
    assert endpoint.bodies == [] and {s.name for s in result.systems} == {"base", "adapter"}
    assert "was not asked" in notices(result)
    cost = result.systems[0].per_item
    assert cost is not None and cost.unit == "document" and cost.items == 4


def test_the_key_never_stands_in_the_project_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        scenario("evaluation: {cloud: {key: sk-1}}")
    with pytest.raises(UsageError):
        scenario("evaluation: {cloud: {key_variable: sk-0123456789abcdef}}")
