"""What does the tokenizer make of a text, and what may be asked at all? The text side of `LocalModel`.

Two encoders stand side by side: one for rendered templates, whose control tokens are meant, and one
for raw text, in which their spellings are ordinary characters, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hauslm.base.errors import DataError, UsageError
from hauslm.base.words import say
from hauslm.lm.interface import Message, Request
from hauslm.lm.loading import (
    chat_template,
    named_tokens,
    rust_tokenizers,
    special_spellings,
    text_prefix,
)
from hauslm.lm.template import ChatTemplate

MAX_TOP_LOGPROBS = 20


class TextSide:
    """Tokenizer, chat template and limits of one base model."""

    def __init__(
        self, tokenizer: Any, name: str, context_length: int, eos_ids: frozenset[int]
    ) -> None:
        self.name = name
        self.context_length = context_length
        self.eos_ids = eos_ids
        self._tokenizer = tokenizer
        self._rust, self._raw = rust_tokenizers(tokenizer)
        added = self._rust.get_added_tokens_decoder()
        self.control_ids = frozenset(i for i, t in added.items() if t.special) - eos_ids
        self._bos = tokenizer.bos_token or ""
        self._prefix = text_prefix(self._rust)
        self._known_tokens = len(tokenizer)
        self._template = ChatTemplate(
            chat_template(tokenizer), named_tokens(tokenizer), special_spellings(self._rust)
        )

    def count_tokens(self, text: str) -> int:
        return len(self._raw.encode(text, add_special_tokens=False).ids)

    def render(self, messages: Sequence[Message]) -> str:
        return self._template.render(messages)

    def prompt_ids(self, request: Request) -> list[int]:
        """The request's prompt as token ids; H800, H803, H804, H810 if it cannot be answered."""
        self._check_request(request)
        if request.raw_prompt is not None:
            ids = self._rust.encode(request.raw_prompt, add_special_tokens=False).ids
            ids = [*self.text_prefix(request.raw_prompt), *ids]
        else:
            ids = self._rust.encode(self.render(request.messages), add_special_tokens=False).ids
        if not ids:
            if self.start_id is None:
                raise UsageError("H810", say("The prompt is empty."))
            ids = [self.start_id]
        if len(ids) + request.max_new_tokens > self.context_length:
            raise self.too_long(len(ids), request.max_new_tokens)
        return list(ids)

    def _check_request(self, request: Request) -> None:
        problems = (
            ("max_new_tokens", request.max_new_tokens, request.max_new_tokens >= 1),
            ("temperature", request.temperature, 0 <= request.temperature <= 100),
            ("top_p", request.top_p, 0 < request.top_p <= 1),
            ("top_logprobs", request.top_logprobs, 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS),
            ("stop", "''", all(request.stop)),
        )
        for key, value, sound in problems:
            if not sound or (isinstance(value, float) and not math.isfinite(value)):
                raise UsageError(
                    "H810", say("'{key}' must not be {value}.", key=key, value=str(value))
                )

    def too_long(self, prompt_tokens: int, new_tokens: int) -> DataError:
        return DataError(
            "H803",
            say(
                "{prompt:,} + {new:,} tokens (text and answer) exceed the context of {limit:,}.",
                prompt=prompt_tokens,
                new=new_tokens,
                limit=self.context_length,
            ),
            next_step=say(
                "Split the text or ask for a shorter answer; nothing is cut off silently."
            ),
        )

    @property
    def start_id(self) -> int | None:
        """The token that a text begins with: BOS, else the end token that separates documents."""
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return None

    def text_prefix(self, text: str) -> list[int]:
        """What the tokenizer itself puts before a text (the begin token, or nothing); nothing if the
        text brings it, as rendered templates do."""
        begun = bool(self._bos) and text.startswith(self._bos)
        return [] if begun else list(self._prefix)

    def encode_with_ends(self, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of prompt and continuation as one text, and where each token ends (characters).

        Control tokens are meant if the prompt holds any (a rendered template); in ordinary text
        their spellings are ordinary characters, as in training.
        """
        rust = self._rust if self._template.holds_control(prompt) else self._raw
        encoding = rust.encode(prompt + continuation, add_special_tokens=False)
        return list(encoding.ids), [end for _, end in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._rust.decode(list(ids), skip_special_tokens=True)
        return text

    def token_text(self, token_id: int) -> str:
        text: str = self._rust.decode([token_id], skip_special_tokens=False)
        return text
