"""How does hauslm speak? Sentences that can be said in every language, numbers the local way.

A message is not a string but a `Sentence`: an English template plus its values. It is rendered when
somebody reads it, in the reader's language, so a record written by a German colleague can be
reported in English. Templates are gettext msgids; `scripts/words.py` collects them.

Number formats inside a template follow Python's format language and come out localised:
``{x}`` as is, ``{x:.1f}`` one decimal, ``{x:,}`` grouped integer, ``{x:.1%}`` per cent,
``{x:EUR}`` / ``{x:USD}`` money, ``{d:date}`` an ISO date.
"""

from __future__ import annotations

import gettext
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

LOCALE_FOLDER = Path(__file__).parent.parent / "locale"
DOMAIN = "hauslm"
FALLBACK_LANGUAGE = "en"

_language: ContextVar[str] = ContextVar("hauslm_language", default="")


def available_languages() -> tuple[str, ...]:
    """English plus every folder below `locale/`: a further language is one more catalogue."""
    found = {FALLBACK_LANGUAGE}
    if LOCALE_FOLDER.is_dir():
        found |= {p.name for p in LOCALE_FOLDER.iterdir() if (p / "LC_MESSAGES").is_dir()}
    return tuple(sorted(found))


def environment_language() -> str:
    """The language that the environment asks for (HAUSLM_LANGUAGE, then the usual locale names)."""
    for name in ("HAUSLM_LANGUAGE", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            short = value.split(":")[0].split("_")[0].split(".")[0].lower()
            return short if short in available_languages() else FALLBACK_LANGUAGE
    return FALLBACK_LANGUAGE


def language() -> str:
    """The language in force: the one set by `use_language`, else the environment's."""
    return _language.get() or environment_language()


def use_language(code: str) -> None:
    """Speak `code` from here on, in our own sentences and in click's (which ask gettext)."""
    _language.set(code)
    os.environ["LANGUAGE"] = code
    gettext.bindtextdomain(DOMAIN, str(LOCALE_FOLDER))
    gettext.textdomain(DOMAIN)


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """Speak `code` inside the block only (used to write a report in two languages)."""
    token = _language.set(code)
    try:
        yield
    finally:
        _language.reset(token)


@lru_cache(maxsize=8)
def _catalogue(code: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, str(LOCALE_FOLDER), [code], fallback=True)


def translate(template: str, code: str | None = None) -> str:
    """The template in `code` (default: the language in force); untranslated ones stay English."""
    code = code or language()
    if code == FALLBACK_LANGUAGE or not template:
        return template
    return _catalogue(code).gettext(template)


def N_(template: str) -> str:  # noqa: N802 - gettext's own name for "mark, translate later"
    """Mark a text for translation without translating it here."""
    return template


@dataclass(frozen=True)
class Sentence:
    """A message in no language yet: English template, values, rendered by `text`."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def text(self, code: str | None = None) -> str:
        code = code or language()
        return _Localised(code).vformat(translate(self.template, code), (), dict(self.values))

    def __str__(self) -> str:
        return self.text()


def say(template: str, /, **values: Any) -> Sentence:
    """Make a `Sentence`; the keyword that the message extractor looks for."""
    return Sentence(template, values)


def as_text(value: Sentence | str, code: str | None = None) -> str:
    return value.text(code) if isinstance(value, Sentence) else value


class _Localised(string.Formatter):
    """`str.format` with numbers, money and dates written the local way."""

    def __init__(self, code: str) -> None:
        self.code = code

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Sentence):
            return value.text(self.code)
        if isinstance(value, Mapping):  # a fact file's text, one entry per language
            return str(value.get(self.code) or value.get(FALLBACK_LANGUAGE, ""))
        if isinstance(value, bool):
            return translate(N_("yes") if value else N_("no"), self.code)
        if isinstance(value, (int, float)) and format_spec:
            return number(value, format_spec, self.code)
        if isinstance(value, float):
            return number(value, "", self.code)
        if format_spec == "date":
            return date(str(value), self.code)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return ", ".join(self.format_field(v, format_spec) for v in value)
        return str(format(value, format_spec))

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        # A translation that names a value the template lacks must not become a traceback.
        return kwargs.get(key, "{" + str(key) + "}") if isinstance(key, str) else "{}"


def number(value: float, spec: str = "", code: str | None = None) -> str:
    """A number the local way. `spec`: '', '.1f', ',', '.1%', 'EUR', 'USD', 'g' (3 significant)."""
    from babel.numbers import format_currency, format_decimal, format_percent

    code = code or language()
    if value != value or value in (float("inf"), float("-inf")):
        return "–" if value != value else ("∞" if value > 0 else "-∞")
    if len(spec) == 3 and spec.isupper():
        text: str = format_currency(value, spec, locale=code)
        return text
    if spec.endswith("%"):
        decimals = int(spec[1:-1]) if spec.startswith(".") else 0
        pattern = (
            "#,##0" + ("." + "0" * decimals if decimals else "") + ("%" if code == "en" else " %")
        )
        return str(format_percent(value, format=pattern, locale=code))
    if spec.endswith("f"):
        decimals = int(spec.strip(",f").lstrip(".") or 0)
        pattern = "#,##0" + ("." + "0" * decimals if decimals else "")
        return str(format_decimal(value, format=pattern, locale=code))
    if spec in (",", "d", ",d"):
        return str(format_decimal(round(value), format="#,##0", locale=code))
    if spec in ("", "g"):
        if isinstance(value, int) and spec == "":
            return str(format_decimal(value, format="#,##0", locale=code))
        magnitude = abs(value)
        decimals = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 0.1 else 4
        # 24 hours are no 24.0 hours, and 0.0300 claims two digits that nobody knows.
        if float(value).is_integer():
            decimals = 0
        optional = "#" if magnitude < 0.1 else "0"
        pattern = "#,##0." + optional * decimals if decimals else "#,##0"
        return str(format_decimal(value, format=pattern, locale=code))
    return format(value, spec)


def money(value: float, currency: str = "EUR", code: str | None = None) -> str:
    """Money the local way: 1.234,50 € in German, €1,234.50 in English."""
    return number(value, currency, code)


def date(iso: str, code: str | None = None) -> str:
    """An ISO date the local way; anything else is returned unchanged."""
    import datetime

    from babel.dates import format_date

    try:
        day = datetime.date.fromisoformat(iso[:10])
    except ValueError:
        return iso
    return str(format_date(day, format="medium", locale=code or language()))
