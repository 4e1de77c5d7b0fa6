"""What does a request ask for? Bytes -> JSON within limits -> a checked `Ask`; else a 400 that says why.

Nothing is ignored: a parameter that the server cannot obey is refused by name, unless its value is
the one that asks for nothing (null, or a neutral value such as `frequency_penalty: 0`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hauslm.base.errors import UsageError
from hauslm.base.words import say
from hauslm.lm.interface import Message, Request, Role
from hauslm.lm.schema import check as check_schema
from hauslm.scenario.reading import what_is_wrong
from hauslm.serve.refusal import ApiError, invalid, of_error, unsupported, unsupported_value

MAX_DEPTH = 64
MAX_CHOICES = 16
MAX_PROMPTS = 64
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**63 - 1

# Parameters of the OpenAI API that may be sent with the value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "echo": (False,),
}


# ---------------------------------------------------------------- bytes -> JSON


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`: UTF-8, no NaN, no key twice, at most 64 levels deep; else a 400."""
    try:
        value = json.loads(
            raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique
        )
        _check_tree(value)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # covers JSON, UTF-8 and numbers beyond Python's limit
        raise invalid(
            None, say("The body is not valid JSON ({reason}).", reason=str(error)[:120])
        ) from error
    if not isinstance(value, dict):
        raise invalid(None, say("The body must be a JSON object."))
    return value


def _too_deep() -> ApiError:
    return ApiError(
        400,
        say("The body is nested more than {depth} levels deep.", depth=MAX_DEPTH),
        None,
        "invalid_request",
    )


def _check_tree(root: Any) -> None:
    """Depth, and text that is text: half a surrogate pair can be neither tokenized nor answered."""
    level: list[Any] = [root]
    depth = 0
    while level:
        depth += 1
        below: list[Any] = []
        for node in level:
            if isinstance(node, str):
                node.encode()  # UnicodeEncodeError is a ValueError
            elif isinstance(node, dict):
                below += [*node.keys(), *node.values()]
            elif isinstance(node, list):
                below += node
        # Strings and numbers in the deepest container are no level of their own.
        if depth > MAX_DEPTH and any(isinstance(n, (dict, list)) for n in level):
            raise _too_deep()
        level = below


# ---------------------------------------------------------------- JSON -> parameters


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str = Field(min_length=1, max_length=256)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-MAX_SEED, le=MAX_SEED)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)


class ChatBody(_Body):
    """`/v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: dict[str, Any] | None = None


class TextBody(_Body):
    """`/v1/completions`: the prompt as it stands, without a chat template."""

    prompt: str | list[str]
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)


@dataclass(frozen=True)
class Ask:
    """What is to be answered: one `Request` per choice, `n` choices to each prompt in turn.

    `requests` still lack the adapter. With `open_length` the client set no limit; the context is
    one, and `max_new_tokens` is filled in when the prompt has been counted.
    """

    kind: Literal["chat", "text"]
    model: str
    requests: tuple[Request, ...]
    n: int
    open_length: bool
    stream: bool
    include_usage: bool
    top_logprobs: int | None  # None: no log-probabilities
    checked_schema: dict[str, Any] | None  # the whole answer must be an instance of it

    @property
    def prompt_param(self) -> str:
        return "messages" if self.kind == "chat" else "prompt"


_B = TypeVar("_B", bound=_Body)


def _same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral and isinstance(value, bool) == isinstance(neutral, bool))


def _validated(kind: type[_B], body: Mapping[str, Any]) -> _B:
    given = {k: v for k, v in body.items() if v is not None}
    for name, value in list(given.items()):
        if name in kind.model_fields:
            continue
        if not any(_same(value, neutral) for neutral in NEUTRAL.get(name, ())):
            raise unsupported(name)
        del given[name]
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(p) for p in first["loc"]]
        if place[0] in ("stop", "prompt"):  # a union: what follows names its members
            raise invalid(place[0], say("a text or a list of texts is expected.")) from error
        name = ".".join(place)
        if first["type"] == "extra_forbidden":
            raise unsupported(name) from error
        usual = what_is_wrong(first, name)
        if usual is None:
            raise invalid(name, say("{reason}.", reason=first["msg"])) from error
        raise ApiError(400, usual, name, "invalid_value") from error


def _stops(body: _Body) -> tuple[str, ...]:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stops) > MAX_STOPS:
        raise invalid("stop", say("at most {count} strings.", count=MAX_STOPS))
    if not all(stops):
        raise invalid("stop", say("a stop string must not be empty."))
    return stops


def _stream_options(body: _Body) -> bool:
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", say("it needs 'stream': true."))
    return body.stream_options is not None and body.stream_options.include_usage


def _choices(request: Request, n: int) -> list[Request]:
    """`n` answers to one prompt: with a seed, choice i draws with seed + i."""
    seed = request.seed
    if n == 1:
        return [request]
    return [replace(request, seed=None if seed is None else seed + i) for i in range(n)]


# ---------------------------------------------------------------- chat


def chat_ask(body: Mapping[str, Any]) -> Ask:
    """A body of `/v1/chat/completions`, checked."""
    asked = _validated(ChatBody, body)
    limit = asked.max_completion_tokens or asked.max_tokens
    if asked.max_tokens and asked.max_completion_tokens not in (None, asked.max_tokens):
        raise invalid("max_tokens", say("it contradicts 'max_completion_tokens'."))
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs", say("it needs 'logprobs': true."))
    schema, whole = _response_format(asked.response_format)
    request = Request(
        tuple(_message(m, i) for i, m in enumerate(asked.messages)),
        max_new_tokens=limit or 1,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=_stops(asked),
        json_schema=schema,
        logprobs=asked.logprobs,
        top_logprobs=asked.top_logprobs,
    )
    return Ask(
        "chat",
        asked.model,
        tuple(_choices(request, asked.n)),
        asked.n,
        limit is None,
        asked.stream,
        _stream_options(asked),
        asked.top_logprobs if asked.logprobs else None,
        schema if whole and not request.stop else None,
    )


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _message(message: Mapping[str, Any], index: int) -> Message:
    where = f"messages[{index}]"
    given = {k: v for k, v in message.items() if v is not None and v != []}
    role = given.pop("role", None)
    if not isinstance(role, str):
        raise invalid(f"{where}.role", say("it is missing or no text."))
    if role not in _ROLES:
        raise unsupported_value(f"{where}.role", role)
    text = _content(given.pop("content", None), f"{where}.content")
    for other in given:  # name, tool_calls, audio, ...
        raise unsupported(f"{where}.{other}")
    return Message(_ROLES[role], text)


def _content(content: Any, where: str) -> str:
    """A text, or a list of text parts (joined by a line break); images and sound are refused."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(where, say("it is missing or no text."))
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise unsupported_value(f"{where}[{i}].type", kind)
        if set(part) - {"type", "text"}:
            raise unsupported(f"{where}[{i}].{min(set(part) - {'type', 'text'})}")
        if not isinstance(part.get("text"), str):
            raise invalid(f"{where}[{i}].text", say("it is missing or no text."))
        texts.append(part["text"])
    return "\n".join(texts)


def _response_format(given: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, bool]:
    """(the schema that binds the answer or None, whether the client sent a schema of its own).

    `strict: false` is obeyed as if true: the answer is bound anyway. `description` and `name` are
    notes for the reader; neither they nor the schema are shown to the model.
    """
    if given is None:
        return None, False
    kind = given.get("type")
    known = {"text": {"type"}, "json_object": {"type"}, "json_schema": {"type", "json_schema"}}
    if not isinstance(kind, str) or kind not in known:
        raise unsupported_value("response_format.type", kind)
    for key in sorted(set(given) - known[kind]):
        raise unsupported(f"response_format.{key}")
    if kind == "text":
        return None, False
    if kind == "json_object":
        return {"type": "object"}, True
    return _named_schema(given.get("json_schema")), True


def _named_schema(given: Any) -> dict[str, Any]:
    where = "response_format.json_schema"
    if not isinstance(given, dict):
        raise invalid(where, say("it must be an object with 'name' and 'schema'."))
    for key in sorted(set(given) - {"name", "schema", "strict", "description"}):
        raise unsupported(f"{where}.{key}")
    if not isinstance(given.get("name"), str) or not given["name"]:
        raise invalid(f"{where}.name", say("it is missing or no text."))
    if not isinstance(given.get("strict"), (bool, type(None))):
        raise invalid(f"{where}.strict", say("it must be true or false."))
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise invalid(f"{where}.schema", say("it must be a JSON Schema object."))
    try:
        check_schema(schema)
    except UsageError as error:
        raise of_error(error, "messages") from error
    return schema


# ---------------------------------------------------------------- text


def text_ask(body: Mapping[str, Any]) -> Ask:
    """A body of `/v1/completions`, checked. OpenAI's default of 16 tokens applies."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and any(isinstance(p, (int, list)) for p in prompt):
        raise ApiError(
            400,
            say("Prompts as token ids are not supported; send text."),
            "prompt",
            "unsupported_value",
        )
    asked = _validated(TextBody, body)
    if asked.best_of not in (None, asked.n):
        raise unsupported_value("best_of", asked.best_of)
    prompts: Sequence[str] = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise invalid("prompt", say("from 1 to {count} prompts at once.", count=MAX_PROMPTS))
    requests: list[Request] = []
    for text in prompts:
        request = Request(
            (),
            raw_prompt=text,
            max_new_tokens=asked.max_tokens or 16,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=_stops(asked),
            logprobs=asked.logprobs is not None,
            top_logprobs=asked.logprobs or 0,
        )
        requests += _choices(request, asked.n)
    return Ask(
        "text",
        asked.model,
        tuple(requests),
        asked.n,
        False,
        asked.stream,
        _stream_options(asked),
        asked.logprobs,
        None,
    )
