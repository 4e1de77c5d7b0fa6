"""What follows from the figures? better, no evidence or worse, in words, with what must not be missed.

The verdict rests on one metric that is chosen beforehand (the task's first score, else bits per byte),
so it needs no correction for the others; theirs are corrected after Holm. For a classification task
`better` also asks for more than the most frequent label: an adapter that has only learned how often each
label occurs has not learned the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.evaluate.baselines import MAJORITY
from hauslm.evaluate.measures import Measure
from hauslm.evaluate.statistics import Comparison, Finding, finding, why_no_evidence

ADAPTER, BASE_NAME, CLOUD = "adapter", "base", "cloud"


@dataclass(frozen=True)
class Verdict:
    """The finding, its sentence, and the comparison it rests on."""

    finding: Finding
    text: Sentence
    comparison: Comparison | None


def judge(headline: Measure, leaked: frozenset[str], *, seed: int) -> Verdict:
    """Adapter against base (and against the majority) on the headline metric."""
    against_base = headline.compared(ADAPTER, BASE_NAME, seed=seed)
    if against_base is None:
        raise ValueError("base and adapter have no common items")
    found = finding(against_base)
    if found == "no_evidence":
        return Verdict(found, _no_evidence(headline.name, against_base), against_base)
    if found == "worse":
        return Verdict(found, _worse(headline.name, against_base), against_base)
    clean = (
        headline.compared(ADAPTER, BASE_NAME, seed=seed, without=leaked) if leaked else against_base
    )
    if clean is None or finding(clean) != "better":
        text = say(
            "No demonstrable gain: the adapter is ahead of the base only if documents count whose "
            "wording also stands in the training text."
        )
        return Verdict("no_evidence", text, against_base)
    majority = headline.compared(ADAPTER, MAJORITY, seed=seed)
    if majority is not None and finding(majority) != "better":
        return Verdict("no_evidence", _only_majority(headline.name, against_base), against_base)
    return Verdict("better", _better(headline.name, against_base), against_base)


def _figures(metric: str, c: Comparison) -> dict[str, Any]:
    return {
        "metric": METRIC_NAMES.get(metric, metric),
        "value": c.value,
        "low": c.low,
        "high": c.high,
        "documents": c.documents,
    }


METRIC_NAMES: dict[str, Sentence] = {
    "accuracy": say("accuracy"),
    "macro_f1": say("macro-F1"),
    "entity_f1": say("entity F1"),
    "exact_match": say("exact match"),
    "token_f1": say("token F1"),
    "json_valid": say("valid JSON"),
    "bits_per_byte": say("bits per byte"),
    "terminology": say("choice of terms"),
    "term_bits_per_byte": say("bits per byte of the terms"),
    "term_written": say("terms written unprompted"),
}


def _better(metric: str, c: Comparison) -> Sentence:
    return say(
        "Better: the adapter changes {metric} by {value:.3f} against the base (95 % interval {low:.3f} "
        "to {high:.3f}, {documents:,} documents).",
        **_figures(metric, c),
    )


def _worse(metric: str, c: Comparison) -> Sentence:
    return say(
        "Worse: the adapter changes {metric} by {value:.3f} against the base (95 % interval {low:.3f} "
        "to {high:.3f}, {documents:,} documents).",
        **_figures(metric, c),
    )


def _no_evidence(metric: str, c: Comparison) -> Sentence:
    if c.documents < 2:
        return say(
            "No demonstrable gain: one document alone allows no statement about others "
            "({metric}: {value:.3f}).",
            metric=METRIC_NAMES.get(metric, metric),
            value=c.value,
        )
    if c.low == c.high == 0:
        return say(
            "No demonstrable gain: base and adapter score the same in {metric} on each of {documents:,} "
            "documents.",
            metric=METRIC_NAMES.get(metric, metric),
            documents=c.documents,
        )
    if not math.isfinite(c.detectable):
        return say(
            "No demonstrable gain: the adapter changes {metric} by {value:.3f} (95 % interval {low:.3f} "
            "to {high:.3f}, {documents:,} documents). {why}",
            **_figures(metric, c),
            why=why_no_evidence(c),
        )
    return say(
        "No demonstrable gain: the adapter changes {metric} by {value:.3f} (95 % interval {low:.3f} to "
        "{high:.3f}, {documents:,} documents; detectable from {detectable:.3f}). {why}",
        **_figures(metric, c),
        detectable=c.detectable,
        why=why_no_evidence(c),
    )


def _only_majority(metric: str, c: Comparison) -> Sentence:
    return say(
        "No demonstrable gain: the adapter beats the base ({metric} {value:.3f}), but not the answer "
        "that always names the most frequent label, so nothing shows that it learned the task.",
        metric=METRIC_NAMES.get(metric, metric),
        value=c.value,
    )


BASELINE_NAMES: dict[str, Sentence] = {
    "majority": say("the most frequent label"),
    "tfidf_logistic": say("TF-IDF with logistic regression"),
    "tfidf_position_logistic": say("TF-IDF with position and logistic regression"),
    "no_entities": say("the empty answer"),
    "dictionary": say("the dictionary of training mentions"),
}


def against_baselines(headline: Measure, names: Sequence[str]) -> list[Sentence]:
    """What an adapter is told that does not beat the simple baselines."""
    mine = headline.value(ADAPTER)
    unbeaten = [
        n for n in names if (v := headline.value(n)) is not None and mine is not None and mine <= v
    ]
    if not unbeaten or mine is None:
        return []
    best = max(unbeaten, key=lambda n: headline.value(n) or 0.0)
    return [
        say(
            "The adapter ({mine:.3f}) does not beat {baseline} ({theirs:.3f}) in {metric}: for this task "
            "a model that needs no GPU does as well.",
            mine=mine,
            theirs=headline.value(best),
            baseline=BASELINE_NAMES[best],
            metric=METRIC_NAMES.get(headline.name, headline.name),
        )
    ]


def secondary(comparisons: dict[str, Comparison], headline: str) -> list[Sentence]:
    """Findings on the other metrics, with Holm's correction."""
    found = []
    for name, c in comparisons.items():
        direction = finding(c, corrected=True)
        if name == headline or direction == "no_evidence":
            continue
        shown = {"metric": METRIC_NAMES.get(name, name), "value": c.value}
        if direction == "better":
            found.append(
                say(
                    "Also better than the base, corrected for several metrics: {metric} ({value:.3f}).",
                    **shown,
                )
            )
        else:
            found.append(
                say(
                    "Worse than the base, corrected for several metrics: {metric} ({value:.3f}).",
                    **shown,
                )
            )
    return found


LANGUAGE_NAMES: dict[str, Sentence] = {"en": say("English"), "de": say("German")}


def about_forgetting(result: dict[str, Any]) -> list[Sentence]:
    """A notice for each language in which general text became noticeably less probable."""
    from hauslm.evaluate.forgetting import worst

    return [
        say(
            "Forgetting: general text ({language}) costs {value:.2f} bits per byte more than with the base; "
            "a lower learning rate or fewer epochs keep more.",
            language=LANGUAGE_NAMES.get(language, language),
            value=value,
        )
        for language, value in worst(result)
    ]


def about_memorisation(result: dict[str, Any]) -> list[Sentence]:
    """What must be known before the adapter is shared."""
    found: list[Sentence] = []
    if not result.get("measured"):
        return found
    if not result["spans"]:
        found.append(
            say("Memorisation could not be measured: no training document is long enough.")
        )
    elif result["exact_above_base"] > result["limit"]:
        found.append(
            say(
                "Memorisation: the adapter reproduces {adapter:.1%} of {spans:,} training spans word by word, "
                "the base {base:.1%}; at most {limit:.1%} more is allowed before sharing.",
                adapter=result["exact_adapter"],
                base=result["exact_base"],
                spans=result["spans"],
                limit=result["limit"],
            )
        )
    if result["canaries_memorised"]:
        found.append(
            say(
                "Memorisation: the adapter has learned {count:,} of {all:,} secret-looking strings of the "
                "training text by heart; do not share it.",
                count=result["canaries_memorised"],
                all=len(result["canaries"]),
            )
        )
    if result["repeated_reproduced"]:
        found.append(
            say(
                "Memorisation: the adapter reproduces {count:,} of {all:,} sentences that stand in the "
                "training text several times.",
                count=result["repeated_reproduced"],
                all=result["repeated_sentences"],
            )
        )
    if result["spans"] < 1 / max(result["limit"], 1e-9) and not found:
        found.append(
            say(
                "Memorisation: with {spans:,} spans a rate up to {hidden:.1%} cannot be excluded.",
                spans=result["spans"],
                hidden=result["rates"]["adapter"]["train"]["high"],
            )
        )
    return found


def refuse_memorised(memorisation: dict[str, Any], accepted: bool = False) -> None:
    """The gate before sharing: H667 if the adapter was measured to give training text away.

    Not measured is not refused (the bundle's manifest says so); `accepted` is the user's explicit word.
    """
    above = memorisation.get("exact_above_base", 0.0) > memorisation.get("limit", 1.0)
    if accepted or not (above or memorisation.get("canaries_memorised")):
        return
    told = about_memorisation(memorisation)
    if not memorisation.get("spans"):
        told = told[1:]  # that no span could be measured is not why it is refused
    secrets = memorisation.get("canaries_memorised")
    if secrets and above and memorisation.get("spans"):
        told = told[1:]  # the graver of the two reasons: a secret
    raise RefusedError(
        "H667",
        told[0],
        where="records/evaluation.json",
        next_step=say(
            "Train with fewer epochs or without the repeated text; or, if everyone who gets the adapter "
            "may read the training documents: hauslm bundle --accept-memorisation."
        ),
    )
