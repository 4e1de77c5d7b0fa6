"""Which ways are there at all? Catalog and scenario make candidates; the dominated ones are cut.

Thousands of combinations are looked at. One is cut when another of the same standing costs no more
and is at least as good in everything a reader would choose by; the reason names that other one. What
a reader needs for comparison stays: the lab sheet's models, the best of every kind of place, every
option of the user's own, and the retired model the sheet compared with.
"""

from __future__ import annotations

import datetime
from dataclasses import replace

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.quantity import given
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.decide.apis import api_candidates, inquiry
from hauslm.decide.candidate import Candidate, Collected, fact
from hauslm.decide.cost import Bill, PriceStep, Settings
from hauslm.decide.machines import Measurement, Workshop, machine_candidates
from hauslm.decide.places import places
from hauslm.decide.tokens import Counted
from hauslm.scenario import ScenarioAnswers, UserOption


def generate(
    scenario: ScenarioAnswers,
    settings: Settings,
    on: datetime.date,
    measured: tuple[Measurement, ...] = (),
    counted: Counted | None = None,
) -> Collected:
    """Every candidate for the scenario's demand, and what was left out with its reason.

    Raises `UsageError` H243 for a price whose model or GPU the catalog does not have.
    """
    _check_prices(scenario)
    collected = Collected()
    api_candidates(inquiry(scenario, settings, on, counted), collected)
    shop = Workshop(
        tuple(scenario.workload.languages), settings, measured, places=places(scenario),
        deadline_days=scenario.workload.deadline_days, counted=counted,
    )  # fmt: skip
    machine_candidates(scenario, shop, collected)
    collected.add(_institution())
    for option in scenario.options:
        collected.add(_user_option(option, settings))
    return collected


def _check_prices(scenario: ScenarioAnswers) -> None:
    """A price for something unknown would silently do nothing."""
    known = {*load.ids("models"), *load.ids("gpus")}
    for number, price in enumerate(scenario.prices):
        if price.model not in known:
            raise UsageError(
                "H243",
                say(
                    "There is no model or GPU '{name}' that this price could be for.",
                    name=price.model,
                ),
                where=f"hauslm.yaml: scenario.prices[{number}].model",
                next_step=did_you_mean(price.model, known),
            )


def _institution() -> Candidate:
    """The service of a university or computing centre that most teams could ask for."""
    return Candidate(
        id="hosted/institution/unnamed",
        kind="hosted",
        setting="institution",
        title=say("Service of the own institution or its computing centre"),
        model="",
        bill=None,
        traits=_unknown_traits() | {"us_provider": "no", "eu": "yes", "transfer_ground": "yes"},
        missing=(
            say("Its price and contract are not known here; enter it under scenario.options (GWDG's "
                "SAIA and others serve open models to German universities)."),
        ),
    )  # fmt: skip


def _unknown_traits() -> dict[str, str]:
    return {
        "third_party": "yes",
        "us_provider": "unknown",
        "eu": "unknown",
        "transfer_ground": "unknown",
        "trains_on_inputs": "unknown",
        "tuned": "no",
        "licence": "unknown",
        "commercial_licence": "yes",
    }


def _user_option(option: UserOption, settings: Settings) -> Candidate:
    """An option with the user's own figures."""
    at_home = option.kind == "local" or option.under_own_contract
    eu = "yes" if option.kind == "local" else option.eu
    traits = _unknown_traits() | {
        "third_party": "no" if at_home else "yes",
        "eu": eu,
        "us_provider": "no" if at_home else "unknown",
        "transfer_ground": "yes" if eu == "yes" or at_home else "unknown",
        "trains_on_inputs": "no" if at_home or option.processor_contract == "yes" else "unknown",
        "processor_contract": option.processor_contract,
        "tuned": "yes" if option.allows_fine_tuning else "no",
    }
    base = Candidate(
        id=f"user/{option.id}",
        kind=option.kind,
        setting=f"user/{option.id}",
        title=say("{title} (own figures)", title=option.title or option.id),
        model=option.model,
        bill=None,
        traits=traits,
        adaptation="lora" if option.allows_fine_tuning else "none",
        retention_days=0.0 if at_home else None,
    )
    missing = _gaps(option)
    if missing:
        return replace(base, missing=missing)
    return replace(
        base, bill=_user_bill(base.id, option, settings), details=lambda: _user_facts(option)
    )


def _gaps(option: UserOption) -> tuple[Sentence, ...]:
    """What the user's figures lack to be a price: nothing is taken for 0."""
    one_price = (option.price_input_eur_per_mtok is None) != (
        option.price_output_eur_per_mtok is None
    )
    if one_price:
        return (say("One of the two token prices is missing."),)
    if option.price_eur_per_hour is not None and option.tokens_per_second is None:
        return (say("A price per hour needs tokens_per_second to become a cost."),)
    stated = {"fixed_eur_per_month", "purchase_eur"} & option.model_fields_set
    if option.price_input_eur_per_mtok is None and option.price_eur_per_hour is None and not stated:
        return (say("No price is given: neither per token, per hour, per month nor a purchase."),)
    if option.kind == "local" and option.tokens_per_second is None:
        return (say("A machine of one's own needs tokens_per_second."),)
    return ()


def _user_bill(identity: str, option: UserOption, settings: Settings) -> Bill:
    pace = 1 / option.tokens_per_second if option.tokens_per_second else 0.0
    prices: tuple[PriceStep, ...] = ()
    if option.price_input_eur_per_mtok is not None:
        prices = (
            PriceStep(
                0.0, option.price_input_eur_per_mtok, option.price_output_eur_per_mtok or 0.0
            ),
        )
    own = option.kind == "local"
    return Bill(
        identity,
        characters_per_token=float(settings.reference_characters_per_token),
        tuned=option.allows_fine_tuning,
        usd=False,
        prices=prices,
        fixed_eur_per_month=option.fixed_eur_per_month,
        gpus=1.0 if pace else 0.0,
        seconds_per_input_token=pace,
        seconds_per_output_token=pace,
        training_seconds_per_token=3 * pace,  # forward and backward against forward alone
        own_machine=own,
        gpu_price=option.purchase_eur,
        rent_per_hour=option.price_eur_per_hour or 0.0,
        own_staff=option.kind in ("local", "rented"),
    )


def _user_facts(option: UserOption) -> tuple:  # type: ignore[type-arg]
    rows = (
        (say("Price of input"), option.price_input_eur_per_mtok, "EUR/Mtok"),
        (say("Price of output"), option.price_output_eur_per_mtok, "EUR/Mtok"),
        (say("Fixed price per month"), option.fixed_eur_per_month, "EUR/month"),
        (say("Purchase price"), option.purchase_eur, "EUR"),
        (say("Price per hour"), option.price_eur_per_hour, "EUR/h"),
        (say("Tokens per second"), option.tokens_per_second, "tokens/s"),
    )
    return tuple(fact(label, given(value, unit)) for label, value, unit in rows if value)
