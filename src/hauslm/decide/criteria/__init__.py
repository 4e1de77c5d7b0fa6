"""By what is the comparison made? One file per criterion; the folder is the registry.

A criterion file defines `CRITERION`, an object of class `Criterion`. To add one: the file here, and
its sentences in the catalogue of every language.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from hauslm.base.words import Sentence
from hauslm.decide.context import Context
from hauslm.records import Cell, Fact

Ahead = Literal["cloud", "local", ""]  # "": it depends
Judgement = tuple[Cell, Cell, Ahead]
Argument = tuple[Sentence, tuple[Fact, ...]]


@dataclass(frozen=True)
class Criterion:
    """One row of the table and one heading of the verdict's reasons.

    `judge` fills the cloud's and the local cell and says who is ahead; `argue` gives the full
    sentences about the winner, `brief` one line about any option. `place` orders the table, `place_in_verdict` the reasons: the lab
    sheet argues cost, adaptability, privacy, resources.
    """

    id: str
    title: str
    place: int
    place_in_verdict: int
    judge: Callable[[Context], Judgement]
    argue: Callable[[Context], list[Argument]]
    brief: Callable[[Context, int], Sentence]


@cache
def criteria() -> tuple[Criterion, ...]:
    """All criteria in the order of the table."""
    found = []
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        found.append(module.CRITERION)
    return tuple(sorted(found, key=lambda c: c.place))
