"""Cost: what does each side cost over the horizon, and with what is the sheet's GPT-4 Turbo compared?"""

from __future__ import annotations

from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.decide.candidate import fact
from hauslm.decide.context import Context
from hauslm.decide.criteria import Ahead, Argument, Criterion, Judgement
from hauslm.decide.scores import days_old, stale_price
from hauslm.decide.solve import first_crossing
from hauslm.records import Cell, Fact, Said

SHEET_MODEL = "gpt-4-turbo"  # the lab sheet's example of an expensive API
SMALL_MODELS = ("gpt-4o-mini", "gpt-6-luna")  # the same vendor's small models since
_PEOPLE = ("staff_setup", "staff_upkeep", "staff_training", "staff_migration")


def judge(context: Context) -> Judgement:
    cells = [_cell(context, row) for row in (context.cloud, context.local)]
    ahead: Ahead = ""
    if context.cloud is not None and context.local is not None:
        cheaper = context.judged.cost(context.cloud) < context.judged.cost(context.local)
        ahead = "cloud" if cheaper else "local"
    return cells[0], cells[1], ahead


def _cell(context: Context, row: int | None) -> Cell:
    if row is None:
        return Cell(judgement=Said.of(say("No option of this kind has a complete price.")))
    people = context.line(row, *_PEOPLE) / float(context.judged.settings.months)
    values = {
        "monthly": context.monthly(row),
        "people": people,
        "name": context.name(row),
        "stale": _stale(context, row),
    }
    each = context.per_document(row)
    if each is None:
        what = say(
            "{monthly:EUR} a month although no documents are demanded; of that {people:EUR} are working "
            "time ({name}).{stale}",
            **values,
        )
    else:
        what = say(
            "{monthly:EUR} a month, {each:.4f} EUR per document; of the month {people:EUR} are working "
            "time ({name}).{stale}",
            each=each,
            **values,
        )
    return Cell(
        judgement=Said.of(what),
        facts=(*context.cost_facts(row), *context.facts_named(row, "Price", "Rent", "Purchase")),
    )


def _stale(context: Context, row: int) -> Sentence | str:
    """A mark where a price the cost rests on is older than 90 days."""
    dates = [
        f.quantity.date
        for f in context.facts_named(row, "Price of input", "Rent", "Purchase")
        if f.quantity.date
    ]
    old = [d for d in dates if stale_price(d, context.judged.on)]
    if not old:
        return ""
    age = days_old(min(old), context.judged.on)
    if age is None:
        return say(" Stale: the date of a price is not known.")
    return say(" Stale: a price is {age:,} days old.", age=age)


def argue(context: Context) -> list[Argument]:
    """What the winner costs, against the best of every other kind and the sheet's example."""
    chosen = context.chosen
    if chosen is None:
        return []
    months = float(context.judged.settings.months)
    found: list[Argument] = [
        (_against(context, chosen, rival, months), _both(context, chosen, rival))
        for rival in context.alternatives
    ]
    if not found:
        what = say(
            "{name} costs {horizon:EUR} over {months:,} months; no other kind has a complete price.",
            name=context.name(chosen), horizon=context.judged.cost(chosen), months=months,
        )  # fmt: skip
        found.append((what, context.cost_facts(chosen)))
    if context.candidate(chosen).paid:
        people = context.line(chosen, *_PEOPLE) / context.judged.cost(chosen)
        what = say(
            "The machine is already paid for and counts nothing; {share:.0%} of the cost is working "
            "time, {power:EUR} a month is electricity.",
            share=people,
            power=context.line(chosen, "electricity_load", "electricity_idle") / months,
        )  # fmt: skip
        found.append((what, ()))
    found += _without_adapter(context, chosen)
    if context.candidate(chosen).kind == "local":
        found += _sheet(context, chosen)
    return found


def _without_adapter(context: Context, chosen: int) -> list[Argument]:
    """What the adaptation costs: the same model on the same machine, as it comes."""
    row = context.unadapted
    if row is None or not context.judged.scenario.adaptation.needed:
        return []
    more = context.monthly(chosen) - context.monthly(row)
    if more <= 0:
        return []
    what = say(
        "Of the {mine:EUR} a month {more:EUR} are the price of the adaptation (trainings and the time "
        "for them): without an adapter the same model costs {without:EUR} a month. It is counted because the "
        "project file wants the adaptation; if the own evaluation shows no gain, set "
        "adaptation.needed to false.",
        mine=context.monthly(chosen), more=more, without=context.monthly(row),
    )  # fmt: skip
    return [(what, context.cost_facts(row))]


def _both(context: Context, chosen: int, rival: int) -> tuple[Fact, ...]:
    return (*context.cost_facts(chosen), *context.cost_facts(rival))


def _against(context: Context, chosen: int, rival: int, months: float) -> Sentence:
    """One alternative: cheaper or not, by how much a month, and the rule that decides otherwise."""
    mine, theirs = context.judged.cost(chosen), context.judged.cost(rival)
    values = {
        "mine": mine, "theirs": theirs, "months": months, "name": context.name(chosen),
        "rival": context.name(rival), "difference": abs(mine - theirs) / months,
    }  # fmt: skip
    kind = context.candidate(rival).kind
    if mine <= theirs:
        return _dearer(kind, values)
    rules = sorted({g.rule for g in context.obstacles(rival)})
    if not rules:
        return say(
            "{rival} would cost {theirs:EUR} over {months:,} months, {difference:EUR} a month less "
            "than {name} ({mine:EUR}).",
            **values,
        )
    named = {**values, "rules": say("rule {names}", names=rules[0])}
    if len(rules) > 1:
        named["rules"] = say("the rules {names}", names=", ".join(rules))
    if context.candidate(chosen).kind != "local":
        return say(
            "{rival} would be cheaper ({theirs:EUR} over {months:,} months against {mine:EUR}), but "
            "this speaks against it: {rules}.",
            **named,
        )
    if kind == "rented":
        return say(
            "Renting is cheaper: {rival} would cost {theirs:EUR} over {months:,} months, "
            "{difference:EUR} a month less than {name} ({mine:EUR}). On the own machine all the same, "
            "because of {rules}.",
            **named,
        )
    return say(
        "The cloud is cheaper: {rival} would cost {theirs:EUR} over {months:,} months, "
        "{difference:EUR} a month less than {name} ({mine:EUR}). Local all the same, because of "
        "{rules}.",
        **named,
    )


def _dearer(kind: str, values: dict[str, object]) -> Sentence:
    if kind == "rented":
        return say(
            "{name} costs {mine:EUR} over {months:,} months, {difference:EUR} a month less than the "
            "best rented machine ({rival}, {theirs:EUR}).",
            **values,
        )
    if kind == "local":
        return say(
            "{name} costs {mine:EUR} over {months:,} months, {difference:EUR} a month less than the "
            "best machine of one's own ({rival}, {theirs:EUR}).",
            **values,
        )
    return say(
        "{name} costs {mine:EUR} over {months:,} months, {difference:EUR} a month less than the "
        "best API ({rival}, {theirs:EUR}).",
        **values,
    )


def _sheet(context: Context, chosen: int) -> list[Argument]:
    """The sheet argues against GPT-4 Turbo; today's small models cost a fraction of it."""
    row = context.judged.row.get(f"api/openai/{SHEET_MODEL}/standard")
    cloud = context.cloud
    if row is None or cloud is None:
        return []
    tokens = ("input_tokens", "output_tokens", "cached_tokens")
    then, now = context.line(row, *tokens), context.line(cloud, *tokens)
    if now <= 0 or then <= 0:
        return []
    price = context.facts_named(row, "Price of input")
    what = say(
        "The lab sheet compares with GPT-4 Turbo: its tokens would have cost {then:EUR} over the "
        "horizon at its last price, {ratio:.0f} times those of {today} ({now:EUR}). It is switched "
        "off; the comparison of cost is with today's models.",
        then=then, ratio=then / now, today=context.name(cloud), now=now,
    )  # fmt: skip
    own = fact(say("Cost over the horizon"), context.cost_facts(row)[1].quantity)
    found: list[Argument] = [(what, (*price, own))]
    found += _sheet_price(context, row)
    return [*found, *_sheet_break_even(context, chosen, row)]


def _sheet_price(context: Context, row: int) -> list[Argument]:
    """The list price of an input token against the same vendor's small models."""
    then = context.facts_named(row, "Price of input")
    small = [
        (load.model(name).name, context.facts_named(at, "Price of input"))
        for name in SMALL_MODELS
        if (at := context.judged.row.get(f"api/openai/{name}/standard")) is not None
    ]
    priced = [(name, facts[0].quantity) for name, facts in small if facts]
    if not then or len(priced) < len(SMALL_MODELS):
        return []
    (first, low), (second, high) = priced
    what = say(
        "By list price an input token of GPT-4 Turbo cost {low:.0f} times one of {first} and costs "
        "{high:.0f} times one of {second}.",
        low=then[0].quantity.value / low.value, first=first,
        high=then[0].quantity.value / high.value, second=second,
    )  # fmt: skip
    return [(what, tuple(f for _, facts in small for f in facts[:1]))]


def _sheet_break_even(context: Context, chosen: int, row: int) -> list[Argument]:
    """From which demand on the sheet's argument held: the own machine against GPT-4 Turbo."""
    bills, settings = context.judged.contenders.bills.rows, context.judged.settings
    alone = settings.with_(backlog_documents=0.0)
    found = first_crossing(bills[chosen], bills[row], alone, "documents_per_month", 0.0, 1e7)
    if found is None:
        return []
    what = say(
        "Against GPT-4 Turbo the own machine was the cheaper one from {documents:,} documents a month "
        "on (without a backlog): the sheet's argument was right in its time.",
        documents=found,
    )
    return [(what, ())]


def brief(context: Context, row: int) -> Sentence:
    each = context.per_document(row)
    if each is None:
        return say("{monthly:EUR} a month", monthly=context.monthly(row))
    return say(
        "{monthly:EUR} a month, {each:.4f} EUR per document",
        monthly=context.monthly(row),
        each=each,
    )


CRITERION = Criterion("cost", N_("Cost"), 2, 1, judge, argue, brief)
