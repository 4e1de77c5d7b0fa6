"""What is a figure worth? A number with unit, range, source, date, and how it is known.

`known` is one of: given (by the user), measured (here, on a date), sourced (a document, a date),
derived (computed from other quantities), assumed (nobody said so). A sourced number without source
or date, a measured one without date, an unknown unit, or a range that excludes the value is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Known = Literal["given", "measured", "sourced", "derived", "assumed"]

# One registry: a price per thousand tokens under a unit per million is valid and wrong by 1000.
UNITS = frozenset(
    [
        "1",
        "%",
        "GiB",
        "GB",
        "MiB",
        "KiB",
        "B",
        "B/token",
        "KiB/token",
        "GB/s",
        "GiB/s",
        "TFLOP/s",
        "TFLOP",
        "TOP/s",
        "FLOP/token",
        "FLOP",
        "W",
        "kW",
        "Wh",
        "kWh",
        "EUR",
        "USD",
        "EUR/month",
        "USD/month",
        "EUR/h",
        "USD/h",
        "EUR/kWh",
        "EUR/document",
        "USD/document",
        "EUR/Mtok",
        "USD/Mtok",
        "EUR/USD",
        "h",
        "h/month",
        "h/year",
        "s",
        "ms",
        "d",
        "month",
        "months",
        "year",
        "years",
        "token",
        "tokens",
        "tokens/s",
        "tokens/document",
        "tokens/month",
        "documents",
        "documents/month",
        "documents/h",
        "documents/s",
        "steps",
        "bit/byte",
        "nat",
        "loss",
        "items",
        "parameters",
        "layers",
        "bytes",
        "characters",
        "characters/token",
        "points",
        "gCO2e/kWh",
    ]
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that knows how it is known. Immutable; combine with `derived`."""

    value: float
    unit: str
    known: Known
    low: float | None = None
    high: float | None = None
    source: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit {self.unit!r}")
        if self.known not in get_args(Known):
            raise ValueError(f"unknown way of knowing {self.known!r}")
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise ValueError(f"not a number: {self.value!r}")
        if math.isnan(self.value):
            raise ValueError("not a number: nan")
        if self.known == "sourced" and not (self.source and self.date):
            raise ValueError(f"a sourced figure needs source and date ({self.value} {self.unit})")
        if self.known == "measured" and not self.date:
            raise ValueError(f"a measured figure needs its date ({self.value} {self.unit})")
        slack = abs(self.value) * 1e-9 + 1e-12  # rounding in unit conversions
        if self.low is not None and self.low > self.value + slack:
            raise ValueError(f"low {self.low} above value {self.value}")
        if self.high is not None and self.high < self.value - slack:
            raise ValueError(f"high {self.high} below value {self.value}")

    @property
    def lowest(self) -> float:
        return self.value if self.low is None else self.low

    @property
    def highest(self) -> float:
        return self.value if self.high is None else self.high

    def times(self, factor: float, unit: str | None = None) -> Quantity:
        """Scaled by an exact factor (unit conversions); how it is known stays."""
        ends = sorted((self.lowest * factor, self.highest * factor))
        return replace(
            self,
            value=self.value * factor,
            unit=unit or self.unit,
            low=None if self.low is None and self.high is None else ends[0],
            high=None if self.low is None and self.high is None else ends[1],
        )

    def text(self, spec: str = "", language: str | None = None) -> str:
        from hauslm.base.words import number, translate

        if self.unit in ("EUR", "USD"):
            return number(self.value, self.unit, language)
        unit = "" if self.unit == "1" else f" {translate(self.unit, language)}"
        return f"{number(self.value, spec, language)}{unit}"

    def __str__(self) -> str:
        return self.text()


def given(value: float, unit: str) -> Quantity:
    return Quantity(value, unit, "given", source="hauslm.yaml")


def assumed(
    value: float, unit: str, low: float | None = None, high: float | None = None, why: str = ""
) -> Quantity:
    return Quantity(value, unit, "assumed", low, high, why)


def measured(value: float, unit: str, date: str, source: str = "", **ends: float) -> Quantity:
    return Quantity(value, unit, "measured", ends.get("low"), ends.get("high"), source, date)


def sourced(value: float, unit: str, source: str, date: str, **ends: float) -> Quantity:
    return Quantity(value, unit, "sourced", ends.get("low"), ends.get("high"), source, date)


def derived(
    value: float, unit: str, source: str, low: float | None = None, high: float | None = None
) -> Quantity:
    """A computed figure; `source` names what it was computed from, in words."""
    return Quantity(value, unit, "derived", low, high, source)


def from_json(data: dict[str, Any]) -> Quantity:
    """Back from a record; raises ValueError on anything that is not a sound quantity."""
    keys = ("value", "unit", "known", "low", "high", "source", "date")
    extra = set(data) - set(keys)
    if extra:
        raise ValueError(f"unknown keys {sorted(extra)}")
    return Quantity(**{k: data[k] for k in keys if k in data})
