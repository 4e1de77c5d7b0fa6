"""What does an API cost on the day of the decision? A strict adapter over genai-prices.

genai-prices answers leniently: an unknown context key or an unlisted batch rate gives the standard
price, a missing date gives today's, an alias another model's price, a retired model its old price.
Here every such case is an error (H130-H138) and nothing is ever 0 by default. Our dated overlay in
`facts/models` decides which id a model has there, when it is shut down, and complements prices that
the package lacks. Prices are in USD; an exchange rate is the caller's.

How many tokens a document has, and what a month costs, is for `estimate.money`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.package import (
    Rates,
    data_date,
    entry_of,
    no_batch_price,
    no_cache_price,
    no_price,
)
from hauslm.catalog.schema import ListedPrice, Model


@dataclass(frozen=True)
class UpcomingPrice:
    """Prices that the vendor has announced from `date` on, USD/Mtok."""

    date: str
    input: Quantity
    output: Quantity
    cache_read: Quantity | None


@dataclass(frozen=True)
class ApiPrice:
    """What a model costs on `on`, USD per million tokens.

    `cache_read` is None where no rate for cached input is listed (under batch: no batch rate).
    `tier_above_tokens` is the prompt length above which these very rates hold (0: the base rates).
    `upcoming` are scheduled changes after `on`; `shutdown` is the vendor's date, ISO.
    """

    model: str
    on: str
    batch: bool
    cached_share: float
    input: Quantity
    output: Quantity
    cache_read: Quantity | None
    tier_above_tokens: int = 0
    next_tier_above_tokens: int | None = None
    upcoming: tuple[UpcomingPrice, ...] = ()
    shutdown: str | None = None
    notes: tuple[Sentence, ...] = ()

    @property
    def input_effective(self) -> Quantity:
        """Input price with `cached_share` of the input tokens read from the cache."""
        if not self.cached_share or self.cache_read is None:
            return self.input
        share = self.cached_share
        ends = [
            (1 - share) * plain + share * cached
            for plain, cached in (
                (self.input.value, self.cache_read.value),
                (self.input.lowest, self.cache_read.lowest),
                (self.input.highest, self.cache_read.highest),
            )
        ]
        source = f"{share:.0%} cached at {self.cache_read.value:g}; {self.input.source}"
        return Quantity(ends[0], "USD/Mtok", "derived", ends[1], ends[2], source, self.input.date)


@cache
def api_price(
    model_id: str,
    on: datetime.date,
    *,
    batch: bool = False,
    cached_share: float = 0.0,
    context_tokens: int | None = None,
    allow_retired: bool = False,
    until: datetime.date | None = None,
) -> ApiPrice:
    """The price of a catalog model on the day `on`.

    `context_tokens` is the length of one prompt (some vendors charge more for long ones; None: the
    base rates, with a note). `cached_share` of the input is read from the provider's cache.
    `until` ends the horizon for scheduled changes (None: all). A model that is shut down on `on` is
    refused unless `allow_retired`, which gives its last prices, for comparison only.

    Errors: H120 unknown id; H130 not an API model; H131 no price known; H132 no batch price listed;
    H133 no cache price listed; H134 price for this prompt length not listed; H135 shut down; H136
    charged otherwise than per token; H137 prompt longer than the context; H138 impossible share.
    """
    model = load.model(model_id)
    _check_question(model, on, cached_share, context_tokens, allow_retired)
    day, notes = _day_of_price(model, on)
    listed = _overlay_price(model, day)
    entry = entry_of(model.id, model.provider, model.price_ref, batch, context_tokens)
    if entry is None or (listed is not None and listed.input.date > data_date()):
        return _from_overlay(model, listed, on, batch, cached_share, context_tokens, notes)
    if listed is not None and listed.tiers:
        entry.refuse_if_untiered(day, listed.tiers[0].above_tokens.value)
    rates = entry.rates(day)
    if cached_share and "cache_read" not in rates.high:
        raise no_cache_price(model.id, batch)
    upcoming = [
        UpcomingPrice(start, q["input"], q["output"], q.get("cache_read"))
        for start, q in entry.changes(day, until)
    ]
    quantities = entry.quantities(rates)
    return ApiPrice(
        model=model.id,
        on=on.isoformat(),
        batch=batch,
        cached_share=cached_share,
        input=quantities["input"],
        output=quantities["output"],
        cache_read=quantities.get("cache_read"),
        tier_above_tokens=rates.tier,
        next_tier_above_tokens=rates.next_tier,
        upcoming=tuple(upcoming),
        shutdown=model.shutdown_date.date if model.shutdown_date else None,
        notes=(*notes, *rates.notes, *_difference(rates, listed, batch)),
    )


# ---------------------------------------------------------------- the question


def _check_question(
    model: Model,
    on: datetime.date,
    cached_share: float,
    context_tokens: int | None,
    allow_retired: bool,
) -> None:
    if not 0 <= cached_share <= 1:
        raise UsageError(
            "H138", say("The cached share must lie between 0 and 1, not {x}.", x=cached_share)
        )
    if model.kind != "api":
        hosts = [m.id for m in load.models() if m.serves == model.id]
        raise UsageError(
            "H130",
            say("{model} is a model with open weights, not an API.", model=model.id),
            next_step=say("Hosted variants: {names}", names=", ".join(hosts)) if hosts else "",
        )
    if model.release_date and on.isoformat() < model.release_date:
        raise no_price(model.id, on)
    end = model.shutdown_date
    if end is not None and end.date <= on.isoformat() and not allow_retired:
        raise RefusedError(
            "H135",
            say("{model} was shut down on {day:date}.", model=model.id, day=end.date),
            where=end.source,
            next_step=say("The vendor names as replacement: {name}.", name=end.replacement)
            if end.replacement
            else say("Choose a model that is still offered."),
        )
    if context_tokens is not None and model.context and context_tokens > model.context.value:
        raise RefusedError(
            "H137",
            say(
                "A prompt of {n:,} tokens exceeds the context of {model} ({limit:,} tokens).",
                n=context_tokens,
                model=model.id,
                limit=model.context.value,
            ),
            next_step=say("Split the documents or choose a model with a longer context."),
        )


def _day_of_price(model: Model, on: datetime.date) -> tuple[datetime.date, list[Sentence]]:
    """The day whose prices hold: `on`, or the last day of a model that is shut down by then."""
    end = model.shutdown_date
    if end is None or end.date > on.isoformat():
        return on, []
    last = datetime.date.fromisoformat(end.date) - datetime.timedelta(days=1)
    what = say(
        "{model} was shut down on {day:date}; this is its last list price, for comparison only.",
        model=model.id,
        day=end.date,
    )
    return last, [what]


# ---------------------------------------------------------------- our overlay


def _overlay_price(model: Model, day: datetime.date) -> ListedPrice | None:
    """The latest list price in USD that our facts hold for `day`."""
    prices = [p for p in model.listed_prices if p.currency == "USD"]
    prices = [p for p in prices if p.input.date <= day.isoformat()]
    return prices[-1] if prices else None


def _from_overlay(
    model: Model,
    listed: ListedPrice | None,
    on: datetime.date,
    batch: bool,
    cached_share: float,
    context_tokens: int | None,
    notes: list[Sentence],
) -> ApiPrice:
    """A price that stands only in our facts: standard rates, with its tiers."""
    if listed is None:
        raise no_price(model.id, on)
    if model.price_ref:
        what = say(
            "The price of {model} is a list price of {day:date}.",
            model=model.id,
            day=listed.input.date,
        )
        notes = [*notes, what]
    if batch:
        raise no_batch_price(model.id, on)
    if cached_share and listed.cache_read is None:
        raise no_cache_price(model.id, batch)
    reached = [
        t
        for t in listed.tiers
        if context_tokens is not None and context_tokens > t.above_tokens.value
    ]
    beyond = [t for t in listed.tiers if t not in reached]
    rates = reached[-1] if reached else listed
    return ApiPrice(
        model=model.id,
        on=on.isoformat(),
        batch=False,
        cached_share=cached_share,
        input=rates.input,
        output=rates.output,
        cache_read=rates.cache_read,
        tier_above_tokens=int(reached[-1].above_tokens.value) if reached else 0,
        next_tier_above_tokens=int(beyond[0].above_tokens.value) if beyond else None,
        shutdown=model.shutdown_date.date if model.shutdown_date else None,
        notes=tuple(notes),
    )


def _difference(rates: Rates, listed: ListedPrice | None, batch: bool) -> list[Sentence]:
    """A note when another directory listed a clearly different standard price."""
    if listed is None or batch or rates.tier:
        return []
    ours, theirs = float(rates.high["output"]), listed.output.value
    if abs(ours - theirs) <= 0.05 * max(ours, theirs):
        return []
    return [
        say(
            "Another list has {theirs:.2f} instead of {ours:.2f} USD/Mtok of output ({source}).",
            source=f"{listed.output.source}, {listed.output.date}",
            theirs=theirs,
            ours=ours,
        )
    ]
