"""Who may speak to the server, and how much may they say? Looked at before anything is parsed.

A web page in a browser on this machine can reach loopback; what it must never do is speak to the
model. Hence a Host allow-list (DNS rebinding), no foreign Origin, no CORS headers, a bearer token
compared in constant time, JSON only (a form cannot send it), a bounded body. `/healthz` alone needs
no token. Everything that goes wrong inside is told in OpenAI's shape, never as a traceback.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request

from hauslm.base.words import say
from hauslm.serve.metrics import Metrics
from hauslm.serve.refusal import ApiError, of_error

log = logging.getLogger("hauslm.serve")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
OPEN_PATHS = ("/healthz",)
DRAINED_BYTES = 1 << 16  # of a refused request's body; more is cut off by closing
DRAIN_S = 1.0
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?\Z")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class _Body:
    """The request's body on its way to the application: has all of it arrived?"""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """Read away a body that nobody wants, within bounds; True if none of it is left.

        An answer sent while the client still writes is lost: closing resets the connection.
        """
        left = DRAINED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self.complete and left > 0:
                    left -= len((await self()).get("body", b""))
        return self.complete


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: App,
        *,
        token: str,
        host_names: Iterable[str],
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._host_names = frozenset(n.lower() for n in host_names)
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        # Nothing else exists: the server runs without WebSockets.

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        status = 0
        request_id = secrets.token_hex(12).encode()

        async def observed(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*_HEADERS, (b"x-request-id", request_id)]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        body = _Body(receive)
        try:
            self._check(scope)
            await self._app(scope, body, observed)
        except ApiError as refusal:
            if not await body.drain():
                # Too much of it is still to come: closing is the only way to be rid of it.
                refusal.headers = {**refusal.headers, "connection": "close"}
            await refusal.response()(scope, receive, observed)
        except ClientDisconnect:
            log.info("request %s: the client is gone", request_id.decode())
        except Exception as error:
            log.exception("request %s failed", request_id.decode())
            if status == 0:
                await of_error(error, "messages").response()(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.add("hauslm_http_requests_total", route=route, status=str(status or 499))
            self._metrics.observe("hauslm_http_request_seconds", time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = self._check_host(headers.get(b"host", []))
        _check_origin(headers, scope.get("scheme", "http"), host)
        if scope["path"] not in OPEN_PATHS:
            self._check_token(headers.get(b"authorization", []))
        if scope["method"] in ("POST", "PUT", "PATCH"):
            self._check_body(headers)

    def _check_host(self, given: list[bytes]) -> str:
        host = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        match = _HOST.match(host)
        if match is None or match.group(1) not in self._host_names:
            raise ApiError(
                421,
                say("This server is not known under this host name."),
                None,
                "misdirected_request",
            )
        return host

    def _check_token(self, given: list[bytes]) -> None:
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        right = hmac.compare_digest(token.strip(), self._token)
        if scheme.lower() != b"bearer" or not right:
            raise ApiError(
                401,
                say("The token is missing or wrong; send 'Authorization: Bearer TOKEN'."),
                None,
                "invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _check_body(self, headers: dict[bytes, list[bytes]]) -> None:
        kind = b",".join(headers.get(b"content-type", [])).lower().replace(b" ", b"")
        if kind not in (b"application/json", b"application/json;charset=utf-8"):
            raise ApiError(
                415,
                say("The body must be application/json."),
                None,
                "unsupported_media_type",
            )
        if headers.get(b"content-encoding", [b"identity"]) != [b"identity"]:
            raise ApiError(
                415, say("A compressed body is not accepted."), None, "unsupported_media_type"
            )
        length = headers.get(b"content-length", [b"0"])[0]
        if not length.isdigit() or int(length[:20]) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)


def _check_origin(headers: dict[bytes, list[bytes]], scheme: str, host: str) -> None:
    """Programs send no Origin; a browser does, and then it must be this server's own page."""
    origins = [o.decode("latin-1").lower() for o in headers.get(b"origin", [])]
    site = headers.get(b"sec-fetch-site", [b"none"])[0]
    if any(o != f"{scheme}://{host}" for o in origins) or site not in (b"none", b"same-origin"):
        raise ApiError(
            403, say("Requests from other web pages are refused."), None, "forbidden_origin"
        )


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        say("The body is larger than {kib:,} KiB.", kib=limit_bytes // 1024),
        None,
        "body_too_large",
    )


async def read_body(request: Request, limit_bytes: int, timeout_s: float) -> bytes:
    """The body, however it arrives: 413 beyond the limit, 408 if it dawdles."""
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                size += len(piece)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                pieces.append(piece)
    except TimeoutError as error:
        raise ApiError(
            408,
            say("The body did not arrive within {seconds:g} seconds.", seconds=timeout_s),
            None,
            "request_timeout",
        ) from error
    return b"".join(pieces)
