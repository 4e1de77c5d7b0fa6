"""What did one item cost a system: tokens, waiting time, energy, money? Each figure with how it is known.

Tokens are counted. Waiting time is that of items asked alone (a sample, since a batch is no waiting), of
a cloud model that of its requests. Energy is the machine's own counter where it has one, else the
measured seconds times the power that the planner assumes. Money is that energy at the tariff, of a cloud
model its tokens at the price that was settled before it was asked. What is not known is absent with its
reason; nothing is 0 for want of a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity, derived, given, measured
from hauslm.base.words import FALLBACK_LANGUAGE, Sentence, say
from hauslm.estimate.money import electricity_price, energy_cost
from hauslm.evaluate.cloud import Prices
from hauslm.evaluate.ledger import Ledger, Meter, Question, System, Unit
from hauslm.evaluate.sampling import rank
from hauslm.plan.record import power
from hauslm.plan.subject import card, this_computer
from hauslm.records import CostPerItem, Said, now
from hauslm.scenario import Scenario

ALONE_ITEMS = 20  # asked one by one: enough for a median; the 95th percentile is then the slowest


def alone(
    ledger: Ledger, system: System, groups: Sequence[Sequence[Unit | Question]]
) -> list[float]:
    """Seconds of a sample of items, each asked by itself; the same items for every system."""
    chosen = sorted(groups, key=lambda g: rank(g[0].id, "alone"))[:ALONE_ITEMS]
    return ledger.alone(system, chosen, say("One at a time ({system})", system=system.shown))


def of_local(
    scenario: Scenario, system: System, meter: Meter, unit: Any, items: int, waits: Sequence[float]
) -> CostPerItem:
    """A system on this machine: its meter over `items` of the part that counts, and its waiting times."""
    absent: dict[str, Said] = {}
    energy = _energy(scenario, system, meter, items, absent)
    return CostPerItem(
        unit=unit,
        items=items,
        tokens=_tokens(meter, items),
        **_waiting(waits, say("asked one at a time, {count} of them", count=len(waits))),
        energy=energy,
        money=_electricity(scenario, energy, absent) if energy else None,
        absent=absent,
    )


def of_cloud(meter: Meter, items: int, prices: Prices | None, concurrency: int) -> CostPerItem:
    """A cloud model: what its answers reported, at the prices of the project file or the catalog."""
    absent = {
        "energy": Said.of(say("The endpoint does not tell how much energy a request takes.")),
    }
    money = None
    if prices is None:
        absent["money"] = Said.of(say("No price was given for it."))
    else:
        money = _bill(meter, items, prices)
    return CostPerItem(
        unit="item",
        items=items,
        tokens=_tokens(meter, items),
        **_waiting(
            meter.waits,
            say(
                "{count:,} requests, up to {most} at once, network included",
                count=len(meter.waits), most=concurrency,
            ),
        ),
        money=money,
        absent=absent,
    )  # fmt: skip


def _tokens(meter: Meter, items: int) -> Quantity:
    source = say("read and written, mean over {count:,}", count=items).text(FALLBACK_LANGUAGE)
    return measured(meter.tokens / items, "tokens", _today(), source)


def _waiting(waits: Sequence[float], how: Sentence) -> dict[str, Quantity | None]:
    if not waits:
        return {}
    p50, p95 = np.percentile(np.asarray(waits), [50, 95])
    return {
        "seconds_p50": measured(float(p50), "s", _today(), how.text(FALLBACK_LANGUAGE)),
        "seconds_p95": measured(float(p95), "s", _today(), how.text(FALLBACK_LANGUAGE)),
    }


def _energy(
    scenario: Scenario, system: System, meter: Meter, items: int, absent: dict[str, Said]
) -> Quantity | None:
    source = system.counter.source if system.counter else None
    if meter.joules is not None and source is not None:
        return measured(meter.joules / items / 3600, "Wh", _today(), source.text(FALLBACK_LANGUAGE))
    try:
        watts = _power(scenario, str(getattr(system.model, "device", "cpu")))
    except HauslmError as error:
        absent["energy"] = Said.of(
            say("The power of this machine is not known: {why}", why=error.what)
        )
        absent["money"] = Said.of(say("Without energy there is no cost of electricity."))
        return None
    seconds = meter.seconds / items
    wh = [w * seconds / 3600 for w in (watts.value, watts.lowest, watts.highest)]
    why = say(
        "{seconds:.4f} s of model time (measured) at {watts:,.0f} W ({known}: {source}); this machine "
        "offers no counter",
        seconds=seconds, watts=watts.value, known=watts.known, source=watts.source,
    )  # fmt: skip
    return derived(wh[0], "Wh", why.text(FALLBACK_LANGUAGE), wh[1], wh[2])


def _power(scenario: Scenario, device: str) -> Quantity:
    """W of the whole machine under load, by the planner's figures."""
    hardware = scenario.scenario.hardware
    host = given(hardware.host_power_w, "W") if hardware.host_power_w is not None else None
    return power(card(hardware.gpu) if device == "cuda" else this_computer(), host)


def _electricity(scenario: Scenario, energy: Quantity, absent: dict[str, Said]) -> Quantity | None:
    hardware = scenario.scenario.hardware
    try:
        price = electricity_price(hardware.region, hardware.price_eur_per_kwh)
    except HauslmError as error:
        absent["money"] = Said.of(say("No cost of electricity: {why}", why=error.what))
        return None
    return energy_cost(energy.times(1e-3, "kWh"), price)


def _bill(meter: Meter, items: int, prices: Prices) -> Quantity:
    read, written = (meter.tokens - meter.written) / items, meter.written / items
    ends = [
        (read * i + written * o) / 1e6
        for i, o in (
            (prices.input.value, prices.output.value),
            (prices.input.lowest, prices.output.lowest),
            (prices.input.highest, prices.output.highest),
        )
    ]
    source = say(
        "{read:,.1f} tokens read at {input:.2f} and {written:,.1f} written at {output:.2f} EUR/Mtok "
        "({source})",
        read=read, input=prices.input.value, written=written, output=prices.output.value,
        source=prices.input.source,
    )  # fmt: skip
    return derived(ends[0], "EUR", source.text(FALLBACK_LANGUAGE), ends[1], ends[2])


def _today() -> str:
    return now()[:10]
