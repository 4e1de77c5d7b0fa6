"""The pages: guarded, in both languages, nothing from elsewhere, errors as sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hauslm import flow
from hauslm.web.app import create_app
from hauslm.web.guard import COOKIE
from hauslm.web.room import NAVIGATION
from tests.web.conftest import ORIGIN, PORT, TOKEN

PAGES = [
    "/", "/job", "/plan/fits", *(e.path for e in NAVIGATION), *(f"/stage/{s}" for s in flow.STAGES),
]  # fmt: skip
MONTHS = "scenario.horizon.months"
DOCUMENTS = "scenario.workload.documents_per_month"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_in_both_languages_without_foreign_addresses(
    client: TestClient, path: str
) -> None:
    for code in ("en", "de"):
        client.cookies.set("hauslm_language", code)
        answer = client.get(path)
        assert answer.status_code == 200
        if path != "/plan/fits":
            assert f'<html lang="{code}">' in answer.text
        loaded = re.findall(r'(?:src|href|action)="(https?:[^"]*)"', answer.text)
        assert loaded == [] and "<script>" not in answer.text
        tags = Tags(answer.text).seen
        assert not [t for t, a in tags if "style" in a or any(k.startswith("on") for k in a)]
        ids = [a["id"] for _, a in tags if "id" in a]
        assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
        assert "script-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", *(e.path for e in NAVIGATION), "/stage/bundle"])
def test_a_project_without_records_has_empty_states(
    tmp_path: Path, client_of: Callable[[Path], TestClient], path: str
) -> None:
    flow.init(tmp_path, {"language": "de"})
    assert client_of(tmp_path).get(path).status_code == 200


def test_every_drawing_has_words_and_a_table_and_every_figure_a_source(client: TestClient) -> None:
    for path in ("/decision", "/plan", "/data", "/training", "/evaluation", "/report"):
        text = client.get(path).text
        figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
        assert figures, path
        for figure in figures:
            assert 'role="img" aria-label="' in figure and "<table>" in figure
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        links = re.findall(r'class="fig" href="#([^"]+)" data-tip="([^"]*)"', text)
        assert all(place in ids and tip for place, tip in links)
        if path in ("/decision", "/plan", "/report"):
            assert links, path


def test_the_form_asks_eight_and_folds_the_rest(client: TestClient) -> None:
    text = client.get("/decision").text
    seen, folded = text.split('<details class="more">', 1)
    assert len(re.findall(r'name="scenario\.', seen)) == 8
    assert len(re.findall(r'name="scenario\.', folded.split("</form>")[0])) > 30


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
    assert client.post("/decision", content=b"x" * 2_000_000, headers=ORIGIN).status_code == 413


def test_a_faulty_answer_is_told_and_changes_nothing(client: TestClient, project: Path) -> None:
    before = (project / "hauslm.yaml").read_text(encoding="utf-8")
    answer = client.post("/decision", data={"scenario.data.personal": "maybe"}, headers=ORIGIN)
    assert answer.status_code == 400 and "H203" in answer.text
    answer = client.post("/decision/try", data={MONTHS: "-3"}, headers=ORIGIN)
    assert answer.status_code == 400 and "H202" in answer.json()["error"]
    assert (project / "hauslm.yaml").read_text(encoding="utf-8") == before


def test_a_trial_moves_the_verdict_and_saves_nothing(client: TestClient, project: Path) -> None:
    before = (project / "hauslm.yaml").read_text(encoding="utf-8")
    client.get("/decision")
    plain = {}
    for answer in ("third_party", "open"):
        sent = client.post(
            "/decision/try", data={"scenario.data.copyright": answer}, headers=ORIGIN
        ).json()
        plain[answer] = sent["plain"]
        assert "callout verdict" in sent["verdict"] and "<svg" in sent["details"]
    assert plain["third_party"] != plain["open"]  # open works may go to an API
    deep = client.post("/decision/deep", data={MONTHS: "48"}, headers=ORIGIN).json()
    assert deep["changed"] == 1 and deep["depth"].count("<details") >= 3
    assert (project / "hauslm.yaml").read_text(encoding="utf-8") == before


def test_without_a_script_the_button_computes_everything(client: TestClient) -> None:
    text = client.get("/decision", params={MONTHS: "48"}).text
    assert 'value="48"' in text and 'class="fold"' in text


def test_an_answer_is_saved_keeps_the_comments_and_decides(
    tmp_path: Path, client_of: Callable[[Path], TestClient]
) -> None:
    flow.init(tmp_path, {"language": "en"})
    comments = (tmp_path / "hauslm.yaml").read_text(encoding="utf-8").count("#")
    data = {DOCUMENTS: "50", "scenario.hardware.price_eur_per_kwh": "0.25"}
    answer = client_of(tmp_path).post("/decision", data=data, headers=ORIGIN)
    assert answer.status_code == 200 and "/decision?saved=1" in str(answer.url)
    text = (tmp_path / "hauslm.yaml").read_text(encoding="utf-8")
    assert "documents_per_month: 50" in text and "price_eur_per_kwh: 0.25" in text
    assert text.count("#") == comments
    assert flow.state(flow.Project.load(tmp_path), flow.STAGES["decide"]) == "current"
    # Emptied, the field takes its default again.
    client_of(tmp_path).post(
        "/decision", data={"scenario.hardware.price_eur_per_kwh": ""}, headers=ORIGIN
    )
    assert "price_eur_per_kwh" not in (tmp_path / "hauslm.yaml").read_text(encoding="utf-8")


def test_impossible_answers_leave_no_option_and_say_so(client: TestClient) -> None:
    data = {
        "scenario.hardware.gpu": "none", "scenario.budget.max_monthly_eur": "0.01",
        "scenario.data.may_leave": "no",
    }  # fmt: skip
    sent = client.post("/decision/deep", data=data, headers=ORIGIN).json()
    assert sent["standing"] == "none" and "callout warning" in sent["verdict"]


def test_an_unknown_stage_and_page_is_a_sentence(client: TestClient) -> None:
    answer = client.get("/stage/decid")
    assert answer.status_code == 400 and "decide" in answer.text and "Traceback" not in answer.text
    answer = client.get("/nothing")
    assert answer.status_code == 404 and "There is no such page" in answer.text


def test_a_damaged_project_file_is_told_on_every_page(
    tmp_path: Path, client_of: Callable[[Path], TestClient]
) -> None:
    (tmp_path / "hauslm.yaml").write_text("scenario: [", encoding="utf-8")
    for path in ("/", "/decision", "/training", "/chat"):
        answer = client_of(tmp_path).get(path)
        assert answer.status_code == 400 and "H212" in answer.text


@pytest.mark.parametrize(
    ("back", "to"),
    [
        ("/plan", "/plan"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/articles/\\e", "/"),
    ],
)
def test_the_language_switch_stays_on_the_page_and_inside(
    client: TestClient, back: str, to: str
) -> None:
    client.follow_redirects = False
    answer = client.post("/language/de", data={"back": back}, headers=ORIGIN)
    assert answer.status_code == 303 and answer.headers["location"] == to


def test_report_files_download_in_every_format(client: TestClient) -> None:
    for kind, first in (("html", b"<!DOCTYPE"), ("md", b"# "), ("json", b"{")):
        answer = client.get(f"/report/file/{kind}")
        assert answer.content.startswith(first)
        assert "attachment" in answer.headers["content-disposition"]
    assert client.get("/report/file/exe").status_code == 400


def test_a_chat_without_a_loaded_model_or_with_nonsense_is_told(client: TestClient) -> None:
    sent = {"sides": {"base": [{"role": "user", "content": "x"}]}}
    assert client.post("/chat/ask", content=json.dumps(sent), headers=ORIGIN).status_code == 409
    assert client.post("/chat/ask", content=b"{", headers=ORIGIN).status_code == 400
