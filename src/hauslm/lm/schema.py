"""How is an answer bound to a JSON Schema, and is it really? Grammar, check, smallest instance.

llguidance turns the schema into a grammar that says before every token what may follow. A schema it
cannot enforce to the letter is refused before the first token; whatever was decoded is validated
again with jsonschema, because an answer that is cut off is not valid however it began.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from hauslm.base.errors import UsageError
from hauslm.base.words import Sentence, say

# `whitespace_flexible` off: weak models otherwise write blanks until the limit.
_OPTIONS: Any = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
MAX_SCHEMA_BYTES = 256 * 1024
MAX_DEPTH = 64


def key_of(schema: Mapping[str, Any]) -> bytes:
    """The schema's one spelling, property order kept (it is the order of writing)."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode()


def check(schema: Mapping[str, Any]) -> None:
    """Is this a JSON Schema that stays on this machine? H801 if not.

    Only references inside the schema are allowed: nothing is ever fetched.
    """
    import jsonschema

    _check_depth(schema)
    try:
        size = len(key_of(schema))
    except UnicodeEncodeError as error:  # half a surrogate pair is no text
        raise UsageError(
            "H801",
            say("The JSON Schema holds characters that are no text."),
            next_step=say("Save it as UTF-8."),
        ) from error
    if size > MAX_SCHEMA_BYTES:
        raise UsageError(
            "H801",
            say("The JSON Schema is larger than {kib} KiB.", kib=MAX_SCHEMA_BYTES // 1024),
            next_step=say("Describe one row only."),
        )
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise UsageError(
                "H801",
                say("The JSON Schema refers to {reference}, outside itself.", reference=reference),
                next_step=say("Put the definition under $defs."),
            )
    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        raise UsageError(
            "H801",
            say(
                "This is not a JSON Schema ({place}: {reason}).",
                place="/".join(str(p) for p in error.absolute_path) or "/",
                reason=error.message,
            ),
            next_step=say("Check the schema against JSON Schema 2020-12."),
        ) from error


def _check_depth(node: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise UsageError(
            "H801",
            say("The JSON Schema is nested more than {depth} levels deep.", depth=MAX_DEPTH),
            next_step=say("Describe one row only."),
        )
    if isinstance(node, Mapping):
        for value in node.values():
            _check_depth(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            _check_depth(value, depth + 1)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


class Grammars:
    """Compiled schemas for one tokenizer. `tokenizer` is an `llguidance.LLTokenizer`."""

    def __init__(self, tokenizer: Any, keep: int = 64) -> None:
        self._tokenizer = tokenizer
        self._compiled: OrderedDict[bytes, Any] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """A fresh `LLMatcher` for the schema; H801 or H802 before the first token."""
        key = key_of(schema)
        with self._lock:
            if key not in self._compiled:
                check(schema)
                self._compiled[key] = self._compile(schema)
                while len(self._compiled) > self._keep:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key].deep_copy()

    def _compile(self, schema: Mapping[str, Any]) -> Any:
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema, ensure_ascii=False), overrides=_OPTIONS
        )
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        matcher = None if failed else LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher is None or matcher.is_error() or messages:
            reason = messages[0] if messages else matcher.get_error() if matcher else ""
            raise UsageError(
                "H802",
                say(
                    "This JSON Schema cannot be enforced while writing ({reason}).",
                    reason=_in_words(" ".join(str(reason).split())[:300]),
                ),
                next_step=say("Leave out the keyword that is named, or describe it differently."),
            )
        return matcher


def _in_words(reason: str) -> Sentence | str:
    """The grammar maker's usual reasons in the reader's language; others as it gives them."""
    if found := re.match(r"Unimplemented keys: \[(.*)\]$", reason):
        return say("unknown to the grammar: {names}", names=found[1].replace('"', ""))
    if found := re.match(r"Unknown format: (.*)$", reason):
        return say("unknown to the grammar: {names}", names=f"format {found[1]}")
    return reason


def parse(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """(value, '') if `text` is JSON and valid under `schema`; else (None, the reason in words)."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return None, f"JSON: {error}"
    reason = invalid(value, schema)
    return (None, reason) if reason else (value, "")


def invalid(value: Any, schema: Mapping[str, Any]) -> str:
    """Why `value` does not fit `schema`; '' if it does."""
    import jsonschema

    error = jsonschema.Draft202012Validator(dict(schema)).iter_errors(value)
    first = next(iter(error), None)
    if first is None:
        return ""
    place = "/".join(str(p) for p in first.absolute_path) or "/"
    return f"{place}: {first.message[:200]}"


# ---------------------------------------------------------------- sizes


def longest_characters(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> float:
    """Upper bound of the characters of an instance written without blanks; inf if unbounded.

    Strings count as `maxLength` characters (an escaped character takes up to six on the way).
    """
    root = root or schema
    if "const" in schema:
        return len(json.dumps(schema["const"], ensure_ascii=False))
    if "enum" in schema:
        return max(len(json.dumps(v, ensure_ascii=False)) for v in schema["enum"])
    if "$ref" in schema:
        return longest_characters(resolve(schema["$ref"], root), root)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return max(longest_characters(s, root) for s in schema[key])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not kinds:
        return float("inf")
    return max(_longest_of_kind(kind, schema, root) for kind in kinds)


def _longest_of_kind(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> float:
    if kind in ("null", "boolean"):
        return 5
    if kind in ("integer", "number"):
        ends = [schema.get("minimum"), schema.get("maximum")]
        if kind == "integer" and None not in ends:
            return max(len(str(e)) for e in ends)
        return float("inf")
    if kind == "string":
        return float(schema.get("maxLength", float("inf"))) + 2
    if kind == "array":
        count = schema.get("maxItems", float("inf"))
        return 2 + count * (1 + longest_characters(schema.get("items", {}), root)) if count else 2
    if schema.get("additionalProperties", True) is not False:
        return float("inf")
    return 2 + sum(
        len(json.dumps(name, ensure_ascii=False)) + 2 + longest_characters(value, root)
        for name, value in schema.get("properties", {}).items()
    )


def tightened(schema: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The same schema with `maxLength` and `maxItems` scaled down (never below the minimum).

    Whatever fits the result fits the original too.
    """

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(n) for n in node]
        if not isinstance(node, Mapping):
            return node
        new = {k: walk(v) for k, v in node.items()}
        for upper, lower in (("maxLength", "minLength"), ("maxItems", "minItems")):
            if isinstance(new.get(upper), int) and not isinstance(new[upper], bool):
                new[upper] = max(int(new[upper] * factor), int(new.get(lower, 0)), 1)
                new[upper] = min(new[upper], node[upper])
        return new

    result: dict[str, Any] = walk(schema)
    return result


def resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The subschema that a local reference (`#/$defs/name`) points to; H801 if there is none."""
    node: Any = root
    for part in [p for p in reference.removeprefix("#").split("/") if p]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or part not in node:
            raise UsageError(
                "H801",
                say("The JSON Schema refers to {reference}, which it lacks.", reference=reference),
                next_step=say("Put the definition under $defs."),
            )
        node = node[part]
    return node if isinstance(node, Mapping) else {}


def smallest_instance(schema: Mapping[str, Any]) -> Any:
    """A smallest value that fits the schema (for `echo`); H802 if none is found by simple means."""
    value = _smallest(schema, schema, 0)
    reason = invalid(value, schema)
    if reason:
        raise UsageError(
            "H802",
            say("No smallest instance of this JSON Schema was found ({reason}).", reason=reason),
            next_step=say("Use a real model for this schema."),
        )
    return value


def _smallest(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return _smallest(resolve(schema["$ref"], root), root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            rest = {k: v for k, v in schema.items() if k != key}
            return _smallest({**rest, **schema[key][0]}, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required", [])
        return {n: _smallest(properties.get(n, {}), root, depth + 1) for n in names}
    if kind == "array":
        item = _smallest(schema.get("items", {}), root, depth + 1)
        return [item] * int(schema.get("minItems", 0))
    if kind == "string":
        return "a" * int(schema.get("minLength", 0))
    if kind in ("integer", "number"):
        return _smallest_number(schema)
    return False if kind == "boolean" else None


def _smallest_number(schema: Mapping[str, Any]) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if low is None:
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        low = 0 if high is None or high > 0 else high - (high == schema.get("exclusiveMaximum"))
    elif "exclusiveMinimum" in schema:
        low += 1
    step = schema.get("multipleOf")
    return (
        float(-(-low // step) * step)
        if step and step % 1
        else -(-low // step) * step
        if step
        else low
    )


__all__ = [
    "Grammars",
    "check",
    "invalid",
    "key_of",
    "longest_characters",
    "parse",
    "resolve",
    "smallest_instance",
    "tightened",
]
