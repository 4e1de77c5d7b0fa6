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
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from hauslm.base.errors import HauslmError, RefusedError, UsageError
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.schema import ListedPrice, Model

BATCH = {"processing": "batch"}
# The wheel carries no date of its own; this is the day of its newest entries.
DATA_DATES = {"0.2.3": "2026-11-09"}
_DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_VERIFIED = re.compile(r"verified on (20\d\d-\d\d-\d\d)")
_KEYS = {"input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok"}


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


@dataclass
class _Rates:
    """Prices of one moment: low and high differ where they depend on the time of day."""

    low: dict[str, Decimal]
    high: dict[str, Decimal]
    tier: int = 0
    next_tier: int | None = None
    notes: list[Sentence] = field(default_factory=list)


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
    found = _package_price(model) if model.price_ref else None
    listed = _overlay_price(model, day)
    if found is None or (listed is not None and listed.input.date > _data_date()):
        return _from_overlay(model, listed, on, batch, cached_share, context_tokens, notes)
    entry, provider = found
    rates = _rates(model, entry, day, batch=batch, context_tokens=context_tokens)
    _check_tier_listed(model, entry, context_tokens)
    if cached_share and "cache_read" not in rates.high:
        raise _no_cache_price(model, batch)
    source, date = _dated_source(entry, provider)
    quantities = _quantities(rates, source, date)
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
        upcoming=tuple(_upcoming(model, found, day, until, batch, context_tokens)),
        shutdown=model.shutdown_date.date if model.shutdown_date else None,
        notes=(*notes, *rates.notes, *_difference(rates, listed, context_tokens, batch)),
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


# ---------------------------------------------------------------- genai-prices


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("genai-prices")


@cache
def _providers() -> dict[str, Any]:
    """The providers by exact id. Imported late: the package's data takes about 0.15 s to load."""
    from genai_prices import data_snapshot

    return {provider.id: provider for provider in data_snapshot.get_snapshot().providers}


@cache
def _data_date() -> str:
    """The day of the newest entries of the installed package."""
    known = DATA_DATES.get(_version())
    if known:
        return known
    today = datetime.date.today().isoformat()
    comments = (m.price_comments or "" for p in _providers().values() for m in p.models)
    dates = [d for text in comments for d in _DATE.findall(text) if d <= today]
    return max(dates, default=today)


def _package_price(model: Model) -> tuple[Any, Any] | None:
    """The entry with exactly the model's `price_ref`, and its provider; never a near match."""
    provider = _providers().get(model.provider or "")
    for entry in provider.models if provider else ():
        if entry.id == model.price_ref:
            return entry, provider
    return None


def _dated_source(entry: Any, provider: Any) -> tuple[str, str]:
    """Source and date of an entry: the day its comment says it was verified on, else the package's.

    When each price was last checked stands in the package's repository only, not in the wheel.
    """
    page = f", {provider.pricing_urls[0]}" if provider.pricing_urls else ""
    source = f"genai-prices {_version()}: {provider.id}/{entry.id}{page}"
    verified = max(_VERIFIED.findall(entry.price_comments or ""), default="")
    if verified:
        return source, verified
    return f"{source} (day of the package's data; no check date of its own)", _data_date()


def _conditions(entry: Any) -> Iterator[Any]:
    """Every condition that a price or variant of the entry hangs on."""
    if isinstance(entry.prices, list):
        yield from (c.constraint for c in entry.prices if c.constraint is not None)
    yield from (v.constraint for v in entry.price_variants or () if v.constraint is not None)


def _moments(entry: Any, day: datetime.date) -> list[datetime.datetime]:
    """Moments of `day` (UTC) at which each of the entry's time-of-day rates is seen once."""
    noon = datetime.datetime.combine(day, datetime.time(12), datetime.UTC)
    hours = {
        t
        for c in _conditions(entry)
        if hasattr(c, "start_time")
        for t in (c.start_time, c.end_time)
    }
    return [noon] + [
        datetime.datetime.combine(day, t.replace(tzinfo=None), t.tzinfo or datetime.UTC)
        for t in sorted(hours, key=str)
    ]


def _rates(
    model: Model, entry: Any, day: datetime.date, *, batch: bool, context_tokens: int | None
) -> _Rates:
    found: list[dict[str, Decimal]] = []
    tiers: set[int] = set()
    for moment in _moments(entry, day):
        prices = dict(entry.get_prices(moment, BATCH if batch else None).__dict__)
        if batch:
            overridden = _batch_keys(entry, moment)
            if not {"input_mtok", "output_mtok"} <= overridden:
                raise _no_batch_price(model, day)
            if "cache_read_mtok" not in overridden:
                prices.pop("cache_read_mtok", None)
        if prices.get("requests_kcount"):
            raise RefusedError(
                "H136",
                say(
                    "{model} also charges per request; such a price is not calculated.",
                    model=model.id,
                ),
                next_step=say("Enter the option with your own figures under scenario.options."),
            )
        found.append(
            {
                name: _at_length(prices[key], context_tokens, tiers)
                for name, key in _KEYS.items()
                if prices.get(key) is not None
            }
        )
    if any(not {"input", "output"} <= set(p) for p in found):
        raise _no_price(model, day)
    shared = set.intersection(*(set(p) for p in found))
    rates = _Rates(
        {k: min(p[k] for p in found) for k in shared}, {k: max(p[k] for p in found) for k in shared}
    )
    reached = [t for t in tiers if context_tokens is not None and context_tokens > t]
    beyond = [t for t in tiers if t not in reached]
    rates.tier, rates.next_tier = max(reached, default=0), min(beyond, default=None)
    if rates.low != rates.high:
        rates.notes.append(
            say(
                "The price of {model} depends on the time of day; the highest is used.",
                model=model.id,
            )
        )
    if context_tokens is None and rates.next_tier is not None:
        rates.notes.append(
            say(
                "Prompts longer than {n:,} tokens cost more with {model}.",
                n=rates.next_tier,
                model=model.id,
            )
        )
    return rates


def _batch_keys(entry: Any, moment: datetime.datetime) -> set[str]:
    """The price keys for which a batch rate is really listed at `moment`."""
    return {
        key
        for variant in entry.price_variants or ()
        if all(BATCH.get(k) == v for k, v in variant.when.items())
        and (variant.constraint is None or variant.constraint.active(moment))
        for key, price in variant.prices.__dict__.items()
        if price is not None
    }


def _at_length(price: Any, context_tokens: int | None, tiers: set[int]) -> Decimal:
    """The rate for a prompt of that many tokens; notes the price's thresholds in `tiers`."""
    if isinstance(price, Decimal):
        return price
    tiers.update(t.start for t in price.tiers)
    reached = [t for t in price.tiers if context_tokens is not None and context_tokens > t.start]
    rate: Decimal = max(reached, key=lambda t: t.start).price if reached else price.base
    return rate


def _check_tier_listed(model: Model, entry: Any, context_tokens: int | None) -> None:
    """Refuses when our overlay knows a dearer rate for such prompts and the package does not."""
    listed = model.listed_price("USD")
    if context_tokens is None or listed is None or not listed.tiers:
        return
    threshold = listed.tiers[0].above_tokens.value
    standard = entry.prices[-1].prices if isinstance(entry.prices, list) else entry.prices
    if context_tokens > threshold and isinstance(standard.__dict__.get("input_mtok"), Decimal):
        raise RefusedError(
            "H134",
            say(
                "{model} charges more above {n:,} tokens, but the price for that is not listed.",
                model=model.id,
                n=threshold,
            ),
            next_step=say("Use shorter prompts or enter the price under scenario.prices."),
        )


def _quantities(rates: _Rates, source: str, date: str) -> dict[str, Quantity]:
    """The rates as quantities: the highest of the day, with the range where it varies."""
    result = {}
    for name, high in rates.high.items():
        low = rates.low[name]
        low_end, high_end = (None, None) if low == high else (float(low), float(high))
        result[name] = Quantity(float(high), "USD/Mtok", "sourced", low_end, high_end, source, date)
    return result


def _upcoming(
    model: Model,
    found: tuple[Any, Any],
    day: datetime.date,
    until: datetime.date | None,
    batch: bool,
    context_tokens: int | None,
) -> Iterator[UpcomingPrice]:
    entry, provider = found
    source, date = _dated_source(entry, provider)
    starts = {c.start_date for c in _conditions(entry) if hasattr(c, "start_date")}
    before: dict[str, Decimal] | None = None
    for start in sorted(starts | {day}):
        if start < day or (until is not None and start > until):
            continue
        rates = _rates(model, entry, start, batch=batch, context_tokens=context_tokens)
        if before is not None and rates.high != before:
            announced = f"{source}, announced for {start.isoformat()}"
            figures = _quantities(rates, announced, date)
            yield UpcomingPrice(
                start.isoformat(), figures["input"], figures["output"], figures.get("cache_read")
            )
        before = rates.high


def _difference(
    rates: _Rates, listed: ListedPrice | None, context_tokens: int | None, batch: bool
) -> list[Sentence]:
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
        raise _no_price(model, on)
    if batch:
        raise _no_batch_price(model, on)
    if cached_share and listed.cache_read is None:
        raise _no_cache_price(model, batch)
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


# ---------------------------------------------------------------- refusals

_OWN_PRICE = "scenario.prices"


def _no_price(model: Model, day: datetime.date) -> HauslmError:
    return RefusedError(
        "H131",
        say("No price of {model} is known for {day:date}.", model=model.id, day=day.isoformat()),
        next_step=say("Enter the price with source and date under {key}.", key=_OWN_PRICE),
    )


def _no_batch_price(model: Model, day: datetime.date) -> HauslmError:
    return RefusedError(
        "H132",
        say(
            "No batch price of {model} is listed for {day:date}.",
            model=model.id,
            day=day.isoformat(),
        ),
        next_step=say(
            "Calculate without batch processing, or enter the price under {key}.", key=_OWN_PRICE
        ),
    )


def _no_cache_price(model: Model, batch: bool) -> HauslmError:
    what = (
        say(
            "No price of {model} for cached input is listed under batch processing.", model=model.id
        )
        if batch
        else say("No price of {model} for cached input is listed.", model=model.id)
    )
    return RefusedError("H133", what, next_step=say("Calculate without cached input."))
