"""What is one way to do it, before anybody judges it? The candidate that options are made of.

A candidate carries its bill, what the rules may ask about it (`traits`) and the floors it misses by
its nature. Nothing in it depends on an answer of the team: so the flip table can change an answer
and judge the same candidates again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, language, say
from hauslm.catalog.schema import Model, OptionKind
from hauslm.decide.cost import Bill
from hauslm.records import Fact, Gate, Said


@dataclass(frozen=True)
class Candidate:
    """One way to do it.

    `setting` names where the work is done; options of one setting differ by model only. `bill` is
    None while a price is missing (`missing` says which). `scored` is the model whose benchmark
    scores stand for it: the open model behind a hosted API, None if nobody recorded one.
    """

    id: str
    kind: OptionKind
    setting: str
    title: Sentence
    model: str
    bill: Bill | None
    traits: Mapping[str, str]
    scored: Model | None = None
    hardware: str = ""
    quantisation: str = ""
    adaptation: str = "none"  # none | lora | vendor
    batch: bool = False
    paid: bool = False
    retention_days: float | None = None
    context_tokens: float | None = None
    training_flop: float = 0.0  # of one adaptation, 6 x parameters x tokens
    floors: tuple[Gate, ...] = ()
    missing: tuple[Sentence, ...] = ()
    details: Callable[[], tuple[Fact, ...]] | None = None  # the figures behind it, on demand
    notes: tuple[Sentence, ...] = ()

    @cached_property
    def alike(self) -> tuple[tuple[str, str], ...]:
        """The traits as a key: candidates with the same ones stand alike before the rules."""
        return tuple(sorted(self.traits.items()))

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        return self.details() if self.details else ()

    @property
    def complete(self) -> bool:
        return self.bill is not None and not self.missing

    @property
    def tuned(self) -> bool:
        return self.adaptation != "none"


def fact(label: Sentence, quantity: Quantity) -> Fact:
    """A labelled figure for a record."""
    said = Said.of(label) if label.values else _said(label.template, language())
    return Fact(label=said, quantity=quantity)


@lru_cache(maxsize=512)
def _said(template: str, _language: str) -> Said:
    """A label without values is the same thing every time."""
    return Said.of(Sentence(template))


@dataclass
class Collected:
    """What the generators found: candidates, and what they looked at and left out, with reasons."""

    candidates: list[Candidate] = field(default_factory=list)
    left_out: dict[str, Sentence] = field(default_factory=dict)
    considered: int = 0

    def add(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self.considered += 1

    def leave_out(self, name: str, why: Sentence) -> None:
        self.left_out[name] = why
        self.considered += 1


def vendor_title(vendor: str, model: str, way: str) -> Sentence:
    """'GPT-6 Luna through the API of OpenAI, batch price'."""
    if way == "batch":
        return say("{model} through the API of {vendor}, batch price", model=model, vendor=vendor)
    if way == "cached":
        return say(
            "{model} through the API of {vendor}, prompt from the cache", model=model, vendor=vendor
        )
    if way == "fine-tune":
        return say("{model}, fine-tuned by {vendor}", model=model, vendor=vendor)
    return say("{model} through the API of {vendor}", model=model, vendor=vendor)
