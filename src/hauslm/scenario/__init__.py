"""What does the team want? `hauslm.yaml` -> `Scenario`, every mistake with line, column, nearest name.

The project file is the whole input of every stage. Every field has a default, a unit in its name and
a one-line description; `hauslm schema` prints them as JSON Schema. The defaults are the lab sheet's
research team: masses of copyrighted scientific articles, domain terms, one 24-GB GPU already paid for.

    answers    the situation that is judged: work, data, people, money
    sections   what is to be done: documents, model, adapter, training, evaluation, analysis, server
    reading    the file, and every mistake in it
"""

from hauslm.scenario.answers import Answer, ScenarioAnswers, UserOption, UserPrice
from hauslm.scenario.reading import json_schema, load, parse
from hauslm.scenario.sections import DocumentsSection, Scenario, TaskSection

__all__ = [
    "Answer",
    "DocumentsSection",
    "Scenario",
    "ScenarioAnswers",
    "TaskSection",
    "UserOption",
    "UserPrice",
    "json_schema",
    "load",
    "parse",
]
