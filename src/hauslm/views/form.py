"""Which fields has the scenario's form? Eight in sight, the rest folded away; labels, units, sliders.

The eight are the questions of `hauslm init`, so that form and command ask the same. Everything else
comes from the scenario's schema: a new field appears here by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from hauslm.base.words import N_, translate
from hauslm.catalog import load
from hauslm.report.chapters.decision import ANSWERS
from hauslm.scenario import Answer, Scenario, ScenarioAnswers
from hauslm.start import QUESTIONS

SECTIONS = {
    "workload": N_("Workload"),
    "data": N_("Data and rights"),
    "adaptation": N_("Adaptation"),
    "hardware": N_("Hardware"),
    "people": N_("People"),
    "budget": N_("Budget"),
    "quality": N_("Quality"),
    "horizon": N_("Horizon"),
}
# What the raw answers of the project file mean.
CHOICES = ANSWERS | {
    "true": N_("yes"),
    "false": N_("no"),
    "team": N_("the team"),
    "public": N_("everybody"),
}


@dataclass(frozen=True)
class Slider:
    """A range beside a number: `low` to `high`, in equal factors if `log`."""

    low: float
    high: float
    log: bool = True
    step: float = 1.0


SLIDERS: Mapping[str, Slider] = {
    "scenario.workload.documents_per_month": Slider(10, 1_000_000),
    "scenario.workload.backlog_documents": Slider(10, 10_000_000),
    "scenario.horizon.months": Slider(1, 120, log=False),
    "scenario.workload.characters_per_document": Slider(500, 1_000_000),
    "scenario.workload.tokens_out_per_document": Slider(10, 20_000),
    "scenario.people.upkeep_hours_per_month_local": Slider(0, 40, log=False, step=0.5),
    "scenario.people.upkeep_hours_per_month_cloud": Slider(0, 40, log=False, step=0.5),
    "scenario.hardware.price_eur_per_kwh": Slider(0.05, 0.8, log=False, step=0.01),
}


@dataclass(frozen=True)
class Field:
    """One field: its dotted name, words, value as text, and how it is entered."""

    name: str
    label: str
    why: str
    value: str
    kind: Literal["number", "choice", "text"]
    choices: tuple[tuple[str, str], ...] = ()
    slider: Slider | None = None


@dataclass(frozen=True)
class Form:
    asked: tuple[Field, ...]
    folded: tuple[tuple[str, tuple[Field, ...]], ...]  # (section title, fields)

    def __iter__(self) -> Iterator[Field]:
        yield from self.asked
        for _, fields in self.folded:
            yield from fields


def shown(value: Any) -> str:
    """A value of the scenario as a form shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def form(scenario: Scenario, answers: Mapping[str, str], language: str) -> Form:
    """The scenario's fields with the project's values, or with what was just typed."""
    questions = {q.field: q for q in QUESTIONS}

    def field(dotted: str, label: str, why: str) -> Field:
        *_, section, name = dotted.split(".")
        value = getattr(getattr(scenario.scenario, section), name)
        annotation = _fields_of(section)[name].annotation
        choices = tuple((c, _choice(c, language)) for c in _choices(dotted, annotation))
        kind: Literal["number", "choice", "text"] = (
            "choice" if choices else "number" if _is_number(annotation) else "text"
        )
        text = answers.get(dotted, shown(value))
        return Field(dotted, label, why, text, kind, choices, SLIDERS.get(dotted))

    asked = tuple(
        field(q.field, translate(q.prompt, language), translate(q.why, language)) for q in QUESTIONS
    )
    folded = tuple(
        (
            translate(title, language),
            tuple(
                field(
                    f"scenario.{section}.{name}", translate(info.description or name, language), ""
                )
                for name, info in _fields_of(section).items()
                if f"scenario.{section}.{name}" not in questions
            ),
        )
        for section, title in SECTIONS.items()
    )
    return Form(asked, tuple((t, f) for t, f in folded if f))


@cache
def names() -> frozenset[str]:
    """Every field that the form may change."""
    return frozenset(f"scenario.{s}.{n}" for s in SECTIONS for n in _fields_of(s))


@cache
def _fields_of(section: str) -> Mapping[str, Any]:
    model: Any = ScenarioAnswers.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, BaseModel)  # noqa: S101 - SECTIONS names these
    return model.model_fields


def _choices(dotted: str, annotation: Any) -> tuple[str, ...]:
    if dotted == "scenario.hardware.gpu":
        return ("none", *sorted(load.ids("gpus")))
    if annotation is bool:
        return ("true", "false")
    if annotation == Answer or get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return ()


def _choice(raw: str, language: str) -> str:
    if raw in CHOICES:
        return translate(CHOICES[raw], language)
    return load.gpu(raw).name if raw in load.ids("gpus") else raw


def _is_number(annotation: Any) -> bool:
    kinds = {annotation, *get_args(annotation)}
    return bool(kinds & {int, float})
