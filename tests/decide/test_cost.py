"""The cost formula's promises: monotone, additive, exact break-even, fast for thousands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.decide.cost import LINES, Bill, Bills, PriceStep, Settings, costs, single
from hauslm.decide.solve import crossings, difference, first_crossing

BASE = Settings(
    documents_per_month=3000, backlog_documents=100_000, months=36, eur_per_usd=0.87,
    instruction_tokens=300, glossary_tokens=2000, price_eur_per_kwh=0.37, host_load_w=120,
    host_idle_w=60, idle_hours_per_month=160, available_hours_per_month=500, hourly_cost_eur=68.66,
    setup_hours_local=24, setup_hours_cloud=6, upkeep_hours_per_month_local=3,
    upkeep_hours_per_month_cloud=0.5, training_tokens=5e6, training_epochs=2,
    training_runs_per_year=4, training_hours_of_staff=4, migration_hours=16,
    value_loss_per_year=0.25, residual_share=0.5, hardware_life_months=60,
    repair_share_per_year=0.03, rent_overhead=1.15,
)  # fmt: skip

positive = st.floats(0.001, 1000)


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    """An API, an own machine or a rented one with any sensible figures."""
    kind = draw(st.sampled_from(["api", "own", "rent"]))
    dense = draw(st.floats(2.0, 6.0))
    if kind == "api":
        steps = draw(st.lists(st.tuples(st.floats(0.1, 60), positive, positive), max_size=3))
        prices = [PriceStep(0.0, draw(positive), draw(positive), draw(st.none() | positive))]
        prices += [PriceStep(m, i, o) for m, i, o in sorted(steps)]
        return Bill(
            "api", dense, prices=tuple(prices), migrations=tuple(sorted(s[0] for s in steps))
        )
    pace = draw(st.floats(1e-6, 1e-3))
    shared = {
        "gpus": 1.0, "seconds_per_input_token": pace, "seconds_per_output_token": 4 * pace,
        "tuned": draw(st.booleans()), "training_seconds_per_token": 3 * pace, "own_staff": True,
    }  # fmt: skip
    if kind == "rent":
        return Bill("rent", dense, rent_per_hour=draw(st.floats(0.1, 20)), **shared)  # type: ignore[arg-type]
    return Bill(
        "own", dense, own_machine=True, paid=draw(st.booleans()), load_w=draw(st.floats(50, 1000)),
        idle_w=15, gpu_price=draw(st.floats(100, 50_000)), host_price_eur=1200, **shared,  # type: ignore[arg-type]
    )  # fmt: skip


settings_ = st.builds(
    lambda **kw: BASE.with_(**kw),
    documents_per_month=st.floats(0, 1e6),
    backlog_documents=st.floats(0, 1e6),
    months=st.floats(1, 120),
    api_price_decline_per_year=st.floats(-0.2, 0.6),
)

PRICES = (
    "eur_per_usd", "api_price_factor", "rent_factor", "rent_overhead", "price_eur_per_kwh",
    "hourly_cost_eur", "service_tax", "repair_share_per_year", "upkeep_hours_per_month_local",
    "upkeep_hours_per_month_cloud", "migration_hours", "host_load_w", "value_loss_per_year",
    "documents_per_month", "backlog_documents", "tokens_out_per_document", "glossary_tokens",
)  # fmt: skip


@given(bills(), settings_, st.sampled_from(PRICES), st.floats(1.0001, 3.0))
def test_raising_a_price_never_makes_an_option_cheaper(
    bill: Bill, settings: Settings, name: str, factor: float
) -> None:
    dearer = settings.with_(**{name: getattr(settings, name) * factor})
    before, after = single(bill, settings)["horizon"], single(bill, dearer)["horizon"]
    assert after >= before - 1e-6 * max(1.0, abs(before))


@given(bills(), settings_, st.floats(1.0001, 3.0))
def test_raising_an_options_own_prices_never_makes_it_cheaper(
    bill: Bill, settings: Settings, factor: float
) -> None:
    dearer = replace(
        bill,
        prices=tuple(
            PriceStep(p.from_month, p.input * factor, p.output * factor,
                      None if p.cached is None else p.cached * factor)
            for p in bill.prices
        ),
        rent_per_hour=bill.rent_per_hour * factor,
        gpu_price=bill.gpu_price * factor,
    )  # fmt: skip
    before, after = single(bill, settings)["horizon"], single(dearer, settings)["horizon"]
    assert after >= before - 1e-6 * max(1.0, abs(before))


@given(bills(), settings_)
def test_the_lines_add_up(bill: Bill, settings: Settings) -> None:
    found = single(bill, settings)
    assert set(found["lines"]) == set(LINES)
    assert sum(found["lines"].values()) == pytest.approx(found["horizon"], rel=1e-9, abs=1e-6)
    assert found["monthly"] * float(settings.months) == pytest.approx(found["horizon"])


@given(bills(), bills(), settings_)
def test_break_even_put_back_gives_equal_cost_to_the_cent(
    first: Bill, second: Bill, settings: Settings
) -> None:
    found = first_crossing(first, second, settings, "documents_per_month", 0.0, 1e6)
    if found is None:
        return
    there = settings.with_(documents_per_month=found)
    assert single(first, there)["horizon"] == pytest.approx(
        single(second, there)["horizon"], abs=0.005
    )


@given(bills(), bills(), settings_)
def test_no_crossing_means_one_side_is_cheaper_all_the_way(
    first: Bill, second: Bill, settings: Settings
) -> None:
    if first_crossing(first, second, settings, "documents_per_month", 0.0, 1e6) is not None:
        return
    values = difference(first, second, settings, "documents_per_month")(np.linspace(0, 1e6, 500))
    assert np.all(values >= -1e-6) or np.all(values <= 1e-6)


def test_demand_is_not_capacity() -> None:
    """A machine that could do more costs the same; only the work that is demanded is counted."""
    slow = Bill("slow", gpus=1, own_machine=True, seconds_per_input_token=1e-4, load_w=0)
    fast = replace(slow, seconds_per_input_token=1e-6)
    assert single(slow, BASE)["horizon"] == pytest.approx(single(fast, BASE)["horizon"], rel=0.02)


def test_a_paid_machine_is_sunk_until_its_life_ends() -> None:
    paid = Bill("own", own_machine=True, paid=True, gpus=1, gpu_price=2000)
    new = replace(paid, paid=False)
    plain = BASE.with_(repair_share_per_year=0.0, residual_share=0.0)
    assert single(paid, plain)["lines"]["gpu_purchase"] == 0
    assert single(new, plain)["lines"]["gpu_purchase"] == 2000
    assert single(paid, plain.with_(months=61))["lines"]["gpu_purchase"] == 2000
    assert single(new, plain.with_(months=60))["lines"]["gpu_purchase"] == 2000
    left = single(new, plain.with_(residual_share=1.0, months=36))["lines"]["residual"]
    assert left == pytest.approx(-2000 * 0.75**3)


def test_a_scheduled_price_counts_from_its_month_and_a_shut_down_costs_a_move() -> None:
    flat = Bill("flat", prices=(PriceStep(0, 1.0, 0.0),))
    doubling = Bill("doubling", prices=(PriceStep(0, 1.0, 0.0), PriceStep(12, 2.0, 0.0)))
    plain = BASE.with_(backlog_documents=0)
    one = single(flat, plain)["lines"]["input_tokens"]
    assert single(doubling, plain)["lines"]["input_tokens"] == pytest.approx(
        one * (12 + 2 * 24) / 36
    )
    moving = replace(flat, migrations=(2.0,))
    assert single(moving, BASE)["lines"]["staff_migration"] == pytest.approx(16 * 68.66)
    assert single(moving, BASE.with_(months=1))["lines"]["staff_migration"] == 0


def test_a_cached_prefix_costs_less_and_only_the_prefix() -> None:
    plain = Bill("plain", prices=(PriceStep(0, 1.0, 0.0),))
    cached = Bill("cached", prices=(PriceStep(0, 1.0, 0.0, 0.1),))
    a, b = single(plain, BASE)["lines"], single(cached, BASE)["lines"]
    documents = 100_000 + 3000 * 36
    saved = documents * 2300 * 0.9 / 1e6 * 0.87
    assert a["input_tokens"] - b["input_tokens"] - b["cached_tokens"] == pytest.approx(saved)


def test_draws_are_the_single_answers_side_by_side() -> None:
    bill = Bill("api", prices=(PriceStep(0, 0.1, 0.5),))
    values = np.array([0.0, 0.2, 0.4])
    together = costs(Bills([bill]), BASE.with_(api_price_decline_per_year=values)).horizon[0]
    alone = [
        single(bill, BASE.with_(api_price_decline_per_year=float(v)))["horizon"] for v in values
    ]
    assert together == pytest.approx(alone)


def test_crossings_are_exact_on_kinked_lines() -> None:
    found = crossings(lambda x: np.abs(x - 3.0) - 1.0, 0.0, 10.0, [3.0])
    assert found == pytest.approx([2.0, 4.0], abs=1e-12)


def test_ten_thousand_options_at_once() -> None:
    many = Bills(
        [
            Bill(str(k), 3 + k % 3, prices=(PriceStep(0, 0.1 + k % 7, 0.5),), gpus=k % 2,
                 seconds_per_input_token=1e-5 * (k % 2), own_machine=bool(k % 2), gpu_price=2000)
            for k in range(10_000)
        ]
    )  # fmt: skip
    found = costs(many, BASE)
    assert found.horizon.shape == (10_000, 1) and np.all(np.isfinite(found.horizon))
