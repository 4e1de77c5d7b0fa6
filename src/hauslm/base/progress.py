"""How far along is it? What a room tells while it works; `cli` and `web` decide how it looks.

Rooms call `say` for a sentence worth keeping and `step` for something that counts up. Nothing here
prints: standard output belongs to records.
"""

from __future__ import annotations

from typing import Any, Protocol

from hauslm.base.words import Sentence


class Progress(Protocol):
    def say(self, sentence: Sentence | str) -> None:
        """A notice for the reader: one full sentence."""

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        """`done` of `total` (None: unknown) under `title`; `figures` are shown beside the bar."""


class Silent:
    """Keeps the sentences, shows nothing: for the Python API and tests."""

    def __init__(self) -> None:
        self.sentences: list[Sentence | str] = []

    def say(self, sentence: Sentence | str) -> None:
        self.sentences.append(sentence)

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        pass
