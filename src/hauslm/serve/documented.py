"""What does each route answer? JSON Schemas for the OpenAPI document, which the fuzzing holds us to."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": False,
    }  # fmt: skip


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_MAYBE: Schema = {"type": ["string", "null"]}
_FINISH: Schema = {"enum": ["stop", "length", "error"]}
_ERROR = _object(
    {"error": _object({"message": _TEXT, "type": _TEXT, "param": _MAYBE, "code": _MAYBE})}
)
_USAGE = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_TOKEN: Schema = {"token": _TEXT, "logprob": _NUMBER, "bytes": {"type": ["array", "null"], "items": _COUNT}}  # fmt: skip
_CHAT_LOGPROBS: Schema = {
    "anyOf": [
        {"type": "null"},
        _object({
            "content": _list(_object({**_TOKEN, "top_logprobs": _list(_object(_TOKEN))})),
            "refusal": {"type": "null"},
        }),
    ]
}  # fmt: skip
_TEXT_LOGPROBS: Schema = {
    "anyOf": [
        {"type": "null"},
        _object({
            "tokens": _list(_TEXT), "token_logprobs": _list(_NUMBER), "text_offset": _list(_COUNT),
            "top_logprobs": {
                "type": ["array", "null"],
                "items": {"type": "object", "additionalProperties": _NUMBER},
            },
        }),
    ]
}  # fmt: skip
_HEAD: Schema = {"id": _TEXT, "created": _COUNT, "model": _TEXT, "system_fingerprint": _MAYBE}
_MESSAGE = _object({"role": {"const": "assistant"}, "content": _TEXT, "refusal": {"type": "null"}})
_CHAT = _object({
    **_HEAD, "object": {"const": "chat.completion"}, "usage": _USAGE,
    "choices": _list(_object(
        {"index": _COUNT, "finish_reason": _FINISH, "logprobs": _CHAT_LOGPROBS, "message": _MESSAGE}
    )),
})  # fmt: skip
_COMPLETION = _object({
    **_HEAD, "object": {"const": "text_completion"}, "usage": _USAGE,
    "choices": _list(_object(
        {"index": _COUNT, "finish_reason": _FINISH, "logprobs": _TEXT_LOGPROBS, "text": _TEXT}
    )),
})  # fmt: skip
_MODEL = _object({
    "id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT, "root": _TEXT,
    "parent": _MAYBE, "max_model_len": _COUNT,
})  # fmt: skip
_CHANGED = _object({"status": {"enum": ["loaded", "unloaded"]}, "id": _TEXT})
_JSON: dict[str, Schema] = {
    "/healthz": _object({"status": {"enum": ["ok", "down"]}}),
    "/v1/models": _object({"object": {"const": "list"}, "data": _list(_MODEL)}),
    "/v1/models/{model_id:path}": _MODEL,
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _COMPLETION,
    "/v1/load_lora_adapter": _CHANGED,
    "/v1/unload_lora_adapter": _CHANGED,
}
_STREAMING = ("/v1/chat/completions", "/v1/completions")


def responses_of(path: str) -> dict[int | str, dict[str, Any]]:
    """The documented answers of a route: its success, and the one shape of every refusal."""
    content: Schema = {}
    if path in _JSON:
        content["application/json"] = {"schema": _JSON[path]}
    if path in _STREAMING:
        content["text/event-stream"] = {"schema": {}}  # chunks of the object above
    if path == "/metrics":
        content["text/plain"] = {"schema": _TEXT}
    refused = {
        "description": "Refused, in OpenAI's error shape.",
        "content": {"application/json": {"schema": _ERROR}},
    }
    found: dict[int | str, dict[str, Any]] = {"default": refused}
    if path == "/healthz":
        found[503] = {"description": "Down.", "content": content}
    if content:
        found[200] = {"description": "Done.", "content": content}
    return found
