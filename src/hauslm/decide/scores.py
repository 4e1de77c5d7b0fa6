"""Which scores may stand side by side? Those of one harness, one way of asking, one benchmark.

The same model has different scores in different hands (GPT-4 Turbo on GPQA: 48.0 and 49.3), so a
`Panel` holds the scores of many models on exactly one benchmark, metric and language of one harness,
few-shot or zero-shot, and nothing else is ever compared. The panel that covers most of the models
asked about is taken; a model without a score in it is listed as such, never ranked.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hauslm.catalog.schema import Model, Score

RANK = "EuroEval rank"  # mean rank over all tasks, lower is better
STALE_SCORE_DAYS = 365
STALE_PRICE_DAYS = 90


@dataclass(frozen=True)
class Key:
    """What makes two scores comparable."""

    harness: str
    shots: str  # "few-shot", "zero-shot", or the method's own words
    benchmark: str
    metric: str
    language: str  # "" where the benchmark has none

    @property
    def lower_is_better(self) -> bool:
        return self.benchmark == RANK


@dataclass(frozen=True)
class Panel:
    """Comparable scores by model id; the best one of a model where it has several variants."""

    key: Key
    scores: Mapping[str, Score]

    def best(self, models: Iterable[str]) -> str | None:
        """The model with the best score among those that have one."""
        scored = [m for m in models if m in self.scores]
        if not scored:
            return None
        return min(scored, key=lambda m: (self.place(m), m))

    def place(self, model: str) -> float:
        """The score as a number of which less is better; infinite where there is none."""
        score = self.scores.get(model)
        if score is None:
            return float("inf")
        return score.score if self.key.lower_is_better else -score.score


def key_of(score: Score) -> Key:
    """EuroEval names the shots in the method; other harnesses are kept apart by the whole method."""
    if score.harness == "EuroEval":
        shots = "zero-shot" if "zero-shot" in score.method else "few-shot"
        if "; val" in score.method or ", val" in score.method:
            shots += ", validation split"
    else:
        shots = score.method
    return Key(score.harness, shots, score.benchmark, score.metric, score.language or "")


def usable(score: Score) -> bool:
    return not score.suspect and score.harness != "not stated"


def panels(models: Sequence[Model], benchmark: str = "") -> dict[Key, Panel]:
    """Every panel that the models' scores make, or only those of one benchmark."""
    found: dict[Key, dict[str, Score]] = {}
    for model in models:
        for score in model.scores:
            if (benchmark and score.benchmark != benchmark) or not usable(score):
                continue
            key = key_of(score)
            table = found.setdefault(key, {})
            known = table.get(model.id)
            if known is None or _better(score, known, key.lower_is_better):
                table[model.id] = score
    return {key: Panel(key, table) for key, table in found.items()}


def _better(new: Score, old: Score, lower: bool) -> bool:
    return new.score < old.score if lower else new.score > old.score


def panel_for(models: Sequence[Model], languages: Sequence[str]) -> Panel | None:
    """The panel to rank these models by: covers most of them; of equals, the broadest benchmark in
    the documents' first language. None if no two figures compare."""
    best: tuple[tuple[float, ...], Panel] | None = None
    for key, panel in panels(models).items():
        if key.language and key.language not in languages:
            continue
        order = (
            float(len(panel.scores)),
            1.0 if key.benchmark == RANK else 0.0,
            1.0 if key.language == languages[0] else 0.0,
            1.0 if key.metric in ("", "accuracy") else 0.0,
        )
        if best is None or order > best[0]:
            best = (order, panel)
    return best[1] if best else None


def rank_panel(models: Sequence[Model], languages: Sequence[str]) -> Panel | None:
    """The panel with the mean rank over all tasks in the documents' language, if anyone has it."""
    found = [panel for key, panel in panels(models, RANK).items() if key.language in languages]
    found.sort(key=lambda p: (-len(p.scores), languages.index(p.key.language)))
    return found[0] if found else None


def days_old(date: str, on: str) -> int | None:
    """Age in days of an ISO date (YYYY, YYYY-MM count from their last day); None if unreadable."""
    try:
        if len(date) == 4:
            date += "-12-31"
        if len(date) == 7:
            date += "-28"
        return (datetime.date.fromisoformat(on) - datetime.date.fromisoformat(date[:10])).days
    except ValueError:
        return None


def stale_price(date: str, on: str) -> bool:
    age = days_old(date, on)
    return age is None or age > STALE_PRICE_DAYS


def stale_score(date: str, on: str) -> bool:
    age = days_old(date, on)
    return age is None or age > STALE_SCORE_DAYS
