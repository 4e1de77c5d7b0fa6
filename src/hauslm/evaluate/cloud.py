"""The cloud model of an evaluation: named in the project file, permitted, priced; else not asked.

All three are settled before the first request: an endpoint without a model name or without a price is
refused (a cost of 0 would be a lie), and without a `Permit` nothing is sent. The key comes from the
environment variable that the project file names.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from hauslm.base.errors import UsageError
from hauslm.base.quantity import Quantity, given
from hauslm.base.words import say
from hauslm.catalog.prices import api_price
from hauslm.estimate.money import exchange_rate, in_eur
from hauslm.lm.interface import BASE, LanguageModel
from hauslm.scenario import Scenario


@dataclass(frozen=True)
class Prices:
    """EUR/Mtok of input and output, each with its source."""

    input: Quantity
    output: Quantity


def cloud_model(scenario: Scenario) -> LanguageModel | None:
    """The model behind evaluation.cloud, or None if none is named.

    H665 without a model name, H666 without a price, H811 without a permit for its host.
    """
    section = scenario.evaluation.cloud
    if not section.endpoint:
        return None
    if not section.model:
        raise UsageError(
            "H665",
            say("The cloud model of the evaluation has an address but no name."),
            where="evaluation.cloud.model",
            next_step=say("Set evaluation: cloud: model to its name at the endpoint."),
        )
    prices(scenario)
    from hauslm.lm.permit import permit_for
    from hauslm.lm.remote import RemoteModel

    permit = permit_for(scenario, urlsplit(section.endpoint).hostname or "")
    return RemoteModel(
        section.endpoint,
        {BASE: section.model},
        permit,
        context_length=section.context,
        key_variable=section.key_variable,
        concurrency=section.concurrency,
    )


def prices(scenario: Scenario) -> Prices:
    """What its tokens cost: the project file's figures, else the list price of `price_model`.

    H666 where there is neither, or no exchange rate for a price in USD; the catalog's own errors
    (H120, H130-H138) for a model without a price there.
    """
    section = scenario.evaluation.cloud
    stated = (section.price_input_eur_per_mtok, section.price_output_eur_per_mtok)
    if stated[0] is not None and stated[1] is not None:
        source = section.price_source or "hauslm.yaml: evaluation.cloud"
        made = (
            replace(given(price, "EUR/Mtok"), source=source)
            for price in stated
            if price is not None
        )
        return Prices(*made)
    if not section.price_model:
        raise _no_price()
    answers = scenario.scenario
    rate = exchange_rate(answers.budget.eur_per_usd)
    if rate is None:
        raise _no_price()
    own = next((p for p in answers.prices if p.model == section.price_model), None)
    if (
        own is not None
        and own.input_usd_per_mtok is not None
        and own.output_usd_per_mtok is not None
    ):
        both = [
            replace(given(price, "USD/Mtok"), source=own.source, date=own.date)
            for price in (own.input_usd_per_mtok, own.output_usd_per_mtok)
        ]
    else:
        listed = api_price(section.price_model, _day(scenario))
        both = [listed.input, listed.output]
    return Prices(in_eur(both[0], rate), in_eur(both[1], rate))


def _day(scenario: Scenario) -> datetime.date:
    stated = scenario.scenario.horizon.decision_date
    return (
        datetime.date.fromisoformat(stated)
        if stated
        else datetime.datetime.now(datetime.UTC).date()
    )


def _no_price() -> UsageError:
    return UsageError(
        "H666",
        say("The cloud model of the evaluation has no price, so nothing is asked."),
        where="evaluation.cloud",
        next_step=say(
            "Give price_input_eur_per_mtok and price_output_eur_per_mtok, or price_model with a catalog "
            "id (hauslm catalog models)."
        ),
    )
