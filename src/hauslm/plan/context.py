"""Can the model read the team's own documents whole? Their token lengths against its context.

Lengths come from the prepared corpus (a histogram in the training model's tokens) or, before anything is
prepared, from the one length that the scenario states.
"""

from __future__ import annotations

from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.plan import values
from hauslm.plan.sizes import Amount
from hauslm.plan.subject import Subject
from hauslm.records import ContextCheck, Said

# Below this share of too long documents nothing needs to be said beside the record.
WORTH_SAYING = 0.01
# A context that holds this share of the documents is called enough.
ENOUGH = 0.98
CONTEXTS = (4096, 8192, 16384, 32768, 65536, 131072, 262144)


def check(base: Subject, amount: Amount, seq_len: int) -> ContextCheck | None:
    """The documents' lengths against the model's context; None if no length is known."""
    context = base.architecture.max_context
    median = amount.median_tokens
    if median is None:
        return None
    counted = bool(amount.histogram)
    if counted:
        longer = values.share_longer_than(amount.histogram, context)
        above = values.share_longer_than(amount.histogram, seq_len)
    else:
        longer, above = float(median > context), float(median > seq_len)
    return ContextCheck(
        documents=sum(amount.histogram.values()),
        median_tokens=round(median, 1),
        context=context,
        seq_len=seq_len,
        longer_than_context=round(longer, 4),
        longer_than_seq_len=round(above, 4),
        counted=counted,
        text=Said.of(_words(amount, median, context, longer)),
    )


def _words(amount: Amount, median: float, context: int, longer: float) -> Sentence:
    if not amount.histogram:
        if longer:
            return say(
                "By the scenario a document has about {median:,.0f} tokens; this model reads {context:,} "
                "at once, so documents are worked on in sections.",
                median=median, context=context,
            )  # fmt: skip
        return say(
            "By the scenario a document has about {median:,.0f} tokens; this model reads {context:,} at once.",
            median=median, context=context,
        )  # fmt: skip
    if longer < WORTH_SAYING:
        return say(
            "The median of your documents is about {median:,.0f} tokens; this model reads {context:,} at once, "
            "which holds practically all of them.",
            median=median, context=context,
        )  # fmt: skip
    needed = next(
        (c for c in CONTEXTS if values.share_longer_than(amount.histogram, c) <= 1 - ENOUGH), None
    )
    words = say(
        "{share:.0%} of your documents are longer than the {context:,} tokens that this model reads at once "
        "(median about {median:,.0f}); they are worked on in sections.",
        share=longer, context=context, median=median,
    )  # fmt: skip
    if needed is None:
        return words
    return say(
        "{first} A context of {needed:,} tokens would hold {enough:.0%} of them; {count} open models of the "
        "catalog have it.",
        first=words, needed=needed,
        enough=1 - values.share_longer_than(amount.histogram, needed), count=_models_with(needed),
    )  # fmt: skip


def _models_with(context: int) -> int:
    return sum(
        1
        for m in load.models()
        if m.architecture is not None and m.architecture.max_context >= context
    )
