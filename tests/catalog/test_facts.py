"""Is every fact sound? Parametrised over the folders: a new file is tested without a new test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hauslm.base.errors import UsageError
from hauslm.base.words import available_languages
from hauslm.catalog import load
from hauslm.catalog.schema import Architecture, Model, Offer, Rule, Score, quantities

EVERY = [(kind, identity) for kind in load.KINDS for identity in load.ids(kind)]


def of_kind(kind: load.Kind) -> Any:
    return pytest.mark.parametrize("identity", load.ids(kind))


def raw_numbers(node: Any, key: str = "") -> Iterator[float]:
    """Every number that stands in a file; texts and dates are none."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from raw_numbers(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from raw_numbers(value, key)
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield float(node)


def read_numbers(thing: Any) -> Iterator[float]:
    """Every number in memory: of quantities value and ends, of scores score and half width."""
    if isinstance(thing, Score):
        yield from (float(n) for n in (thing.score, thing.ci) if n is not None)
        return
    for _, quantity in quantities(thing):
        ends = (quantity.value, quantity.low, quantity.high)
        yield from (float(n) for n in ends if n is not None)


@pytest.mark.parametrize(("kind", "identity"), EVERY)
def test_every_number_of_the_file_is_in_memory_with_a_source(
    kind: load.Kind, identity: str
) -> None:
    thing = load.thing(kind, identity)
    for path, quantity in quantities(thing):
        assert quantity.source, path
        assert quantity.date, path
        assert math.isfinite(quantity.value), path
    raw = yaml.safe_load((load.FACTS / kind / f"{identity}.yaml").read_text(encoding="utf-8"))
    raw.pop("sources", None)
    if isinstance(thing, Model):
        plain = Counter(n for score in thing.scores for n in read_numbers(score))
        rest = {f: getattr(thing, f) for f in vars(thing) if f != "scores"}
        plain += Counter(n for value in rest.values() for n in read_numbers(value))
    else:
        plain = Counter(read_numbers(thing))
    assert plain == Counter(raw_numbers(raw))


@pytest.mark.parametrize(("kind", "identity"), EVERY)
def test_the_file_name_is_the_id(kind: load.Kind, identity: str) -> None:
    assert load.thing(kind, identity).id == identity


@of_kind("offers")
def test_an_offer_rents_out_a_gpu_of_the_catalog(identity: str) -> None:
    offer = load.offer(identity)
    assert offer.gpu in load.ids("gpus")
    assert 0.05 < offer.usd_per_hour.value < 20  # one GPU, USD per hour: a slip would stand out


@of_kind("gpus")
def test_a_gpu_is_plausible(identity: str) -> None:
    gpu = load.gpu(identity)
    assert 8 <= gpu.memory_gib.value <= 512
    assert 200 <= gpu.memory_bandwidth_gb_s.value <= 10_000
    if gpu.tflops_bf16 and gpu.tflops_fp8:
        assert gpu.tflops_fp8.value == pytest.approx(2 * gpu.tflops_bf16.value, rel=0.02)
    for street in gpu.street_prices:
        assert street.price.lowest <= street.price.value <= street.price.highest
        assert street.currency == street.price.unit


@of_kind("models")
def test_a_model_refers_only_to_what_exists(identity: str) -> None:
    model = load.model(identity)
    if model.serves:
        assert load.model(model.serves).kind == "open"
    assert (model.kind == "api") == bool(model.provider)
    if model.kind == "open":
        assert model.price_ref is None
    shape = model.architecture
    if shape:
        assert shape.n_heads % shape.n_kv_heads == 0
        assert model.licence is not None
    for score in model.scores:
        if score.unit == "points":
            assert -100 <= score.score <= 100
            assert score.harness and score.method and score.named


def decoder_parameters(shape: Architecture) -> int:
    """Matrices of a dense decoder without norms and biases: a lower bound of the parameter count."""
    attention = shape.hidden_size * shape.head_dim * (2 * shape.n_heads + 2 * shape.n_kv_heads)
    mlp = 3 * shape.hidden_size * shape.intermediate_size
    embedding = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    return shape.n_layers * (attention + mlp) + embedding


DENSE = [m.id for m in load.models() if m.architecture and not m.architecture.n_experts]


@pytest.mark.parametrize("identity", DENSE)
def test_an_architecture_row_gives_the_published_parameter_count(identity: str) -> None:
    model = load.model(identity)
    shape, stated = model.architecture, model.checked_parameters or model.parameters
    assert shape is not None and stated is not None
    assert 0.99 * stated.value < decoder_parameters(shape) <= stated.value


@of_kind("rules")
def test_a_rule_speaks_every_language(identity: str) -> None:
    rule = load.rule(identity)
    texts = [rule.question, rule.text, *([rule.disclaimer] if rule.disclaimer else [])]
    for text in texts:
        assert set(available_languages()) <= set(text.languages)
    assert rule.source.checked_on <= rule.expires_on
    assert rule.expired("9999-01-01") and not rule.expired(rule.expires_on)


@of_kind("tariffs")
def test_a_tariff_has_a_figure_or_says_what_is_missing(identity: str) -> None:
    tariff = load.tariff(identity)
    if tariff.value is None:
        assert tariff.note and tariff.gap_source
    else:
        assert tariff.value.value > 0


def test_an_unknown_id_is_told_with_the_nearest_ones() -> None:
    with pytest.raises(UsageError) as error:
        load.gpu("rtx-4900")
    assert error.value.code == "H120"
    assert "rtx-4090" in str(error.value)


@pytest.mark.parametrize("identity", ["../gpus/rtx-4090", "", "rtx-4090.yaml", "/etc/passwd"])
def test_an_id_is_never_a_path(identity: str) -> None:
    with pytest.raises(UsageError):
        load.thing("models", identity)


def test_one_id_reads_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read_bytes = Path.read_bytes

    def spy(path: Path) -> bytes:
        opened.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    load._read.cache_clear()
    load.gpu("rtx-4090")
    load.gpu("rtx-4090")
    assert opened == ["rtx-4090.yaml"]


def test_every_file_of_a_kind_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = load.parse

    def spy(raw: bytes, file: str) -> Any:
        parsed.append(file)
        return parse(raw, file)

    monkeypatch.setattr(load, "parse", spy)
    load._read.cache_clear()
    load.models()
    load.models()
    load.model("mistral-7b-v0.3")
    assert parsed == [f"models/{identity}.yaml" for identity in load.ids("models")]


def test_memory_is_counted_in_gib_and_unified_memory_only_in_part() -> None:
    assert load.gpu("rtx-4090").memory_gib.unit == "GiB"
    assert load.gpu("rtx-4090").memory_gib.value == load.gpu("rtx-4090").memory_gb.value
    apple = load.gpu("apple-m4-max")
    assert apple.unified_memory and apple.memory_gib.value == pytest.approx(96)


def test_windows_and_global_layers() -> None:
    shape = load.model("gemma-3-12b").architecture
    assert shape is not None
    assert [shape.is_global(i) for i in range(6)] == [False] * 5 + [True]
    plain = load.model("llama-3.1-8b").architecture
    assert plain is not None and plain.is_global(0)
    local = load.model("mistral-7b-v0.1").architecture
    assert local is not None and not any(local.is_global(i) for i in range(local.n_layers))


# ---------------------------------------------------------------- nothing was lost on the way


@pytest.fixture
def shared_facts(shared_data: Path) -> Path:
    folder = shared_data.parent / "facts"
    if not folder.is_dir():
        pytest.skip("no collected facts beside this checkout")
    return folder


def collected(folder: Path, name: str) -> Any:
    text = (folder / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)


def test_every_collected_benchmark_row_is_in_the_catalog(shared_facts: Path) -> None:
    ours = Counter(
        (s.named, s.benchmark, s.score)
        for m in load.models()
        for s in m.scores
        if s.harness != "EuroEval"
    )
    rows = collected(shared_facts, "benchmarks.yaml")["scores"]
    theirs = Counter((r["model"], r["benchmark"], r["score"]) for r in rows)
    assert not theirs - ours


def test_every_collected_euroeval_figure_is_in_the_catalog(shared_facts: Path) -> None:
    ours = {
        (s.named, s.language, s.benchmark, s.score, s.ci)
        for m in load.models()
        for s in m.scores
        if s.harness == "EuroEval"
    }
    count = 0
    for row in collected(shared_facts, "euroeval_de_en.yaml")["rows"]:
        for task, figures in row["scores"].items():
            for value, half in (("primary", "ci"), ("secondary", "ci2")):
                key = (row["model"], row["lang"], task, figures[value], figures[half])
                assert key in ours
                count += 1
    assert count > 3000


def test_every_collected_model_gpu_and_price_is_in_the_catalog(shared_facts: Path) -> None:
    for row in collected(shared_facts, "open_models.yaml")["models"]:
        model = load.model(row["id"])
        assert model.architecture is not None and model.parameters is not None
        assert model.parameters.value == row["parameters"]["total"]
        for key in ("n_layers", "hidden_size", "n_heads", "n_kv_heads", "head_dim", "vocab_size"):
            assert getattr(model.architecture, key) == row["architecture"][key]
    for row in collected(shared_facts, "gpus.yaml")["gpus"]:
        gpu = load.gpu(row["id"])
        assert gpu.memory_gb.value == row["memory_gb"]["value"]
        assert gpu.memory_bandwidth_gb_s.value == row["memory_bandwidth_gb_s"]["value"]
    for row in collected(shared_facts, "cloud_api.yaml")["api_models"]:
        price = load.model(row["id"].split("/")[1]).listed_price("USD")
        assert price is not None
        assert price.input.value == row["usd_per_million_tokens"]["input"]
        assert price.output.value == row["usd_per_million_tokens"]["output"]
    hours = Counter(o.usd_per_hour.value for o in load.offers() if isinstance(o, Offer))
    for row in collected(shared_facts, "cloud_gpu_prices.yaml")["prices"]:
        if "usd_per_hour" in row:
            assert hours[row["usd_per_hour"]]
    tariffs = {t.value.value for t in load.tariffs() if t.value}
    for row in collected(shared_facts, "energy_labour_tax_de.yaml")["electricity"]:
        assert row["eur_per_kwh"] is None or row["eur_per_kwh"] in tariffs


def test_rules_are_rules() -> None:
    assert all(isinstance(r, Rule) for r in load.rules())
