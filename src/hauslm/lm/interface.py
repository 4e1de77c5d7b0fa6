"""What is a language model to the rest of the house? Messages in, replies and usage out: one seam.

Everything above this seam (`evaluate`, `analyse`, `serve`) is real in tests; the one thing that
needs weights or a network stands behind it: `local.py` (transformers + PEFT), `remote.py` (an
OpenAI-compatible endpoint, needs a Permit), `echo.py` (a stand-in without weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "error"]

BASE = "base"  # adapter name that means: the base model alone


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Request:
    """One thing to answer. `adapter` is a loaded adapter's name or BASE; `json_schema` binds the
    output; `temperature` 0 is greedy; `seed` makes sampling repeatable. `logprobs` asks for the
    log-probability of every token of the answer, `top_logprobs` for that many alternatives too."""

    messages: tuple[Message, ...]
    max_new_tokens: int = 256
    adapter: str = BASE
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    raw_prompt: str | None = None  # complete text instead of messages: no chat template
    top_logprobs: int = 0
    logprobs: bool = False


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    text: str
    finish_reason: FinishReason
    usage: Usage
    seconds: float
    logprobs: tuple[TokenLogprob, ...] = field(default=())


@dataclass(frozen=True)
class Scored:
    """Log-probability (nats) of a continuation given a prompt; over how many tokens and bytes."""

    logprob: float
    tokens: int
    bytes: int
    greedy: bool = False  # the continuation is what greedy decoding would have written


class LanguageModel(Protocol):
    """The seam. Implementations refuse what they cannot do (HauslmError), they never ignore it."""

    name: str
    context_length: int

    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be asked for, without BASE."""

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer all requests (in any internal batching), in the order given."""

    def score(self, pairs: Sequence[tuple[str, str]], adapter: str = BASE) -> list[Scored]:
        """Log-probability of each (prompt, continuation) pair, as raw text, without a template."""

    def count_tokens(self, text: str) -> int: ...

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text that the chat template makes of the messages."""
