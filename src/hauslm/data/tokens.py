"""What does the base model see? Its tokenizer and its chat template, without any tensor library.

The tokenizer is the Rust one from `tokenizer.json`; the template comes from `chat_template.jinja` or
`tokenizer_config.json` and runs in Jinja's immutable sandbox. Text of documents is never allowed to
smuggle in control tokens: raw text is encoded with special tokens switched off, and in conversations
their spellings are broken up (`neutral`).
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from hauslm.base.errors import DataError, MissingError
from hauslm.base.files import read_json, sha256_bytes, sha256_file
from hauslm.base.words import say
from hauslm.catalog.chat import PLAIN_TEMPLATE, ChatText, ControlTokens, TemplateError, reason_of
from hauslm.data.quick import Quick, Trial


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one text, and for each token the byte (of the text in UTF-8, `raw`) where it ends."""

    raw: bytes
    ids: NDArray[np.uint32]
    ends: NDArray[np.int64]


def _optional_json(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def template_source(folder: Path) -> str | None:
    """The base's own chat template, or None."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    value = _optional_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(value, list):
        named = {v.get("name"): v.get("template") for v in value if isinstance(v, Mapping)}
        value = named.get("default") or next(iter(named.values()), None)
    return value if isinstance(value, str) else None


def template_sha256(folder: Path) -> str:
    """Of the template that conversations of this base are written with (ours, if it has none)."""
    return sha256_bytes((template_source(folder) or PLAIN_TEMPLATE).encode())


class Tokenizer:
    """Tokenizer and template of the base model in `folder`. `quick`: texts in bulk by kitoken, which has passed
    its trial for this folder (`data.quick`).

    Raises `MissingError` H521 if the folder has no tokenizer, `DataError` H320 if it is damaged.
    """

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder = folder
        self._use_quick = quick
        self.file = folder / "tokenizer.json"
        if not self.file.is_file():
            raise MissingError(
                "H521",
                say("The base model folder has no tokenizer.json."),
                where=str(folder),
                next_step=say("hauslm check lists what a base model folder must contain."),
            )
        try:
            self._rust = RustTokenizer.from_file(str(self.file))
            self._raw = RustTokenizer.from_file(str(self.file))
        except Exception as error:  # the Rust side raises bare Exception
            raise DataError(
                "H320",
                say("tokenizer.json cannot be read: {reason}.", reason=str(error)[:200]),
                where=str(self.file),
                next_step=say("Copy the file again from where the base model came from."),
            ) from error
        self._raw.encode_special_tokens = True
        for one in (self._rust, self._raw):
            one.no_truncation()
            one.no_padding()
        self._config = self._optional_json("tokenizer_config.json")
        self._model_config = self._optional_json("config.json")

    def _optional_json(self, name: str) -> dict[str, Any]:
        return _optional_json(self.folder / name)

    # ------------------------------------------------------------ facts

    @cached_property
    def sha256(self) -> str:
        return sha256_file(self.file)

    @cached_property
    def vocab_size(self) -> int:
        return int(self._rust.get_vocab_size(with_added_tokens=True))

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Spelling -> id of every token that is control, not text."""
        return {t.content: i for i, t in self._rust.get_added_tokens_decoder().items() if t.special}

    def _named(self, name: str) -> str:
        value = self._config.get(name)
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            return value
        id_ = self._model_config.get(f"{name}_id")
        if isinstance(id_, list):
            id_ = id_[0] if id_ else None
        return (self._rust.id_to_token(id_) or "") if isinstance(id_, int) else ""

    @cached_property
    def bos_token(self) -> str:
        return self._named("bos_token")

    @cached_property
    def eos_token(self) -> str:
        return self._named("eos_token")

    @cached_property
    def bos_id(self) -> int | None:
        return self._rust.token_to_id(self.bos_token) if self.bos_token else None

    @cached_property
    def eos_id(self) -> int:
        """Id of the end token; `DataError` H321 if the model has none (it would never stop)."""
        id_ = self._rust.token_to_id(self.eos_token) if self.eos_token else None
        if id_ is None:
            raise DataError(
                "H321",
                say("The base model names no end token, so an adapter could not learn to stop."),
                where=str(self.folder),
                next_step=say("Add eos_token to tokenizer_config.json."),
            )
        return int(id_)

    @cached_property
    def text_prefix(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text: the begin token, or nothing."""
        with_special = self._rust.encode("a", add_special_tokens=True).ids
        without = self._rust.encode("a", add_special_tokens=False).ids
        first = with_special[:1]
        return tuple(first) if first and first != without[:1] and first[0] == self.bos_id else ()

    # ------------------------------------------------------------ encode, decode

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of raw text; control-token spellings in it are ordinary characters."""
        ids: list[int] = self._raw.encode(text, add_special_tokens=False).ids
        return [*self.text_prefix, *ids] if add_special else ids

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a rendered template, whose control tokens are meant."""
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def rendered_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode_rendered` with the character span of each token."""
        encoding = self._rust.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def decode(self, ids: Sequence[int] | NDArray[np.uint32], *, skip_special: bool = True) -> str:
        return str(self._rust.decode([int(i) for i in ids], skip_special_tokens=skip_special))

    def encode_texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Raw texts in one parallel call, with byte ends.

        Byte-level vocabularies (Llama 3, Qwen, ...), and those that write a blank as U+2581 and unknown
        characters as bytes (Mistral 7B, Llama 2), need no offsets from the library: the length of each
        token in bytes is known, and their sum must be that of the text (and the blank put before it).
        Raises `quick.Disagreement`, if kitoken was asked for.
        """
        sizes = self._byte_lengths
        if sizes is not None:
            out = []
            for text, numbers in zip(texts, self._ids_of(texts), strict=True):
                ids = _as_array(numbers)
                ends = np.cumsum(sizes[ids], dtype=np.int64)
                raw = text.encode("utf-8")
                more = (int(ends[-1]) if len(ends) else 0) - len(raw)
                if more == 0:
                    out.append(Encoded(raw, ids, ends))
                elif more == 1 and self._puts_blank_first:
                    out.append(Encoded(raw, ids, ends - 1))
                else:
                    out.append(self._with_offsets([text])[0])
            return out
        return self._with_offsets(texts)

    @cached_property
    def _quick(self) -> Quick | None:
        return Quick(self.file, self._raw) if self._use_quick else None

    def trial(self) -> Trial | None:
        """Whether kitoken will do for this base, being found out; None if there is no use for it."""
        return Trial(self.file) if self._byte_lengths is not None else None

    def passed(self, trial: Trial) -> bool:
        return trial.passed(self._raw)

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._quick.ids_of(texts) if self._quick else [None] * len(texts)
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        rest = iter(self._raw.encode_batch_fast(left, add_special_tokens=False) if left else ())
        return [next(rest).ids if ids is None else ids for ids in found]

    def _with_offsets(self, texts: Sequence[str]) -> list[Encoded]:
        out = []
        for text, encoding in zip(
            texts, self._raw.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
            widths = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
            byte_of = np.concatenate(([0], np.cumsum(widths)))
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            ends = np.maximum.accumulate(byte_of[offsets[:, 1]]) if len(offsets) else byte_of[:0]
            out.append(Encoded(text.encode("utf-8"), _as_array(encoding.ids), ends))
        return out

    @cached_property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self._rust.to_str())
        return spec

    @cached_property
    def _puts_blank_first(self) -> bool:
        """Does the tokenizer put U+2581 before a text?"""
        return '"prepend"' in json.dumps(
            [self._spec.get("normalizer"), self._spec.get("pre_tokenizer")]
        )

    @cached_property
    def _byte_lengths(self) -> NDArray[np.int64] | None:
        """Bytes per token id where the spelling of a token tells; None where it does not."""
        if self._is_byte_level():
            length_of: Callable[[str], int] = len  # one character per byte
        elif self._writes_blanks():
            length_of = _length_with_blanks
        else:
            return None
        vocabulary = self._rust.get_vocab(with_added_tokens=False)
        size = max(self.vocab_size, max(vocabulary.values(), default=0) + 1)
        lengths = np.zeros(size, dtype=np.int64)
        for token, id_ in vocabulary.items():
            lengths[id_] = length_of(token)
        for id_, added in self._rust.get_added_tokens_decoder().items():
            lengths[id_] = len(added.content.encode("utf-8"))
        unknown = self._rust.token_to_id(self._spec["model"].get("unk_token") or "")
        if unknown is not None:
            lengths[unknown] = _NEVER
        return lengths

    def _is_byte_level(self) -> bool:
        pre = json.dumps(self._spec.get("pre_tokenizer") or {})
        return (
            '"ByteLevel"' in pre
            and '"add_prefix_space": true' not in pre
            and self._spec.get("normalizer") in (None, {})
        )

    def _writes_blanks(self) -> bool:
        """As Mistral 7B and Llama 2 do: every blank becomes U+2581, nothing else is changed or split."""
        if self._spec["model"].get("type") != "BPE" or not self._spec["model"].get("byte_fallback"):
            return False
        normalizer = self._spec.get("normalizer") or {}
        steps = [dict(s) for s in normalizer.get("normalizers", [normalizer])]
        return self._spec.get("pre_tokenizer") is None and steps in (
            [_BLANK_FIRST, _BLANKS],
            [_BLANKS],
        )

    # ------------------------------------------------------------ chat template

    @cached_property
    def has_own_template(self) -> bool:
        return self._template_source is not None

    @cached_property
    def _template_source(self) -> str | None:
        return template_source(self.folder)

    @cached_property
    def _chat(self) -> ChatText:
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        named = {name: self._named(name) for name in names}
        try:
            return ChatText(self._template_source, named)
        except TemplateError as error:
            raise self._template_error(error) from error

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.special_tokens)

    def _template_error(self, error: TemplateError) -> DataError:
        return DataError(
            "H322",
            say("The chat template of the base model fails: {reason}.", reason=reason_of(error)),
            where=str(self.folder),
            next_step=say("Check chat_template.jinja in the folder of the base model."),
        )

    def render(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False
    ) -> str:
        """The text that the template makes of the messages; H322 if it cannot."""
        chat = self._chat
        try:
            return chat.render(messages, add_generation_prompt)
        except TemplateError as error:
            raise self._template_error(error) from error

    def neutral(self, text: str) -> str:
        """The text with every control-token spelling broken by a blank after its first character."""
        return self._control.neutral(text)

    def spells_control(self, text: str) -> bool:
        """Does the text hold the spelling of a control token?"""
        return self._control.spelled_in(text)


_BLANK_FIRST = {"type": "Prepend", "prepend": "\u2581"}
_BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
_ONE_BYTE = re.compile(r"<0x[0-9A-F]{2}>\Z")
_NEVER = 1 << 40  # bytes: no text is as long


def _length_with_blanks(token: str) -> int:
    if _ONE_BYTE.match(token):
        return 1
    return len(token.replace("\u2581", " ").encode("utf-8"))


def _as_array(ids: list[int]) -> NDArray[np.uint32]:
    """The library hands out Python's numbers; the standard array takes them three times as fast as numpy."""
    return np.frombuffer(array("I", ids), dtype=np.uint32)
