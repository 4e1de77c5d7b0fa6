"""A model behind an OpenAI-compatible endpoint: another machine, reached only with a `Permit`.

Plain HTTP(S) from the standard library, no redirects, no proxies; the network door is open for the
one permitted host and only while requests run. The key is looked for when it is used
(`base/secret.py`: environment, 0600 file, keyring) and never stored, logged or shown. What such an endpoint cannot do is refused, not imitated.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hauslm.base import egress, secret
from hauslm.base.errors import DataError, HauslmError, MissingError, RefusedError, UsageError
from hauslm.base.words import say
from hauslm.lm.interface import (
    BASE,
    FinishReason,
    Message,
    Reply,
    Request,
    Scored,
    TokenLogprob,
    Usage,
)
from hauslm.lm.permit import Permit, is_this_machine
from hauslm.lm.schema import check

KEY_VARIABLE = "HAUSLM_API_KEY"
MAX_ANSWER_BYTES = 16 << 20
_RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


class RemoteModel:
    """`LanguageModel` over `base_url` (".../v1").

    `models` maps adapter names (and BASE) to model names of the endpoint. `context_length` in
    tokens is the caller's knowledge; the endpoint does not tell. `tokenizer`: a tokenizer.json for
    counting; without one `count_tokens` assumes one token per two UTF-8 bytes, more than there are.
    """

    def __init__(
        self,
        base_url: str,
        models: Mapping[str, str],
        permit: Permit,
        *,
        context_length: int,
        key_variable: str = KEY_VARIABLE,
        timeout_s: float = 120.0,
        attempts: int = 4,
        concurrency: int = 4,
        tokenizer: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not isinstance(permit, Permit):
            raise RefusedError(
                "H811",
                say("Without a permit nothing is sent."),
                next_step=say("Call permit_for(scenario, host)."),
            )
        self._scheme, self._host, self._port, self._path = _split(base_url)
        if permit.host != self._host:
            raise RefusedError(
                "H811",
                say("The permit is for {permitted}, not for {host}.",
                    permitted=permit.host, host=self._host),
                next_step=say("Call permit_for(scenario, host)."),
            )  # fmt: skip
        self.name = models.get(BASE, next(iter(models.values()), self._host))
        self.context_length = context_length
        self._models = dict(models)
        self._key_variable = key_variable
        self._timeout_s, self._attempts, self._sleep = timeout_s, attempts, sleep
        self._concurrency = concurrency
        self._counter = _counter(tokenizer)

    def adapters(self) -> tuple[str, ...]:
        return tuple(n for n in self._models if n != BASE)

    def count_tokens(self, text: str) -> int:
        return self._counter(text)

    def render(self, messages: Sequence[Message]) -> str:
        raise self._cannot(say("its chat template is not known here"))

    def score(self, pairs: Sequence[tuple[str, str]], adapter: str = BASE) -> list[Scored]:
        raise self._cannot(say("it gives no log-probabilities of given text"))

    def _cannot(self, why: Any) -> RefusedError:
        return RefusedError(
            "H814",
            say("The endpoint {host} cannot do this: {why}.", host=self._host, why=why),
            next_step=say("Use a local model for it."),
        )

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        bodies = [self._body(r) for r in requests]
        with (
            egress.permitted(self._host, self._port),
            ThreadPoolExecutor(max_workers=self._concurrency) as pool,
        ):
            return list(pool.map(self._answer, requests, bodies))

    # ------------------------------------------------------------ one request

    def _body(self, request: Request) -> dict[str, Any]:
        if request.adapter not in self._models:
            raise UsageError(
                "H800",
                say("There is no adapter called '{name}'.", name=request.adapter),
                next_step=say("Known names: {names}", names=", ".join(self._models)),
            )
        body: dict[str, Any] = {
            "model": self._models[request.adapter],
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.raw_prompt is not None:
            body["prompt"] = request.raw_prompt
        else:
            body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logprobs or request.top_logprobs:
            # The older completions count alternatives in `logprobs`; chat has two parameters.
            if request.raw_prompt is not None:
                body["logprobs"] = request.top_logprobs
            else:
                body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.json_schema is not None:
            check(request.json_schema)
            bound = {"name": "row", "schema": request.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": bound}
        return body

    def _answer(self, request: Request, body: dict[str, Any]) -> Reply:
        started = time.monotonic()
        kind = "/completions" if request.raw_prompt is not None else "/chat/completions"
        answer = self._post(self._path + kind, body)
        try:
            choice = answer["choices"][0]
            text = (
                choice["text"] if request.raw_prompt is not None else choice["message"]["content"]
            )
            usage = Usage(
                int(answer["usage"]["prompt_tokens"]), int(answer["usage"]["completion_tokens"])
            )
            finish: FinishReason = {"stop": "stop", "length": "length"}.get(  # type: ignore[assignment]
                choice["finish_reason"], "error"
            )
            logprobs = _logprobs(choice)
        except (
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ) as error:
            raise self._malformed() from error
        if not isinstance(text, str):
            raise self._malformed()
        return Reply(text, finish, usage, time.monotonic() - started, logprobs)

    def _malformed(self) -> DataError:
        return DataError(
            "H813",
            say("The answer of {host} is not an OpenAI-compatible answer.", host=self._host),
            next_step=say("Check the address: it usually ends with /v1."),
        )

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's JSON; retries what is worth it. H812 out of reach, H813 not JSON."""
        data = json.dumps(body, ensure_ascii=False).encode()
        last: HauslmError | None = None
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(self._pause)
            try:
                status, headers, raw = self._once(path, data)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, egress.EgressBlocked):
                    raise
                last = self._unreachable(type(error).__name__)
                self._pause = _backoff(attempt)
                continue
            if status == 200:
                try:
                    return json.loads(raw)
                except (ValueError, RecursionError) as error:
                    raise self._malformed() from error
            last = self._refusal(status, raw)
            if status not in _RETRIED:
                raise last
            self._pause = _retry_after(headers) or _backoff(attempt)
        raise last or self._unreachable("?")

    _pause = 0.0

    def _once(self, path: str, data: bytes) -> tuple[int, Mapping[str, str], bytes]:
        connection: http.client.HTTPConnection
        if self._scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = secret.find(self._key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request("POST", path, body=data, headers=headers)
            response = connection.getresponse()
            raw = response.read(MAX_ANSWER_BYTES + 1)
            if len(raw) > MAX_ANSWER_BYTES:
                raise self._malformed()
            return response.status, dict(response.headers.items()), raw
        finally:
            connection.close()

    def _unreachable(self, reason: str) -> MissingError:
        return MissingError(
            "H812",
            say("{host} did not answer ({reason}).", host=self._host, reason=reason),
            next_step=say("Check that the server runs and that the address is right."),
        )

    def _refusal(self, status: int, raw: bytes) -> HauslmError:
        reason = _reason(raw, secret.find(self._key_variable))
        what = say(
            "{host} refused the request (HTTP {status}: {reason}).",
            host=self._host,
            status=str(status),
            reason=reason,
        )
        if status in (401, 403):
            return MissingError(
                "H812",
                what,
                next_step=say("Set the key as {name} in the environment.", name=self._key_variable),
            )
        if status in _RETRIED:
            return MissingError("H812", what, next_step=say("Try again later."))
        return UsageError("H810", what, next_step=say("Check model name and parameters."))


def _split(base_url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query:
        raise UsageError(
            "H810",
            say("'{url}' is not the address of an endpoint.", url=base_url[:100]),
            next_step=say("Give it as https://host/v1, without a key in it."),
        )
    if parts.scheme == "http" and not is_this_machine(host):
        raise RefusedError(
            "H811",
            say("Documents are not sent unencrypted to {host}.", host=host),
            next_step=say("Use https."),
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, host, port, parts.path.rstrip("/")


def _reason(raw: bytes, key: str) -> str:
    """The endpoint's own words, short, without the key that some endpoints repeat."""
    try:
        error = json.loads(raw)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        text = raw[:200].decode("utf-8", "replace")
    if key:
        text = text.replace(key, "***")
    text = secret.redact(text)
    return " ".join(text.split())[:200]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), "")
    return min(float(value), 60.0) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _backoff(attempt: int) -> float:
    return float(min(2.0**attempt, 30.0) * (0.5 + random.random() / 2))


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:
    found = choice.get("logprobs") or {}
    if "token_logprobs" in found:
        return _older_logprobs(found)
    content = found.get("content") or []
    return tuple(
        TokenLogprob(
            -1,  # endpoints give no ids
            str(c["token"]),
            float(c["logprob"]),
            tuple((-1, str(t["token"]), float(t["logprob"])) for t in c.get("top_logprobs") or ()),
        )
        for c in content
    )


def _older_logprobs(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """Of /completions: parallel lists, alternatives keyed by their text."""
    tops = found.get("top_logprobs") or [{}] * len(found["tokens"])
    return tuple(
        TokenLogprob(
            -1,
            str(token),
            float(value),
            tuple((-1, str(t), float(v)) for t, v in sorted(top.items(), key=lambda e: -e[1])),
        )
        for token, value, top in zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    )


def _counter(tokenizer: Path | None) -> Callable[[str], int]:
    if tokenizer is None:
        return lambda text: -(-len(text.encode()) // 2)
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)
