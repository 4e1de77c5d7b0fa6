"""How is the project file read? YAML -> `Scenario`; every mistake with line, column, nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from hauslm.base.errors import ProjectFileError, UsageError, nearest
from hauslm.base.words import N_, Sentence, available_languages, say, translate
from hauslm.scenario.sections import Scenario

MAX_FILE_BYTES = 1 << 20


# pydantic's error types -> our sentences. {limit} etc. come from the error's context.
_REASONS: dict[str, str] = {
    "missing": N_("'{key}' is missing."),
    "int_parsing": N_("'{key}' must be a whole number, not {value}."),
    "int_type": N_("'{key}' must be a whole number, not {value}."),
    "int_from_float": N_("'{key}' must be a whole number, not {value}."),
    "float_parsing": N_("'{key}' must be a number, not {value}."),
    "float_type": N_("'{key}' must be a number, not {value}."),
    "finite_number": N_("'{key}' must be a finite number, not {value}."),
    "bool_parsing": N_("'{key}' must be true or false, not {value}."),
    "bool_type": N_("'{key}' must be true or false, not {value}."),
    "string_type": N_("'{key}' must be text, not {value}."),
    "list_type": N_("'{key}' must be a list, not {value}."),
    "model_type": N_("'{key}' must be a section with fields, not {value}."),
    "model_attributes_type": N_("'{key}' must be a section with fields, not {value}."),
    "dict_type": N_("'{key}' must be a section with fields, not {value}."),
    "greater_than": N_("'{key}' must be greater than {limit}, not {value}."),
    "greater_than_equal": N_("'{key}' must be at least {limit}, not {value}."),
    "less_than": N_("'{key}' must be less than {limit}, not {value}."),
    "less_than_equal": N_("'{key}' must be at most {limit}, not {value}."),
    "string_pattern_mismatch": N_("'{key}' has a form that is not allowed: {value}."),
    "too_short": N_("'{key}' must not be empty."),
    "string_too_short": N_("'{key}' must not be empty."),
    "string_too_long": N_("'{key}' is longer than {limit} characters."),
}
_LIMITS = ("gt", "ge", "lt", "le", "max_length")


def _field_names(path: tuple[Any, ...]) -> list[str]:
    """Names that are allowed beside the last element of `path`."""
    model: Any = Scenario
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", None)
        if not fields or part not in fields:
            return []
        model = _section_in(fields[part].annotation)
    return list(getattr(model, "model_fields", {}))


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _where_else(name: str) -> str:
    """Full path of a field called `name` in another section, if there is one."""

    def walk(model: Any, prefix: str) -> str:
        for key, info in model.model_fields.items():
            if key == name:
                return f"{prefix}{key}"
            section = _section_in(info.annotation)
            if section is not None and get_origin(info.annotation) is not list:
                found = walk(section, f"{prefix}{key}.")
                if found:
                    return str(found)
        return ""

    return str(walk(Scenario, ""))


def _mistake(error: Any, file: str, position: tuple[int, int]) -> UsageError:
    # pydantic names the members of a union among the keys ("list[str]"); an unknown key comes last.
    *above, last = error["loc"] or ("",)
    own = (last,) if error["type"] == "extra_forbidden" else ()
    above = above if own else [*above, last]
    location = (*(p for p in above if not (isinstance(p, str) and ("[" in p or "-" in p))), *own)
    key = ".".join(str(p) for p in location)
    where = f"{file}:{position[0]}:{position[1]}"
    kind = error["type"]
    value = _shown(error.get("input"))
    context = error.get("ctx") or {}
    step: Sentence | str = say("hauslm schema prints every field with its unit and default.")
    if kind == "extra_forbidden":
        name = str(location[-1])
        close = nearest(name, _field_names(location))
        elsewhere = _where_else(name)
        if close:
            step = say("Did you mean {names}?", names=", ".join(close))
        elif elsewhere:
            step = say("There is a field {path}; move it there.", path=elsewhere)
        return UsageError(
            "H201", say("There is no field '{key}'.", key=key), where=where, next_step=step
        )
    if kind in ("literal_error", "enum"):
        allowed = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        choices = [c.strip() for c in allowed.split(",") if c.strip()]
        close = nearest(str(error.get("input")), choices)
        if close:
            step = say("Did you mean {names}?", names=", ".join(close))
        what = say(
            "'{key}' must be one of {choices}, not {value}.", key=key, choices=allowed, value=value
        )
        return UsageError("H203", what, where=where, next_step=step)
    if kind == "value_error" and key == "language":
        what = say(
            "'{key}' must be one of {choices}, not {value}.",
            key=key,
            choices=", ".join(available_languages()),
            value=value,
        )
        return UsageError("H203", what, where=where, next_step=step)
    what = what_is_wrong(error, key) or say(
        "'{key}' is not valid: {value} ({reason}).", key=key, value=value, reason=error["msg"]
    )
    return UsageError("H202", what, where=where, next_step=step)


def what_is_wrong(error: Any, key: str) -> Sentence | None:
    """One of pydantic's errors about the value called `key`, as our sentence; None if it is not a usual
    one. The server says what is wrong with a request in the same words."""
    template = _REASONS.get(error["type"])
    if template is None:
        return None
    context = error.get("ctx") or {}
    limit = next((context[k] for k in _LIMITS if k in context), "")
    value = _shown(error.get("input"))
    return Sentence(template, {"key": key, "value": value, "limit": str(limit)})


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse(text: str, file: str = "hauslm.yaml") -> Scenario:
    """The scenario in a YAML text. Raises `ProjectFileError` with every mistake found."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedBase, CommentedMap
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    def refuse(
        code: str, what: Sentence, line: int = 1, column: int = 1, step: Sentence | str = ""
    ) -> ProjectFileError:
        return ProjectFileError(
            [UsageError(code, what, where=f"{file}:{line}:{column}", next_step=step)]
        )

    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise refuse(
            "H210",
            say("The project file is larger than 1 MiB."),
            step=say("Keep documents in files of their own."),
        )
    reader = YAML(typ="rt", pure=True)
    reader.allow_duplicate_keys = False
    try:
        # Aliases can blow a small file up to gigabytes ("billion laughs"); nobody needs them here.
        for token in YAML(typ="rt", pure=True).scan(text):
            if type(token).__name__ in ("AliasToken", "AnchorToken", "TagToken"):
                mark = token.start_mark
                raise refuse(
                    "H211",
                    say("Anchors, aliases and tags are not allowed in the project file."),
                    mark.line + 1,
                    mark.column + 1,
                    say("Write the value out."),
                )
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise refuse(
            "H212",
            say(
                "This is not valid YAML: {reason}.",
                reason=str(error.problem or "").splitlines()[0] if error.problem else "",
            ),
            line,
            column,
            say("Check indentation, colons and quotes in this line."),
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise refuse(
            "H212", say("This is not valid YAML: {reason}.", reason=str(error).splitlines()[0])
        ) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise refuse(
            "H213",
            say("The project file must consist of 'key: value' lines."),
            step=say("hauslm init writes a project file to start from."),
        )

    def position(location: tuple[Any, ...]) -> tuple[int, int]:
        node: Any = data
        found = (1, 1)
        for part in location:
            if not isinstance(node, CommentedBase):
                break
            marks: Any = node.lc
            container: Any = node
            try:
                line, column = (
                    marks.key(part) if isinstance(node, CommentedMap) else marks.item(part)
                )
                node = container[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
            found = (line + 1, column + 1)
        return found

    try:
        return Scenario.model_validate(_plain(data))
    except ValidationError as error:
        mistakes: list[UsageError] = []
        for detail in error.errors():
            mistake = _mistake(detail, file, position(detail["loc"]))
            if not any(m.where == mistake.where for m in mistakes):  # a union reports each branch
                mistakes.append(mistake)
        raise ProjectFileError(mistakes) from error


def _plain(node: Any) -> Any:
    """ruamel's containers and scalars as plain Python, so that pydantic judges types strictly."""
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def load(path: Path) -> Scenario:
    """Read the project file. H220 if there is none, H2xx with position for every mistake."""
    if not path.is_file():
        raise UsageError(
            "H220",
            say("There is no project file here."),
            where=str(path),
            next_step=say("hauslm init --yes writes one; -C DIR names another folder."),
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            "H221",
            say("The project file is not UTF-8 text (byte {position}).", position=error.start),
            where=str(path),
            next_step=say("Save it as UTF-8."),
        ) from error
    return parse(text, path.name)


def json_schema(language: str | None = None) -> dict[str, Any]:
    """JSON Schema of the project file, with the descriptions in `language`."""
    schema = Scenario.model_json_schema()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("description"), str):
                node["description"] = translate(node["description"], language)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "hauslm.yaml"
    return schema
