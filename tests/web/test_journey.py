"""Somebody who knows nothing: from the demo's last line to the decision for their own figures.

Only what is printed and what is seen is used: the demo's `Next:` line is typed, the address that it
prints is opened, the rest is clicks, and they are counted.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_entry import CLEAN, hauslm
from tests.web.test_browser import CHROMIUM, browser, playwright

__all__ = ["browser"]  # a fixture
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
MOST_COMMANDS, MOST_CLICKS, HANGS_AFTER_S = 2, 5, 20.0


class Visitor:
    """A page whose clicks are counted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.clicks = 0

    def click(self, place: Any) -> None:
        place.click()
        self.clicks += 1


def test_from_the_demo_to_the_decision_for_ones_own_figures(browser: Any, tmp_path: Path) -> None:
    # `make demo` ends in `hauslm demo`; its stages after the decision change nothing of this way.
    demo = hauslm("demo", "--until", "decide", "--language", "de", cwd=tmp_path)
    assert demo.returncode == 0, demo.stderr
    step = demo.stderr.rstrip().splitlines()[-1].removeprefix("Weiter: ")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    web = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(step), "--port", str(port)], cwd=tmp_path,
        stderr=subprocess.PIPE, text=True, env=CLEAN | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    commands = 2
    try:
        assert web.stderr is not None
        line = web.stderr.readline()
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert web.poll() is None
                time.sleep(0.02)
        up = time.monotonic() - began
        found = re.search(r"http://\S+", line)
        assert found, line
        context = browser.new_context()
        visitor = Visitor(context.new_page())
        page = visitor.page
        page.goto(found[0])
        visitor.clicks += 1  # the address is clicked in the terminal
        visitor.click(page.get_by_role("link", name="Entscheidung").first)
        page.locator("[name='scenario.workload.documents_per_month']").fill("250")
        visitor.click(page.locator(".answers button").first)
        page.wait_for_url("**/decision?saved=1")
        assert page.locator("#verdict").inner_text()
        context.close()
    finally:
        web.terminate()
        web.wait(20)
    text = (tmp_path / "demo" / "hauslm.yaml").read_text(encoding="utf-8")
    assert "documents_per_month: 250" in text
    assert commands <= MOST_COMMANDS and visitor.clicks <= MOST_CLICKS
    # Alone on two cores it takes half a second (`benchmarks/web.py`); here others may run beside it.
    assert up < HANGS_AFTER_S, up


assert playwright
