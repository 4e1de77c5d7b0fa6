"""What does genai-prices say about one model, exactly? Reading the installed package, strictly.

The package answers leniently; this module reads its entries directly and refuses whatever is not
listed for the moment, the processing and the prompt length asked for. `prices` puts the questions
and joins the answers with our own dated facts. Behaviour read in genai-prices 0.2.3: a price above
a threshold holds for all tokens of the request; a date's price is that of its UTC day.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from hauslm.base.errors import HauslmError, RefusedError
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say

BATCH = {"processing": "batch"}
# The wheel carries no date of its own; this is the day of its newest entries.
DATA_DATES = {"0.2.3": "2026-11-09"}
_DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_VERIFIED = re.compile(r"verified on (20\d\d-\d\d-\d\d)")
_KEYS = {"input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok"}


@cache
def version() -> str:
    from importlib.metadata import version as installed

    return installed("genai-prices")


@cache
def _providers() -> dict[str, Any]:
    """The providers by exact id. Imported late: the package's data takes about 0.15 s to load."""
    from genai_prices import data_snapshot

    return {provider.id: provider for provider in data_snapshot.get_snapshot().providers}


@cache
def data_date() -> str:
    """The day of the newest entries of the installed package (of an unknown version: the newest
    day that its comments name)."""
    known = DATA_DATES.get(version())
    if known:
        return known
    today = datetime.date.today().isoformat()
    comments = (m.price_comments or "" for p in _providers().values() for m in p.models)
    dates = [d for text in comments for d in _DATE.findall(text) if d <= today]
    return max(dates, default=today)


@dataclass
class Rates:
    """Prices of one day; `low` and `high` differ where they depend on the time of day."""

    low: dict[str, Decimal]
    high: dict[str, Decimal]
    tier: int = 0
    next_tier: int | None = None
    notes: list[Sentence] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """One model's entry in the package, asked about one way of use.

    `name` is the model's catalog id, for messages; `batch` asks for batch processing;
    `context_tokens` is the length of one prompt (None: the base rates).
    """

    name: str
    entry: Any
    provider: Any
    batch: bool
    context_tokens: int | None

    def rates(self, day: datetime.date) -> Rates:
        """The rates that are listed for `day`; H131, H132, H134 or H136 if something is not."""
        tiers: set[int] = set()
        found = [self._at(moment, tiers) for moment in self._moments(day)]
        names = set.intersection(*(set(p) for p in found))
        if not {"input", "output"} <= names:
            raise no_price(self.name, day)
        length = self.context_tokens
        reached = [t for t in tiers if length is not None and length > t]
        rates = Rates(
            low={k: min(p[k] for p in found) for k in names},
            high={k: max(p[k] for p in found) for k in names},
            tier=max(reached, default=0),
            next_tier=min(tiers.difference(reached), default=None),
        )
        rates.notes += self._notes(rates)
        return rates

    def quantities(self, rates: Rates, announced: str = "") -> dict[str, Quantity]:
        """The rates in USD/Mtok: the highest of the day, with the range where it varies."""
        source, date = self.source()
        source += f", announced for {announced}" if announced else ""
        result = {}
        for name, high in rates.high.items():
            low = rates.low[name]
            ends = {} if low == high else {"low": float(low), "high": float(high)}
            result[name] = Quantity(
                float(high), "USD/Mtok", "sourced", source=source, date=date, **ends
            )
        return result

    def changes(
        self, day: datetime.date, until: datetime.date | None
    ) -> Iterator[tuple[str, dict[str, Quantity]]]:
        """Scheduled changes after `day`, up to `until`: first day and the prices from then on."""
        starts = {c.start_date for c in self._conditions() if hasattr(c, "start_date")}
        before = self.rates(day).high
        for start in sorted(s for s in starts if s > day and (until is None or s <= until)):
            rates = self.rates(start)
            if rates.high != before:
                yield start.isoformat(), self.quantities(rates, start.isoformat())
            before = rates.high

    def source(self) -> tuple[str, str]:
        """Source and date: the day the entry's comment says it was verified on, else the package's.

        When each price was last checked stands in the package's repository only, not in the wheel.
        """
        page = f", {self.provider.pricing_urls[0]}" if self.provider.pricing_urls else ""
        source = f"genai-prices {version()}: {self.provider.id}/{self.entry.id}{page}"
        verified = max(_VERIFIED.findall(self.entry.price_comments or ""), default="")
        if verified:
            return source, verified
        return f"{source} (day of the package's data; no check date of its own)", data_date()

    # -- reading

    def _conditions(self) -> Iterator[Any]:
        """Every condition that a price or variant of the entry hangs on."""
        prices, variants = self.entry.prices, self.entry.price_variants or ()
        if isinstance(prices, list):
            yield from (p.constraint for p in prices if p.constraint is not None)
        yield from (v.constraint for v in variants if v.constraint is not None)

    def _moments(self, day: datetime.date) -> list[datetime.datetime]:
        """Moments of `day` (UTC) at which each of the entry's time-of-day rates is seen once."""
        hours = [c for c in self._conditions() if hasattr(c, "start_time")]
        times = [datetime.time(12), *(t for c in hours for t in (c.start_time, c.end_time))]
        return [
            datetime.datetime.combine(day, t.replace(tzinfo=None), t.tzinfo or datetime.UTC)
            for t in times
        ]

    def _at(self, moment: datetime.datetime, tiers: set[int]) -> dict[str, Decimal]:
        """The rates at one moment; the thresholds of their tiers are added to `tiers`."""
        standard = self.entry.get_prices(moment).__dict__
        prices = self._batch(moment, standard) if self.batch else standard
        if prices.get("requests_kcount"):
            what = say("{model} also charges per request; that is not calculated.", model=self.name)
            step = say("Enter the option with your own figures under scenario.options.")
            raise RefusedError("H136", what, next_step=step)
        found = {}
        for name, key in _KEYS.items():
            if prices.get(key) is None:
                continue
            if isinstance(prices[key], Decimal) and not isinstance(standard[key], Decimal):
                self._check_length(min(t.start for t in standard[key].tiers))
            found[name] = self._at_length(prices[key], tiers)
        return found

    def _batch(self, moment: datetime.datetime, standard: dict[str, Any]) -> dict[str, Any]:
        """The batch prices, only those that a variant in force really lists.

        Asked for a context that it does not know, the package returns the standard price.
        """
        listed = {
            key
            for variant in self.entry.price_variants or ()
            if all(BATCH.get(k) == v for k, v in variant.when.items())
            and (variant.constraint is None or variant.constraint.active(moment))
            for key, price in variant.prices.__dict__.items()
            if price is not None
        }
        if not {"input_mtok", "output_mtok"} <= listed:
            raise no_batch_price(self.name, moment.date())
        resolved = self.entry.get_prices(moment, BATCH).__dict__
        kept = {k: v for k, v in resolved.items() if k in listed}
        return kept | {k: v for k, v in standard.items() if k not in _KEYS.values()}

    def _at_length(self, price: Any, tiers: set[int]) -> Decimal:
        if isinstance(price, Decimal):
            return price
        tiers.update(t.start for t in price.tiers)
        length = self.context_tokens
        reached = [t for t in price.tiers if length is not None and length > t.start]
        rate: Decimal = max(reached, key=lambda t: t.start).price if reached else price.base
        return rate

    def _check_length(self, threshold: float) -> None:
        if self.context_tokens is not None and self.context_tokens > threshold:
            raise no_long_price(self.name, threshold)

    def refuse_if_untiered(self, day: datetime.date, threshold: float) -> None:
        """H134 when long prompts are known to cost more and the package lists one price for all."""
        noon = datetime.datetime.combine(day, datetime.time(12), datetime.UTC)
        if isinstance(self.entry.get_prices(noon).__dict__.get("input_mtok"), Decimal):
            self._check_length(threshold)

    def _notes(self, rates: Rates) -> Iterator[Sentence]:
        if rates.low != rates.high:
            yield say(
                "The price of {model} depends on the time of day; the highest is used.",
                model=self.name,
            )
        if self.context_tokens is None and rates.next_tier is not None:
            yield say(
                "Prompts longer than {n:,} tokens cost more with {model}.",
                n=rates.next_tier,
                model=self.name,
            )


def entry_of(
    name: str, provider: str | None, ref: str | None, batch: bool, context_tokens: int | None
) -> Entry | None:
    """The entry whose id is exactly `ref` under exactly that provider; never a near match."""
    house = _providers().get(provider or "")
    for entry in house.models if house and ref else ():
        if entry.id == ref:
            return Entry(name, entry, house, batch, context_tokens)
    return None


# ---------------------------------------------------------------- refusals


def no_price(name: str, day: datetime.date) -> HauslmError:
    return RefusedError(
        "H131",
        say("No price of {model} is known for {day:date}.", model=name, day=day.isoformat()),
        next_step=say("Enter the price with source and date under scenario.prices."),
    )


def no_batch_price(name: str, day: datetime.date) -> HauslmError:
    return RefusedError(
        "H132",
        say("No batch price of {model} is listed for {day:date}.", model=name, day=day.isoformat()),
        next_step=say("Calculate without batch processing, or enter the price yourself."),
    )


def no_cache_price(name: str, batch: bool) -> HauslmError:
    what = say("No price of {model} for cached input is listed.", model=name)
    if batch:
        what = say("No batch price of {model} for cached input is listed.", model=name)
    return RefusedError("H133", what, next_step=say("Calculate without cached input."))


def no_long_price(name: str, threshold: float) -> HauslmError:
    return RefusedError(
        "H134",
        say(
            "{model} charges more above {n:,} tokens, but the price for that is not listed.",
            model=name,
            n=threshold,
        ),
        next_step=say("Use shorter prompts or enter the price under scenario.prices."),
    )
