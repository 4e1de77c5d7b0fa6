"""How does a request for an answer reach its endpoint? Straight, where FastAPI would take a detour.

FastAPI solves dependencies and forms, keeps two exit stacks and wraps `send` once more on the way to an
endpoint that takes the request as it is: a quarter of what the event loop spent on a whole answer. The
routes stay registered there, for the OpenAPI document, other methods and paths below a mount.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.routing import APIRoute
from starlette.requests import Request

from hauslm.serve.guard import App, Receive, Scope, Send
from hauslm.serve.refusal import ApiError


class Direct:
    """ASGI middleware inside the guard: POSTs to `routes` (by path) go to their endpoints."""

    def __init__(self, app: App, routes: Mapping[str, APIRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "POST"
        route = self._routes.get(scope["path"]) if asked else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route  # as the router does; the metrics count by it
        try:
            response = await route.endpoint(Request(scope, receive))
        except ApiError as refusal:
            response = refusal.response()
        await response(scope, receive, send)
