"""Which pages are there, and who serves them? Routes by topic, errors as pages, one port on this machine.

Server-rendered; the charts are the report's drawings. Small scripts of our own make the live parts live;
nothing is loaded from anywhere else. Stages go through `flow`, as in the command line.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hauslm import flow
from hauslm.base.errors import HauslmError, MissingError
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.web.guard import COOKIE, Guard, new_token
from hauslm.web.pages import articles, chat, decision, stages, training
from hauslm.web.room import HERE, Room
from hauslm.web.talk import Talk

log = logging.getLogger("hauslm.web")


def create_app(folder: Path, *, token: str, port: int, warm: bool = False) -> Any:
    """The ASGI application for the project in `folder`. `warm`: load what the first pages need."""
    room, talk = Room(folder), Talk(folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if warm:
            room.warm()
        idle = asyncio.create_task(_end_idle(talk))
        yield
        idle.cancel()
        talk.stop()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for router in (
        stages.routes(room), decision.routes(room), training.routes(room), chat.routes(room, talk),
        articles.routes(room),
    ):  # fmt: skip
        app.include_router(router)
    _tell_errors(app, room)
    return Guard(app, token, port)


async def _end_idle(talk: Talk) -> None:
    while True:
        await asyncio.sleep(30)
        talk.stop_if_idle()


def _tell_errors(app: FastAPI, room: Room) -> None:
    """Every failure is a page with sentences; tracebacks go to `logs/`."""

    @app.exception_handler(HauslmError)
    async def told(request: Request, error: HauslmError) -> Response:
        return room.page(
            request, "error.html.j2", 400, error=error, code=room.language(request), missing=False
        )

    @app.exception_handler(HTTPException)
    async def missing(request: Request, error: HTTPException) -> Response:
        return room.page(
            request, "error.html.j2", error.status_code, error=None, code=room.language(request),
            missing=error.status_code == 404,
        )  # fmt: skip

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        path = room.folder / "logs" / f"error-{time.strftime('%Y%m%d-%H%M%S')}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        ours = HauslmError(
            "H901",
            say("hauslm met a fault of its own ({kind}: {reason}).",
                kind=type(error).__name__, reason=str(error)[:200]),
            where=str(path),
            next_step=say("Please report it with the file named above; your records are unharmed."),
        )  # fmt: skip
        return room.page(
            request, "error.html.j2", 500, error=ours, code=room.language(request), missing=False
        )


def run(folder: Path, *, port: int, progress: Progress) -> None:
    """Serve the pages on 127.0.0.1 until interrupted. H540 if the port is taken."""
    import socket

    import uvicorn

    flow.Project.load(folder)  # a missing or faulty project file is told before anything listens
    token = new_token()
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise MissingError(
            "H540",
            say("Port {port} is taken.", port=str(port)),
            next_step=say("Choose another one with --port."),
        ) from error
    progress.say(
        say(
            "Open {url} (this machine only); Ctrl-C ends it.",
            url=f"http://127.0.0.1:{port}/?token={token}",
        )
    )
    config = uvicorn.Config(
        create_app(folder.resolve(), token=token, port=port, warm=True), log_level="warning",
        access_log=False, server_header=False, timeout_graceful_shutdown=3,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


__all__ = ["COOKIE", "create_app", "run"]
