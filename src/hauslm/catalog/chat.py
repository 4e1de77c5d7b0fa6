"""What text does a base model see for a conversation? Its chat template, filled alike in training and in use.

Jinja's immutable sandbox, a fixed date, a plain template for bases that bring none. `data` renders with
it what is trained, `lm` what is asked; each says in its own words what went wrong (`TemplateError`). Text
of documents cannot speak as the template: the spellings of control tokens in it are broken up (`neutral`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import UndefinedError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hauslm.base.words import Sentence, say

__all__ = ["PLAIN_TEMPLATE", "ChatText", "ControlTokens", "LeftOut", "TemplateError", "reason_of"]

# For base models that come without a template; it travels with what was trained by it.
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ message['content'] ~ '\\n\\n' }}"
    "{%- elif message['role'] == 'user' -%}{{ '### Instruction:\\n' ~ message['content'] ~ '\\n\\n' }}"
    "{%- else -%}{{ '### Response:\\n' ~ message['content'] ~ eos_token ~ '\\n\\n' }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}"
)
_PLACES = 1000  # so many are looked at one by one for a spelling; the rest of a text with more is the expression's
_FIXED_DATE = "26 Jul 2024"  # templates that insist on a date get one, or nothing would repeat


class _Generation(Extension):
    """`{% generation %}`: marks answers for trainers; for rendering it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ControlTokens:
    """`spellings`: of all tokens that are control and not text."""

    def __init__(self, spellings: Iterable[str]) -> None:
        known = sorted((s for s in spellings if len(s) > 1), key=len, reverse=True)
        self._firsts = "".join(sorted({s[0] for s in known}))
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def neutral(self, text: str) -> str:
        """The text with every control-token spelling broken by a blank after its first character."""
        if self._pattern is None or not self.spelled_in(text):
            return text
        return self._pattern.sub(lambda m: m.group(0)[0] + " " + m.group(0)[1:], text)

    def spelled_in(self, text: str) -> bool:
        """Does the text hold the spelling of a control token?"""
        return any(self._begun_by(first, text) for first in self._firsts)

    def _begun_by(self, first: str, text: str) -> bool:
        """The regular expression tries every place; the few where a spelling can begin are found at once."""
        assert self._pattern is not None  # noqa: S101 - there are no first characters then
        place = -1
        for _ in range(_PLACES):
            place = text.find(first, place + 1)
            if place < 0:
                return False
            if self._pattern.match(text, place):
                return True
        return self._pattern.search(text, place) is not None


class ChatText:
    """A base's template. `source`: its text, or None; `named`: bos_token, eos_token, ... as texts.
    TemplateError if `source` is no template."""

    def __init__(self, source: str | None, named: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(
            value, ensure_ascii=False, indent=indent
        )
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(source or PLAIN_TEMPLATE)
        self._named = dict(named)

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The text that the template makes of the messages, as they are; TemplateError if it refuses.

        A template that knows no system role gets the system text before the first question; so does
        one that leaves it out without a word. What is left out all the same is refused (`LeftOut`).
        """
        plain = [dict(m) for m in messages]
        try:
            return self._whole(plain, add_generation_prompt)
        except TemplateError:
            if len(plain) < 2 or plain[0]["role"] != "system":
                raise
        content = f"{plain[0]['content']}\n\n{plain[1]['content']}"
        first = {"role": plain[1]["role"], "content": content}
        return self._whole([first, *plain[2:]], add_generation_prompt)

    def _whole(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        """The text, with every word of the system in it (templates may change blanks)."""
        rendered = self._filled(messages, add_generation_prompt)
        for message in messages:
            text = message["content"].strip()
            if message["role"] != "system" or text in rendered:
                continue
            if " ".join(text.split()) not in " ".join(rendered.split()):
                raise LeftOut(message["role"])
        return rendered

    def _filled(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        values: dict[str, Any] = {
            **self._named,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return str(self._template.render(**values))
        except UndefinedError:
            return str(self._template.render(strftime_now=lambda _: _FIXED_DATE, **values))


class LeftOut(TemplateError):
    """The template wrote a text without what this role says."""


def reason_of(error: TemplateError) -> Sentence | str:
    """Why a template refuses, for a sentence; its own words where it has some."""
    if isinstance(error, LeftOut):
        return say("it leaves out what the role '{role}' says", role=error.message or "")
    return str(error)[:200]


def _raise(message: str) -> str:
    raise TemplateError(message)
