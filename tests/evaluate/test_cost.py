"""Is every figure of the cost what was measured or derived, with its source, and never 0 by default?"""

from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.energy import Counter
from hauslm.base.progress import Silent
from hauslm.evaluate import cost
from hauslm.evaluate.ledger import Ledger, Meter, System, Unit
from hauslm.records import CostPerItem
from hauslm.scenario import Scenario, parse

from .conftest import Knowing, Prepared, indifferent
from .test_run import judged, labelled, learned

PRICED = parse("scenario: {hardware: {price_eur_per_kwh: 0.5, host_power_w: 200}}")


def package(root: Path, microjoules: float, number: int = 0) -> None:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{microjoules:.0f}\n")


def test_the_processors_counter_is_read_over_its_wrap(tmp_path: Path) -> None:
    package(tmp_path, 900_000_000)
    package(tmp_path, 100_000_000, 1)
    counter = Counter("cpu", tmp_path)
    before = counter.read()
    package(tmp_path, 50_000_000)  # wrapped at 1,000 J
    package(tmp_path, 103_000_000, 1)
    assert counter.joules(before) == pytest.approx(150 + 3)
    assert counter.source is not None


def test_without_a_counter_nothing_is_measured(tmp_path: Path) -> None:
    counter = Counter("cpu", tmp_path)
    assert counter.source is None and counter.read() is None and counter.joules(None) is None


def local(meter: Meter, scenario: Scenario = PRICED, counter: Counter | None = None) -> CostPerItem:
    system = System("base", Knowing(indifferent), counter=counter)
    return cost.of_local(scenario, system, meter, "item", 10, [0.1, 0.3, 0.2])


def test_energy_is_derived_from_seconds_and_the_planners_power() -> None:
    made = local(Meter(tokens=1000, seconds=36.0, units=10, joules=None))
    assert made.energy is not None and made.energy.unit == "Wh"
    assert made.energy.value == pytest.approx(3.6 * 200 / 3600)
    assert made.energy.known == "derived" and "200 W (given: hauslm.yaml)" in made.energy.source
    assert made.money is not None
    assert made.money.value == pytest.approx(made.energy.value / 1000 * 0.5)
    assert made.tokens is not None and made.tokens.value == 100
    assert made.seconds_p50 is not None and made.seconds_p50.value == pytest.approx(0.2)
    assert made.seconds_p95 is not None and made.seconds_p95.value == pytest.approx(0.29)


def test_an_assumed_power_gives_a_range_and_says_so() -> None:
    made = local(Meter(tokens=1000, seconds=36.0, joules=None), Scenario())
    assert made.energy is not None and made.energy.low is not None and made.energy.high is not None
    assert made.energy.low < made.energy.value < made.energy.high
    assert "assumed" in made.energy.source


def test_a_counter_of_the_machine_goes_before_assumptions(tmp_path: Path) -> None:
    package(tmp_path, 0)
    made = local(Meter(tokens=10, seconds=1.0, joules=7200.0), counter=Counter("cpu", tmp_path))
    assert made.energy is not None and made.energy.known == "measured"
    assert made.energy.value == pytest.approx(0.2) and made.energy.date


def test_a_missing_tariff_is_absent_with_its_reason() -> None:
    made = local(Meter(tokens=10, seconds=1.0), parse("scenario: {hardware: {region: XX}}"))
    assert made.money is None and "XX" in made.absent["money"].text
    assert made.energy is not None


def test_the_stage_records_cost_beside_the_gain(prepared: Prepared) -> None:
    labelled(prepared)
    result = judged(prepared, learned)
    for system in result.systems:
        if system.kind == "baseline":
            assert system.per_item is None
            continue
        made = system.per_item
        assert made is not None and made.items == 100 and made.unit == "item"
        assert made.energy is not None and made.money is not None
        assert made.tokens is not None and made.tokens.value > 10
        assert "20 of them" in (made.seconds_p50.source if made.seconds_p50 else "")


def test_items_asked_alone_are_not_asked_again(tmp_path: Path) -> None:
    model = Knowing(indifferent)
    system = System("base", model, base_sha256="x")
    groups = [[Unit("task", f"i{n}", "d", ((f"p{n}", "a"), (f"p{n}", "b")))] for n in range(50)]
    seen = []
    for _ in range(2):
        with Ledger(tmp_path / "items.jsonl", Silent()) as ledger:
            seen.append(cost.alone(ledger, system, groups))
            assert ("base", "task") not in ledger.meters
    assert len(seen[0]) == cost.ALONE_ITEMS and seen[0] == seen[1]
    assert model.scored == 2 * cost.ALONE_ITEMS
