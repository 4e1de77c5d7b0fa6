"""*Training*: what the run is doing now; start, stop, resume. And the page of any running job.

The run is a process of its own. What the page shows comes from files, so closing it, reloading it or
ending the web server changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hauslm import flow
from hauslm.web.room import PAGE_OF, Room, fields_of

LOOK_EVERY_S = 0.5
RESUMABLE = 75


def routes(room: Room) -> APIRouter:
    api = APIRouter()

    @api.get("/training")
    def training(request: Request) -> Response:
        from hauslm.views import chapters

        project = room.project()
        found = flow.STAGES["train"]
        record = flow.load_record(project, found.record)
        language = room.language(request)
        running = room.jobs.runs("train")
        return room.page(
            request,
            "training.html.j2",
            stage=found,
            state=flow.state(project, found),
            now=_live(room, request, running) if running or record is None else None,
            training=running,
            mine=_last_training(room),
            resumable=_resumable(project),
            body=chapters.chapter(record, language) if record is not None and not running else "",
            tiles=chapters.tiles(record, language) if record is not None else [],
        )

    @api.get("/training/events")
    async def events(request: Request) -> Response:
        return StreamingResponse(_follow_training(room, request), media_type="text/event-stream")

    @api.post("/training/start")
    async def start(request: Request) -> Response:
        fresh = (await fields_of(request)).get("fresh", "") == "1"
        options = ("--fresh",) if fresh else ()
        room.jobs.start("train", room.language(request), options)
        return RedirectResponse("/training", 303)

    @api.post("/stage/{name}/run")
    async def run(request: Request, name: str) -> Response:
        stage = name if name == "run" else flow.stage_named(name).name
        room.jobs.start(stage, room.language(request))
        return RedirectResponse("/training" if stage == "train" else "/job", 303)

    @api.get("/job")
    def job(request: Request) -> Response:
        current = room.jobs.current
        lines = current.lines() if current is not None else []
        result = PAGE_OF.get(current.stage, "") if current is not None else ""
        return room.page(request, "job.html.j2", lines=lines, result=result)

    @api.post("/job/stop")
    async def stop(request: Request) -> Response:
        back = (await fields_of(request)).get("back", "")
        room.jobs.stop()
        return RedirectResponse("/training" if back == "/training" else "/job", 303)

    @api.get("/job/events")
    async def job_events(request: Request) -> Response:
        return StreamingResponse(follow(room, request), media_type="text/event-stream")

    return api


def _last_training(room: Room) -> Any:
    job = room.jobs.current
    return job if job is not None and job.stage in ("train", "run") else None


def _resumable(project: flow.Project) -> bool:
    """There are checkpoints of a run that has not left its record."""
    missing = flow.state(project, flow.STAGES["train"]) == "missing"
    return missing and any((project.folder.work / "train" / "checkpoints").glob("*"))


def _live(room: Room, request: Request, running: bool) -> Any:
    from hauslm.views import training

    job = room.jobs.current
    memory = training.resident_gib(job.pid) if running and job is not None else None
    since = job.started if running and job is not None else 0.0
    return training.live(
        room.project().folder,
        room.language(request),
        running=running,
        memory_gib=memory,
        since=since,
    )


def _piece(room: Room, request: Request) -> dict[str, Any]:
    """The live part of the page, and whether the run goes on."""
    running = room.jobs.runs("train")
    now = _live(room, request, running)
    job = room.jobs.current
    return {
        "html": room.text(request, "live.html.j2", now=now, training=running, mine=_last_training(room)),
        "running": running,
        "log": job.lines()[-12:] if job is not None else [],
    }  # fmt: skip


async def _follow_training(room: Room, request: Request) -> AsyncIterator[str]:
    """Server-sent events: the live part whenever something new is there, and the end."""
    last = ""
    while not await request.is_disconnected():
        piece = await run_in_threadpool(_piece, room, request)
        text = json.dumps({k: piece[k] for k in ("html", "log")}, ensure_ascii=False)
        if text != last:
            last = text
            yield f"data: {text}\n\n"
        if not piece["running"]:
            job = room.jobs.current
            yield f"event: end\ndata: {json.dumps(job.exit_code if job else None)}\n\n"
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def follow(room: Room, request: Request) -> AsyncIterator[str]:
    """Server-sent events: each new line of the job's log, then its exit code."""
    sent = 0
    while not await request.is_disconnected():
        job = room.jobs.current
        if job is None:
            yield "event: end\ndata: null\n\n"
            return
        ended = job.exit_code
        for line in job.lines(sent):
            sent += 1
            yield f"data: {json.dumps(line)}\n\n"
        if ended is not None:
            yield f"event: end\ndata: {ended}\n\n"
            return
        await asyncio.sleep(LOOK_EVERY_S)
