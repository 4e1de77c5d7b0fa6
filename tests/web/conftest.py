"""A project with something on every page: decided and planned, with small records for the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hauslm import flow
from hauslm.base import files
from hauslm.web.app import create_app
from hauslm.web.guard import COOKIE
from tests.report.test_report import records

TOKEN, PORT = "t" * 43, 8398
ORIGIN = {"origin": f"http://127.0.0.1:{PORT}"}


def furnish(folder: Path, language: str = "en") -> Path:
    """Decision and plan by the stages themselves; corpus, run and evaluation as the report's tests have them."""
    flow.init(folder, {"language": language, "model.base": "embedded"})
    project = flow.Project.load(folder)
    flow.run_stage(project, "compare")
    flow.run_stage(project, "decide")
    flow.run_stage(project, "plan")
    for name, record in records().items():
        if name in ("corpus", "run", "evaluation"):
            record.save(project.folder.records)
    metrics = [
        {
            "step": s,
            "of": 40,
            "loss": 4.0 - s / 20,
            "seconds": 0.5 * s,
            "tokens_per_second": 900 + s,
        }
        | ({"validation": 3.5 - s / 40} if s % 10 == 0 else {})
        for s in range(1, 41)
    ]
    rows = b"".join(files.canonical_json(r) + b"\n" for r in metrics)
    files.write_sealed(project.folder.work / "train" / "metrics.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("web"))


@pytest.fixture
def client_of() -> Callable[[Path], TestClient]:
    def make(folder: Path) -> TestClient:
        made = TestClient(
            create_app(folder, token=TOKEN, port=PORT), base_url=f"http://127.0.0.1:{PORT}"
        )
        made.cookies.set(COOKIE, TOKEN)
        return made

    return make


@pytest.fixture
def client(project: Path, client_of: Callable[[Path], TestClient]) -> TestClient:
    return client_of(project)
