"""*Articles*: drop one, see its row, and where in the text the quote stands."""

from __future__ import annotations

import sys

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hauslm import flow
from hauslm.base.errors import DataError, HauslmError, UsageError
from hauslm.base.words import say
from hauslm.web.room import Room
from hauslm.web.uploads import parts_of

JOB = "article"


def routes(room: Room) -> APIRouter:
    api = APIRouter()

    @api.get("/articles")
    def show(request: Request) -> Response:
        return _shelf(room, request)

    @api.post("/articles")
    async def drop(request: Request) -> Response:
        parts = parts_of(request.headers.get("content-type", ""), await request.body())
        return await run_in_threadpool(_drop, room, request, parts)

    @api.get("/articles/{identity}")
    def article(request: Request, identity: str) -> Response:
        from hauslm.views import articles

        project = room.project()
        found = articles.shown(project, identity, room.language(request))
        job = room.jobs.current
        mine = job is not None and job.stage == f"{JOB}-{identity}"
        return room.page(
            request, "article.html.j2", article=found, working=mine and room.jobs.running,
            failed=mine and not room.jobs.running and bool(job and job.exit_code),
            lines=job.lines()[-20:] if mine and job is not None else [],
            template=project.scenario.analysis.template,
            trained=flow.load_record(project, "run") is not None,
        )  # fmt: skip

    @api.post("/articles/{identity}/run")
    async def again(request: Request, identity: str) -> Response:
        return await run_in_threadpool(_start, room, request, identity)

    @api.post("/articles/{identity}/remove")
    async def remove(request: Request, identity: str) -> Response:
        from hauslm.views import articles

        await run_in_threadpool(articles.remove, room.project().folder, identity)
        return RedirectResponse("/articles", 303)

    return api


def _shelf(room: Room, request: Request, error: HauslmError | None = None) -> Response:
    from hauslm.views import articles

    project = room.project()
    return room.page(
        request, "articles.html.j2", 400 if error else 200, known=articles.known(project.folder),
        formats=articles.formats(), error=error, code=room.language(request),
    )  # fmt: skip


def _drop(room: Room, request: Request, parts: list) -> Response:  # type: ignore[type-arg]
    from hauslm.views import articles

    file = next((p for p in parts if p.name == "file"), None)
    try:
        if file is None or not file.filename:
            raise DataError(
                "H542", say("No file was chosen."), next_step=say("Choose one, or drop it here.")
            )
        identity = articles.add(room.project().folder, file.filename, file.data)
    except HauslmError as error:
        return _shelf(room, request, error)
    return _start(room, request, identity)


def _start(room: Room, request: Request, identity: str) -> Response:
    from hauslm.views import articles

    articles.place_of(room.project().folder, identity)
    command = (
        sys.executable, "-m", "hauslm.web.worker", str(room.folder), identity, room.language(request),
    )  # fmt: skip
    if not room.jobs.start_command(f"{JOB}-{identity}", command):
        raise UsageError(
            "H412",
            say("A stage is running; the article is kept and waits."),
            next_step=say("Open the article again when the stage has ended."),
        )
    return RedirectResponse(f"/articles/{identity}", 303)
