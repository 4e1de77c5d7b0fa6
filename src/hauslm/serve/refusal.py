"""How does the server say no? Every refusal in the shape of the OpenAI API, with a status that fits.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

`code` speaks OpenAI's vocabulary where it has a word; `message` carries our own code in brackets
and the next step. `x-should-retry: false` is what OpenAI's clients obey.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from hauslm.base.errors import DataError, HauslmError, UsageError
from hauslm.base.words import Sentence, as_text, say

INVALID = "invalid_request_error"
SERVER = "server_error"
NO_RETRY = {"x-should-retry": "false"}


@dataclass
class ApiError(Exception):
    """A refusal: HTTP `status`, a sentence, the parameter it is about, OpenAI's code for it."""

    status: int
    message: Sentence | str
    param: str | None = None
    code: str | None = None
    type: str = INVALID
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": as_text(self.message),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=dict(self.headers))


def unsupported(param: str) -> ApiError:
    """A parameter that this server does not know or cannot obey: named, never ignored."""
    return ApiError(
        400,
        say("The parameter '{param}' is not supported by this server.", param=param),
        param,
        "unsupported_parameter",
    )


def unsupported_value(param: str, value: object) -> ApiError:
    shown = str(value)[:60]
    return ApiError(
        400,
        say("'{param}' cannot be {value} on this server.", param=param, value=shown),
        param,
        "unsupported_value",
    )


def invalid(param: str | None, reason: Sentence | str) -> ApiError:
    if param is None:
        return ApiError(400, reason, None, "invalid_request")
    return ApiError(
        400,
        say("'{param}' is not valid: {reason}", param=param, reason=reason),
        param,
        "invalid_value",
    )


# Codes of `lm` that stand for something a client can put right: status, parameter, OpenAI's code.
_KNOWN: dict[str, tuple[int, str | None, str]] = {
    "H800": (404, "model", "model_not_found"),
    "H801": (400, "response_format", "invalid_json_schema"),
    "H802": (400, "response_format", "unsupported_json_schema"),
    "H803": (400, None, "context_length_exceeded"),
    "H804": (400, "messages", "invalid_value"),
    "H816": (503, None, "out_of_memory"),
    "H858": (400, "lora_name", "invalid_value"),
    "H859": (503, None, "out_of_memory"),
}


def of_error(error: Exception, prompt_param: str) -> ApiError:
    """The refusal for whatever the model or the queue raised; `prompt_param`: messages or prompt."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, HauslmError):
        return ApiError(
            500,
            say("The server made a mistake; its log says more."),
            None,
            "internal_error",
            SERVER,
            NO_RETRY,
        )
    status, param, code = _KNOWN.get(error.code, (0, None, error.code))
    if status == 0:
        status = 400 if isinstance(error, (UsageError, DataError)) else 500
    if error.code == "H803":
        param = prompt_param
    kind = INVALID if status < 500 else SERVER
    headers = NO_RETRY if status >= 500 else {}
    return ApiError(status, error.text(), param, code, kind, headers)
