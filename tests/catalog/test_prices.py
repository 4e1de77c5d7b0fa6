"""Does the price adapter refuse what genai-prices would silently get wrong?"""

from __future__ import annotations

import datetime
from dataclasses import replace

import genai_prices
import pytest
from genai_prices import data_snapshot

from hauslm.base.errors import HauslmError, RefusedError, UsageError
from hauslm.base.quantity import sourced
from hauslm.catalog import load, package, prices
from hauslm.catalog.prices import api_price
from hauslm.catalog.schema import ListedPrice

NOW = datetime.date(2026, 11, 23)
PRICED = [m.id for m in load.models() if m.price_ref]
USAGE = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}


def refused(model: str, code: str, on: datetime.date = NOW, **question: object) -> HauslmError:
    with pytest.raises((RefusedError, UsageError)) as error:
        api_price(model, on, **question)  # type: ignore[arg-type]
    assert error.value.code == code
    return error.value


def leniently(ref: str, provider: str | None, when: datetime.date, **context: str) -> float:
    """What the package answers on its own for 1M tokens of input and output, USD."""
    moment = datetime.datetime.combine(when, datetime.time(12), datetime.UTC)
    found = genai_prices.calc_price(
        genai_prices.Usage(**USAGE),
        ref,
        provider_id=provider,
        genai_request_timestamp=moment,
        price_context=context or None,
    )
    return float(found.total_price)


# ---------------------------------------------------------------- the six traps


def test_trap_1_a_batch_price_that_is_not_listed_is_refused() -> None:
    before = datetime.date(2026, 9, 1)  # batch rates are recorded from 2026-10-14 on
    standard = leniently("gpt-5", "openai", before)
    assert leniently("gpt-5", "openai", before, processing="batch") == standard
    assert leniently("gpt-5", "openai", NOW, proces="batch") == standard  # a mistyped key
    refused("gpt-5", "H132", before, batch=True)
    refused("gemini-3.5-flash", "H132", batch=True)
    assert api_price("gpt-5", NOW, batch=True).input.value == 0.625


def test_trap_2_the_price_is_that_of_the_decision_date() -> None:
    now, then = (
        api_price("gemini-4-argon", NOW),
        api_price("gemini-4-argon", datetime.date(2026, 12, 1)),
    )
    assert (now.input.value, now.output.value) == (2, 10)
    assert (then.input.value, then.output.value) == (4, 20)
    assert [(u.date, u.input.value) for u in now.upcoming] == [("2026-12-01", 4)]
    assert then.upcoming == ()
    soon = datetime.date(2026, 12, 31)
    assert api_price("gemini-3.8-flash", NOW, until=soon).upcoming == ()
    assert [u.date for u in api_price("gemini-3.8-flash", NOW).upcoming] == ["2027-01-01"]
    with pytest.raises(TypeError):
        api_price("gpt-5")  # type: ignore[call-arg]


def test_trap_3_an_alias_is_not_a_model() -> None:
    assert leniently("mistral-large-latest", "mistral", NOW) == 8.0  # of the model of 2024
    error = refused("mistral-large-latest", "H120")
    assert "mistral-large-4" in str(error)
    assert api_price("mistral-large-4", NOW).output.value == 2.1
    assert package.entry_of("x", "mistral", "mistral-large-latest", False, None) is None


@pytest.mark.parametrize("identity", PRICED)
def test_trap_3_every_price_ref_is_an_exact_id(identity: str) -> None:
    model = load.model(identity)
    entry = package.entry_of(model.id, model.provider, model.price_ref, False, None)
    assert entry is not None and entry.entry.id == model.price_ref


def test_trap_4_a_retired_model_is_refused_with_its_date() -> None:
    assert leniently("gpt-4-turbo", "openai", NOW) == 40.0
    error = refused("gpt-4-turbo", "H135")
    assert "Oct 23, 2026" in str(error) and "developers.openai.com" in error.where
    assert api_price("gpt-4-turbo", datetime.date(2026, 10, 22)).shutdown == "2026-10-23"
    refused("gpt-4-turbo", "H135", datetime.date(2026, 10, 23))


def test_trap_4_its_last_price_can_be_had_for_comparison() -> None:
    old = api_price("gpt-4-turbo", NOW, allow_retired=True)
    assert (old.input.value, old.output.value) == (10, 30)
    # 100,000 articles of 8,000 tokens in, 500 out: 9,500 USD (the lab's comparison).
    assert 100_000 * (8000 * old.input.value + 500 * old.output.value) / 1e6 == 9500
    assert "comparison" in str(old.notes[0])
    assert api_price("gpt-4-turbo", NOW, batch=True, allow_retired=True).output.value == 15


def test_trap_5_a_price_is_dated_although_the_wheel_has_no_check_date() -> None:
    provider = next(p for p in data_snapshot.get_snapshot().providers if p.id == "openai")
    assert not hasattr(provider.models[0], "prices_checked")
    verified = api_price("gpt-6-luna", NOW).input
    assert verified.date == "2026-10-14"  # "verified on ..." in the entry's comment
    undated = api_price("claude-sonnet-5-5", NOW).input
    assert undated.date == package.data_date()
    assert "no check date of its own" in undated.source


def test_trap_5_the_date_of_the_installed_package_is_on_record() -> None:
    assert package.version() in package.DATA_DATES, "look up the newest entries of this version"


@pytest.mark.parametrize("identity", PRICED)
def test_trap_6_prices_are_in_usd_and_never_zero(identity: str) -> None:
    price = api_price(identity, NOW, allow_retired=True)
    for quantity in (price.input, price.output, price.cache_read):
        assert quantity is None or (quantity.unit == "USD/Mtok" and quantity.value > 0)


def test_trap_6_a_list_price_in_euro_is_never_taken_for_dollars() -> None:
    model = load.model("mistral-small-2603")
    assert [p.currency for p in model.listed_prices] == ["USD", "EUR"]
    overlay = prices._overlay_price(model, NOW)
    assert overlay is not None and overlay.currency == "USD"


# ---------------------------------------------------------------- agreement with the package


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("tokens", [1000, 300_000])
def test_our_reading_agrees_with_the_package(tokens: int, batch: bool) -> None:
    moment = datetime.datetime.combine(NOW, datetime.time(12), datetime.UTC)
    compared = 0
    for identity in PRICED:
        try:
            price = api_price(identity, NOW, batch=batch, context_tokens=tokens)
        except RefusedError:
            continue  # retired, too long a prompt, or no batch rate: tested above
        model = load.model(identity)
        entry = package.entry_of(model.id, model.provider, model.price_ref, batch, tokens)
        assert entry is not None
        # Asked by its own id the package may find another entry, so its entry is asked directly.
        found = entry.entry.calc_price(
            genai_prices.Usage(input_tokens=tokens, output_tokens=tokens),
            entry.provider,
            genai_request_timestamp=moment,
            price_context=package.BATCH if batch else None,
        )
        cost = float(found.total_price) / tokens * 1e6
        low = price.input.lowest + price.output.lowest
        assert low - 1e-9 <= cost <= price.input.value + price.output.value + 1e-9, identity
        compared += 1
    assert compared > 15


def test_a_long_prompt_costs_the_higher_rate() -> None:
    short = api_price("gpt-5.4", NOW, context_tokens=272_000)
    long = api_price("gpt-5.4", NOW, context_tokens=272_001)
    assert (short.input.value, short.next_tier_above_tokens) == (2.5, 272_000)
    assert (long.input.value, long.tier_above_tokens) == (5, 272_000)
    assert "272,000" in str(api_price("gpt-5.4", NOW).notes[0])
    refused("gpt-5.4", "H137", context_tokens=2_000_000)


def test_a_dearer_rate_that_only_our_facts_know_is_not_passed_over() -> None:
    entry = package.entry_of("gpt-5", "openai", "gpt-5", False, 300_000)
    assert entry is not None
    entry.refuse_if_untiered(NOW, 400_000)
    with pytest.raises(RefusedError) as error:
        entry.refuse_if_untiered(NOW, 200_000)
    assert error.value.code == "H134"


def test_cached_input() -> None:
    price = api_price("gpt-4o", NOW, cached_share=0.5)
    assert price.input_effective.value == pytest.approx(0.5 * 2.5 + 0.5 * 1.25)
    assert price.input_effective.known == "derived"
    assert api_price("gpt-4o", NOW).input_effective == api_price("gpt-4o", NOW).input
    refused("gpt-4o", "H133", batch=True, cached_share=0.5)  # no batch rate for cached input
    refused("groq-qwen3-32b", "H133", cached_share=0.1)
    refused("gpt-4o", "H138", cached_share=1.5)


def test_a_rate_by_time_of_day_is_a_range() -> None:
    price = api_price("deepseek-v4-pro", NOW)
    assert price.output.lowest < price.output.value == price.output.highest
    assert any("time of day" in str(n) for n in price.notes)


# ---------------------------------------------------------------- unknown prices


def test_an_unknown_price_is_an_error() -> None:
    assert "scenario.prices" in str(refused("claude-3-opus", "H131"))
    refused("gpt-5.4", "H131", datetime.date(2020, 1, 1))  # before it was released


def test_open_weights_have_no_api_price() -> None:
    assert "ovhcloud-qwen3-32b" in str(refused("qwen3-32b", "H130"))


def test_our_overlay_complements_the_package() -> None:
    price = api_price("deepseek-chat", NOW)
    assert (price.input.value, price.output.value) == (0.14, 0.28)
    assert price.input.date == "2026-07-02"
    refused("deepseek-chat", "H132", batch=True)
    refused("deepseek-chat", "H131", datetime.date(2026, 1, 1))  # not listed yet


def test_a_newer_list_price_of_ours_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = sourced(7, "USD/Mtok", "https://example.org", "2026-11-20")
    model = load.model("gpt-5")
    model = replace(model, listed_prices=(*model.listed_prices, ListedPrice(newer, newer)))
    monkeypatch.setattr(load, "model", lambda identity: model)
    ours = api_price.__wrapped__("gpt-5", NOW)
    assert ours.input.value == 7
    assert any("list price" in str(n) for n in ours.notes)
    early = api_price.__wrapped__("gpt-5", datetime.date(2026, 11, 19))
    assert early.input.value == 1.25


def test_a_clearly_different_list_is_mentioned() -> None:
    assert any(
        "0.10 instead of 0.15" in str(n) for n in api_price("ministral-8b-latest", NOW).notes
    )


def test_published_look_ups() -> None:
    luna = api_price("gpt-6-luna", NOW)
    batch = api_price("gpt-6-luna", NOW, batch=True)
    job = 100_000 * 8000 / 1e6, 100_000 * 500 / 1e6
    assert job[0] * luna.input.value + job[1] * luna.output.value == pytest.approx(105)
    assert job[0] * batch.input.value + job[1] * batch.output.value == pytest.approx(52.5)
    large = api_price("mistral-large-4", NOW, batch=True)
    assert job[0] * large.input.value + job[1] * large.output.value == pytest.approx(332.5)
