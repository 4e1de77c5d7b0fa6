"""Is it really this adapter that answers? Three fixed prompts, before every job.

Serving stacks have silently answered with another adapter or with the base (a mixed batch in vLLM,
an evaluation that measured the base). The canary stores the likeliest next tokens of base and adapter
with their log-probabilities; they are compared alone and in one mixed batch, and the base must differ
from the adapter. A mismatch stops the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.files import read_json
from hauslm.base.words import Sentence, say
from hauslm.lm.interface import BASE, LanguageModel, Reply, Request

VERSION = 1
PROMPTS = (
    "The samples were analysed in three steps. First,",
    "Die Messungen zeigen, dass die untersuchten Proben",
    "Question: Which method was used in the study?\nAnswer:",
)
TOP = 10
TOLERANCE = 2e-3  # nats, same number format; float32 kernels differ by about 1e-5
TOLERANCE_OTHER_FORMAT = 0.15  # nats, for example a bfloat16 GPU against a float32 CPU
SEPARATION = 5.0  # base and adapter must differ by this many tolerances


def make_canary(model: LanguageModel, adapter: str) -> dict[str, Any]:
    """The canary of `adapter` on its base, as JSON: prompts, token ids, top log-probabilities.

    Raises RefusedError H833 if the adapter cannot be told from the base.
    """
    answers = {name: _ask(model, [name] * len(PROMPTS)) for name in (BASE, adapter)}
    canary = {
        "version": VERSION,
        "dtype": str(getattr(model, "dtype", "")),
        "prompts": [
            {"text": text, "token_ids": _token_ids(model, text), "base": base, "adapter": adapted}
            for text, base, adapted in zip(PROMPTS, answers[BASE], answers[adapter], strict=True)
        ],
    }
    _must_differ(answers[BASE], answers[adapter], TOLERANCE)
    return canary


def read_canary(path: Path) -> dict[str, Any]:
    """The canary that lies beside an adapter; RefusedError H834 if the file is damaged."""
    try:
        found = read_json(path)
    except DataError as error:
        raise _stop(say("The adapter's canary cannot be read."), str(path)) from error
    if not isinstance(found, dict):
        raise _stop(say("The adapter's canary cannot be read."), str(path))
    return found


def check_canary(model: LanguageModel, adapter: str, canary: Mapping[str, Any]) -> None:
    """Compare the running model with the canary; RefusedError H834 on the first mismatch.

    Each prompt is asked alone and all of them in one batch with base and adapter mixed.
    """
    prompts = canary.get("prompts")
    if canary.get("version") != VERSION or not isinstance(prompts, list) or not prompts:
        raise _stop(say("The adapter's canary cannot be read."))
    same_format = canary.get("dtype", "") in ("", str(getattr(model, "dtype", "")))
    tolerance = TOLERANCE if same_format else TOLERANCE_OTHER_FORMAT
    try:
        texts = [str(p["text"]) for p in prompts]
        wanted = {BASE: [p["base"] for p in prompts], adapter: [p["adapter"] for p in prompts]}
        ids = [list(p["token_ids"]) for p in prompts]
    except (KeyError, TypeError) as error:
        raise _stop(say("The adapter's canary cannot be read.")) from error
    if hasattr(model, "prompt_ids"):
        for text, known in zip(texts, ids, strict=True):
            if known and _token_ids(model, text) != known:
                raise _stop(say("The tokenizer is not the one that the adapter was made with."))
    mixed_names = [name for _ in texts for name in (BASE, adapter)]
    mixed = _ask(model, mixed_names, [t for t in texts for _ in range(2)])
    for i, text in enumerate(texts):
        for place, name in enumerate((BASE, adapter)):
            alone = _ask(model, [name], [text])[0]
            for found in (alone, mixed[2 * i + place]):
                gap = distance(wanted[name][i], found)
                if gap > tolerance:
                    raise _stop(_mismatch(name, gap, found is not alone))
    _must_differ(mixed[0::2], mixed[1::2], tolerance)


def _mismatch(name: str, gap: float, mixed: bool) -> Sentence:
    if mixed:
        return say(
            "In a mixed batch '{name}' does not answer as recorded (by {gap:.3f} nats).",
            name=name,
            gap=gap,
        )
    return say("'{name}' does not answer as recorded (by {gap:.3f} nats).", name=name, gap=gap)


def _stop(what: Sentence, where: str = "") -> RefusedError:
    return RefusedError(
        "H834",
        what,
        where=where,
        next_step=say("Check that base model and adapter belong together; hauslm verify tells."),
    )


def _ask(
    model: LanguageModel, names: Sequence[str], texts: Sequence[str] = PROMPTS
) -> list[list[list[Any]]]:
    """Per request the likeliest next tokens: [[id, text, logprob], ...], best first."""
    requests = [
        Request((), max_new_tokens=1, adapter=name, raw_prompt=text, top_logprobs=TOP)
        for name, text in zip(names, texts, strict=True)
    ]
    return [_top(reply) for reply in model.generate(requests)]


def _top(reply: Reply) -> list[list[Any]]:
    if not reply.logprobs or not reply.logprobs[0].top:
        raise _stop(say("The engine gives no log-probabilities, so nothing can be compared."))
    return [[i, text, round(value, 6)] for i, text, value in reply.logprobs[0].top]


def _token_ids(model: LanguageModel, text: str) -> list[int]:
    ids = getattr(model, "prompt_ids", None)
    return list(ids(Request((), max_new_tokens=1, raw_prompt=text))) if ids else []


def distance(a: Sequence[Sequence[Any]], b: Sequence[Sequence[Any]]) -> float:
    """Largest difference of log-probabilities (nats) over both lists.

    A token that only one list holds counts as lying just below the end of the other.
    """

    # Endpoints give no ids: then the spelling of the tokens is compared, on both sides.
    column = 1 if any(e[0] < 0 for e in (*a, *b)) else 0

    def by_token(entries: Sequence[Sequence[Any]]) -> dict[Any, float]:
        found: dict[Any, float] = {}
        for entry in entries:  # best first; of two that read the same the better counts
            found.setdefault(entry[column], float(entry[2]))
        return found

    left, right = by_token(a), by_token(b)
    if not left or not right:
        return float("inf")
    gaps = [
        abs(left.get(t, min(left.values())) - right.get(t, min(right.values())))
        for t in left.keys() | right.keys()
    ]
    return max(gaps)


def _must_differ(
    base: Sequence[Sequence[Sequence[Any]]],
    adapted: Sequence[Sequence[Sequence[Any]]],
    tolerance: float,
) -> None:
    widest = max(distance(b, a) for b, a in zip(base, adapted, strict=True))
    if widest <= SEPARATION * tolerance:
        raise RefusedError(
            "H833",
            say(
                "The adapter answers like the base model (largest difference {gap:.4f} nats).",
                gap=widest,
            ),
            next_step=say("Train it longer, or check that the adapter was loaded at all."),
        )
