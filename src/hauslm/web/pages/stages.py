"""*Overview*, *Plan*, *Data*, *Evaluation*, *Report*, and one plain page for every other stage."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import FileResponse, Response

from hauslm import flow
from hauslm.base import words
from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.words import say
from hauslm.web.room import LANGUAGE_COOKIE, NAVIGATION, PAGE_OF, Room, fields_of

REPORT_FILES = {
    "html": "text/html",
    "md": "text/markdown",
    "json": "application/json",
    "pdf": "application/pdf",
}
OWN_PAGE = {"plan": "plan", "prepare": "data", "evaluate": "evaluation"}


def routes(room: Room) -> APIRouter:
    api = APIRouter()

    @api.get("/")
    def overview(request: Request) -> Response:
        project = room.project()
        states = {s.name: flow.state(project, s) for s in flow.STAGES.values()}
        following = next((n for n, s in states.items() if s != "current"), "")
        return room.page(
            request, "overview.html.j2", name=project.scenario.name, folder=str(project.folder.root),
            following=following, model=project.scenario.model.base,
        )  # fmt: skip

    @api.get("/plan")
    def plan(request: Request) -> Response:
        return _stage(room, request, "plan")

    @api.get("/plan/fits")
    def fits(request: Request) -> Response:
        """The tables alone: they take a moment, so the page asks for them."""
        return Response(_fits(room, request), media_type="text/html; charset=utf-8")

    @api.get("/data")
    def data(request: Request) -> Response:
        return _stage(room, request, "prepare")

    @api.get("/evaluation")
    def evaluation(request: Request) -> Response:
        return _stage(room, request, "evaluate")

    @api.get("/stage/{name}")
    def stage(request: Request, name: str) -> Response:
        found = flow.stage_named(name)
        own = PAGE_OF.get(found.name, "")
        if own and not own.startswith("/stage/"):
            return RedirectResponse(own, 303)
        return _stage(room, request, found.name)

    @api.get("/report")
    def report(request: Request) -> Response:
        from hauslm.views import chapters

        project = room.project()
        body, contents = chapters.whole_report(project, room.language(request))
        return room.page(
            request, "report.html.j2", body=body, contents=contents,
            empty=not chapters.sound_records(project), name=project.scenario.name,
        )  # fmt: skip

    @api.get("/report/file/{kind}")
    def report_file(request: Request, kind: str) -> Response:
        if kind not in REPORT_FILES:
            raise UsageError("H541", say("There is no report in the format '{kind}'.", kind=kind))
        project = room.project()
        made = flow.report(project, formats=(kind,), language=room.language(request))
        # A downloaded file is opened outside of these pages; in them its style would be refused.
        return FileResponse(made[kind], media_type=REPORT_FILES[kind], filename=made[kind].name)

    @api.post("/language/{code}")
    async def choose(request: Request, code: str) -> Response:
        back = (await fields_of(request)).get("back", "/")
        known = {"/", "/job", *(e.path for e in NAVIGATION)} | {f"/stage/{s}" for s in flow.STAGES}
        inside = back in known or back.startswith("/articles/")
        answer = RedirectResponse(back if inside and "\\" not in back else "/", 303)
        if code in words.available_languages():
            answer.set_cookie(LANGUAGE_COOKIE, code, samesite="strict", max_age=365 * 86400)
        return answer

    return api


def _stage(room: Room, request: Request, name: str) -> Response:
    """The record of a stage as a page; without a record, what it would do and how to start it."""
    from hauslm.views import chapters

    found = flow.STAGES[name]
    project = room.project()
    language = room.language(request)
    record = flow.load_record(project, found.record)
    body = chapters.chapter(record, language) if record is not None else ""
    tiles = chapters.tiles(record, language) if record is not None else []
    items = chapters.items(record) if name == "evaluate" and record is not None else []
    return room.page(
        request,
        f"{OWN_PAGE.get(name, 'stage')}.html.j2",
        stage=found,
        body=body,
        tiles=tiles,
        items=items,
        state=flow.state(project, found),
    )


def _fits(room: Room, request: Request) -> str:
    from hauslm.views import chapters

    project = room.project()
    try:
        return chapters.fit_tables(
            project, project.scenario.scenario.hardware.gpu, room.language(request)
        )
    except HauslmError as error:
        return room.text(request, "message.html.j2", message=error.text(room.language(request)))
