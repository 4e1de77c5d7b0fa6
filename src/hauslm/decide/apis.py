"""Which APIs could do it, and at what price? Cloud models, hosted open weights, tuning by the vendor.

Per model up to four candidates: standard price, standard price with the prompt read from the cache,
batch price, and a model tuned by the vendor where that is still sold. Prices are those of the
decision date with every announced change inside the horizon; a model that is switched off inside it
is followed by the vendor's replacement at the replacement's price, and the move is paid for. A price
that nobody lists leaves the candidate incomplete: it is shown and never ranked.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity, given
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.prices import ApiPrice, api_price
from hauslm.catalog.schema import Model
from hauslm.decide.candidate import Candidate, Collected, fact, vendor_title
from hauslm.decide.cost import Bill, PriceStep, Settings
from hauslm.decide.gates import PLAIN, floor, warning
from hauslm.decide.providers import Terms, terms
from hauslm.decide.tokens import Counted, Density, density, reasons
from hauslm.records import Fact, Gate
from hauslm.scenario import ScenarioAnswers, UserPrice

DAYS_PER_MONTH = 365 / 12


@dataclass(frozen=True)
class Inquiry:
    """What is asked of every API: the day, the end of the horizon, the demand per document."""

    on: datetime.date
    until: datetime.date
    languages: tuple[str, ...]
    settings: Settings
    user_prices: Mapping[str, UserPrice]
    counted: Counted | None = None

    def month(self, date: str) -> float:
        """Months from the decision date to an ISO date."""
        return (datetime.date.fromisoformat(date) - self.on).days / DAYS_PER_MONTH

    def prompt_tokens(self, dense: Density, tuned: bool) -> int:
        """Length of one prompt in the model's own tokens, at the upper end of what is known."""
        s = self.settings
        text = float(s.characters_per_document) / dense.quantity.lowest
        extra = float(s.instruction_tokens) + (0.0 if tuned else float(s.glossary_tokens))
        return int(text + extra)


def inquiry(
    scenario: ScenarioAnswers,
    settings: Settings,
    on: datetime.date,
    counted: Counted | None = None,
) -> Inquiry:
    days = float(settings.months) * DAYS_PER_MONTH
    return Inquiry(
        on,
        on + datetime.timedelta(days=round(days)),
        tuple(scenario.workload.languages),
        settings,
        {p.model: p for p in scenario.prices},
        counted,
    )


def api_candidates(ask: Inquiry, collected: Collected) -> None:
    """Add every API candidate; models without any price are left out with that reason."""
    for model in load.models():
        if model.kind != "api":
            continue
        priced = model.price_ref or model.listed_prices or model.id in ask.user_prices
        if not priced:
            collected.leave_out(
                f"api/{model.provider}/{model.id}",
                say("No price is known for {model}; its scores are kept for comparison.",
                    model=model.name),
            )  # fmt: skip
            continue
        for way in ("standard", "cached", "batch"):
            candidate = _candidate(model, way, ask)
            if isinstance(candidate, Candidate):
                collected.add(candidate)
            else:
                collected.leave_out(option_id(model, way), candidate)
        if model.fine_tuning in ("yes", "ending"):
            collected.add(_tuned(model, ask))


def option_id(model: Model, way: str) -> str:
    if model.open_weights:
        return f"hosted/{model.provider}/{model.serves or model.id}/{way}"
    return f"api/{model.provider}/{model.id}/{way}"


def _candidate(model: Model, way: str, ask: Inquiry) -> Candidate | Sentence:
    """The candidate, or why this way does not exist."""
    behind = load.model(model.serves) if model.serves else model
    dense = density(behind, ask.languages, ask.counted)
    base = _base(model, behind, way, ask, dense)
    user = ask.user_prices.get(model.id)
    if user is not None and user.input_usd_per_mtok is not None:
        if way != "standard":
            return say("Only the price of the project file is used for {model}.", model=model.name)
        return _user_priced(base, user, dense)
    try:
        price = _price(model, way, ask, ask.prompt_tokens(dense, tuned=False))
    except HauslmError as error:
        if error.code in ("H132", "H133"):  # this way of paying does not exist
            return error.what if isinstance(error.what, Sentence) else say(str(error.what))
        if error.code == "H137":
            return replace(base, floors=(*base.floors, floor("context", _sentence(error))))
        return replace(base, missing=(_sentence(error),))
    return _priced(base, model, price, way, ask, dense)


def _sentence(error: HauslmError) -> Sentence:
    what = error.what
    return what if isinstance(what, Sentence) else Sentence(PLAIN, {"text": what})


def _price(model: Model, way: str, ask: Inquiry, tokens: int) -> ApiPrice:
    """The price on the decision date; the last one of a retired model (its floor says so)."""
    price = api_price(
        model.id,
        ask.on,
        batch=way == "batch",
        context_tokens=tokens,
        allow_retired=True,
        until=ask.until,
    )
    if way == "cached" and price.cache_read is None:
        # Asking for a share of it makes the adapter say that there is none.
        api_price(model.id, ask.on, cached_share=0.5, context_tokens=tokens, allow_retired=True)
    return price


def _base(model: Model, behind: Model, way: str, ask: Inquiry, dense: Density) -> Candidate:
    """Everything about the candidate but its prices."""
    provider = terms(model.provider or "")
    hosted = bool(model.open_weights)
    return Candidate(
        id=option_id(model, way),
        kind="hosted" if hosted else "cloud",
        setting="hosted" if hosted else "cloud",
        title=vendor_title(model.vendor, behind.name, way),
        model=model.id,
        bill=None,
        traits=_traits(provider, tuned=way == "fine-tune"),
        scored=behind,
        adaptation="vendor" if way == "fine-tune" else "none",
        batch=way == "batch",
        retention_days=provider.retention_days,
        context_tokens=model.context.value if model.context else None,
        floors=_permanence(model, ask, tuned=way == "fine-tune"),
        details=lambda: _provider_facts(provider, dense),
    )


def _traits(provider: Terms, *, tuned: bool) -> dict[str, str]:
    return {
        "third_party": "yes",
        "us_provider": provider.us,
        "eu": provider.eu,
        "transfer_ground": provider.transfer_ground,
        "trains_on_inputs": provider.training,
        "tuned": "yes" if tuned else "no",
        "licence": "vendor",
        "commercial_licence": "yes",
    }


def _provider_facts(provider: Terms, dense: Density) -> tuple[Fact, ...]:
    found = [fact(say("Characters per token"), dense.quantity)]
    if provider.retention_days is not None:
        days = Quantity(
            provider.retention_days, "d", "sourced", source=provider.source, date=provider.date
        )
        found.append(fact(say("Retention of inputs at {vendor}", vendor=provider.name), days))
    return tuple(found)


# ---------------------------------------------------------------- how long it is there


def _permanence(model: Model, ask: Inquiry, *, tuned: bool) -> tuple[Gate, ...]:
    """Switched off already (a floor), or inside the horizon (a warning); the end of tuning."""
    found: list[Gate] = []
    end = model.shutdown_date
    if end is not None and end.date <= ask.on.isoformat():
        found.append(
            floor("retired", say("The vendor switched {model} off on {day:date}; it is shown for "
                                 "comparison only.", model=model.name, day=end.date))
        )  # fmt: skip
    elif end is not None and end.date < ask.until.isoformat():
        what = say(
            "The vendor switches {model} off on {day:date}, inside the horizon; the cost counts the "
            "move to {successor}.",
            model=model.name, day=end.date,
            successor=end.replacement or say("a successor at the same price"),
        )  # fmt: skip
        found.append(warning("shutdown", what))
    if tuned:
        found += _end_of_tuning(model, ask)
    return tuple(found)


def _end_of_tuning(model: Model, ask: Inquiry) -> list[Gate]:
    last = min(
        (
            d
            for d in (model.fine_tuning_until, model.shutdown_date and model.shutdown_date.date)
            if d
        ),
        default=None,
    )
    if last is None or last >= ask.until.isoformat():
        return []
    what = say(
        "{model} can be tuned and used as tuned only until {day:date}; the horizon ends on "
        "{end:date}, and the replacement cannot take the tuning over.",
        model=model.name, day=last, end=ask.until.isoformat(),
    )  # fmt: skip
    return [floor("tuning", what)]


# ---------------------------------------------------------------- prices


def _priced(
    base: Candidate, model: Model, price: ApiPrice, way: str, ask: Inquiry, dense: Density
) -> Candidate:
    cached = way == "cached"
    steps = [_step(0.0, price, cached)]
    for change in price.upcoming:
        read = change.cache_read.value if cached and change.cache_read else None
        steps.append(
            PriceStep(ask.month(change.date), change.input.value, change.output.value, read)
        )
    migrations: tuple[float, ...] = ()
    end = price.shutdown
    if end is not None and ask.on.isoformat() < end < ask.until.isoformat():
        month = ask.month(end)
        migrations = (month,)
        steps = [s for s in steps if s.from_month < month] + _afterwards(
            model, way, ask, month, steps
        )
    bill = Bill(
        base.id,
        characters_per_token=dense.quantity.value,
        tokenizer_known=dense.known,
        reasons=base.scored is not None and reasons(base.scored),
        usd=True,
        prices=tuple(steps),
        migrations=migrations,
    )
    return replace(
        base,
        bill=bill,
        details=lambda: (*price_facts(price, cached), *base.facts),
        notes=(*base.notes, *price.notes),
    )


def _step(month: float, price: ApiPrice, cached: bool) -> PriceStep:
    read = price.cache_read.value if cached and price.cache_read is not None else None
    return PriceStep(month, price.input.value, price.output.value, read)


def _afterwards(
    model: Model, way: str, ask: Inquiry, month: float, steps: Sequence[PriceStep]
) -> list[PriceStep]:
    """The replacement's price from the shut-down on; the old price where nobody named a replacement
    or it has no price."""
    end = model.shutdown_date
    successor = end.replacement if end else ""
    if successor not in load.ids("models") or end is None:
        return [replace(steps[-1], from_month=month)]
    day = datetime.date.fromisoformat(end.date)
    try:
        price = api_price(successor, day, batch=way == "batch")
    except HauslmError:
        return [replace(steps[-1], from_month=month)]
    return [_step(month, price, way == "cached")]


def price_facts(price: ApiPrice, cached: bool) -> tuple[Fact, ...]:
    found = [fact(say("Price of input"), price.input), fact(say("Price of output"), price.output)]
    if cached and price.cache_read is not None:
        found.append(fact(say("Price of input from the cache"), price.cache_read))
    for change in price.upcoming:
        label = say("Price of input from {day:date} on", day=change.date)
        found.append(fact(label, change.input))
    return tuple(found)


def _user_priced(base: Candidate, user: UserPrice, dense: Density) -> Candidate:
    """Prices from the project file instead of the catalog's."""
    price_in, price_out = user.input_usd_per_mtok, user.output_usd_per_mtok
    if price_in is None or price_out is None:
        return replace(
            base,
            missing=(say("The project file gives only one of the two prices (input, output)."),),
        )
    source, date = f"hauslm.yaml: {user.source}", user.date
    bill = Bill(
        base.id,
        characters_per_token=dense.quantity.value,
        tokenizer_known=dense.known,
        reasons=base.scored is not None and reasons(base.scored),
        prices=(PriceStep(0.0, price_in, price_out),),
    )
    own = (
        fact(say("Price of input"), replace(given(price_in, "USD/Mtok"), source=source, date=date)),
        fact(
            say("Price of output"), replace(given(price_out, "USD/Mtok"), source=source, date=date)
        ),
    )
    return replace(base, bill=bill, details=lambda: (*own, *base.facts))


# ---------------------------------------------------------------- tuning by the vendor


def _tuned(model: Model, ask: Inquiry) -> Candidate:
    """The model fine-tuned by its vendor; incomplete where a price of training is not listed.

    Inference of a tuned model is counted at the base model's price: vendors charge that or more.
    """
    dense = density(model, ask.languages, ask.counted)
    base = _base(model, model, "fine-tune", ask, dense)
    user = ask.user_prices.get(model.id)
    training = model.training_price
    if user is not None and user.training_usd_per_mtok is not None:
        training = replace(
            given(user.training_usd_per_mtok, "USD/Mtok"), source=user.source, date=user.date
        )
    try:
        price = _price(model, "standard", ask, ask.prompt_tokens(dense, tuned=True))
    except HauslmError as error:
        return replace(base, missing=(_sentence(error),))
    found = _priced(base, model, price, "standard", ask, dense)
    if training is None:
        what = say("No price of training was found for {model}.", model=model.name)
        return replace(found, bill=None, missing=(what,))
    assert found.bill is not None  # noqa: S101 - _priced sets it
    bill = replace(found.bill, tuned=True, training_price_per_mtok=training.value)
    note = say(
        "Answers of the tuned {model} are counted at the base model's price; vendors charge that or "
        "more.",
        model=model.name,
    )
    return replace(
        found,
        bill=bill,
        details=lambda: (fact(say("Price of training"), training), *found.facts),
        notes=(*found.notes, note),
    )
