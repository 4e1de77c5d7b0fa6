"""A language model without weights, for tests and for looking at prompts.

Deterministic: it answers with the beginning of the last message, or with a smallest valid instance
of the schema, or with what `answer` says. Words are its tokens. Everything it cannot do it refuses.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence

from hauslm.base.errors import DataError, UsageError, did_you_mean
from hauslm.base.words import say
from hauslm.lm.interface import BASE, Message, Reply, Request, Scored, TokenLogprob, Usage
from hauslm.lm.schema import check, smallest_instance

_WORD = re.compile(r"\s*\S+|\s+")
ECHO_WORDS = 16


class EchoModel:
    """`answer(request)` overrides what is said; the rest of the contract is kept."""

    def __init__(
        self,
        adapters: Sequence[str] = (),
        *,
        context_length: int = 4096,
        answer: Callable[[Request], str] | None = None,
        name: str = "echo",
    ) -> None:
        self.name = name
        self.context_length = context_length
        self._adapters = tuple(adapters)
        self._answer = answer

    def adapters(self) -> tuple[str, ...]:
        return self._adapters

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        for request in requests:
            if request.json_schema is not None:
                check(request.json_schema)
        return [self._reply(r) for r in requests]

    def _reply(self, request: Request) -> Reply:
        started = time.monotonic()
        self._need_adapter(request.adapter)
        prompt = request.raw_prompt
        prompt = self.render(request.messages) if prompt is None else prompt
        prompt_tokens = self.count_tokens(prompt)
        if prompt_tokens + request.max_new_tokens > self.context_length:
            raise DataError(
                "H803",
                say(
                    "{prompt:,} + {new:,} tokens (text and answer) exceed the context of {limit:,}.",
                    prompt=prompt_tokens,
                    new=request.max_new_tokens,
                    limit=self.context_length,
                ),
                next_step=say(
                    "Split the text or ask for a shorter answer; nothing is cut off silently."
                ),
            )
        words = _WORD.findall(self._text(request))
        kept = words[: request.max_new_tokens]
        text = "".join(kept)
        stops = [p for s in request.stop if (p := text.find(s)) >= 0]
        if stops:
            text = text[: min(stops)]
        wanted = request.logprobs or request.top_logprobs > 0
        logprobs = tuple(TokenLogprob(i, w, 0.0) for i, w in enumerate(kept)) if wanted else ()
        cut = len(kept) < len(words) and not stops
        return Reply(
            text,
            "length" if cut else "stop",
            Usage(prompt_tokens, len(kept)),
            time.monotonic() - started,
            logprobs,
        )

    def _text(self, request: Request) -> str:
        if self._answer is not None:
            return self._answer(request)
        if request.json_schema is not None:
            value = smallest_instance(request.json_schema)
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        last = request.messages[-1].content if request.messages else request.raw_prompt or ""
        prefix = "" if request.adapter == BASE else f"[{request.adapter}] "
        return prefix + "".join(_WORD.findall(last)[:ECHO_WORDS]).strip()

    def _need_adapter(self, name: str) -> None:
        if name != BASE and name not in self._adapters:
            raise UsageError(
                "H800",
                say("There is no adapter called '{name}'.", name=name),
                next_step=did_you_mean(name, (*self._adapters, BASE)),
            )

    def stream(self, request: Request) -> Iterator[str | TokenLogprob | Reply]:
        reply = self.generate([request])[0]
        yield from reply.logprobs
        yield from _WORD.findall(reply.text)
        yield reply

    def score(self, pairs: Sequence[tuple[str, str]], adapter: str = BASE) -> list[Scored]:
        """A uniform byte model: ln 256 per byte, whatever the text."""
        self._need_adapter(adapter)
        sizes = [(len(_WORD.findall(c)), len(c.encode())) for _, c in pairs]
        return [Scored(-math.log(256) * size, words, size) for words, size in sizes]

    def count_tokens(self, text: str) -> int:
        return len(_WORD.findall(text))

    def render(self, messages: Sequence[Message]) -> str:
        return "".join(f"<{m.role}> {m.content}\n" for m in messages) + "<assistant> "
