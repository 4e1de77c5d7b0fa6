"""*Chat*: the same question to base and adapter, both answers as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.responses import Response

from hauslm import flow
from hauslm.base.errors import UsageError
from hauslm.base.words import say
from hauslm.web.room import Room
from hauslm.web.talk import Talk

MOST_SIDES = 4
BASE = "base"


def routes(room: Room, talk: Talk) -> APIRouter:
    api = APIRouter()

    @api.get("/chat")
    def show(request: Request) -> Response:
        project = room.project()
        run = flow.load_record(project, "run")
        trained = run is not None and (project.folder.root / run.adapter.path).exists()
        return room.page(
            request, "chat.html.j2", talk=talk.state, trained=trained,
            model=project.scenario.model.base,
        )  # fmt: skip

    @api.post("/chat/start")
    async def start(request: Request) -> Response:
        talk.start(room.language(request))
        return RedirectResponse("/chat", 303)

    @api.post("/chat/stop")
    async def stop() -> Response:
        await asyncio.to_thread(talk.stop)
        return RedirectResponse("/chat", 303)

    @api.get("/chat/state")
    async def state(request: Request) -> Response:
        return StreamingResponse(_loading(request, talk), media_type="text/event-stream")

    @api.post("/chat/ask")
    async def ask(request: Request) -> Response:
        orders = _orders(await request.body())
        if talk.state.get("event") != "ready":
            text = say("The model is not loaded.").text(room.language(request))
            return JSONResponse({"error": text}, 409)
        return StreamingResponse(_answers(talk, orders), media_type="text/event-stream")

    return api


def _orders(raw: bytes) -> list[dict[str, Any]]:
    """One order per side. H543 for what is no question."""
    try:
        body = json.loads(raw)
        sides = body["sides"]
        if not isinstance(sides, dict) or not 0 < len(sides) <= MOST_SIDES:
            raise TypeError
        return [
            {
                "side": str(side),
                "messages": [
                    {"role": str(m["role"]), "content": str(m["content"])} for m in messages
                ],
                "max_new_tokens": int(body.get("max_new_tokens", 200)),
                "temperature": float(body.get("temperature", 0.0)),
            }
            for side, messages in sides.items()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("H543", say("This is no question that can be answered.")) from error


async def _loading(request: Request, talk: Talk) -> AsyncIterator[str]:
    """Server-sent events: how far the loading is, until it is ready or has failed."""
    last = ""
    while not await request.is_disconnected():
        state = dict(talk.state)
        text = json.dumps(state, ensure_ascii=False)
        if text != last:
            last = text
            yield f"data: {text}\n\n"
        if state.get("event") != "loading":
            yield f"event: end\ndata: {json.dumps(state.get('event'))}\n\n"
            return
        await asyncio.sleep(0.2)


async def _answers(talk: Talk, orders: list[dict[str, Any]]) -> AsyncIterator[str]:
    async for event in talk.ask(orders):
        yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
