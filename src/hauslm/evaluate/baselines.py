"""What does it take to be worth a GPU? Simple answers that always stand beside the model's.

Classification: the most frequent label; TF-IDF with logistic regression; the same with the position of
the sentence in its document, where there is one. Extraction: no entity at all; every mention that the
training items mark, wherever it stands again. They see the training items only and answer the same
test items. On the sample task and on real structured abstracts the last line is a strong one (0.86
accuracy): an adapter that stays below it has not earned its keep.

scikit-learn is imported when a baseline is fitted.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hauslm.base.words import Sentence, say
from hauslm.data.task import EXTRACTION, Task, TaskItem, answer_text
from hauslm.evaluate.sampling import whole_documents

MAJORITY, TFIDF, TFIDF_POSITION = "majority", "tfidf_logistic", "tfidf_position_logistic"
NOTHING, DICTIONARY = "no_entities", "dictionary"
POSITION_BINS = 10
# Chosen beforehand and not tuned, so that nobody can say the baseline was made weak or strong.
INVERSE_REGULARISATION = 10.0
# Beyond this many items a bag of words gains little and its fit takes long.
MOST_TRAINING_ITEMS = 20_000


@dataclass(frozen=True)
class Baseline:
    """Answers of one simple method, one per test item, in their order."""

    name: str
    answers: tuple[Any, ...]
    seconds: float


def baselines(
    task: Task, train: Sequence[TaskItem], test: Sequence[TaskItem], *, seed: int = 0
) -> list[Baseline]:
    """All baselines that the task allows; none without training items.

    More than MOST_TRAINING_ITEMS training items are sampled by whole documents; `sampled` tells.
    """
    if not train:
        return []
    train = whole_documents(train, lambda i: i.document, MOST_TRAINING_ITEMS)
    made: list[Baseline] = []
    for name, answer in _methods(task, train, test, seed):
        started = time.monotonic()
        made.append(Baseline(name, tuple(answer()), time.monotonic() - started))
    return made


def sampled(train: Sequence[TaskItem]) -> Sentence | None:
    """What must be said when the baselines saw only part of the training items."""
    if len(train) <= MOST_TRAINING_ITEMS:
        return None
    return say(
        "The baselines were fitted on {used:,} of {all:,} training items.",
        used=MOST_TRAINING_ITEMS,
        all=len(train),
    )


def _methods(
    task: Task, train: Sequence[TaskItem], test: Sequence[TaskItem], seed: int
) -> list[tuple[str, Callable[[], Sequence[Any]]]]:
    if task.kind == EXTRACTION:
        return [
            (NOTHING, lambda: ["[]"] * len(test)),
            (DICTIONARY, lambda: from_dictionary(task, train, test)),
        ]
    labels = [str(i.label) for i in train]
    methods: list[tuple[str, Callable[[], Sequence[Any]]]] = [
        (MAJORITY, lambda: [majority(labels)] * len(test))
    ]
    if len(set(labels)) > 1 and any(_WORD.search(i.text) for i in train):
        methods.append((TFIDF, lambda: tfidf_logistic(train, test, position=False, seed=seed)))
        if all(i.position is not None for i in (*train, *test)):
            methods.append(
                (TFIDF_POSITION, lambda: tfidf_logistic(train, test, position=True, seed=seed))
            )
    return methods


_WORD = re.compile(r"\b\w\w+\b")


def majority(labels: Sequence[str]) -> str:
    """The most frequent label; of equally frequent ones the first in the alphabet."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def tfidf_logistic(
    train: Sequence[TaskItem], test: Sequence[TaskItem], *, position: bool, seed: int = 0
) -> list[str]:
    """Labels by logistic regression on TF-IDF of words and word pairs, fitted on `train` alone.

    `position` adds ten indicator columns, one for each tenth of the document.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = [
        words.fit_transform([i.text for i in train]),
        words.transform([i.text for i in test]),
    ]
    if position:
        columns = (_tenths(train), _tenths(test))
        features = [
            hstack([f, csr_matrix(c)]).tocsr() for f, c in zip(features, columns, strict=True)
        ]
    classifier = LogisticRegression(
        C=INVERSE_REGULARISATION,
        class_weight="balanced",
        solver="newton-cg",  # reaches the optimum of the default solver sooner
        max_iter=5000,
        random_state=seed,
    )
    classifier.fit(features[0], [str(i.label) for i in train])
    return [str(label) for label in classifier.predict(features[1])]


def _tenths(items: Sequence[TaskItem]) -> np.ndarray[Any, np.dtype[np.float64]]:
    columns = np.zeros((len(items), POSITION_BINS))
    for row, item in enumerate(items):
        columns[row, min(POSITION_BINS - 1, int(POSITION_BINS * (item.position or 0.0)))] = 1.0
    return columns


def from_dictionary(task: Task, train: Sequence[TaskItem], test: Sequence[TaskItem]) -> list[str]:
    """JSON lists with every marked mention of the training items that stands in the text as whole words.

    A mention marked with several types gets the most frequent one. Label lists (no mentions) get the
    labels whose name stands in the text.
    """
    known: dict[str, Counter[str]] = {}
    for item in train:
        for entry in item.label if isinstance(item.label, list) else []:
            if isinstance(entry, dict):
                known.setdefault(str(entry["text"]), Counter())[str(entry["type"])] += 1
    if task.label_list:
        known = {label: Counter([""]) for label in task.labels}
    types = {text: min(c, key=lambda k: (-c[k], k)) for text, c in known.items()}
    answers = []
    for item in test:
        found = sorted(
            (place, text) for text in types if (place := _stands_in(text, item.text)) >= 0
        )
        label: list[Any] = [
            t if task.label_list else {"text": t, "type": types[t]} for _, t in found
        ]
        answers.append(answer_text(task, TaskItem(item.id, item.document, item.text, label)))
    return answers


def _stands_in(mention: str, text: str) -> int:
    """Where `mention` stands in `text` as whole words, or -1."""
    start = text.find(mention)
    while start >= 0:
        end = start + len(mention)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (before.isalnum() or after.isalnum()):
            return start
        start = text.find(mention, start + 1)
    return -1
