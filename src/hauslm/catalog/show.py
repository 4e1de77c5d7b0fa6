"""How are the facts shown? Listings and single entries as rows, with how each figure is known.

Plain values for `cli` and `web` to lay out, and for JSON: nothing here prints. Texts come in the
language in force; ids, units and sources stay as they are.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hauslm.base.errors import HauslmError, UsageError, did_you_mean
from hauslm.base.quantity import Quantity
from hauslm.base.words import N_, Sentence, date, number, say, translate
from hauslm.catalog import load
from hauslm.catalog.schema import Gpu, Model, Offer, Rule, Score, Tariff

KNOWN: Mapping[str, str] = {
    "given": N_("given"),
    "measured": N_("measured"),
    "sourced": N_("sourced"),
    "derived": N_("derived"),
    "assumed": N_("assumed"),
}
GAP = "–"


class Detail(NamedTuple):
    """One line about an entry: what, its value as text, how it is known, where from, of when."""

    label: str
    text: str
    known: str = ""
    source: str = ""
    date: str = ""


# ---------------------------------------------------------------- what cli and web ask


def listing(kind: load.Kind) -> tuple[list[str], list[list[str]]]:
    """Headers and one row per entry of the kind, sorted by id."""
    headers, row = _LISTINGS[_kind(kind)]
    return [translate(h) for h in headers], [row(thing) for thing in load.things(kind)]


def detail(kind: load.Kind, identity: str) -> list[Detail]:
    """Everything that is known about one entry; H120 if there is none of that id."""
    return list(_DETAILS[_kind(kind)](load.thing(kind, identity)))


def answer(kind: str, identity: str | None = None) -> dict[str, Any]:
    """The listing or one entry as a JSON value.

    `{"kind", "headers", "rows"}`, or `{"kind", "id", "facts": [{"label", "text", "known", "source",
    "date"}], "quantities": {path: quantity}}` with the figures themselves under their field's path.
    """
    wanted = _kind(kind)
    if identity is None:
        headers, rows = listing(wanted)
        return {"kind": kind, "headers": headers, "rows": rows}
    from dataclasses import asdict

    from hauslm.catalog.schema import quantities

    figures = {path: asdict(q) for path, q in quantities(load.thing(wanted, identity))}
    facts = [row._asdict() for row in detail(wanted, identity)]
    return {"kind": kind, "id": identity, "facts": facts, "quantities": figures}


def _kind(kind: str) -> load.Kind:
    if kind not in load.KINDS:
        raise UsageError(
            "H122",
            say("The catalog has no kind of facts called '{kind}'.", kind=kind),
            next_step=did_you_mean(kind, load.KINDS),
        )
    return kind


# ---------------------------------------------------------------- values as text


def _exact(value: float) -> str:
    """The number with all the digits it was recorded with (at most six decimals)."""
    decimals = len(f"{value:.6f}".rstrip("0").partition(".")[2])
    return number(value, f".{decimals}f")


def _figure(quantity: Quantity | None, spec: str = "", *, unit: bool = True) -> str:
    """A quantity with its range, or a dash where nothing is recorded."""
    if quantity is None:
        return GAP
    money = quantity.unit if quantity.unit in ("EUR", "USD") else spec

    def written(value: float) -> str:
        return number(value, money) if money else _exact(value)

    text = written(quantity.value)
    if quantity.low is not None and quantity.high is not None:
        text += f" ({written(quantity.low)} – {written(quantity.high)})"
    shown = unit and quantity.unit not in ("1", "EUR", "USD")
    return f"{text} {quantity.unit}" if shown else text


def _billions(quantity: Quantity | None) -> str:
    if quantity is None:
        return GAP
    return str(say("{n:.2f} billion", n=quantity.value / 1e9))


def _of(label: Sentence, quantity: Quantity, text: str = "") -> Detail:
    known = translate(KNOWN[quantity.known])
    return Detail(
        str(label), text or _figure(quantity), known, quantity.source, date(quantity.date)
    )


def _said(label: Sentence, text: str, source: str = "", day: str = "") -> Iterator[Detail]:
    """A line of plain text; none if there is nothing to say."""
    if text:
        known = translate(KNOWN["sourced"]) if source else ""
        yield Detail(str(label), text, known, source, date(day))


# ---------------------------------------------------------------- models


def _model_row(model: Model) -> list[str]:
    return [
        model.id,
        model.name,
        model.kind,
        _billions(model.parameters),
        _figure(model.context, ",", unit=False),
        model.licence.id if model.licence else GAP,
        _today(model),
        date(model.shutdown_date.date) if model.shutdown_date else "",
    ]


def _today(model: Model) -> str:
    """Input / output price on this day, USD per million tokens; a dash where there is none."""
    from hauslm.catalog.prices import api_price

    if model.kind != "api":
        return ""
    try:
        price = api_price(model.id, datetime.date.today())
    except HauslmError:  # the single entry says why
        return GAP
    return f"{_exact(price.input.value)} / {_exact(price.output.value)}"


def _model_detail(model: Model) -> Iterator[Detail]:
    yield from _said(say("Name"), model.name)
    yield from _said(say("Vendor"), model.vendor)
    yield from _said(say("Kind"), model.kind)
    yield from _said(say("Hugging Face name"), model.hf_id or "")
    yield from _said(say("Provider"), model.provider or "")
    yield from _said(say("Runs the weights of"), model.serves or "")
    if model.licence:
        commercial = say(
            "{id}; commercial use: {yes}", id=model.licence.id, yes=model.licence.commercial_use
        )
        yield from _said(say("Licence"), str(commercial), model.licence.source, model.licence.date)
        for duty in model.licence.duties:
            yield from _said(say("Duty"), duty)
    yield from _said(say("Released"), date(model.release_date or ""), model.release_date_source)
    languages = ", ".join(model.languages) + (
        f" ({model.languages_note})" if model.languages_note else ""
    )
    yield from _said(say("Languages"), languages)
    yield from _said(say("Knowledge until"), date(model.knowledge_cutoff or ""))
    yield from _model_figures(model)
    yield from _shape(model)
    yield from _lifecycle(model)
    yield from _model_prices(model)
    for score in model.scores:
        yield _score(score)
    yield from _said(say("Note"), model.notes)


def _model_figures(model: Model) -> Iterator[Detail]:
    figures = (
        (say("Parameters"), model.parameters),
        (say("Parameters by the architecture"), model.checked_parameters),
        (say("Active parameters per token"), model.active_parameters),
        (say("Context"), model.context),
        (say("Longest output"), model.max_output),
    )
    for label, quantity in figures:
        if quantity is not None:
            yield _of(label, quantity, _figure(quantity, ","))
    for name, quantity in model.vendor_memory.items():
        yield _of(say("GPU memory by the vendor, {format}", format=name), quantity)


def _shape(model: Model) -> Iterator[Detail]:
    shape = model.architecture
    if shape is None:
        return
    text = say(
        "{family}: {layers} layers, hidden size {hidden:,}, {heads} heads, {kv} key/value heads of "
        "{dim}, MLP {mlp:,}, vocabulary {vocab:,}",
        family=shape.family,
        layers=shape.n_layers,
        hidden=shape.hidden_size,
        heads=shape.n_heads,
        kv=shape.n_kv_heads,
        dim=shape.head_dim,
        mlp=shape.intermediate_size,
        vocab=shape.vocab_size,
    )
    yield from _said(say("Architecture"), str(text), shape.source, shape.date)
    if shape.sliding_window:
        window = say("{n:,} tokens on every layer", n=shape.sliding_window)
        if shape.global_every:
            window = say(
                "{n:,} tokens; one layer in {k} sees the whole context",
                n=shape.sliding_window,
                k=shape.global_every,
            )
        yield from _said(say("Sliding window"), str(window), shape.source, shape.date)
    if shape.n_experts:
        experts = say(
            "{active} of {n} per token", active=shape.experts_per_token, n=shape.n_experts
        )
        yield from _said(say("Experts"), str(experts), shape.source, shape.date)
    yield from _said(say("Note on the architecture"), shape.note)


def _lifecycle(model: Model) -> Iterator[Detail]:
    end = model.shutdown_date
    if end is not None:
        text = date(end.date)
        if end.replacement:
            text = str(say("{day}; replacement: {name}", day=text, name=end.replacement))
        yield from _said(say("Shut down on"), text, end.source, end.read_on)
    if model.fine_tuning:
        words = {"yes": N_("offered"), "ending": N_("ending"), "no": N_("not offered")}
        text = translate(words[model.fine_tuning])
        if model.fine_tuning_until:
            text += " " + str(say("(new jobs until {day:date})", day=model.fine_tuning_until))
        yield from _said(say("Fine-tuning by the vendor"), text, model.fine_tuning_source)
        yield from _said(say("Note on fine-tuning"), model.fine_tuning_note)


def _model_prices(model: Model) -> Iterator[Detail]:
    for price in model.listed_prices:
        for label, quantity in (
            (say("List price, input"), price.input),
            (say("List price, output"), price.output),
            (say("List price, cached input"), price.cache_read),
            (say("List price, written to the cache"), price.cache_write),
            (say("List price, audio input"), price.input_audio),
        ):
            if quantity is not None:
                yield _of(label, quantity)
        for tier in price.tiers:
            over = say("List price above {n:,} tokens, input / output", n=tier.above_tokens.value)
            yield _of(
                over, tier.input, f"{_figure(tier.input, unit=False)} / {_figure(tier.output)}"
            )
        yield from _said(say("Note on the list price"), price.note)
    for training in model.training_prices:
        yield _of(say("Price of training"), training)
    if model.kind == "api":
        yield from _price_today(model)


def _price_today(model: Model) -> Iterator[Detail]:
    from hauslm.catalog.prices import api_price

    today = datetime.date.today()
    for batch in (False, True):
        label = say("Price today, batch") if batch else say("Price today")
        try:
            price = api_price(model.id, today, batch=batch)
        except HauslmError as error:
            yield Detail(str(label), str(error.what))
            continue
        pair = f"{_figure(price.input, unit=False)} / {_figure(price.output)}"
        yield _of(label, price.output, pair)
        for change in price.upcoming:
            then = say("From {day:date}", day=change.date)
            pair = f"{_figure(change.input, unit=False)} / {_figure(change.output)}"
            yield _of(then, change.output, pair)


def _score(score: Score) -> Detail:
    name = " ".join(p for p in (score.benchmark, score.metric, score.language or "") if p)
    parts = (score.variant, score.method, score.harness)
    label = f"{name} ({'; '.join(p for p in parts if p)})"
    text = _exact(score.score) + (f" ± {_exact(score.ci)}" if score.ci is not None else "")
    if score.self_reported:
        text = str(say("{score}, reported by the vendor", score=text))
    if score.suspect:
        text = str(say("{score}, doubtful: {note}", score=text, note=score.note))
    source = score.source + (f"; via {score.via}" if score.via else "")
    return Detail(label, text, translate(KNOWN["sourced"]), source, date(score.date))


# ---------------------------------------------------------------- the other kinds


def _gpu_row(gpu: Gpu) -> list[str]:
    prices = [p.price for p in gpu.street_prices]
    span = GAP
    if prices:
        low, high = min(p.lowest for p in prices), max(p.highest for p in prices)
        span = f"{number(low, prices[0].unit)} – {number(high, prices[0].unit)}"
    return [
        gpu.id,
        gpu.name,
        _figure(gpu.memory_gib, unit=False),
        _figure(gpu.memory_bandwidth_gb_s, unit=False),
        _figure(gpu.tdp_w, unit=False),
        _figure(gpu.tflops_bf16, unit=False),
        gpu.compute_capability or GAP,
        span,
    ]


def _gpu_detail(gpu: Gpu) -> Iterator[Detail]:
    yield from _said(say("Name"), gpu.name)
    yield from _said(say("Architecture"), gpu.architecture)
    yield from _said(say("CUDA compute capability"), gpu.compute_capability or "")
    figures = (
        (say("Memory, as on the box"), gpu.memory_gb),
        (say("Memory to calculate with"), gpu.memory_gib),
        (say("Share of the unified memory that the GPU may use"), gpu.usable_share),
        (say("Memory bandwidth"), gpu.memory_bandwidth_gb_s),
        (say("Power limit"), gpu.tdp_w),
        (say("bf16 tensor rate, dense"), gpu.tflops_bf16),
        (say("fp8 tensor rate, dense"), gpu.tflops_fp8),
        (say("int8 tensor rate, dense"), gpu.tops_int8),
    )
    for label, quantity in figures:
        if quantity is not None:
            yield _of(label, quantity)
    for street in gpu.street_prices:
        new = street.condition == "new"
        yield _of(say("Street price, new") if new else say("Street price, used"), street.price)
    yield from _said(say("Released"), date(gpu.release_date or ""), gpu.release_date_source)
    yield from _said(say("Note"), gpu.notes)


def _offer_row(offer: Offer) -> list[str]:
    price = offer.usd_per_hour
    return [
        offer.id,
        offer.gpu,
        offer.provider,
        offer.tier,
        _figure(price, ".2f"),
        date(price.date),
    ]


def _offer_detail(offer: Offer) -> Iterator[Detail]:
    yield from _said(say("GPU"), offer.gpu)
    yield from _said(say("Provider"), offer.provider)
    yield from _said(say("Tier"), offer.tier)
    for price in offer.prices:
        yield _of(say("Price per hour"), price, _figure(price, ".2f"))
    yield from _said(say("Note"), offer.note)


def _tariff_row(tariff: Tariff) -> list[str]:
    day = date(tariff.value.date) if tariff.value else ""
    return [tariff.id, tariff.kind, _figure(tariff.value), tariff.region, tariff.customer, day]


def _tariff_detail(tariff: Tariff) -> Iterator[Detail]:
    yield from _said(say("Kind"), tariff.kind)
    yield from _said(say("Region"), tariff.region)
    yield from _said(say("For whom"), tariff.customer)
    yield from _said(say("Period"), tariff.period)
    for value in tariff.values:
        yield _of(say("Value"), value)
    if tariff.value is None:
        gap = say("not known; give your own figure")
        yield Detail(str(say("Value")), str(gap), "", tariff.gap_source)
    for name, part in tariff.components.items():
        yield _of(say("of which {name}", name=name.replace("_", " ")), part)
    if tariff.including_taxes is not None:
        yield from _said(say("Including taxes"), str(say("{yes}", yes=tariff.including_taxes)))
    yield from _said(say("Note"), tariff.note)


def _rule_row(rule: Rule) -> list[str]:
    return [
        rule.id,
        rule.area,
        rule.effect,
        rule.severity,
        ", ".join(rule.applies_to),
        str(rule.question),
        date(rule.expires_on),
    ]


def _rule_detail(rule: Rule) -> Iterator[Detail]:
    source, day = f"{rule.source.title}, {rule.source.url}", rule.source.date
    yield from _said(say("Question"), str(rule.question))
    for path, answers in rule.when.items():
        yield from _said(say("If {field}", field=path), " | ".join(answers))
    yield from _said(say("Holds for options of kind"), ", ".join(rule.applies_to))
    yield from _said(say("Effect"), f"{rule.effect} ({rule.severity})")
    yield from _said(say("Text"), str(rule.text), source, day)
    yield from _said(say("Last checked"), date(rule.source.checked_on))
    yield from _said(say("Check again after"), date(rule.expires_on))
    if rule.disclaimer:
        yield from _said(say("Disclaimer"), str(rule.disclaimer))


_LISTINGS: dict[str, tuple[tuple[str, ...], Callable[[Any], list[str]]]] = {
    "models": (
        (
            "id", N_("Name"), N_("Kind"), N_("Parameters"), N_("Context"), N_("Licence"),
            N_("USD/Mtok in / out"), N_("Shut down on"),
        ),
        _model_row,
    ),
    "gpus": (
        (
            "id", N_("Name"), N_("Memory, GiB"), N_("Bandwidth, GB/s"), N_("Power, W"),
            N_("bf16, TFLOP/s"), "CUDA", N_("Street price"),
        ),
        _gpu_row,
    ),
    "offers": (
        ("id", N_("GPU"), N_("Provider"), N_("Tier"), N_("Price per hour"), N_("Date")),
        _offer_row,
    ),
    "tariffs": (
        ("id", N_("Kind"), N_("Value"), N_("Region"), N_("For whom"), N_("Date")),
        _tariff_row,
    ),
    "rules": (
        (
            "id", N_("Area"), N_("Effect"), N_("Severity"), N_("Holds for options of kind"),
            N_("Question"), N_("Check again after"),
        ),
        _rule_row,
    ),
}  # fmt: skip

_DETAILS: dict[str, Callable[[Any], Iterator[Detail]]] = {
    "models": _model_detail,
    "gpus": _gpu_detail,
    "offers": _offer_detail,
    "tariffs": _tariff_detail,
    "rules": _rule_detail,
}
