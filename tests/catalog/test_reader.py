"""Is a bad fact file refused by name, whatever is wrong with it?"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hauslm.base.errors import DataError, HauslmError
from hauslm.catalog import load

GPU = """
sources: {s: {url: "https://example.org/x", date: 2025-12}}
name: Card
architecture: ada
memory_gb: {value: 24, unit: GB, source: s}
memory_bandwidth_gb_s: {value: 1000, unit: GB/s, source: s}
tdp_w: {value: 450, unit: W, source: s}
"""


def build(text: str, kind: load.Kind = "gpus") -> Any:
    return load.build(kind, "card", text.encode(), "gpus/card.yaml")


def test_a_sound_file_is_read() -> None:
    gpu = build(GPU)
    assert gpu.tdp_w.value == 450
    assert gpu.tdp_w.source == "https://example.org/x"
    assert gpu.tdp_w.date == "2025-12"
    assert gpu.tdp_w.known == "sourced"


@pytest.mark.parametrize(
    ("old", "new", "code", "key"),
    [
        ("{value: 450, unit: W, source: s}", "450", "H394", "tdp_w"),
        ("{value: 450, unit: W, source: s}", "{value: 450, unit: W}", "H394", "tdp_w"),
        ("{value: 450, unit: W, source: s}", "{value: 450, unit: W, source: t}", "H394", "tdp_w"),
        ("unit: W", "unit: horsepower", "H395", "tdp_w.unit"),
        ("unit: W", "unit: GB", "H395", "tdp_w.unit"),
        ("value: 450", "value: '450'", "H393", "tdp_w.value"),
        ("value: 450", "value: .nan", "H393", "tdp_w.value"),
        ("value: 450", "value: .inf", "H393", "tdp_w.value"),
        ("value: 450", "value: yes", "H393", "tdp_w.value"),
        ("value: 450", "value: 450, low: 500", "H393", "tdp_w"),
        ("value: 450", "value: 450, known: guessed", "H393", "tdp_w.known"),
        ("value: 450", "value: 450, colour: red", "H391", "tdp_w.colour"),
        ("tdp_w", "tdp", "H391", "tdp"),
        ("name: Card\n", "", "H392", "-"),
        ("name: Card", "name: ''", "H393", "name"),
        ("name: Card", "name: 5", "H393", "name"),
        ("name: Card", "name: Card\nname: Other", "H390", "-"),
        ("date: 2025-12", "date: lately", "H393", "sources.s.date"),
        ("date: 2025-12", "date: 2025-13", "H393", "sources.s.date"),
        (", date: 2025-12", "", "H392", "sources.s"),
        ("url: ", "link: ", "H391", "sources.s.link"),
        ('"https://example.org/x"', "example.org", "H394", "sources.s.url"),
        ("architecture: ada", "architecture: [", "H390", "-"),
        ("name: Card", "id: other\nname: Card", "H396", ""),
    ],
)
def test_a_fault_is_told_with_file_and_key(old: str, new: str, code: str, key: str) -> None:
    assert old in GPU
    with pytest.raises(DataError) as error:
        build(GPU.replace(old, new))
    assert error.value.code == code
    assert error.value.where.startswith("gpus/card.yaml")
    assert key in error.value.where
    assert str(error.value)


def test_a_file_must_not_be_huge() -> None:
    with pytest.raises(DataError) as error:
        build(GPU + "#" * (1 << 20))
    assert error.value.code == "H390"


def test_a_rule_reads_bare_yes_and_no_as_answers() -> None:
    rule = load.build(
        "rules",
        "X1",
        b"""
area: privacy
question: {de: Frage?, en: Question?}
when: {scenario.data.personal: [yes, unknown]}
applies_to: [cloud]
effect: BLOCK
severity: high
text: {de: Satz., en: Sentence.}
source: {title: T, url: "https://example.org", date: 2016-04-27, checked_on: 2026-11-23}
expires_on: 2027-11-30
""",
        "rules/X1.yaml",
    )
    assert getattr(rule, "when") == {"scenario.data.personal": ("yes", "unknown")}  # noqa: B009


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["sources", "name", "value"]), inner
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(load.KINDS)
BROAD = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def accepts_or_refuses(kind: load.Kind, raw: bytes) -> None:
    """The contract: a thing, or an error of our family that can be told."""
    try:
        load.build(kind, "x", raw, "x.yaml")
    except HauslmError as error:
        assert error.text("en") and error.text("de")


@BROAD
@given(KINDS, st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_read_or_refused(kind: load.Kind, text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    accepts_or_refuses(kind, raw)


@BROAD
@given(KINDS, TREES)
def test_any_yaml_is_read_or_refused(kind: load.Kind, tree: Any) -> None:
    accepts_or_refuses(kind, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace"))


SAMPLES: dict[load.Kind, str] = {
    "models": "gpt-4o-mini",
    "gpus": "rtx-4090",
    "offers": load.ids("offers")[0],
    "tariffs": "electricity-de-household-2026",
    "rules": load.ids("rules")[0] if load.ids("rules") else "",
}


@BROAD
@given(st.sampled_from([k for k, i in SAMPLES.items() if i]), TREES, st.data())
def test_a_real_file_with_one_value_replaced_is_read_or_refused(
    kind: load.Kind, junk: Any, data: st.DataObject
) -> None:
    path = load.FACTS / kind / f"{SAMPLES[kind]}.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    node = tree
    for _ in range(6):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)) or data.draw(st.booleans()):
            node[key] = junk
            break
        node = node[key]
    accepts_or_refuses(kind, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b"{a: " * 50_000,
        b"- " * 100_000,
        b"a: &a [*a]",
        b"a: " + b"9" * 5000,
        b"name: 0x" + b"f" * 20_000,
        b"!!float ''",
        b"!!timestamp x",
        b"!!python/object:os.system {}",
        b"a: \x00",
        b"\xff\xfe",
        b"name: &n [*n]\narchitecture: x\nmemory_gb: 1\nmemory_bandwidth_gb_s: 1",
    ],
)
def test_hostile_yaml_is_refused(raw: bytes) -> None:
    with pytest.raises(DataError):
        load.build("gpus", "x", raw, "x.yaml")
