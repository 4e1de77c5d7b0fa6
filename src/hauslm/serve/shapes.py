"""How does an answer look on the wire? The objects of the OpenAI API, whole and in chunks.

Texts of tokens that are part of a character only are shown as the replacement character; their
`bytes` are then null, since the seam gives text, not bytes.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from hauslm.lm.interface import Reply, TokenLogprob, Usage
from hauslm.serve.wire import Ask

# As `json.dumps` with these settings writes it, which would make an encoder for each event.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MARK = "\0"


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {_json(data)}\n\n"


def usage_of(ask: Ask, usages: Sequence[Usage]) -> dict[str, int]:
    """A prompt is read once however many choices it has, so it counts once; answers all count."""
    prompt = sum(u.prompt_tokens for u in usages[:: ask.n])
    completion = sum(u.completion_tokens for u in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class Shape:
    """One answer's constant fields; `whole` and `chunk` make the objects around them."""

    def __init__(self, ask: Ask, fingerprint: str | None) -> None:
        self._ask = ask
        chat = ask.kind == "chat"
        self.head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "created": int(time.time()),
            "model": ask.model,
            "system_fingerprint": fingerprint,
        }
        self._offsets = [0] * len(ask.requests)
        self._frames: dict[int, tuple[str, str]] = {}

    # ------------------------------------------------------------ whole

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        chat = self._ask.kind == "chat"
        return {
            **self.head,
            "object": "chat.completion" if chat else "text_completion",
            "choices": [self._whole_choice(i, r) for i, r in enumerate(replies)],
            "usage": usage_of(self._ask, [r.usage for r in replies]),
        }

    def _whole_choice(self, index: int, reply: Reply) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": reply.finish_reason}
        choice["logprobs"] = self._logprobs(index, reply.logprobs)
        if self._ask.kind == "text":
            return choice | {"text": reply.text}
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        return choice | {"message": message}

    # ------------------------------------------------------------ chunks

    def _chunk(self, choices: list[dict[str, Any]], usage: Any = None) -> dict[str, Any]:
        chat = self._ask.kind == "chat"
        chunk = {
            **self.head,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "choices": choices,
        }
        return chunk | ({"usage": usage} if self._ask.include_usage else {})

    def opening(self, index: int) -> dict[str, Any] | None:
        """The chunk that names the role; completions have none."""
        if self._ask.kind == "text":
            return None
        return self._chunk([self._delta(index, {"role": "assistant", "content": ""})])

    def _delta(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        report = self._logprobs(index, logprobs)
        if self._ask.kind == "chat":
            return self._chunk([self._delta(index, {"content": text}, report)])
        choice = {"index": index, "text": text, "logprobs": report, "finish_reason": None}
        return self._chunk([choice])

    def piece_event(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> str:
        """`piece` as an event. All of a choice's pieces are alike but for the text, which is put into
        the event written once: that takes a fraction of what encoding the whole object does."""
        if self._ask.top_logprobs is not None:
            return event(self.piece(index, text, logprobs))
        if index not in self._frames:
            before, _, after = event(self.piece(index, _MARK, ())).rpartition(_json(_MARK))
            self._frames[index] = before, after
        before, after = self._frames[index]
        return before + _json(text) + after

    def end(self, index: int, finish: str) -> dict[str, Any]:
        if self._ask.kind == "chat":
            return self._chunk([self._delta(index, {}, None, finish)])
        return self._chunk(
            [{"index": index, "text": "", "logprobs": None, "finish_reason": finish}]
        )

    def usage(self, usages: Sequence[Usage]) -> dict[str, Any]:
        """The last chunk of a stream with `include_usage`: no choices."""
        return self._chunk([], usage_of(self._ask, usages))

    # ------------------------------------------------------------ log-probabilities

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._ask.top_logprobs is None:
            return None
        if self._ask.kind == "chat":
            return {"content": [_chat_logprob(t) for t in tokens], "refusal": None}
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token.text)
        # The old format keys alternatives by text; of two tokens that read the same, the first
        # (more probable) stays. The chat format keeps both.
        tops = [{t: lp for _, t, lp in reversed(token.top)} for token in tokens]
        return {
            "tokens": [t.text for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": tops if self._ask.top_logprobs else None,
            "text_offset": offsets,
        }


def _chat_logprob(token: TokenLogprob) -> dict[str, Any]:
    top = [_entry(text, logprob) for _, text, logprob in token.top]
    return _entry(token.text, token.logprob) | {"top_logprobs": top}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    whole = "\ufffd" not in text
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}
