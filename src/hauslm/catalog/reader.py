"""How does a fact file become a fact? One YAML file, read strictly, or refused by name.

A file may open with a table `sources` (short name -> url or text, ISO date, remark); a figure is
`{value, unit, source}` with a name from that table. Refused with file and key: a number without
source and date, an unknown key, unit or source name, a duplicate key, a date that is not ISO. What
a file may hold at all is in `schema`; finding and caching files is `load`'s.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from hauslm.base.errors import DataError, did_you_mean
from hauslm.base.quantity import UNITS, Known, Quantity
from hauslm.base.words import Sentence, say
from hauslm.catalog.packed import plain

MAX_FILE_BYTES = 1 << 20
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_KNOWN: tuple[str, ...] = get_args(Known)


@dataclass(frozen=True)
class Source:
    """Where a figure is from: a URL or a description with its remark, and an ISO date."""

    text: str
    date: str


@dataclass(frozen=True)
class Node:
    """One place in a fact file: its value, and how to say where it stands."""

    value: Any
    file: str
    path: str
    sources: Mapping[str, Source]

    def fail(self, code: str, what: Sentence, next_step: Sentence | str = "") -> DataError:
        """An error that names this file and key; the caller raises it."""
        return DataError(code, what, where=f"{self.file}: {self.path or '-'}", next_step=next_step)

    def _wrong(self, expected: Sentence | str) -> DataError:
        what = say("Expected: {expected}; found: {value}.", expected=expected, value=self._shown())
        return self.fail("H393", what)

    def _shown(self) -> str:
        try:
            shown = repr(self.value)
        except (ValueError, RecursionError):  # thousands of digits, a thousand levels
            shown = type(self.value).__name__
        return shown if len(shown) <= 60 else shown[:57] + "..."

    def _child(self, value: Any, key: object) -> Node:
        path = f"{self.path}[{key}]" if isinstance(key, int) else f"{self.path}.{key}".lstrip(".")
        return Node(value, self.file, path, self.sources)

    # -- containers

    def keys(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Node]:
        """The entries of a mapping; H391 on a key that is not named, H392 if one is missing.

        Entries that are null count as absent.
        """
        found = self.mapping()
        known = (*required, *optional)
        for key, node in found.items():
            if key not in known:
                raise node.fail(
                    "H391", say("There is no key '{key}' here.", key=key), did_you_mean(key, known)
                )
        present = {k: n for k, n in found.items() if n.value is not None}
        for key in required:
            if key not in present:
                raise self.fail("H392", say("The key '{key}' is missing.", key=key))
        return present

    def mapping(self) -> dict[str, Node]:
        """The entries of a mapping with free text keys."""
        if not isinstance(self.value, dict):
            raise self._wrong(say("a mapping"))
        for key in self.value:
            if not isinstance(key, str):
                raise self._child(None, repr(key))._wrong(say("a text as key"))
        return {k: self._child(v, k) for k, v in self.value.items()}

    def items(self) -> tuple[Node, ...]:
        """The entries of a list."""
        if not isinstance(self.value, list):
            raise self._wrong(say("a list"))
        return tuple(self._child(v, i) for i, v in enumerate(self.value))

    # -- scalars

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self._wrong(say("a text"))
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._wrong(say("true or false"))
        return self.value

    def one_of(self, choices: Sequence[str]) -> str:
        if self.value not in choices or not isinstance(self.value, str):
            raise self._wrong(" | ".join(choices))
        return self.value

    def count(self) -> int:
        """A whole number above zero whose source stands in the object around it."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 1:
            raise self._wrong(say("a whole number above zero"))
        return self.value

    def number(self) -> float:
        """A finite number whose source stands in the object around it."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self._wrong(say("a number"))
        try:
            finite = math.isfinite(self.value)
        except OverflowError:  # an integer too large for a float
            finite = False
        if not finite:
            raise self._wrong(say("a finite number"))
        return self.value

    def date(self, *, whole_day: bool = False) -> str:
        """An ISO date: YYYY, YYYY-MM or YYYY-MM-DD (`whole_day`: the last form only)."""
        value = str(self.value) if type(self.value) is int else self.value
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                datetime.date.fromisoformat((value + "-01-01")[:10])
            except ValueError:
                pass
            else:
                if len(value) == 10 or not whole_day:
                    return value
        raise self._wrong("YYYY-MM-DD" if whole_day else "YYYY, YYYY-MM, YYYY-MM-DD")

    # -- figures and their sources

    def source(self) -> Source:
        """The source that this entry names in the table `sources`, or spells out itself."""
        if isinstance(self.value, dict):
            return _source(self)
        name = self.value
        if not isinstance(name, str) or name not in self.sources:
            shown = self._shown()
            raise self.fail(
                "H394",
                say("The source {name} is not in the table of sources of this file.", name=shown),
                did_you_mean(shown, self.sources),
            )
        return self.sources[name]

    def quantity(self, *units: str) -> Quantity:
        """A figure with unit (one of `units`) and source; `known` is sourced unless it says so."""
        if isinstance(self.value, (int, float)):
            raise self.fail(
                "H394",
                say("The number {value} has no source and date.", value=self._shown()),
                say("Write it as a figure with value, unit and source."),
            )
        keys = self.keys(("value", "unit"), ("source", "low", "high", "known"))
        if "source" not in keys:
            raise self.fail("H394", say("This figure has no source and date."))
        unit = keys["unit"].text()
        if unit not in UNITS or unit not in units:
            raise keys["unit"].fail(
                "H395",
                say("The unit '{unit}' is not one of {units}.", unit=unit, units=", ".join(units)),
            )
        source = keys["source"].source()
        known = keys["known"].one_of(_KNOWN) if "known" in keys else "sourced"
        low = keys["low"].number() if "low" in keys else None
        high = keys["high"].number() if "high" in keys else None
        value = keys["value"].number()
        try:
            return Quantity(value, unit, known, low, high, source.text, source.date)  # type: ignore[arg-type]
        except ValueError as error:
            raise self.fail(
                "H393", say("This is not a sound figure ({reason}).", reason=str(error))
            ) from error


def _source(node: Node) -> Source:
    keys = node.keys(("date",), ("url", "text", "remark"))
    if ("url" in keys) == ("text" in keys):
        raise node.fail("H394", say("A source has either 'url' or 'text'."))
    text = keys["url"].text() if "url" in keys else keys["text"].text()
    if "url" in keys and not text.startswith(("https://", "http://")):
        raise keys["url"].fail("H394", say("'{url}' is not a web address.", url=text))
    if "remark" in keys:
        text += f" ({keys['remark'].text()})"
    return Source(text, keys["date"].date())


@cache
def _loader() -> Any:
    """PyYAML's safe loader (in C where built), without dates, refusing duplicate keys."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            found = super().construct_mapping(node, deep=deep)
            if len(found) != len(node.value):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key occurs twice", node.start_mark
                )
            return found

    Loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _has_aliases(data: Any) -> bool:
    """An alias makes one list or mapping stand in two places; a few lines of them are a bomb."""
    waiting, seen = [data], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            if id(node) in seen:
                return True
            seen.add(id(node))
            waiting += node.values() if isinstance(node, dict) else node
    return False


def plain_yaml(raw: bytes, file: str) -> dict[str, Any]:
    """The mapping in a fact file, as YAML says it. `file` is named in errors (H390)."""
    import yaml

    root = Node(None, file, "", {})
    if len(raw) > MAX_FILE_BYTES:
        raise root.fail("H390", say("A fact file may have at most 1 MiB."))
    try:
        data = yaml.load(raw.decode("utf-8"), Loader=_loader())  # noqa: S506 - a safe loader
    except Exception as error:  # a hostile scalar breaks PyYAML's constructors in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise root.fail("H390", say("This is not valid YAML: {reason}.", reason=reason)) from error
    if not isinstance(data, dict):
        raise root.fail("H390", say("A fact file consists of 'key: value' lines."))
    if _has_aliases(data):
        raise root.fail("H390", say("Anchors and aliases are not allowed in a fact file."))
    return data


def parse(raw: bytes, file: str) -> Node:
    """The root of a fact file with its sources read. `file` is named in errors (H390-H396)."""
    packed = plain(raw)
    data = plain_yaml(raw, file) if packed is None else packed
    table = data.pop("sources", None) or {}
    sources: dict[str, Source] = {}
    for name, node in Node(table, file, "sources", {}).mapping().items():
        sources[name] = _source(node)
    return Node(data, file, "", sources)
