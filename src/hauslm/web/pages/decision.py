"""*Decision*: the scenario as a form, sliders, and the verdict that moves with them.

The page works without a script: what was typed is sent with the button and comes back computed. With
the script each change is answered at once (`/decision/try`), and what takes longer (flips, probability)
follows when the hand rests (`/decision/deep`).
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hauslm import flow
from hauslm.base.errors import HauslmError, RefusedError
from hauslm.base.words import say, speaking
from hauslm.web.room import Room, fields_of


def routes(room: Room) -> APIRouter:
    api = APIRouter()

    @api.get("/decision")
    def show(request: Request) -> Response:
        answers = dict(request.query_params)
        saved = answers.pop("saved", "") == "1"
        return _page(room, request, answers, saved=saved)

    @api.post("/decision")
    async def save(request: Request) -> Response:
        return await run_in_threadpool(_save, room, request, await fields_of(request))

    @api.post("/decision/try")
    async def attempt(request: Request) -> Response:
        return await run_in_threadpool(_attempt, room, request, await fields_of(request))

    @api.post("/decision/deep")
    async def deep(request: Request) -> Response:
        return await run_in_threadpool(_attempt, room, request, await fields_of(request), True)

    @api.get("/scenario")
    def scenario() -> Response:  # the form's address before it moved here
        return RedirectResponse("/decision", 303)

    return api


def _changed(project: flow.Project, answers: dict[str, str]) -> dict[str, str]:
    """The answers that differ from the project file's."""
    from hauslm.views.form import form

    now = {f.name: f.value for f in form(project.scenario, {}, project.scenario.language)}
    return {k: v.strip() for k, v in answers.items() if k in now and v.strip() != now[k]}


def _page(
    room: Room, request: Request, answers: dict[str, str], *, saved: bool = False,
    error: HauslmError | None = None,
) -> Response:  # fmt: skip
    from hauslm.views.form import form

    project = room.project()
    language = room.language(request)
    changed = _changed(project, answers)
    shown: Any = None
    depth = ""
    if error is None:
        try:
            known = room.known_deep(project, changed, language)
            if known is None and answers:  # asked for with the button: everything at once
                known = room.deep(project, changed, language)
            shown, depth = known or (room.what_if(project).quick(changed, language), "")
        except HauslmError as told:
            error = told
    return room.page(
        request,
        "decision.html.j2",
        400 if error is not None else 200,
        form=form(project.scenario, answers, language),
        shown=shown,
        depth=depth,
        changed=len(changed),
        saved=saved,
        state=flow.state(project, flow.STAGES["decide"]),
        error=error,
        code=language,
    )


def _save(room: Room, request: Request, answers: dict[str, str]) -> Response:
    """Write the changed answers, decide, and show it. A faulty answer changes nothing."""
    project = room.project()
    changed = _changed(project, answers)
    try:
        if room.jobs.running:
            raise RefusedError(
                "H412",
                say("A stage is running; the answers were not saved."),
                next_step=say("Wait until it has ended, or stop it on its page."),
            )
        room.what_if(project).scenario_with(
            changed
        )  # says what is wrong before anything is written
        flow.change_scenario(room.folder, changed)
        flow.run_stage(room.project(), "decide")
    except RefusedError as error:
        if error.code == "H412":
            return _page(room, request, answers, error=error)
        return RedirectResponse("/decision?saved=1", 303)  # the page says that no option is left
    except HauslmError as error:
        return _page(room, request, answers, error=error)
    return RedirectResponse("/decision?saved=1", 303)


def _attempt(
    room: Room, request: Request, answers: dict[str, str], deep: bool = False
) -> JSONResponse:
    started = time.perf_counter()
    language = room.language(request)
    project = room.project()
    try:
        changed = _changed(project, answers)
        if deep:
            shown, depth = room.deep(project, changed, language)
        else:
            shown, depth = room.what_if(project).quick(changed, language), ""
    except HauslmError as error:
        with speaking(language):
            return JSONResponse({"error": error.text(language)}, 400)
    return JSONResponse(
        {
            "verdict": shown.verdict,
            "details": shown.details,
            "plain": shown.plain,
            "standing": shown.standing,
            "depth": depth,
            "changed": len(changed),
            "ms": round((time.perf_counter() - started) * 1000, 1),
        }
    )
