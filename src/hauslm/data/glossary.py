"""The team's words: canonical form, allowed variants, forbidden forms, per language.

A glossary is a YAML file: a list of terms, or a mapping with `terms:`. A term is written per language

    - id: gusset
      en: {canonical: gusset, variants: [gussets], forbidden: [gore], definition: ...}

or flat (`canonical`, `variants`, `forbidden`, `language`), or as a plain string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hauslm.base.errors import DataError
from hauslm.base.words import Sentence, say
from hauslm.data.document import Limits, UnreadableError, clean
from hauslm.data.language import normal_code
from hauslm.data.readers._decode import decode, whole_file
from hauslm.data.readers.markdown import NoAliasLoader

MOST_TERMS = 100_000
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Term:
    """One term in one language. Texts may use `canonical` or `variants`, never `forbidden`."""

    id: str
    language: str
    canonical: str
    variants: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    definition: str = ""

    @property
    def forms(self) -> tuple[str, ...]:
        return (self.canonical, *self.variants)


def load_glossary(path: Path) -> list[Term]:
    """All terms of the file; `DataError` H345 with the entry for anything that is not one."""
    if not path.is_file():
        raise DataError(
            "H345",
            say("The glossary does not exist."),
            where=str(path),
            next_step=say("Check evaluation: glossary in the project file."),
        )
    try:
        text, _ = decode(whole_file(path, Limits(file_bytes=_MAX_BYTES)))
        value = yaml.load(text, NoAliasLoader)  # noqa: S506 - a SafeLoader without aliases
    except UnreadableError as error:
        raise _wrong(path, "", error.reason) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _wrong(path, "", " ".join(str(error).split())[:160]) from error
    entries = value.get("terms") if isinstance(value, Mapping) else value
    if not isinstance(entries, list) or not entries:
        raise _wrong(path, "terms", say("a list of terms is expected"))
    if len(entries) > MOST_TERMS:
        raise _wrong(path, "terms", say("more than {most:,} terms", most=MOST_TERMS))
    terms: list[Term] = []
    for number, entry in enumerate(entries, 1):
        terms += _terms(path, entry, number)
    return terms


def _wrong(path: Path, place: str, reason: Sentence | str) -> DataError:
    return DataError(
        "H345",
        say(
            "The glossary cannot be used ({place}: {reason}).",
            place=place or path.name,
            reason=reason,
        ),
        where=str(path),
        next_step=say(
            "A term needs 'canonical'; 'variants', 'forbidden' and 'definition' may follow."
        ),
    )


def _terms(path: Path, entry: Any, number: int) -> list[Term]:
    place = f"terms[{number}]"
    if isinstance(entry, str):
        return [Term(entry, "", clean(entry).strip())]
    if not isinstance(entry, Mapping):
        raise _wrong(path, place, say("neither a text nor fields of a term"))
    id_ = str(entry.get("id") or entry.get("canonical") or number)
    if "canonical" in entry:
        return [_term(path, place, id_, normal_code(entry.get("language")), entry)]
    found = [
        _term(path, f"{place}.{key}", id_, normal_code(key), value)
        for key, value in entry.items()
        if isinstance(value, Mapping) and normal_code(key) and "canonical" in value
    ]
    if not found:
        raise _wrong(path, place, say("'canonical' is missing"))
    return found


def _term(path: Path, place: str, id_: str, language: str, entry: Mapping[str, Any]) -> Term:
    canonical = entry.get("canonical")
    if not isinstance(canonical, str) or not canonical.strip():
        raise _wrong(path, place, say("'canonical' must be a text that is not empty"))
    return Term(
        id=id_,
        language=language,
        canonical=clean(canonical).strip(),
        variants=_strings(path, place, entry, "variants"),
        forbidden=_strings(path, place, entry, "forbidden"),
        definition=clean(str(entry.get("definition") or "")).strip(),
    )


def _strings(path: Path, place: str, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise _wrong(path, place, say("'{key}' must be a list of texts", key=key))
    return tuple(clean(v).strip() for v in value if v.strip())
