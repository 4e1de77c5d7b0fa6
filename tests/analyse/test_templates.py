"""Can every template be asked, bound and finished, in both languages?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hauslm.analyse import templates
from hauslm.base.errors import UsageError
from hauslm.lm import schema as schemas

Project = Callable[..., Any]
COUNT: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize("name", templates.names())
def test_ready_templates_are_sound(name: str, language: str) -> None:
    template = templates.load(name, language)
    assert template.id == name and template.version >= 1 and len(template.instruction) > 100
    assert template.merge != "rewrite" or template.merge_instruction
    schema = template.row_schema(["A sentence of the article."], bind_quote=True)
    schemas.check(schema)
    assert schemas.longest_characters(schema) < 1000, "a weak model must come to an end"
    assert schemas.smallest_instance(schema)["quote"] == "A sentence of the article."
    assert list(schema["properties"]).index("quote") in (0, len(schema["properties"]) - 1)
    assert schemas.smallest_instance(template.row_schema([], bind_quote=True))["quote"] == ""


def test_both_languages_say_something_different() -> None:
    for name in templates.names():
        assert templates.load(name, "de").instruction != templates.load(name, "en").instruction
        assert templates.load(name, "de").sha256 != templates.load(name, "en").sha256


def test_labels_come_from_the_project(project: Project) -> None:
    scenario, _ = project(template="classification", labels=["review", "trial"])
    template = templates.for_project(scenario)
    assert template.schema["properties"]["label"] == {"enum": ["review", "trial"]}
    assert "review, trial" in template.instruction


def test_questions_choose_their_template(project: Project) -> None:
    scenario, _ = project(questions=["How many samples?"])
    template = templates.for_project(scenario)
    assert template.id == "questions" and template.questions == ("How many samples?",)
    shown = template.messages("T", "S", "text", template.questions[0])[0].content
    assert "How many samples?" in shown and "{question}" not in shown


def test_an_own_schema_gets_a_quote_unless_it_has_one(project: Project) -> None:
    own = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    template = templates.for_project(project(json_schema=own, instruction="Count.")[0])
    bound = template.row_schema(["Only this."], bind_quote=True)
    assert list(bound["properties"]) == ["n", "quote"] and bound["required"] == ["n", "quote"]
    own["properties"]["quote"] = {"type": "string", "maxLength": 50}
    template = templates.for_project(project(json_schema=own)[0])
    assert template.row_schema(["Only this."], bind_quote=True) == own


@pytest.mark.parametrize(
    ("analysis", "code"),
    [
        ({"template": "sumary"}, "H830"),
        ({"template": "questions"}, "H830"),
        ({"json_schema": {"type": "string"}}, "H831"),
        ({"json_schema": {"type": "objekt"}}, "H801"),
        ({"json_schema": {"type": "object", "properties": {"quote": {"type": "integer"}}}}, "H831"),
        ({"json_schema": COUNT, "questions": ["Why?"]}, "H830"),  # and no instruction
        ({"template": "classification", "questions": ["Why?"]}, "H830"),
        ({"template": "extraction", "labels": ["a", "b"]}, "H830"),
        ({"json_schema": COUNT, "labels": ["a", "b"]}, "H830"),
    ],
)
def test_unusable_wishes_are_refused(project: Project, analysis: Any, code: str) -> None:
    with pytest.raises(UsageError, match=code) as caught:
        templates.for_project(project(**analysis)[0])
    assert caught.value.where.startswith("analysis.")


def test_questions_are_asked_under_an_own_schema_too(project: Project) -> None:
    scenario, _ = project(json_schema=COUNT, questions=["How many?"], instruction="Count.")
    template = templates.for_project(scenario)
    assert template.id == "own" and template.questions == ("How many?",)
    assert "Count. How many?" in template.messages("", "", "text", "How many?")[0].content


def test_what_an_own_schema_demands_stays_demanded(project: Project) -> None:
    own = {**COUNT, "required": ["n", "unit"]}
    bound = templates.for_project(project(json_schema=own)[0]).row_schema([], bind_quote=True)
    assert bound["required"] == ["n", "quote", "unit"]


def test_labels_stand_in_an_own_instruction(project: Project) -> None:
    wishes = {
        "template": "classification",
        "labels": ["x1", "y2"],
        "instruction": "One of {labels}.",
    }
    assert templates.for_project(project(**wishes)[0]).instruction == "One of x1, y2."
