"""Which keys does a fact file of each kind have, and what becomes of them?

One function per kind, from a strictly read `Node` to the dataclass of `schema`. A key that is not
listed here is refused. To add a property: the field in `schema`, the key here, and a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hauslm.base.quantity import Quantity
from hauslm.base.words import say
from hauslm.catalog.reader import Node, Source
from hauslm.catalog.schema import (
    EFFECTS,
    FINE_TUNING,
    MODEL_KINDS,
    OPTION_KINDS,
    SEVERITIES,
    TARIFF_KINDS,
    Architecture,
    Gpu,
    Licence,
    ListedPrice,
    Model,
    Offer,
    PriceTier,
    Rule,
    RuleSource,
    Score,
    Shutdown,
    StreetPrice,
    Tariff,
    Text,
)

_T = TypeVar("_T")

MTOK_UNITS = ("USD/Mtok", "EUR/Mtok")
TARIFF_UNITS = ("EUR/kWh", "EUR/h", "EUR/month", "EUR/USD", "gCO2e/kWh", "%", "years", "h")

# ---------------------------------------------------------------- models

_SHAPE_COUNTS = ("n_layers", "hidden_size", "n_heads", "n_kv_heads", "head_dim")
_SHAPE_REQUIRED = (*_SHAPE_COUNTS, "intermediate_size", "vocab_size", "max_context")
_SHAPE_OPTIONAL = (
    "sliding_window",
    "n_experts",
    "experts_per_token",
    "moe_intermediate_size",
    "global_every",
)
_MODEL_TEXTS = ("family", "hf_id", "languages_note", "provider", "price_ref", "serves", "notes")
_MODEL_DATED = ("release_date", "shutdown", "fine_tuning", "knowledge_cutoff")
_MODEL_QUANTITIES = {
    "parameters": "parameters",
    "checked_parameters": "parameters",
    "active_parameters": "parameters",
    "context": "tokens",
    "max_output": "tokens",
}


def architecture(node: Node) -> Architecture:
    keys = node.keys(
        (*_SHAPE_REQUIRED, "family", "tied_embeddings", "source"),
        (*_SHAPE_OPTIONAL, "rope_theta", "max_context_source", "note"),
    )
    source = keys["source"].source()
    context_source = keys["max_context_source"].source() if "max_context_source" in keys else source
    shape: dict[str, Any] = {name: keys[name].count() for name in _SHAPE_REQUIRED}
    shape |= {name: keys[name].count() if name in keys else None for name in _SHAPE_OPTIONAL}
    return Architecture(
        **shape,
        family=keys["family"].text(),
        tied_embeddings=keys["tied_embeddings"].flag(),
        rope_theta=keys["rope_theta"].number() if "rope_theta" in keys else None,
        source=source.text,
        date=source.date,
        max_context_source=context_source.text,
        max_context_date=context_source.date,
        note=_text(keys, "note"),
    )


def _licence(node: Node) -> Licence:
    keys = node.keys(("id", "commercial_use", "source"), ("duties",))
    source = keys["source"].source()
    duties = tuple(n.text() for n in keys["duties"].items()) if "duties" in keys else ()
    return Licence(
        keys["id"].text(), keys["commercial_use"].flag(), duties, source.text, source.date
    )


def _shutdown(node: Node) -> Shutdown:
    keys = node.keys(("date", "source"), ("replacement",))
    source = keys["source"].source()
    return Shutdown(
        keys["date"].date(whole_day=True), source.text, source.date, _text(keys, "replacement")
    )


def _listed_price(node: Node) -> ListedPrice:
    keys = node.keys(
        ("input", "output"), ("cache_read", "cache_write", "input_audio", "tiers", "note")
    )
    prices = {
        name: keys[name].quantity(*MTOK_UNITS)
        for name in ("input", "output", "cache_read", "cache_write", "input_audio")
        if name in keys
    }
    if len({p.unit for p in prices.values()}) > 1:
        raise node.fail("H395", say("The figures of one list price must have one unit."))
    tiers = tuple(_tier(n) for n in keys["tiers"].items()) if "tiers" in keys else ()
    return ListedPrice(**prices, tiers=tiers, note=_text(keys, "note"))


def _tier(node: Node) -> PriceTier:
    keys = node.keys(("above_tokens", "input", "output"), ("cache_read",))
    return PriceTier(
        keys["above_tokens"].quantity("tokens"),
        keys["input"].quantity(*MTOK_UNITS),
        keys["output"].quantity(*MTOK_UNITS),
        keys["cache_read"].quantity(*MTOK_UNITS) if "cache_read" in keys else None,
    )


def _scores(node: Node) -> list[Score]:
    """One group of scores: same harness, method and source; `results` maps benchmark (or
    benchmark/metric) to [score] or [score, half width of the 95 % interval]."""
    keys = node.keys(
        ("harness", "method", "self_reported", "named", "source", "results"),
        ("language", "variant", "via", "suspect", "note", "unit"),
    )
    source = keys["source"].source()
    shared: dict[str, Any] = {
        "method": keys["method"].text(),
        "harness": keys["harness"].text(),
        "self_reported": keys["self_reported"].flag(),
        "source": source.text,
        "date": source.date,
        "language": keys["language"].one_of(("de", "en")) if "language" in keys else None,
        "named": keys["named"].text(),
        "variant": _text(keys, "variant"),
        "via": _via(keys["via"].source()) if "via" in keys else "",
        "suspect": keys["suspect"].flag() if "suspect" in keys else False,
        "note": _text(keys, "note"),
        "unit": keys["unit"].one_of(("points", "1")) if "unit" in keys else "points",
    }
    found = []
    for name, figures in keys["results"].mapping().items():
        numbers = [n.number() for n in figures.items()]
        if len(numbers) not in (1, 2):
            raise figures.fail("H393", say("Write [score] or [score, half width of the interval]."))
        benchmark, _, metric = name.partition("/")
        interval = numbers[1] if len(numbers) == 2 else None
        if interval is not None and interval < 0:
            raise figures.fail("H393", say("The half width of an interval is never negative."))
        found.append(Score(benchmark, numbers[0], ci=interval, metric=metric, **shared))
    return found


def _via(source: Source) -> str:
    return f"{source.text}, {source.date}"


def model(node: Node, identity: str) -> Model:
    keys = node.keys(
        ("kind", "name", "vendor", "family"),
        (
            "id", *_MODEL_TEXTS, *_MODEL_DATED, *_MODEL_QUANTITIES, "licence", "architecture",
            "languages", "open_weights", "listed_prices", "training_prices", "vendor_memory",
            "scores",
        ),
    )  # fmt: skip
    release, release_source = _dated(keys, "release_date")
    rest: dict[str, Any] = {
        k: keys[k].quantity(unit) for k, unit in _MODEL_QUANTITIES.items() if k in keys
    }
    if "fine_tuning" in keys:
        rest |= _fine_tuning(keys["fine_tuning"])
    memory = keys["vendor_memory"].mapping() if "vendor_memory" in keys else {}
    return Model(
        id=identity,
        name=keys["name"].text(),
        kind=keys["kind"].one_of(MODEL_KINDS),  # type: ignore[arg-type]
        vendor=keys["vendor"].text(),
        family=keys["family"].text(),
        hf_id=_text(keys, "hf_id") or None,
        licence=_licence(keys["licence"]) if "licence" in keys else None,
        release_date=release,
        release_date_source=release_source,
        languages=tuple(n.text() for n in keys["languages"].items()) if "languages" in keys else (),
        languages_note=_text(keys, "languages_note"),
        open_weights=keys["open_weights"].flag() if "open_weights" in keys else None,
        architecture=architecture(keys["architecture"]) if "architecture" in keys else None,
        knowledge_cutoff=keys["knowledge_cutoff"].date() if "knowledge_cutoff" in keys else None,
        provider=_text(keys, "provider") or None,
        price_ref=_text(keys, "price_ref") or None,
        serves=_text(keys, "serves") or None,
        shutdown_date=_shutdown(keys["shutdown"]) if "shutdown" in keys else None,
        listed_prices=_each(keys, "listed_prices", _listed_price),
        training_prices=_each(keys, "training_prices", lambda n: n.quantity("USD/Mtok")),
        vendor_memory={k: n.quantity("GB") for k, n in memory.items()},
        scores=tuple(s for group in _each(keys, "scores", _scores) for s in group),
        notes=_text(keys, "notes"),
        **rest,
    )


def _fine_tuning(node: Node) -> dict[str, Any]:
    keys = node.keys(("value", "source"), ("until", "note"))
    source = keys["source"].source()
    return {
        "fine_tuning": keys["value"].one_of(FINE_TUNING),
        "fine_tuning_until": keys["until"].date(whole_day=True) if "until" in keys else None,
        "fine_tuning_note": _text(keys, "note"),
        "fine_tuning_source": _via(source),
    }


# ---------------------------------------------------------------- hardware, rent, tariffs


def gpu(node: Node, identity: str) -> Gpu:
    keys = node.keys(
        ("name", "architecture", "memory_gb", "memory_bandwidth_gb_s"),
        (
            "id", "tdp_w", "compute_capability", "tflops_bf16", "tflops_fp8", "tops_int8",
            "street_prices", "release_date", "unified_memory", "usable_share", "notes",
        ),
    )  # fmt: skip

    def optional(name: str, unit: str) -> Quantity | None:
        return keys[name].quantity(unit) if name in keys else None

    release, release_source = _dated(keys, "release_date")
    return Gpu(
        id=identity,
        name=keys["name"].text(),
        architecture=keys["architecture"].text(),
        memory_gb=keys["memory_gb"].quantity("GB"),
        memory_bandwidth_gb_s=keys["memory_bandwidth_gb_s"].quantity("GB/s"),
        tdp_w=optional("tdp_w", "W"),
        compute_capability=_text(keys, "compute_capability") or None,
        tflops_bf16=optional("tflops_bf16", "TFLOP/s"),
        tflops_fp8=optional("tflops_fp8", "TFLOP/s"),
        tops_int8=optional("tops_int8", "TOP/s"),
        street_prices=_each(keys, "street_prices", _street_price),
        release_date=release,
        release_date_source=release_source,
        unified_memory=keys["unified_memory"].flag() if "unified_memory" in keys else False,
        usable_share=optional("usable_share", "1"),
        notes=_text(keys, "notes"),
    )


def _street_price(node: Node) -> StreetPrice:
    keys = node.keys(("price", "condition"))
    price = keys["price"].quantity("USD", "EUR")
    condition = keys["condition"].one_of(("new", "used"))
    return StreetPrice(price, price.unit, condition)  # type: ignore[arg-type]


def offer(node: Node, identity: str) -> Offer:
    keys = node.keys(("gpu", "provider", "tier", "prices"), ("id", "note"))
    prices = _each(keys, "prices", lambda n: n.quantity("USD/h"))
    if not prices:
        raise keys["prices"].fail("H392", say("An offer needs at least one price."))
    return Offer(
        id=identity,
        gpu=keys["gpu"].text(),
        provider=keys["provider"].text(),
        tier=keys["tier"].text(),
        prices=prices,
        note=_text(keys, "note"),
    )


def tariff(node: Node, identity: str) -> Tariff:
    keys = node.keys(
        ("kind", "region", "values"),
        ("id", "customer", "period", "including_taxes", "components", "note", "gap_source"),
    )
    values = _each(keys, "values", lambda n: n.quantity(*TARIFF_UNITS))
    if not values and not ("note" in keys and "gap_source" in keys):
        raise node.fail("H392", say("A tariff without a figure says in 'note' what is missing."))
    if len({q.unit for q in values}) > 1:
        raise keys["values"].fail("H395", say("The figures of one tariff must have one unit."))
    components = keys["components"].mapping() if "components" in keys else {}
    return Tariff(
        id=identity,
        kind=keys["kind"].one_of(TARIFF_KINDS),  # type: ignore[arg-type]
        values=values,
        region=keys["region"].text(),
        customer=_text(keys, "customer"),
        period=_text(keys, "period"),
        including_taxes=keys["including_taxes"].flag() if "including_taxes" in keys else None,
        components={k: n.quantity(*TARIFF_UNITS) for k, n in components.items()},
        note=_text(keys, "note"),
        gap_source=_via(keys["gap_source"].source()) if "gap_source" in keys else "",
    )


# ---------------------------------------------------------------- rules


def rule(node: Node, identity: str) -> Rule:
    keys = node.keys(
        ("area", "question", "when", "applies_to", "effect", "severity", "text", "source",
         "expires_on"),
        ("id", "disclaimer"),
    )  # fmt: skip
    applies_to = tuple(n.one_of(OPTION_KINDS) for n in keys["applies_to"].items())
    if not applies_to:
        raise keys["applies_to"].fail("H392", say("A rule applies to at least one kind of option."))
    return Rule(
        id=identity,
        area=keys["area"].text(),
        question=_languages(keys["question"]),
        when={path: _answers(n) for path, n in keys["when"].mapping().items()},
        applies_to=applies_to,  # type: ignore[arg-type]
        effect=keys["effect"].one_of(EFFECTS),  # type: ignore[arg-type]
        severity=keys["severity"].one_of(SEVERITIES),  # type: ignore[arg-type]
        text=_languages(keys["text"]),
        source=_rule_source(keys["source"]),
        expires_on=keys["expires_on"].date(whole_day=True),
        disclaimer=_languages(keys["disclaimer"]) if "disclaimer" in keys else None,
    )


def _answers(node: Node) -> tuple[str, ...]:
    """The answers that fulfil a condition; YAML reads a bare yes and no as true and false."""
    answers = []
    for item in node.items():
        if isinstance(item.value, bool):
            answers.append("yes" if item.value else "no")
        else:
            answers.append(item.text())
    if not answers:
        raise node.fail("H392", say("A condition lists at least one answer."))
    return tuple(answers)


def _languages(node: Node) -> Text:
    found = node.mapping()
    for code in ("de", "en"):
        if code not in found:
            raise node.fail("H392", say("The key '{key}' is missing.", key=code))
    return Text({code: n.text() for code, n in found.items()})


def _rule_source(node: Node) -> RuleSource:
    keys = node.keys(("title", "url", "date", "checked_on"))
    return RuleSource(
        keys["title"].text(),
        keys["url"].text(),
        keys["date"].date(),
        keys["checked_on"].date(whole_day=True),
    )


# ---------------------------------------------------------------- small helpers


def _text(keys: dict[str, Node], name: str) -> str:
    return keys[name].text() if name in keys else ""


def _each(keys: dict[str, Node], name: str, make: Callable[[Node], _T]) -> tuple[_T, ...]:
    return tuple(make(n) for n in keys[name].items()) if name in keys else ()


def _dated(keys: dict[str, Node], name: str) -> tuple[str | None, str]:
    """A date with its source: {value, source}."""
    if name not in keys:
        return None, ""
    entry = keys[name].keys(("value", "source"))
    return entry["value"].date(), _via(entry["source"].source())


BUILDERS: dict[str, Callable[[Node, str], Any]] = {
    "models": model,
    "gpus": gpu,
    "offers": offer,
    "tariffs": tariff,
    "rules": rule,
}
