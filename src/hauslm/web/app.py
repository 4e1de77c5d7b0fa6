"""Which pages are there? Overview, one page per stage, the scenario as a form, the report.

Server-rendered; the charts are the report's SVG drawings. One small script of our own follows a running
job; without it every page still works after a reload. All stages go through `flow`, as in the CLI.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.responses import Response

from hauslm import flow
from hauslm.base import words
from hauslm.base.errors import HauslmError, MissingError
from hauslm.base.listen import LOCAL_NAMES, is_loopback, place
from hauslm.base.progress import Progress
from hauslm.base.words import say, speaking, translate
from hauslm.web.guard import COOKIE, Guard, new_token
from hauslm.web.jobs import Jobs

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "hauslm_language"
GRACE_S = 5  # an open browser must not hold up Ctrl-C


def create_app(folder: Path, *, token: str, port: int, names: Iterable[str] = LOCAL_NAMES) -> Any:
    """The ASGI application for the project in `folder`; `names`: hosts it may be called by."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(default=True)
    )
    jobs = Jobs(folder)

    def language_of(request: Request) -> str:
        code = request.cookies.get(LANGUAGE_COOKIE, "")
        return code if code in words.available_languages() else words.language()

    def render(request: Request, page: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        code = language_of(request)
        with speaking(code):
            text = pages.get_template(page).render(
                _=lambda t: translate(t, code),
                language=code,
                languages=words.available_languages(),
                path=request.url.path,
                stages=list(flow.STAGES.values()),
                stage_title=lambda s: translate(s.title, code),
                job=jobs.current,
                running=jobs.running,
                **values,
            )
        return HTMLResponse(text, status)

    def failed(request: Request, error: HauslmError) -> HTMLResponse:
        return render(request, "error.html.j2", 400, message=error.text(language_of(request)))

    @app.exception_handler(HauslmError)
    async def _told(request: Request, error: HauslmError) -> Response:
        return failed(request, error)

    @app.get("/")
    def overview(request: Request) -> Response:
        project = flow.Project.load(folder)
        states = {s.name: flow.state(project, s) for s in flow.STAGES.values()}
        report = (project.folder.report / "report.html").is_file()
        return render(
            request, "overview.html.j2", name=project.scenario.name, states=states, report=report,
            folder=str(project.folder.root),
        )  # fmt: skip

    @app.get("/stage/{name}")
    def stage(request: Request, name: str) -> Response:
        found = flow.stage_named(name)
        project = flow.Project.load(folder)
        body = flow.stage_html(project, found, language_of(request))
        return render(
            request, "stage.html.j2", stage=found, body=body, state=flow.state(project, found)
        )

    @app.post("/stage/{name}/run")
    async def start(request: Request, name: str) -> Response:
        stage_name = name if name == "run" else flow.stage_named(name).name
        jobs.start(stage_name, language_of(request))
        return RedirectResponse("/job", 303)

    @app.get("/job")
    def job(request: Request) -> Response:
        return render(request, "job.html.j2", lines=jobs.current.lines() if jobs.current else [])

    @app.post("/job/stop")
    async def stop() -> Response:
        jobs.stop()
        return RedirectResponse("/job", 303)

    @app.get("/job/events")
    async def events(request: Request) -> Response:
        return StreamingResponse(_follow(request, jobs), media_type="text/event-stream")

    @app.get("/scenario")
    def scenario(request: Request) -> Response:
        project = flow.Project.load(folder)
        return render(request, "scenario.html.j2", fields=flow.scenario_form(project), message="")

    @app.post("/scenario")
    async def change(request: Request) -> Response:
        from urllib.parse import parse_qsl

        raw = (await request.body()).decode("utf-8", "replace")
        answers = dict(parse_qsl(raw, keep_blank_values=True, max_num_fields=64))
        try:
            flow.change_scenario(folder, answers)
        except HauslmError as error:
            project = flow.Project.load(folder)
            return render(
                request, "scenario.html.j2", 400, fields=flow.scenario_form(project, answers),
                message=error.text(language_of(request)),
            )  # fmt: skip
        jobs.start("decide", language_of(request))
        return RedirectResponse("/job", 303)

    @app.get("/report")
    def report(request: Request) -> Response:
        project = flow.Project.load(folder)
        files = flow.report(project, formats=("html",), language=language_of(request))
        # The report carries its style inside; its own policy allows that and nothing else.
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        return HTMLResponse(
            files["html"].read_text(encoding="utf-8"), headers={"Content-Security-Policy": policy}
        )

    @app.post("/language/{code}")
    async def choose(code: str) -> Response:
        answer = RedirectResponse("/", 303)
        if code in words.available_languages():
            answer.set_cookie(LANGUAGE_COOKIE, code, samesite="strict")
        return answer

    return Guard(app, token, port, names)


async def _follow(request: Request, jobs: Jobs) -> AsyncIterator[str]:
    """Server-sent events: each new line of the job's log, then its exit code."""
    sent = 0
    while not await request.is_disconnected():
        job = jobs.current
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
        await asyncio.sleep(0.4)


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
            say("Port {port} is taken.", port=port),
            next_step=say("Choose another one with --port."),
        ) from error
    url = f"{at.url(port)}/?token={token}"
    progress.say(
        say("Open {url} (this machine only); Ctrl-C ends it.", url=url)
        if is_loopback(at.host)
        else say("Open {url} (encrypted, reachable from the network); Ctrl-C ends it.", url=url)
    )
    config = uvicorn.Config(
        create_app(folder.resolve(), token=token, port=port, names=at.names),
        log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=at.tls.cert if at.tls else None, ssl_keyfile=at.tls.key if at.tls else None,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


__all__ = ["COOKIE", "create_app", "run"]
