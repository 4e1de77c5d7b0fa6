"""Which machines are there, could be bought, or rented, and at what price?

The own machine as the project file names it, every GPU of the catalog with a price that the tool's
4-bit training runs on, and the cheapest offer of a named provider for each rented one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hauslm.base.quantity import Quantity, assumed, given
from hauslm.catalog import load
from hauslm.catalog.schema import Gpu, Offer
from hauslm.decide.settings import HOST_PRICE_EUR
from hauslm.scenario import ScenarioAnswers, UserPrice


@dataclass(frozen=True)
class Place:
    """A machine: `setting` is own, buy or rent; price per GPU or per hour, with its source."""

    setting: str
    gpu: Gpu
    count: int = 1
    purchase: Quantity | None = None  # EUR or USD per GPU
    host_eur: Quantity | None = None
    rent: Quantity | None = None  # USD per hour and GPU
    provider: str = ""
    named: bool = False  # the project file names it

    @property
    def name(self) -> str:
        several = f"{self.count}x-" if self.count > 1 else ""
        return f"{self.setting}-{several}{self.gpu.id}"


def outdone(place: Place, others: Sequence[Place]) -> Place | None:
    """A machine of the same kind that costs no more and is no worse in anything; None for one's own
    and for the one that the project file names."""
    if place.setting == "own" or place.named:
        return None

    def figures(p: Place) -> tuple[float, float, float, float]:
        price = p.rent if p.setting == "rent" else p.purchase
        rate = p.gpu.tflops_bf16.value if p.gpu.tflops_bf16 else 0.0
        return (
            -(price.value if price else math.inf),
            p.gpu.memory_gib.value,
            p.gpu.memory_bandwidth_gb_s.value,
            rate,
        )

    mine = figures(place)
    for other in others:
        if other.setting != place.setting or other is place:
            continue
        theirs = figures(other)
        no_worse = all(b >= a for a, b in zip(mine, theirs, strict=True))
        if no_worse and (theirs != mine or other.gpu.id < place.gpu.id):
            return other
    return None


def places(scenario: ScenarioAnswers) -> tuple[Place, ...]:
    """The own machine (if there is one), machines to be bought, GPUs for rent.

    Raises `UsageError` H120 with the nearest names for an unknown GPU.
    """
    return (*_own(scenario), *_to_buy(scenario), *_for_rent(scenario))


def has_gpu(scenario: ScenarioAnswers) -> bool:
    return scenario.hardware.gpu.lower() not in ("none", "") and scenario.hardware.count > 0


def _own(scenario: ScenarioAnswers) -> Iterator[Place]:
    if has_gpu(scenario):
        gpu = load.gpu(scenario.hardware.gpu)
        yield Place("own", gpu, scenario.hardware.count, _price(gpu, scenario), _host(scenario))


def _to_buy(scenario: ScenarioAnswers) -> Iterator[Place]:
    named = scenario.hardware.gpu if has_gpu(scenario) else ""
    for gpu in load.gpus():
        price = _price(gpu, scenario)
        if price is None or (not _supported(gpu) and gpu.id != named):
            continue
        count = max(1, scenario.hardware.count) if gpu.id == named else 1
        yield Place("buy", gpu, count, price, _host(scenario), named=gpu.id == named)


def _supported(gpu: Gpu) -> bool:
    """LoRA on 4 bit needs CUDA (bitsandbytes); other makers are listed when the user names them."""
    return gpu.compute_capability is not None and float(gpu.compute_capability) >= 7.5


def _for_rent(scenario: ScenarioAnswers) -> Iterator[Place]:
    own_prices = {p.model: p for p in scenario.prices if p.usd_per_hour is not None}
    best: dict[str, Offer] = {}
    for offer in load.offers():
        if "serverless" in offer.tier or "spot" in offer.tier:
            continue  # billed otherwise, or taken away at any time
        known = best.get(offer.gpu)
        if known is None or _dearness(offer) < _dearness(known):
            best[offer.gpu] = offer
    for gpu_id, offer in sorted(best.items()):
        if gpu_id in load.ids("gpus") and gpu_id not in own_prices:
            yield Place("rent", load.gpu(gpu_id), rent=offer.usd_per_hour, provider=offer.provider)
    for gpu_id, price in own_prices.items():
        assert price.usd_per_hour is not None  # noqa: S101 - filtered above
        rent = _user_quantity(price.usd_per_hour, "USD/h", price)
        yield Place("rent", load.gpu(gpu_id), rent=rent, provider=price.source, named=True)


def _dearness(offer: Offer) -> tuple[bool, float]:
    """Offers of a named provider before market ranges, then the lower price."""
    return offer.provider == "market", offer.usd_per_hour.value


def _user_quantity(value: float, unit: str, price: UserPrice) -> Quantity:
    return replace(given(value, unit), source=f"hauslm.yaml: {price.source}", date=price.date)


def _price(gpu: Gpu, scenario: ScenarioAnswers) -> Quantity | None:
    """Price of one GPU: the project file's, else the catalog's latest new one, else a used one."""
    if gpu.id == scenario.hardware.gpu and scenario.hardware.purchase_eur is not None:
        return given(scenario.hardware.purchase_eur, "EUR")
    for price in scenario.prices:
        if price.model == gpu.id and price.purchase_eur is not None:
            return _user_quantity(price.purchase_eur, "EUR", price)
    for condition in ("new", "used"):
        fitting = [p.price for p in gpu.street_prices if p.condition == condition]
        if fitting:
            newest = max(fitting, key=lambda q: q.date)
            low = min(q.lowest for q in fitting)
            high = max(q.highest for q in fitting)
            return replace(newest, low=low, high=high)
    return None


def _host(scenario: ScenarioAnswers) -> Quantity:
    stated = scenario.hardware.host_purchase_eur
    if stated is not None:
        return given(stated, "EUR")
    return assumed(*(HOST_PRICE_EUR[:1]), "EUR", *HOST_PRICE_EUR[1:], "tower for a 450 W card")
