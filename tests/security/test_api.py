"""Every operation of server and pages under schemathesis: few cases here, 10,000 in scripts/security.py."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("schemathesis")

from tests.security import api


def test_every_operation_of_the_server() -> None:
    figures = api.server(120)
    assert figures.defects == [] and figures.cases >= 100
    assert len(figures.statuses) == 9, "a new operation is asked as soon as it exists"
    assert {"200", "400"} <= set(figures.statuses["POST /v1/chat/completions"])


def test_every_operation_of_the_pages(tmp_path: Path) -> None:
    from hauslm import flow

    flow.init(tmp_path, {"language": "en"})
    figures = api.pages(tmp_path, 40)
    assert figures.defects == [] and figures.cases >= 20


def test_what_no_document_describes() -> None:
    from hauslm.lm.echo import EchoModel
    from hauslm.serve.app import create_app

    app = create_app(EchoModel(["a"]), token=api.TOKEN)
    with api.listening_app(lambda _: app) as url:
        figures = api.strangers(url, {"Authorization": f"Bearer {api.TOKEN}"}, 60)
    assert figures.defects == [] and figures.cases >= 50


def test_a_defect_is_seen() -> None:
    """An application that breaks its own document, and one that breaks altogether."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/broken")
    def broken(x: int = 0) -> int:
        return 1 // 0

    @app.get(
        "/lies",
        response_model=None,
        responses={200: {"content": {"application/json": {"schema": {"type": "integer"}}}}},
    )
    def lies(x: int = 0) -> str:
        return "text"

    with api.listening_app(lambda _: app) as url:
        figures = api.ask_all(app.openapi(), url, {}, lambda _: 4, 1)
    assert any("500" in d for d in figures.defects) and any("/lies" in d for d in figures.defects)
