"""How quick are the pages? Start, first page, decision page, slider to new verdict; as JSON.

    python benchmarks/web.py [--project DIR] [--moves 40]

Starts `hauslm web` as a user would, then measures from the outside over HTTP: seconds until the first
answer, of the first page after that, of the decision page, and of each move of the sliders (two figures,
alternating, values never asked before). Needs no browser; nothing but this machine is asked.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from hauslm import flow

FIGURES = ("scenario.workload.documents_per_month", "scenario.horizon.months")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Pages:
    """The server under measurement and a client with its cookie."""

    def __init__(self, project: Path) -> None:
        self.port = free_port()
        began = time.perf_counter()
        self.process = subprocess.Popen(
            (sys.executable, "-m", "hauslm", "web", "-C", str(project), "--port", str(self.port)),
            stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stderr is not None
        line = ""
        while "token=" not in line:
            line = self.process.stderr.readline()
        token = re.search(r"token=([\w-]+)", line)
        assert token
        self.cookie = f"hauslm_web={token.group(1)}"
        while True:
            try:
                self.ask("GET", "/static/app.css")
                break
            except ConnectionError:
                time.sleep(0.01)
        self.up_s = time.perf_counter() - began

    def ask(self, method: str, path: str, body: str = "") -> tuple[float, bytes]:
        """(seconds, answer)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}"}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = time.perf_counter()
        connection.request(method, path, body.encode() if body else None, headers)
        response = connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - began
        assert response.status == 200, (response.status, path)
        connection.close()
        return seconds, answer

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def measure(project: Path, moves: int) -> dict[str, object]:
    pages = Pages(project)
    try:
        first, _ = pages.ask("GET", "/")
        decision, _ = pages.ask("GET", "/decision")
        again, _ = pages.ask("GET", "/decision")
        pages.ask("POST", "/decision/deep", urlencode({FIGURES[0]: "3001"}))
        seconds = []
        for k in range(moves):
            values = {FIGURES[0]: str(200 + 523 * k), FIGURES[1]: str(12 + k % 60)}
            seconds.append(pages.ask("POST", "/decision/try", urlencode(values))[0])
        deep, _ = pages.ask("POST", "/decision/deep", urlencode({FIGURES[0]: "777"}))
    finally:
        pages.close()
    ordered = sorted(seconds)
    return {
        "up_s": round(pages.up_s, 3),
        "first_page_s": round(first, 3),
        "decision_page_first_s": round(decision, 3),
        "decision_page_again_s": round(again, 3),
        "slider_to_verdict_ms": {
            "median": round(statistics.median(ordered) * 1000, 1),
            "p95": round(ordered[int(0.95 * (len(ordered) - 1))] * 1000, 1),
            "worst": round(ordered[-1] * 1000, 1),
            "moves": moves,
        },
        "flips_and_probability_ms": round(deep * 1000, 1),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", type=Path)
    options.add_argument("--moves", type=int, default=40)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = given.project
        if project is None:
            project = Path(name)
            flow.init(project, {"language": "de"})
        print(json.dumps(measure(project, given.moves), indent=2))


if __name__ == "__main__":
    main()
