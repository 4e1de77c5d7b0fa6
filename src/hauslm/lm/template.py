"""What text does the model see for a conversation? The base's chat template, as it was trained.

This renders what `data/tokens.py` renders for training, character by character (a test compares):
Jinja's immutable sandbox, a fixed date, a plain template for bases that bring none. Text of
messages cannot smuggle in control tokens: their spellings are broken up before the template is
filled, so an article that contains "[/INST]" stays an article.
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

from hauslm.base.errors import UsageError
from hauslm.base.words import Sentence, say
from hauslm.lm.interface import Message

PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ message['content'] ~ '\\n\\n' }}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ '### Instruction:\\n' ~ message['content'] ~ '\\n\\n' }}"
    "{%- else -%}{{ '### Response:\\n' ~ message['content'] ~ eos_token ~ '\\n\\n' }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}"
)
_FIXED_DATE = "26 Jul 2024"  # templates that insist on a date get one, or answers would not repeat


class _Generation(Extension):
    """`{% generation %}`: marks answers for trainers; for rendering it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """`source`: the base's template or None; `named`: bos_token, ...; `special`: spellings."""

    def __init__(
        self, source: str | None, named: Mapping[str, str], special: Iterable[str]
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(
            value, ensure_ascii=False, indent=indent
        )
        environment.globals["raise_exception"] = _raise
        self.is_own = source is not None
        self._named = dict(named)
        spellings = sorted((s for s in special if len(s) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spellings))) if spellings else None
        try:
            self._template = environment.from_string(source or PLAIN_TEMPLATE)
        except TemplateError as error:
            raise _refused(error) from error

    def neutral(self, text: str) -> str:
        """The text with every control-token spelling broken up behind its first character."""
        if self._control is None:
            return text
        return self._control.sub(lambda m: m.group(0)[0] + " " + m.group(0)[1:], text)

    def holds_control(self, text: str) -> bool:
        """Whether the text contains the spelling of a control token."""
        return self._control is not None and self._control.search(text) is not None

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt up to where the assistant's answer begins; H804 if the template refuses.

        A template that knows no system role gets the system text before the first question; so does
        one that leaves it out without a word. What is left out all the same is refused.
        """
        plain = [{"role": m.role, "content": self.neutral(m.content)} for m in messages]
        try:
            return self._whole(plain)
        except TemplateError as error:
            if len(plain) < 2 or plain[0]["role"] != "system":
                raise _refused(error) from error
        content = f"{plain[0]['content']}\n\n{plain[1]['content']}"
        try:
            return self._whole([{"role": plain[1]["role"], "content": content}, *plain[2:]])
        except TemplateError as error:
            raise _refused(error) from error

    def _whole(self, messages: list[dict[str, str]]) -> str:
        """The prompt, with every word of the system text in it (templates may change blanks)."""
        rendered = self._render(messages)
        for message in messages:
            text = message["content"].strip()
            if message["role"] != "system" or text in rendered:
                continue
            if " ".join(text.split()) not in " ".join(rendered.split()):
                raise _LeftOut(message["role"])
        return rendered

    def _render(self, messages: list[dict[str, str]]) -> str:
        values: dict[str, Any] = {
            **self._named,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return self._template.render(**values)
        except UndefinedError:
            return self._template.render(strftime_now=lambda _: _FIXED_DATE, **values)


class _LeftOut(TemplateError):
    """The template wrote a prompt without what this role says."""


def _raise(message: str) -> str:
    raise TemplateError(message)


def _refused(error: Exception) -> UsageError:
    reason: Sentence | str = str(error)[:200]
    if isinstance(error, _LeftOut):
        reason = say("it leaves out what the role '{role}' says", role=error.message or "")
    return UsageError(
        "H804",
        say("The chat template refuses these messages ({reason}).", reason=reason),
        next_step=say("Begin with a user message and alternate with the assistant."),
    )
