"""The pages: guarded, in both languages, nothing from elsewhere, a job that survives its page."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hauslm import flow
from hauslm.web.app import create_app
from hauslm.web.guard import COOKIE

TOKEN, PORT = "t" * 43, 8398
ORIGIN = {"origin": f"http://127.0.0.1:{PORT}"}
PAGES = ["/", "/scenario", "/job", *(f"/stage/{s}" for s in flow.STAGES)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    flow.init(folder, {"language": "en"})
    flow.run_stage(flow.Project.load(folder), "decide")
    return folder


@pytest.fixture
def client(project: Path) -> TestClient:
    made = TestClient(
        create_app(project, token=TOKEN, port=PORT), base_url=f"http://127.0.0.1:{PORT}"
    )
    made.cookies.set(COOKIE, TOKEN)
    return made


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_in_both_languages_without_foreign_addresses(
    client: TestClient, path: str
) -> None:
    for code in ("en", "de"):
        client.cookies.set("hauslm_language", code)
        answer = client.get(path)
        assert answer.status_code == 200 and f'<html lang="{code}">' in answer.text
        loaded = re.findall(r'(?:src|href|action)="(https?:[^"]*)"', answer.text)
        assert (
            loaded == [] and "<script>" not in answer.text and " style=" not in _frame(answer.text)
        )
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def _frame(text: str) -> str:
    """The page without the drawings, whose inner styles are attributes of SVG."""
    return re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_the_decision_page_shows_the_verdict(client: TestClient) -> None:
    text = client.get("/stage/decide").text
    assert "callout verdict" in text and "<figure>" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": f"127.0.0.1.evil.example:{PORT}"}, 421),
        ({"cookie": f"{COOKIE}=wrong"}, 401),
        ({"cookie": ""}, 401),
    ],
)
def test_strangers_are_refused(project: Path, headers: dict[str, str], status: int) -> None:
    client = TestClient(
        create_app(project, token=TOKEN, port=PORT), base_url=f"http://127.0.0.1:{PORT}"
    )
    sent = {"cookie": f"{COOKIE}={TOKEN}"} | headers
    assert client.get("/", headers=sent).status_code == status


@pytest.mark.parametrize("headers", [{}, {"origin": "http://evil.example"}, {"origin": "null"}])
def test_another_sites_form_changes_nothing(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/stage/decide/run", headers=headers).status_code == 403


def test_the_token_opens_the_pages_once_and_leaves_the_address(project: Path) -> None:
    client = TestClient(
        create_app(project, token=TOKEN, port=PORT),
        base_url=f"http://127.0.0.1:{PORT}",
        follow_redirects=False,
    )
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/?token=wrong").status_code == 200  # the cookie counts, the rest is ignored


def test_too_large_and_unsized_bodies_are_refused(client: TestClient) -> None:
    assert client.post("/scenario", content=b"x" * 2_000_000, headers=ORIGIN).status_code == 413


def test_a_faulty_answer_is_told_and_changes_nothing(client: TestClient, project: Path) -> None:
    before = (project / "hauslm.yaml").read_text(encoding="utf-8")
    answer = client.post("/scenario", data={"scenario.data.personal": "maybe"}, headers=ORIGIN)
    assert answer.status_code == 400 and "H203" in answer.text
    assert (project / "hauslm.yaml").read_text(encoding="utf-8") == before


def test_an_answer_is_saved_keeps_the_comments_and_decides_as_a_process(
    client: TestClient, project: Path
) -> None:
    comments = (project / "hauslm.yaml").read_text(encoding="utf-8").count("#")
    answer = client.post(
        "/scenario", data={"scenario.workload.documents_per_month": "50"}, headers=ORIGIN
    )
    assert answer.status_code == 200 and str(answer.url).endswith("/job")
    text = (project / "hauslm.yaml").read_text(encoding="utf-8")
    assert "documents_per_month: 50" in text and text.count("#") == comments
    for _ in range(300):
        events = client.get("/job/events").text
        if "event: end" in events:
            break
        time.sleep(0.1)
    assert "event: end\ndata: 0" in events, events
    assert flow.state(flow.Project.load(project), flow.STAGES["decide"]) == "current"


def test_an_unknown_stage_is_a_sentence(client: TestClient) -> None:
    answer = client.get("/stage/decid")
    assert answer.status_code == 400 and "decide" in answer.text and "Traceback" not in answer.text
