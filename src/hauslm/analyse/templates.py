"""What is asked of an article? Ready templates in German and English, or the team's own schema.

A template is a file in `templates/`: an instruction per language, a JSON Schema without the quote,
how section rows become an article row (`merge`), and whether the quote comes before the answer
(evidence first) or after it. Adding a file adds a template. Every row gets a `quote`: where the engine
can bind it, one of the section's own sentences, so that it is verbatim by construction; it is looked
up in the article all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.files import canonical_json, sha256_bytes
from hauslm.base.words import FALLBACK_LANGUAGE, say
from hauslm.lm.interface import Message
from hauslm.lm.schema import check, invalid, key_of
from hauslm.scenario import Scenario
from hauslm.scenario.sections import AnalysisSection

FOLDER = Path(__file__).parent / "templates"
QUOTE = "quote"
MAX_QUOTE_CHARACTERS = 320

Merge = Literal["vote", "union", "best", "rewrite", "none"]


@dataclass(frozen=True)
class Template:
    """One thing to ask. `schema` is the answer's, without the quote unless the team's own has one."""

    id: str
    version: int
    instruction: str
    schema: dict[str, Any]
    merge: Merge = "none"
    quote: Literal["first", "last", "own"] = "last"
    merge_instruction: str = ""
    questions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """One hash over everything that shapes an answer."""
        parts = {
            "id": self.id,
            "version": self.version,
            "instruction": self.instruction,
            "merge": [self.merge, self.merge_instruction],
            "schema": key_of(self.schema).decode(),
            "quote": self.quote,
            "questions": list(self.questions),
        }
        return sha256_bytes(canonical_json(parts))

    def messages(
        self, title: str, section: str, text: str, question: str = ""
    ) -> tuple[Message, ...]:
        """The conversation for one section; the instruction comes first, so that rows share it."""
        instruction = self.instruction.replace("{question}", question)
        return (Message("user", f"{instruction}\n\n{_heading(title, section)}{text}"),)

    def merge_messages(self, title: str, parts: Sequence[str]) -> tuple[Message, ...]:
        listed = "\n".join(f"{n}. {part}" for n, part in enumerate(parts, 1))
        return (Message("user", f"{self.merge_instruction}\n\n{_heading(title, '')}{listed}"),)

    def row_schema(self, sentences: Sequence[str], *, bind_quote: bool) -> dict[str, Any]:
        """The schema of one row: the answer and the quote, bound to `sentences` where possible."""
        if self.quote == "own":
            return self.schema
        quote: dict[str, Any] = {"type": "string", "maxLength": MAX_QUOTE_CHARACTERS}
        if bind_quote:
            quote = {"enum": list(sentences) or [""]}
        own = self.schema["properties"]
        properties = {QUOTE: quote, **own} if self.quote == "first" else {**own, QUOTE: quote}
        wanted = self.schema.get("required", [])
        required = [n for n in properties if n == QUOTE or n in wanted]
        # A name may be demanded that `properties` does not describe; it stays demanded.
        required += [n for n in dict.fromkeys(wanted) if n not in properties]
        return {**self.schema, "properties": properties, "required": required}


def _heading(title: str, section: str) -> str:
    lines = [t for t in (title.strip(), section.strip()) if t]
    return "\n".join(lines) + "\n\n" if lines else ""


# ---------------------------------------------------------------- from file and project


def names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in FOLDER.glob("*.yaml")))


def load(name: str, language: str, labels: Sequence[str] = ()) -> Template:
    """The ready template `name`; H830 if there is none. `labels` replace the template's own."""
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise UsageError(
            "H830",
            say("There is no analysis template '{name}'.", name=name),
            where="analysis.template",
            next_step=did_you_mean(name, names()),
        )
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = tuple(labels) or tuple(raw.get("labels", ()))
    instruction = _in(raw["instruction"], language).replace("{labels}", ", ".join(chosen))
    schema = cast("dict[str, Any]", _filled(raw["schema"], {"$labels": list(chosen)}))
    return Template(
        raw["id"],
        int(raw["version"]),
        instruction,
        schema,
        raw["merge"],
        raw["quote"],
        _in(raw.get("merge_instruction", {}), language),
        labels=chosen,
    )


def _in(texts: Mapping[str, str], language: str) -> str:
    return " ".join(str(texts.get(language) or texts.get(FALLBACK_LANGUAGE, "")).split())


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {k: _filled(v, values) for k, v in node.items()}
    if isinstance(node, list):
        return [_filled(v, values) for v in node]
    return values.get(node, node) if isinstance(node, str) else node


def for_project(scenario: Scenario) -> Template:
    """The template that `analysis` in the project file asks for, ready to use.

    Own schema: it is taken as it is (plus a quote if it has none). Questions make `questions` the
    template, or are put into the instruction that comes with an own schema. Errors: H830 unknown
    template, no questions, or wishes of which one would be dropped; H831 an unusable own schema.
    """
    section = scenario.analysis
    _refuse_dropped(section)
    labels = section.labels or scenario.evaluation.task.labels
    name = "questions" if section.questions and section.json_schema is None else section.template
    template = load(name, scenario.language, labels)
    if section.json_schema is not None:
        template = _own(template, section.json_schema)
    if section.instruction:
        filled = section.instruction.replace("{labels}", ", ".join(template.labels))
        template = replace(template, instruction=filled)
        if template.id != "own":
            template = replace(template, id=f"{template.id}+instruction")
    asks = section.questions or template.id.startswith("questions")
    if asks or "{question}" in template.instruction:
        template = _with_questions(template, section.questions)
    _check(template.schema)
    return template


def _refuse_dropped(section: AnalysisSection) -> None:
    """Of two wishes that do not go together none is dropped without a word."""
    own, step = section.json_schema is not None, say("Leave one of the two out.")
    chosen = section.template if "template" in section.model_fields_set else ""
    if section.questions and own and not section.instruction:
        raise UsageError(
            "H830",
            say("Questions and a JSON Schema of your own need an instruction that says how to answer."),
            where="analysis.instruction",
            next_step=say("Write it; {{question}} stands for the question."),
        )  # fmt: skip
    if section.questions and not own and chosen not in ("", "questions"):
        raise UsageError(
            "H830",
            say("The template '{name}' asks no questions, but there are some.", name=chosen),
            where="analysis.questions",
            next_step=step,
        )
    if section.labels and (own or section.questions or section.template != "classification"):
        raise UsageError(
            "H830",
            say("Labels belong to the template 'classification'."),
            where="analysis.labels",
            next_step=step,
        )


def _check(schema: Mapping[str, Any]) -> None:
    try:
        check(schema)
    except UsageError as error:
        error.where = error.where or "analysis.json_schema"
        raise


def _own(template: Template, schema: Mapping[str, Any]) -> Template:
    _check(schema)
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping):
        raise UsageError(
            "H831",
            say("The JSON Schema of a row must describe an object with properties."),
            where="analysis.json_schema",
            next_step=say("Put the field into an object: {{type: object, properties: ...}}."),
        )
    has_quote = QUOTE in schema["properties"]
    if has_quote and invalid(QUOTE, _without_bounds(schema["properties"][QUOTE])):
        raise UsageError(
            "H831",
            say(
                "The field 'quote' of the JSON Schema must be text: it is looked up in the article."
            ),
            where="analysis.json_schema",
            next_step=say("Write quote: {{type: string}}, or leave it out: it is added."),
        )
    return replace(
        template,
        id="own",
        schema=dict(schema),
        merge="none",
        quote="own" if has_quote else "last",
        merge_instruction="",
    )


def _without_bounds(field: Any) -> Mapping[str, Any]:
    """What kind of value a field takes, whatever its length or pattern."""
    kind = field.get("type") if isinstance(field, Mapping) else None
    return {} if kind is None else {"type": kind}


def _with_questions(template: Template, questions: Sequence[str]) -> Template:
    asked = tuple(q.strip() for q in questions if q.strip())
    if not asked:
        raise UsageError(
            "H830",
            say("The template '{name}' needs questions.", name="questions"),
            where="analysis.questions",
            next_step=say("List them under analysis: questions."),
        )
    if "{question}" not in template.instruction:
        template = replace(template, instruction=template.instruction + " {question}")
    return replace(template, questions=asked)


__all__ = ["FOLDER", "QUOTE", "Template", "for_project", "load", "names"]
