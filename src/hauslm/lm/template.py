"""What text does the model see for a conversation? The base's chat template, as it was trained.

What is rendered is what `data` rendered for training (`catalog.chat`, and a test compares). Text of
messages cannot smuggle in control tokens, so an article that contains "[/INST]" stays an article.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hauslm.base.errors import UsageError
from hauslm.base.words import say
from hauslm.catalog.chat import PLAIN_TEMPLATE, ChatText, ControlTokens, TemplateError, reason_of
from hauslm.lm.interface import Message

__all__ = ["PLAIN_TEMPLATE", "ChatTemplate"]


class ChatTemplate:
    """`source`: the base's template or None; `named`: bos_token, ...; `special`: spellings."""

    def __init__(
        self, source: str | None, named: Mapping[str, str], special: Iterable[str]
    ) -> None:
        self._control = ControlTokens(special)
        try:
            self._chat = ChatText(source, named)
        except TemplateError as error:
            raise _refused(error) from error

    def holds_control(self, text: str) -> bool:
        """Whether the text contains the spelling of a control token."""
        return self._control.spelled_in(text)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt up to where the assistant's answer begins; H804 if the template refuses, or
        leaves out what the system says."""
        plain = [{"role": m.role, "content": self._control.neutral(m.content)} for m in messages]
        try:
            return self._chat.render(plain, add_generation_prompt=True)
        except TemplateError as error:
            raise _refused(error) from error


def _refused(error: TemplateError) -> UsageError:
    return UsageError(
        "H804",
        say("The chat template refuses these messages ({reason}).", reason=reason_of(error)),
        next_step=say("Begin with a user message and alternate with the assistant."),
    )
