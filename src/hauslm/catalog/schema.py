"""What may a fact be? The things of the catalog: models, GPUs, offers, tariffs, rules.

Frozen dataclasses without behaviour beyond looking things up in themselves. `load` fills them from
the fact files; what to conclude from them is for `decide` and `plan`. A figure is a `Quantity`, or
a plain number inside an object that carries source and date itself (`Architecture`, `Score`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args

from hauslm.base.quantity import Quantity
from hauslm.base.words import FALLBACK_LANGUAGE, language

ModelKind = Literal["open", "api"]
FineTuning = Literal["yes", "ending", "no"]
TariffKind = Literal["electricity", "labour", "tax", "fx", "co2", "depreciation", "working_time"]
Effect = Literal["BLOCK", "REQUIRE", "WARN", "ALLOW", "FAVOUR"]
Severity = Literal["high", "medium", "low"]
OptionKind = Literal["local", "rented", "cloud", "hosted"]

EFFECTS: tuple[str, ...] = get_args(Effect)
SEVERITIES: tuple[str, ...] = get_args(Severity)
OPTION_KINDS: tuple[str, ...] = get_args(OptionKind)
TARIFF_KINDS: tuple[str, ...] = get_args(TariffKind)
MODEL_KINDS: tuple[str, ...] = get_args(ModelKind)
FINE_TUNING: tuple[str, ...] = get_args(FineTuning)


@dataclass(frozen=True)
class Text:
    """A sentence of a fact file in several languages; German and English are always there."""

    languages: Mapping[str, str]

    def text(self, code: str | None = None) -> str:
        """The sentence in `code` (default: the language in force), else in English."""
        return self.languages.get(code or language(), self.languages[FALLBACK_LANGUAGE])

    def __str__(self) -> str:
        return self.text()


# ---------------------------------------------------------------- models


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder, as its configuration states it (counts; contexts in tokens).

    `family` names the block layout ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma2",
    "gemma3", "phi3", "olmo2", "gpt_oss"). `head_dim` is explicit because it is not always
    hidden_size / n_heads. `sliding_window` limits attention to that many tokens: on every layer
    if `global_every` is None, else every `global_every`-th layer attends globally.
    `intermediate_size` is that of the dense MLP; experts have `moe_intermediate_size` (None: the
    same). `source` and `date` hold for every number here except `max_context`.
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool
    max_context: int
    sliding_window: int | None
    family: str
    n_experts: int | None = None
    experts_per_token: int | None = None
    moe_intermediate_size: int | None = None
    global_every: int | None = None
    rope_theta: float | None = None
    source: str = ""
    date: str = ""
    max_context_source: str = ""
    max_context_date: str = ""
    note: str = ""

    def is_global(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) attends to the whole context."""
        if self.sliding_window is None:
            return True
        return self.global_every is not None and (layer + 1) % self.global_every == 0


@dataclass(frozen=True)
class Licence:
    """The licence of the weights; `duties`: recorded obligations, in English."""

    id: str
    commercial_use: bool
    duties: tuple[str, ...]
    source: str
    date: str


class Shutdown(NamedTuple):
    """When the vendor switches the model off, and who says so (read on `read_on`)."""

    date: str
    source: str
    read_on: str = ""
    replacement: str = ""


@dataclass(frozen=True)
class PriceTier:
    """Prices per million tokens for requests whose prompt is longer than `above_tokens`."""

    above_tokens: Quantity
    input: Quantity
    output: Quantity
    cache_read: Quantity | None = None


@dataclass(frozen=True)
class ListedPrice:
    """One list price as a vendor or directory printed it; the unit (USD/Mtok, EUR/Mtok) tells the
    currency. Prices are appended, never overwritten: the last one of a currency is current."""

    input: Quantity
    output: Quantity
    cache_read: Quantity | None = None
    cache_write: Quantity | None = None
    input_audio: Quantity | None = None
    tiers: tuple[PriceTier, ...] = ()
    note: str = ""

    @property
    def currency(self) -> str:
        return self.input.unit.split("/")[0]


@dataclass(frozen=True)
class Score:
    """One benchmark result. Never rank scores of different `harness` or `method` together.

    `score` and `ci` (half width of the 95 % interval) are in points of 100 unless `unit` says
    otherwise (EuroEval's mean rank has unit "1", lower is better). `named` is the model's name in
    the source, `variant` what it says about it (base, instruct, no-thinking, ...); `metric` is
    empty where a benchmark has only one. `via` names the tracker that carried the figure over.
    """

    benchmark: str
    score: float
    method: str
    harness: str
    self_reported: bool
    source: str
    date: str
    language: str | None = None
    ci: float | None = None
    metric: str = ""
    named: str = ""
    variant: str = ""
    via: str = ""
    suspect: bool = False
    note: str = ""
    unit: str = "points"

    @property
    def quantity(self) -> Quantity:
        """The score as a quantity, its 95 % interval as the range."""
        low = None if self.ci is None else self.score - self.ci
        high = None if self.ci is None else self.score + self.ci
        return Quantity(self.score, self.unit, "sourced", low, high, self.source, self.date)


@dataclass(frozen=True)
class Model:
    """A language model: open weights to run in-house, or the model behind an API.

    What nobody has recorded is None or empty, never a guess. `parameters` counts what the published
    weights hold; `active_parameters` those used per token (mixture of experts). `price_ref` is the
    exact id in genai-prices under `provider`; `serves` the catalog id of the open model whose
    weights a hosted API runs. `fine_tuning`: whether the vendor trains it for customers ("ending":
    only until `fine_tuning_until`); None if unknown or open weights.
    `checked_parameters` is the count that follows from the architecture row, as a cross-check.
    """

    id: str
    name: str
    kind: ModelKind
    vendor: str
    family: str
    hf_id: str | None = None
    licence: Licence | None = None
    release_date: str | None = None
    release_date_source: str = ""
    languages: tuple[str, ...] = ()
    languages_note: str = ""
    open_weights: bool | None = None
    architecture: Architecture | None = None
    parameters: Quantity | None = None
    checked_parameters: Quantity | None = None
    active_parameters: Quantity | None = None
    context: Quantity | None = None
    max_output: Quantity | None = None
    knowledge_cutoff: str | None = None
    provider: str | None = None
    price_ref: str | None = None
    serves: str | None = None
    shutdown_date: Shutdown | None = None
    fine_tuning: FineTuning | None = None
    fine_tuning_until: str | None = None
    fine_tuning_note: str = ""
    fine_tuning_source: str = ""
    listed_prices: tuple[ListedPrice, ...] = ()
    training_prices: tuple[Quantity, ...] = ()
    vendor_memory: Mapping[str, Quantity] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    notes: str = ""

    def listed_price(self, currency: str = "USD") -> ListedPrice | None:
        """The latest list price in `currency`, None if there is none."""
        found = [p for p in self.listed_prices if p.currency == currency]
        return found[-1] if found else None

    @property
    def training_price(self) -> Quantity | None:
        """Latest price of fine-tuning by the vendor, USD per million training tokens."""
        return self.training_prices[-1] if self.training_prices else None


# ---------------------------------------------------------------- hardware and rent


@dataclass(frozen=True)
class StreetPrice:
    """What a card was sold for: `price` is the middle of the printed range `low`..`high`."""

    price: Quantity
    currency: str
    condition: Literal["new", "used"]


@dataclass(frozen=True)
class Gpu:
    """A GPU. `tflops_*` are dense tensor rates (no sparsity), bf16 with FP32 accumulation: GeForce
    cards run that at half rate, and vendor slides print up to four times the figure.

    `memory_gb` is the figure on the box; use `memory_gib` to compute. `compute_capability` is
    NVIDIA's version ("8.9"), None for other makers. None means: not recorded.
    """

    id: str
    name: str
    architecture: str
    memory_gb: Quantity
    memory_bandwidth_gb_s: Quantity
    tdp_w: Quantity | None
    compute_capability: str | None
    tflops_bf16: Quantity | None
    tflops_fp8: Quantity | None = None
    tops_int8: Quantity | None = None
    street_prices: tuple[StreetPrice, ...] = ()
    release_date: str | None = None
    release_date_source: str = ""
    unified_memory: bool = False
    usable_share: Quantity | None = None
    notes: str = ""

    @property
    def memory_gib(self) -> Quantity:
        """Nominal memory that a program may use, GiB.

        A "24 GB" card carries 24 x 2**30 bytes: the number on the box is already in GiB. Of unified
        memory only `usable_share` can be used by the GPU. What the driver and a context take
        (about 1-3 %, more with ECC) is not subtracted here: that is `estimate.memory`'s overhead.
        """
        share = 1.0 if self.usable_share is None else self.usable_share.value
        return Quantity(
            self.memory_gb.value * share,
            "GiB",
            "derived",
            source=f"{self.memory_gb.value:g} GB on the box x {share:g}; {self.memory_gb.source}",
            date=self.memory_gb.date,
        )


@dataclass(frozen=True)
class Offer:
    """Rent of one GPU (catalog id `gpu`) per hour. `prices` is the dated history, latest last."""

    id: str
    gpu: str
    provider: str
    tier: str
    prices: tuple[Quantity, ...]
    note: str = ""

    @property
    def usd_per_hour(self) -> Quantity:
        """The latest price; where the source gives a range, its middle with low and high."""
        return self.prices[-1]


@dataclass(frozen=True)
class Tariff:
    """A price or rate of the surroundings: electricity, labour, tax, exchange rate, CO2, ...

    `values` is the dated history, latest last. `value` is None for a known gap: the fact file says
    what is missing in `note`, and the user has to give the figure; it is never 0.
    """

    id: str
    kind: TariffKind
    values: tuple[Quantity, ...]
    region: str
    customer: str = ""
    period: str = ""
    including_taxes: bool | None = None
    components: Mapping[str, Quantity] = field(default_factory=dict)
    note: str = ""
    gap_source: str = ""

    @property
    def value(self) -> Quantity | None:
        return self.values[-1] if self.values else None


# ---------------------------------------------------------------- rules


@dataclass(frozen=True)
class RuleSource:
    """The text a rule rests on. `date` is the text's, `checked_on` when somebody last compared."""

    title: str
    url: str
    date: str
    checked_on: str


@dataclass(frozen=True)
class Rule:
    """A legal or contractual rule, declared.

    It applies to an option whose kind is in `applies_to` when, for every field path in `when`
    ("scenario.data.personal"), the scenario's answer is one of those listed; an empty `when` always
    holds. Yes/no answers are "yes" and "no", an unanswered question "unknown": list "unknown" where
    not knowing shall count as the stricter case. After `expires_on` the rule still applies, but its
    source has to be checked again.
    """

    id: str
    area: str
    question: Text
    when: Mapping[str, tuple[str, ...]]
    applies_to: tuple[OptionKind, ...]
    effect: Effect
    severity: Severity
    text: Text
    source: RuleSource
    expires_on: str
    disclaimer: Text | None = None

    def expired(self, on: str) -> bool:
        """Whether the source has to be checked again on the ISO date `on`."""
        return self.expires_on < on


Thing = Model | Gpu | Offer | Tariff | Rule


# ---------------------------------------------------------------- every number of a thing

_COUNTS: dict[str, str] = {
    "n_layers": "layers",
    "max_context": "tokens",
    "sliding_window": "tokens",
    "global_every": "layers",
}


def quantities(thing: Any, path: str = "") -> Iterator[tuple[str, Quantity]]:
    """Every number inside `thing` with its path, as a quantity that names source and date.

    The numbers of an `Architecture` and a `Score` are given the source of their object.
    """
    if isinstance(thing, Quantity):
        yield path, thing
    elif isinstance(thing, Architecture):
        yield from _architecture_quantities(thing, path)
    elif isinstance(thing, Score):
        yield path, thing.quantity
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from quantities(value, f"{path}.{key}")
    elif isinstance(thing, tuple):
        for index, value in enumerate(thing):
            yield from quantities(value, f"{path}[{index}]")
    elif is_dataclass(thing):
        for entry in fields(thing):
            value = getattr(thing, entry.name)
            yield from quantities(value, f"{path}.{entry.name}".lstrip("."))


def _architecture_quantities(shape: Architecture, path: str) -> Iterator[tuple[str, Quantity]]:
    for entry in fields(shape):
        value = getattr(shape, entry.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        is_context = entry.name == "max_context"
        source = shape.max_context_source if is_context else shape.source
        date = shape.max_context_date if is_context else shape.date
        unit = _COUNTS.get(entry.name, "1")
        yield f"{path}.{entry.name}", Quantity(value, unit, "sourced", source=source, date=date)
