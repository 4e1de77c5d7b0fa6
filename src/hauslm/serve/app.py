"""`hauslm serve`: the base model and the adapters behind the OpenAI API, by default on this machine only.

    create_app(model, token=...)     the application, for tests and other servers
    serve(scenario, folder, run=...) loads, checks, listens; returns when it is stopped

Offered: /v1/models, /v1/chat/completions, /v1/completions (both with streaming), loading and
unloading adapters under vLLM's names, /healthz, /metrics. Refused: embeddings, and every parameter
that cannot be obeyed. What a request may ask for stands in `wire`, who may ask in `guard`, in which
order it is answered in `engine`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from hauslm.base.errors import HauslmError, UsageError, did_you_mean
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress, Silent
from hauslm.base.version import __version__
from hauslm.base.words import say
from hauslm.lm.interface import BASE, LanguageModel
from hauslm.lm.interface import Request as ModelRequest
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.serve import answering, selfcheck, wire
from hauslm.serve.direct import Direct
from hauslm.serve.documented import responses_of
from hauslm.serve.engine import Closing, Engine
from hauslm.serve.guard import LOOPBACK_NAMES, Guard, read_body
from hauslm.serve.metrics import CONTENT_TYPE, server_metrics
from hauslm.serve.refusal import ApiError, invalid, of_error, unsupported
from hauslm.serve.shapes import Shape
from hauslm.serve.streams import EventStream

MAX_BODY_BYTES = 1 << 20
REQUEST_TIMEOUT_S = 600.0
BODY_TIMEOUT_S = 30.0
OFTEN = ("/v1/chat/completions", "/v1/completions")  # take the short way, see `direct`
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def serve(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run | None,
    port: int | None = None,
    host: str | None = None,
    allow_network: bool = False,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Serve the project's base model, and its adapter if there is one, until Ctrl-C or SIGTERM.

    Listens on `host` or `serving.host` (another address than this machine's needs `allow_network` and
    TLS: H112, H113, H413) and `port` or `serving.port` (H851 if taken). Says through `progress` where it listens and where the token lies; prints nothing.
    Raises what loading raises, and H853-H856 if base, adapter or tokenizer are not those of the
    training or do not work as they should.
    """
    if scenario.serving.engine == "vllm":
        from hauslm.serve.vllm import start as start_vllm

        if host is not None or allow_network or tls_cert is not None or tls_key is not None:
            raise UsageError(
                "H869",
                say(
                    "With vLLM hauslm serves this machine only; host and TLS options do not apply."
                ),
                next_step=say("Leave them out, or set serving.engine to transformers."),
            )
        start_vllm(scenario, folder, run=run, port=port, progress=progress or Silent())
        return
    from hauslm.serve.start import start

    start(
        scenario, folder, run=run, port=port, host=host, allow_network=allow_network,
        tls_cert=tls_cert, tls_key=tls_key, progress=progress,
    )  # fmt: skip


def create_app(
    model: LanguageModel,
    *,
    token: str,
    host_names: Iterable[str] = LOOPBACK_NAMES,
    max_queue: int = 64,
    batch_size: int = 8,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    body_timeout_s: float = BODY_TIMEOUT_S,
    max_body_bytes: int = MAX_BODY_BYTES,
    adapter_root: Path | None = None,
    fingerprint: str | None = None,
) -> FastAPI:
    """The application around `model`; its engine runs while the application's lifespan does.

    `max_queue`: answers that may wait before 429. `batch_size`: answers written at once.
    `adapter_root`: folder below which adapters may be loaded from while running; None: none may.
    """
    room = _Room(
        model, max_queue, batch_size, request_timeout_s, body_timeout_s, max_body_bytes,
        adapter_root, fingerprint,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        room.mailbox = answering.Mailbox()
        room.engine.start()
        yield
        await run_in_threadpool(room.engine.close)

    app = FastAPI(
        title="hauslm",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={ApiError: _refusal, HTTPException: _no_such_route},
    )
    _add_routes(app, room)
    often = {r.path: r for r in app.routes if isinstance(r, APIRoute) and r.path in OFTEN}
    app.add_middleware(Direct, routes=often)
    app.add_middleware(
        Guard,
        token=token,
        host_names=tuple(host_names),
        max_body_bytes=max_body_bytes,
        metrics=room.metrics,
    )
    app.state.engine = room.engine
    app.state.metrics = room.metrics
    return app


async def _refusal(_: Request, error: Exception) -> Response:
    return of_error(error, "messages").response()


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    status = error.status_code
    refusal = ApiError(
        status,
        say("{method} {path} does not exist here.", method=request.method, path=request.url.path),
        None,
        "method_not_allowed" if status == 405 else "not_found",
        headers=error.headers or {},
    )
    return refusal.response()


def _add_routes(app: FastAPI, room: _Room) -> None:
    def add(path: str, endpoint: Any, method: str, body: Mapping[str, Any] | None = None) -> None:
        documented = {"requestBody": _json_body(body)} if body is not None else {}
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            responses=responses_of(path),
            openapi_extra=documented,
            response_model=None,
        )

    add("/v1/chat/completions", room.chat, "POST", wire.ChatBody.model_json_schema())
    add("/v1/completions", room.completions, "POST", wire.TextBody.model_json_schema())
    add("/healthz", room.health, "GET")
    add("/metrics", room.metrics_page, "GET")
    add("/v1/models", room.models, "GET")
    add("/v1/models/{model_id:path}", room.one_model, "GET")
    add("/v1/embeddings", room.embeddings, "POST", {"type": "object"})
    add("/v1/load_lora_adapter", room.load_adapter, "POST", _adapter_schema("lora_path"))
    add("/v1/unload_lora_adapter", room.unload_adapter, "POST", _adapter_schema())


def _json_body(schema: Mapping[str, Any]) -> dict[str, Any]:
    inlined = {k: v for k, v in schema.items() if k != "$defs"}
    options = schema.get("$defs", {}).get("StreamOptions")
    if options is not None:
        properties = {
            **inlined["properties"],
            "stream_options": {"anyOf": [options, {"type": "null"}]},
        }
        inlined["properties"] = properties
    return {"required": True, "content": {"application/json": {"schema": inlined}}}


def _adapter_schema(*more: str) -> dict[str, Any]:
    names = ("lora_name", *more)
    return {
        "type": "object",
        "required": list(names),
        "properties": {n: {"type": "string"} for n in names},
        "additionalProperties": False,
    }


class _Room:
    """What the endpoints share."""

    def __init__(
        self,
        model: LanguageModel,
        max_queue: int,
        batch_size: int,
        request_timeout_s: float,
        body_timeout_s: float,
        max_body_bytes: int,
        adapter_root: Path | None,
        fingerprint: str | None,
    ) -> None:
        self.model = model
        self.metrics = server_metrics()
        self.engine = Engine(model, self.metrics, max_queue=max_queue, batch_size=batch_size)
        self.mailbox: answering.Mailbox | None = None  # made when the event loop runs
        self._request_timeout_s = request_timeout_s
        self._body_timeout_s = body_timeout_s
        self._max_body_bytes = max_body_bytes
        self._adapter_root = adapter_root
        self._fingerprint = fingerprint
        self._created = int(time.time())
        gauge = self.metrics.gauge
        gauge("hauslm_queue_waiting", "Answers that wait for a place.", lambda: self.engine.waiting)
        gauge("hauslm_batch_rows", "Answers being written.", lambda: self.engine.running)
        gauge("hauslm_batch_size", "Places in the batch.", lambda: self.engine.batch_size)
        if model.name in model.adapters():
            raise UsageError(
                "H858", say("An adapter cannot be called '{name}' here.", name=model.name)
            )

    # ------------------------------------------------------------ small ones

    async def health(self) -> Response:
        """Alive and answering? 503 while stopping or after the engine has died."""
        alive = self.engine.alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def metrics_page(self) -> Response:
        return PlainTextResponse(self.metrics.page(), media_type=CONTENT_TYPE)

    def _model_object(self, model_id: str) -> dict[str, Any]:
        is_base = model_id == self.model.name
        return {
            "id": model_id,
            "object": "model",
            "created": self._created,
            "owned_by": "hauslm",
            "root": self.model.name,
            "parent": None if is_base else self.model.name,
            "max_model_len": self.model.context_length,
        }

    async def models(self) -> Response:
        """The base model, then its adapters."""
        ids = (self.model.name, *self.model.adapters())
        return JSONResponse({"object": "list", "data": [self._model_object(i) for i in ids]})

    async def one_model(self, model_id: str) -> Response:
        self._adapter_of(model_id)
        return JSONResponse(self._model_object(model_id))

    async def embeddings(self) -> Response:
        """Always a 400: a causal model's states are no embeddings anybody has evaluated."""
        raise ApiError(
            400,
            say("This server has no embedding model, and a chat model is none."),
            "model",
            "unsupported_endpoint",
        )

    def _adapter_of(self, model_id: str) -> str:
        if model_id == self.model.name:
            return BASE
        known = self.model.adapters()
        if model_id not in known:
            raise ApiError(
                404,
                say(
                    "There is no model called '{name}' here. {hint}",
                    name=model_id[:100],
                    hint=did_you_mean(model_id[:100], (self.model.name, *known)),
                ),
                "model",
                "model_not_found",
            )
        return model_id

    async def _body(self, request: Request) -> dict[str, Any]:
        raw = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        return wire.parse_json(raw)

    # ------------------------------------------------------------ answers

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, wire.chat_ask(await self._body(request)))

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, wire.text_ask(await self._body(request)))

    async def _answer(self, request: Request, ask: wire.Ask) -> Response:
        if len(ask.requests) > self.engine.most_at_once:
            raise invalid(
                "n",
                say("more answers than fit the queue ({count}).", count=self.engine.most_at_once),
            )
        adapter = self._adapter_of(ask.model)
        # Counting a prompt's tokens takes as long as the prompt is long; the rest takes no thread.
        ready = ask
        if adapter != BASE:  # which requests ask for by themselves
            ready = replace(ask, requests=tuple(replace(r, adapter=adapter) for r in ask.requests))
        if ask.open_length:
            ready = await run_in_threadpool(self._with_length, ready)
        if self.mailbox is None:
            raise answering.stopping()  # the lifespan has not begun
        under_way = answering.Answering(
            self.engine, self.mailbox, ready, self._request_timeout_s, request.receive
        )
        shape = Shape(ready, self._fingerprint)
        streaming = False
        try:
            if not ready.stream:
                return JSONResponse(shape.whole(await answering.all_replies(under_way)))
            first = await under_way.next()
            streaming = True
            return EventStream(under_way, shape, ready, first)
        except answering.ClientGone:
            return Response(status_code=499)  # nobody reads it; the metrics do
        finally:
            if not streaming:
                under_way.close()

    def _with_length(self, ask: wire.Ask) -> wire.Ask:
        """No limit was set: the room that the context leaves is one."""
        room = self._room_for(ask.requests[0], ask)
        return replace(ask, requests=tuple(replace(r, max_new_tokens=room) for r in ask.requests))

    def _room_for(self, request: ModelRequest, ask: wire.Ask) -> int:
        """Tokens that an answer may have, at least 1; if even that is too much, the model refuses."""
        exact: Any = getattr(self.model, "prompt_ids", None)
        try:
            if exact is not None:
                used = len(exact(replace(request, max_new_tokens=1)))
            else:
                used = self.model.count_tokens(self.model.render(request.messages))
        except Exception as error:
            raise of_error(error, ask.prompt_param) from error
        return max(1, self.model.context_length - used)

    # ------------------------------------------------------------ adapters while running

    async def load_adapter(self, request: Request) -> Response:
        """Load one more adapter: {"lora_name", "lora_path"}, the path inside the project folder."""
        body = await self._body(request)
        name, path = _strings(body, "lora_name", "lora_path")
        load: Any = getattr(self.model, "load_adapter", None)
        if self._adapter_root is None or load is None:
            raise unsupported("lora_path")
        if not _ADAPTER_NAME.match(name) or name in (BASE, self.model.name):
            raise invalid("lora_name", say("letters, digits, '.', '_' and '-', and not the base."))
        if name in self.model.adapters():
            raise ApiError(
                409, say("'{name}' is loaded already.", name=name), "lora_name", "exists"
            )
        root = self._adapter_root.resolve()
        if "\0" in path or not (target := (root / path).resolve()).is_relative_to(root):
            raise invalid("lora_path", say("it lies outside the project folder."))

        def action() -> None:
            load(name, target)
            try:
                selfcheck.check(self.model, only=name)
            except BaseException:
                self._unload(name)
                raise

        await self._between_steps(action, None)
        return JSONResponse({"status": "loaded", "id": name})

    async def unload_adapter(self, request: Request) -> Response:
        """Take an adapter away, {"lora_name"}, once the answers that use it are written."""
        body = await self._body(request)
        (name,) = _strings(body, "lora_name")
        if self._adapter_root is None or not hasattr(self.model, "unload_adapter"):
            raise unsupported("lora_name")
        if self._adapter_of(name) == BASE:
            raise invalid("lora_name", say("the base model cannot be unloaded."))
        await self._between_steps(lambda: self._unload(name), name)
        return JSONResponse({"status": "unloaded", "id": name})

    def _unload(self, name: str) -> None:
        unload: Any = getattr(self.model, "unload_adapter")  # noqa: B009 - not part of the seam
        unload(name)

    async def _between_steps(self, action: Any, adapter: str | None) -> None:
        future = self.engine.between_steps(action, adapter)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await asyncio.wrap_future(future)
        except HauslmError as error:  # not there, not sound, not fitting: the client's to put right
            raise ApiError(400, error.text(), "lora_path", error.code) from error
        except Closing as error:
            raise answering.stopping() from error


def _strings(body: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    for key in body:
        if key not in names:
            raise unsupported(key)
    for name in names:
        if not isinstance(body.get(name), str) or not body[name]:
            raise invalid(name, say("it is missing or no text."))
    return tuple(body[n] for n in names)


__all__ = ["create_app", "serve"]
