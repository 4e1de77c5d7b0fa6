"""A real browser walks every page: nothing is asked of any other machine, axe finds nothing serious,
everything works by keyboard, in German and English, light and dark.

Needs Debian's chromium (or CHROMIUM) and the dev dependencies playwright and axe-playwright-python; no
browser is downloaded. Skips with a reason where they are absent.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from hauslm.web.app import create_app
from hauslm.web.guard import COOKIE
from hauslm.web.room import NAVIGATION
from tests.web.conftest import TOKEN, furnish

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
PATHS = ["/", "/job", "/nothing", "/stage/compare", "/stage/bundle", *(e.path for e in NAVIGATION)]
RANGE = "input[type=range]"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = furnish(tmp_path_factory.mktemp("browser"))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(create_app(folder, token=TOKEN, port=port), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        made = p.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield made
        made.close()


class Visit:
    """A page in one language and colour scheme, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, address: str, language: str, scheme: str, **more: Any) -> None:
        self.context = browser.new_context(color_scheme=scheme, **more)
        self.context.add_cookies([
            {"name": COOKIE, "value": TOKEN, "url": address},
            {"name": "hauslm_language", "value": language, "url": address},
        ])  # fmt: skip
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type == "error" else None
        )

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def _settled(page: Any) -> None:
    """What the page's script asks for by itself has arrived."""
    for place in ("#depth h3", "#fits h3"):
        if page.locator(place.split()[0]).count():
            page.locator(place).first.wait_for(timeout=20_000)


@pytest.mark.parametrize(
    ("language", "scheme"),
    [
        ("de", "light"),
        pytest.param("en", "dark", marks=pytest.mark.slow),
        pytest.param("de", "dark", marks=pytest.mark.slow),
        pytest.param("en", "light", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_asked_of_another_machine_and_axe_finds_nothing_serious(
    browser: Any, address: str, language: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: list[str] = []
    # The policy is set aside for axe's own script, in this test alone.
    with Visit(browser, address, language, scheme, bypass_csp=True) as visit:
        for path in PATHS:
            visit.page.goto(address + path)
            _settled(visit.page)
            result = axe.run(visit.page)
            for violation in result.response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    nodes = [n["html"][:160] for n in violation["nodes"][:3]]
                    found.append(f"{path}: {violation['id']}: {nodes}")
        hosts = {urlsplit(u).netloc for u in visit.asked if not u.startswith("data:")}
    assert hosts == {urlsplit(address).netloc}
    assert not found, "\n".join(found)


def test_the_policy_holds_and_no_page_complains(browser: Any, address: str) -> None:
    with Visit(browser, address, "de", "light") as visit:
        for path in PATHS:
            if path == "/nothing":
                continue  # the browser itself logs a 404
            visit.page.goto(address + path)
            _settled(visit.page)
        assert visit.complaints == []
        # A script that somehow got into a page does not run, nor does one from elsewhere load.
        visit.page.evaluate("""() => {
            const inline = document.createElement('script');
            inline.textContent = 'window.owned = true';
            document.body.append(inline);
            const far = document.createElement('img');
            far.src = 'http://192.0.2.1/x.png';
            document.body.append(far);
        }""")
        visit.page.wait_for_timeout(200)
        assert visit.page.evaluate("window.owned") is None
        assert any("Content Security Policy" in c for c in visit.complaints)


def test_a_slider_moves_the_verdict_by_keyboard_and_the_button_saves(
    browser: Any, address: str
) -> None:
    with Visit(browser, address, "de", "light") as visit:
        page = visit.page
        page.goto(address + "/decision")
        _settled(page)
        before = page.locator("#verdict").inner_text()
        slider = page.locator(RANGE).first
        slider.focus()
        for _ in range(3):
            page.keyboard.press("PageUp")
        page.locator("#status.trial").wait_for(timeout=5_000)
        assert page.locator("#verdict").inner_text() != before
        documents = page.locator("[name='scenario.workload.documents_per_month']").input_value()
        assert float(documents) > 3000
        # A faulty answer is told beside the verdict, and goes when it is mended.
        months = page.locator("[name='scenario.horizon.months']")
        months.fill("0")
        page.locator("#problem:not([hidden])").wait_for(timeout=5_000)
        months.fill("24")
        page.locator("#problem").wait_for(state="hidden", timeout=5_000)
        page.locator(".answers button").first.press("Enter")
        page.wait_for_url("**/decision?saved=1")
        assert "Gesichert" in page.locator("#status").inner_text()
        assert page.locator("[name='scenario.horizon.months']").input_value() == "24"


@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.slow)])
def test_every_page_can_be_reached_by_keyboard_alone_and_nothing_runs_off_the_side(
    browser: Any, address: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    with Visit(browser, address, "de", "light", viewport=size) as visit:
        page = visit.page
        page.goto(address + "/")
        reached: list[str] = []
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.getAttribute('href') || ''"))
            look = page.evaluate("""() => document.activeElement === document.body ? 'body'
                : getComputedStyle(document.activeElement).outlineStyle""")
            assert look != "none", reached
        assert reached[0] == "#main"
        assert {e.path for e in NAVIGATION} <= set(reached)
        for path in PATHS:
            page.goto(address + path)
            _settled(page)
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, (path, over)


def test_a_figure_shows_its_source_to_pointer_and_keyboard(browser: Any, address: str) -> None:
    with Visit(browser, address, "en", "light") as visit:
        page = visit.page
        page.goto(address + "/decision")
        figure = page.locator("#verdict .fig").first
        figure.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        tip = page.evaluate("getComputedStyle(document.activeElement, '::after').content")
        assert "computed" in tip
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        assert page.evaluate("document.querySelector('#verdict .sources').open") is True


def test_a_print_shows_sources_and_tables_and_no_controls(
    browser: Any, address: str, tmp_path: Path
) -> None:
    with Visit(browser, address, "de", "light") as visit:
        page = visit.page
        page.goto(address + "/decision")
        _settled(page)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert (
            not page.locator("header").is_visible() and not page.locator(RANGE).first.is_visible()
        )
        assert page.locator("#verdict .sources li").first.is_visible()
        assert page.locator("figure details table").first.is_visible()
        page.pdf(path=str(tmp_path / "p.pdf"))
        assert (tmp_path / "p.pdf").stat().st_size > 20_000
