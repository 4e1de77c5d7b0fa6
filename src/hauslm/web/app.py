"""Which pages are there, and who serves them? Routes by topic, errors as pages, one port on this machine.

Server-rendered; the charts are the report's drawings. Small scripts of our own make the live parts live;
nothing is loaded from anywhere else. Stages go through `flow`, as in the command line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hauslm import flow
from hauslm.base.errors import HauslmError, MissingError
from hauslm.base.fault import own_fault
from hauslm.base.listen import LOCAL_NAMES, is_loopback, place
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.web.guard import COOKIE, Guard, new_token
from hauslm.web.pages import articles, chat, decision, stages, training
from hauslm.web.room import HERE, Room
from hauslm.web.talk import Talk

GRACE_S = 5  # an open browser must not hold up Ctrl-C

log = logging.getLogger("hauslm.web")


def create_app(
    folder: Path,
    *,
    token: str,
    port: int,
    names: Iterable[str] = LOCAL_NAMES,
    warm: bool = False,
) -> Any:
    """The ASGI application for the project in `folder`.

    `names`: hosts it may be called by; `warm`: load what the first pages need.
    """
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
    return Guard(app, token, port, names)


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
        ours = own_fault(error, room.folder / "logs", f"web {request.url.path}")
        return room.page(
            request, "error.html.j2", 500, error=ours, code=room.language(request), missing=False
        )


def run(
    folder: Path,
    *,
    port: int,
    host: str = "127.0.0.1",
    allow_network: bool = False,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    progress: Progress,
) -> None:
    """Serve the pages until interrupted. H540 if the port is taken; H112, H113, H413 as in
    `base.listen.place`, which tells what another address than this machine's needs."""
    import socket

    import uvicorn

    at = place(host, allow_network=allow_network, tls_cert=tls_cert, tls_key=tls_key)
    flow.Project.load(folder)  # a missing or faulty project file is told before anything listens
    token = new_token()
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    try:
        listener = socket.create_server((at.host, port), family=family)
    except OSError as error:
        raise MissingError(
            "H540",
            say("Port {port} is taken.", port=str(port)),
            next_step=say("Choose another one with --port."),
        ) from error
    url = f"{at.url(port)}/?token={token}"
    progress.say(
        say("Open {url} (this machine only); Ctrl-C ends it.", url=url)
        if is_loopback(at.host)
        else say("Open {url} (encrypted, reachable from the network); Ctrl-C ends it.", url=url)
    )
    config = uvicorn.Config(
        create_app(folder.resolve(), token=token, port=port, names=at.names, warm=True),
        log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
        http="h11",  # refuses endless heads by itself; pages need no faster one
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=at.tls.cert if at.tls else None, ssl_keyfile=at.tls.key if at.tls else None,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


__all__ = ["COOKIE", "create_app", "run"]
