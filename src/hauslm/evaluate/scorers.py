"""How good is an answer? Scorers, each a short function over what was asked for and what came.

A scorer turns one item into a row of counts; its metric is a function of the counts summed over items.
That makes every metric work with `statistics.compare` and keeps memory small. To add one: write the two
functions and enter it into `classification` or `extraction`.

Awkward input is never skipped: an answer that is missing, empty, not JSON or outside the label set is
a wrong answer, and counts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hauslm.evaluate.statistics import Array, Metric, ratio

Row = tuple[float, ...]


@dataclass(frozen=True)
class Scorer:
    """`row(gold, answer)` gives an item's counts, `metric` the figure of their sum."""

    name: str
    row: Callable[[Any, Any], Row]
    metric: Metric
    higher_is_better: bool = True

    def value(self, rows: Sequence[Row]) -> float:
        """The metric over all rows; 0 for no rows."""
        return float(self.metric(np.asarray(rows, dtype=np.float64).sum(0))) if rows else 0.0


# ---------------------------------------------------------------- text


_PUNCTUATION = re.compile(r"[^\w\s%°+\-]", re.UNICODE)
_WORD = re.compile(r"\w+", re.UNICODE)


def normalised(text: object) -> str:
    """NFKC, case folded, punctuation dropped, single blanks. None is ''. Numbers keep sign and %."""
    folded = unicodedata.normalize("NFKC", "" if text is None else str(text)).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def accuracy_row(gold: object, answer: object) -> Row:
    """(right, 1). Labels are compared as they are; None is a wrong answer, never an abstention."""
    return float(answer is not None and gold == answer), 1.0


def exact_row(gold: object, answer: object) -> Row:
    """(right, 1) after normalisation. Two texts that normalise to nothing are compared unnormalised."""
    a, b = normalised(gold), normalised(answer)
    right = a == b if a or b else str(gold or "") == str(answer or "")
    return float(answer is not None and right), 1.0


def token_f1_row(gold: object, answer: object) -> Row:
    """(F1, 1) over bags of words, as in SQuAD. Nothing asked and nothing said is 1; one of both is 0."""
    a, b = _WORD.findall(normalised(gold)), _WORD.findall(normalised(answer))
    if not a or not b:
        return float(not a and not b), 1.0
    common = sum((Counter(a) & Counter(b)).values())
    return 2.0 * common / (len(a) + len(b)), 1.0


CHRF_ORDER, CHRF_BETA = 6, 2.0


def chrf_row(gold: object, answer: object) -> Row:
    """Counts for chrF: per order 1..6 the matching, given and wanted character n-grams.

    Blanks do not count, case does (Popović 2015, WMT). An empty answer matches nothing.
    """
    row: list[float] = []
    a, b = "".join(str(gold or "").split()), "".join(str(answer or "").split())
    for n in range(1, CHRF_ORDER + 1):
        wanted = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        given = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        row += [float((wanted & given).total()), float(given.total()), float(wanted.total())]
    return tuple(row)


def chrf(sums: Array) -> Array:
    """chrF (0..1) with beta 2: mean precision and recall over the orders that occur."""
    counts = sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3)
    match, given, wanted = counts[..., 0], counts[..., 1], counts[..., 2]
    counted = ((given > 0) & (wanted > 0)).astype(np.float64)
    orders = np.maximum(counted.sum(-1), 1.0)
    precision = (counted * match / np.maximum(given, 1.0)).sum(-1) / orders
    recall = (counted * match / np.maximum(wanted, 1.0)).sum(-1) / orders
    weight = CHRF_BETA**2
    bottom = weight * precision + recall
    score = (1 + weight) * precision * recall / np.where(bottom > 0, bottom, 1.0)
    return np.asarray(np.where(bottom > 0, score, 0.0))


# ---------------------------------------------------------------- labels


def macro_f1(labels: Sequence[str]) -> Scorer:
    """Macro-F1 over `labels` (those that occur as gold). An answer outside them is a miss, and no
    false alarm for any of them; a label that nobody gets right counts 0."""
    place = {label: i for i, label in enumerate(labels)}
    width = len(labels)

    def row(gold: Any, answer: Any) -> Row:
        counts = [0.0] * (3 * width)  # right, given, wanted per label
        if gold in place:
            counts[3 * place[gold] + 2] = 1.0
            if gold == answer:
                counts[3 * place[gold]] = 1.0
        if answer in place:
            counts[3 * place[answer] + 1] = 1.0
        return tuple(counts)

    def metric(sums: Array) -> Array:
        counts = sums.reshape(*sums.shape[:-1], width, 3)
        bottom = counts[..., 1] + counts[..., 2]
        f1 = np.where(bottom > 0, 2 * counts[..., 0] / np.where(bottom > 0, bottom, 1.0), 0.0)
        return np.asarray(f1.mean(-1))

    return Scorer("macro_f1", row, metric)


# ---------------------------------------------------------------- JSON and entities


def parsed(answer: object) -> Any:
    """The JSON value of an answer, or None. A code fence around it is allowed, text around it not."""
    if not isinstance(answer, str):
        return answer
    text = answer.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def json_row(gold: object, answer: object) -> Row:
    """(valid, 1): the answer is JSON and of the kind (list, object) that was asked for."""
    wanted, given = parsed(gold), parsed(answer)
    return float(given is not None and isinstance(given, (list, dict)) and
                 (wanted is None or isinstance(given, type(wanted)))), 1.0  # fmt: skip


def entities_of(value: object) -> frozenset[tuple[str, str]]:
    """The (type, normalised text) pairs of an answer: a list of {"text", "type"}, a list of texts, an
    object {type: [texts]}, or one of these under "entities".

    Each pair counts once, as in the task. Entries of another form and those without text are left out;
    `json_valid` tells of answers that are no JSON at all.
    """
    value = parsed(value)
    pairs: list[tuple[object, object]] = []
    if isinstance(value, Mapping) and isinstance(value.get("entities"), list):
        value = value["entities"]
    if isinstance(value, Mapping):
        for kind, texts in value.items():
            pairs += [(kind, text) for text in (texts if isinstance(texts, list) else [texts])]
    elif isinstance(value, list):
        for entry in value:
            if isinstance(entry, Mapping):
                pairs.append((entry.get("type", ""), entry.get("text")))
            else:
                pairs.append(("", entry))
    plain = [(str(k), normalised(t)) for k, t in pairs if isinstance(t, (str, int, float))]
    return frozenset(pair for pair in plain if pair[1])


def entity_row(gold: object, answer: object) -> Row:
    """(right, given, wanted) entities: text and type must both be right."""
    wanted, given = entities_of(gold), entities_of(answer)
    return float(len(wanted & given)), float(len(given)), float(len(wanted))


def all_entities_row(gold: object, answer: object) -> Row:
    """(right, 1): exactly the wanted entities, in any order. An answer that is no JSON is wrong."""
    right = parsed(answer) is not None and entities_of(gold) == entities_of(answer)
    return float(right), 1.0


def micro_f1(sums: Array) -> Array:
    """F1 of (right, given, wanted); 1 when nothing was wanted and nothing given."""
    bottom = sums[..., 1] + sums[..., 2]
    f1 = 2 * sums[..., 0] / np.where(bottom > 0, bottom, 1.0)
    return np.asarray(np.where(bottom > 0, f1, 1.0))


# ---------------------------------------------------------------- calibration


def calibration_error(confidence: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017): mean gap of confidence and accuracy over equally
    wide bins, weighted by how many answers fall into each. 0 for no answers."""
    if not confidence:
        return 0.0
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    gaps = [
        abs(float(sure[place == b].mean() - hit[place == b].mean())) * float((place == b).mean())
        for b in range(bins)
        if np.any(place == b)
    ]
    return float(sum(gaps))


# ---------------------------------------------------------------- registry


def classification(labels: Sequence[str]) -> dict[str, Scorer]:
    """The scorers of a classification task; the first is the one that counts for the verdict."""
    return {s.name: s for s in (Scorer("accuracy", accuracy_row, ratio), macro_f1(labels))}


def extraction() -> dict[str, Scorer]:
    """The scorers of an extraction task; the first is the one that counts for the verdict."""
    return {
        s.name: s
        for s in (
            Scorer("entity_f1", entity_row, micro_f1),
            Scorer("exact_match", all_entities_row, ratio),
            Scorer("token_f1", token_f1_row, ratio),
            Scorer("json_valid", json_row, ratio),
        )
    }


def free_text() -> dict[str, Scorer]:
    """The scorers of answers in running text."""
    return {
        s.name: s
        for s in (
            Scorer("exact_match", exact_row, ratio),
            Scorer("token_f1", token_f1_row, ratio),
            Scorer("chrf", chrf_row, chrf),
        )
    }
