"""Which chat template was the adapter trained with, and can another tool's language say the same?

The template is the base model's, or hauslm's plain one where the base has none (said so). Ollama fills
Go templates. Instead of translating Jinja, the pieces around the messages are found by rendering
marked conversations; longer conversations must then come out the same, letter by letter, or the
translation is refused. So a template that does more than put texts around messages is never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import HauslmError, RefusedError
from hauslm.base.words import Sentence, say
from hauslm.lm.interface import Message
from hauslm.lm.template import PLAIN_TEMPLATE, ChatTemplate

Render = Callable[[Sequence[Message]], str]
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Trained:
    """The template of training. `own`: the base brings it; else it is hauslm's plain one."""

    source: str
    own: bool
    bos: str
    eos: str
    chat: ChatTemplate

    def render(self, messages: Sequence[Message]) -> str:
        return self.chat.render(messages)

    @property
    def begins_with_bos(self) -> bool:
        return bool(self.bos) and self.render([Message("user", "x")]).startswith(self.bos)

    def note(self) -> Sentence | None:
        """What a reader must know: a base without a template was trained with ours."""
        if self.own:
            return None
        return say(
            "The base model has no chat template; hauslm's plain one, with which the adapter was trained, goes with it."
        )


def trained_template(base: Path, adapter: Path) -> Trained:
    """The template beside the adapter, else the base's, else hauslm's plain one."""
    source = _source(adapter) or _source(base)
    names = _config(base)
    added = json.loads((base / "tokenizer.json").read_text(encoding="utf-8")).get(
        "added_tokens", []
    )
    named = {
        k: _spelling(names.get(k)) for k in ("bos_token", "eos_token", "unk_token", "pad_token")
    }
    special = [t["content"] for t in added if t["special"]]
    return Trained(
        source or PLAIN_TEMPLATE, source is not None, named["bos_token"], named["eos_token"],
        ChatTemplate(source, named, special),
    )  # fmt: skip


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    if not file.is_file() or file.stat().st_size > _MAX_BYTES * 8:
        return {}
    value = json.loads(file.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _source(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file() and file.stat().st_size <= _MAX_BYTES:
        return file.read_text(encoding="utf-8") or None
    template = _config(folder).get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) and template else None


def _spelling(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


# ---------------------------------------------------------------- the pieces


@dataclass(frozen=True)
class Pieces:
    """The texts around messages. `first` before the first question; `answer` between question and
    answer; `next` between answer and question; `end` after the last question; `system` before and
    `after_system` behind the system text (up to the question)."""

    first: str
    answer: str
    next: str
    end: str
    system: str
    after_system: str

    def render(self, messages: Sequence[Message]) -> str:
        """What these pieces make of a conversation: what the Go template will make of it."""
        text = ""
        for i, message in enumerate(messages):
            if message.role == "system":
                text += self.system + message.content + self.after_system
            elif message.role == "assistant":
                text += self.answer + message.content
            elif i == 0:
                text += self.first + message.content
            else:
                behind = messages[i - 1].role == "system"
                text += ("" if behind else self.next) + message.content
        return text + (self.end if messages[-1].role == "user" else "")


def _marked(roles: str) -> list[Message]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(names[r], f"MARK{i}{r}") for i, r in enumerate(roles)]  # type: ignore[arg-type]


def pieces_of(render: Render) -> Pieces:
    """The pieces of a template. H738 if pieces alone do not make its conversations."""
    try:
        first, end = _around(render, "u")
        with_answer = _around(render, "uau")
        system, after, _ = _around(render, "su")
        found = Pieces(first, with_answer[1], with_answer[2], end, system, after)
        for roles in ("u", "uau", "uauau", "su", "suau", "suauauau"):
            if found.render(_marked(roles)) != render(_marked(roles)):
                raise ValueError(roles)
    except (ValueError, HauslmError) as error:
        raise RefusedError(
            "H738",
            say("The chat template does more than Ollama's template language can say."),
            next_step=say("Use vLLM or hauslm serve, which fill the template itself."),
        ) from error
    return found


def _around(render: Render, roles: str) -> list[str]:
    """The texts before, between and behind the marks of a conversation."""
    text, found = render(_marked(roles)), []
    for message in _marked(roles):
        before, mark, text = text.partition(message.content)
        if not mark:
            raise ValueError("a message is not in the text")
        found.append(before)
    return [*found, text]


def trims(render: Render) -> bool:
    """Does the template cut white space around messages? Go templates here cannot."""
    plain = render([Message("user", "MARK")])
    return render([Message("user", " MARK ")]) != plain.replace("MARK", " MARK ")


# ---------------------------------------------------------------- Go


def go_template(pieces: Pieces, bos: str) -> str:
    """The pieces as an Ollama template. `bos`: left to Ollama, which puts it first itself."""
    p = pieces
    first, system = p.first.removeprefix(bos), p.system.removeprefix(bos)
    after_first = f"{{{{ if eq $i 0 }}}}{_go(first)}{{{{ else if not (and $.System (eq $i 1)) }}}}"
    return (
        "{{ range $i, $m := .Messages }}"
        f'{{{{ if eq $m.Role "system" }}}}{_go(system)}{{{{ $m.Content }}}}{_go(p.after_system)}'
        f'{{{{ else if eq $m.Role "user" }}}}{after_first}{_go(p.next)}{{{{ end }}}}{{{{ $m.Content }}}}'
        f"{{{{ if eq (len (slice $.Messages $i)) 1 }}}}{_go(p.end)}{{{{ end }}}}"
        f'{{{{ else if eq $m.Role "assistant" }}}}{_go(p.answer)}{{{{ $m.Content }}}}'
        "{{ end }}{{ end }}"
    )


def _go(text: str) -> str:
    """A literal as a Go string constant: no white space or brace can be misread."""
    if not text:
        return ""
    return "{{ " + json.dumps(text, ensure_ascii=True).replace('"""', '"\\"\\"') + " }}"
