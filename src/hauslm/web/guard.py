"""Who may talk to the pages? This machine's browser with the token, under its own name, from its own page.

Checked before any route: Host (against DNS rebinding), Origin on every change (against other sites),
the random token (against other users of the machine), the size of what is sent. Every answer carries a
policy that lets a browser load nothing from anywhere else.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse

from hauslm.base.listen import LOCAL_NAMES

COOKIE = "hauslm_web"
MAX_BODY_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20  # an article that is dropped on its page
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, token: str, port: int, names: Iterable[str] = LOCAL_NAMES) -> None:
        self.app = app
        self.token = token
        self.hosts = {f"{name}:{port}" for name in names}
        self.port = port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["Content-Security-Policy"] = out.get("Content-Security-Policy", POLICY)
                out["X-Content-Type-Options"] = "nosniff"
                # Not "no-referrer": browsers then call the origin of our own forms "null".
                out["Referrer-Policy"] = "same-origin"
                out["Cache-Control"] = "no-store"
            await send(message)

        await self.app(scope, receive, with_policy)

    def _refusal(self, scope: Any, headers: Headers) -> Any:
        scheme = scope.get("scheme", "http")
        if headers.get("host", "").lower() not in self.hosts:
            return PlainTextResponse("unknown host", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("method not allowed", 405)
        if scope["method"] == "POST":
            if headers.get("origin", "").lower() not in {f"{scheme}://{h}" for h in self.hosts}:
                return PlainTextResponse("foreign origin", 403)
            try:
                length = int(headers.get("content-length", ""))
            except ValueError:
                return PlainTextResponse("length required", 411)
            most = MAX_FILE_BYTES if scope["path"] == "/articles" else MAX_BODY_BYTES
            if not 0 <= length <= most:
                return PlainTextResponse("too large", 413)
        given = QueryParams(scope["query_string"]).get("token", "")
        if given and hmac.compare_digest(given.encode(), self.token.encode()):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(
                COOKIE, self.token, httponly=True, samesite="strict", secure=scheme == "https"
            )
            return answer
        cookie = _cookies(headers.get("cookie", "")).get(COOKIE, "")
        if not hmac.compare_digest(cookie.encode(), self.token.encode()):
            return PlainTextResponse(
                "open the address with its token, as hauslm web printed it", 401
            )
        return None


def _cookies(header: str) -> dict[str, str]:
    pairs = (p.strip().split("=", 1) for p in header.split(";") if "=" in p)
    return {k: v.strip('"') for k, v in pairs}


def new_token() -> str:
    return secrets.token_urlsafe(32)
