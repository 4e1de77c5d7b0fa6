"""hauslm.yaml: every mistake with line, column, nearest name, next step, in German and English."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm import scenario
from hauslm.base.errors import HauslmError, ProjectFileError, UsageError

MISTAKES = {
    "typo": ("adapter:\n  r: 8\n  lora_alhpa: 16\n", "hauslm.yaml:3:3", "lora_alpha", "H201"),
    "wrong section": ("name: x\nlora_alpha: 16\n", "hauslm.yaml:2:1", "adapter.lora_alpha", "H201"),
    "wrong type": ("training:\n  epochs: many\n", "hauslm.yaml:2:3", "number", "H202"),
    "impossible": ("adapter: {r: -3}\n", "hauslm.yaml:1:11", "at least 1", "H202"),
    "infinite": ("training:\n  epochs: .inf\n", "hauslm.yaml:2:3", "1000", "H202"),
    "not a number": ("training:\n  epochs: .nan\n", "hauslm.yaml:2:3", "", "H202"),
    "choice": (
        "scenario:\n  data:\n    copyright: thirdparty\n",
        "hauslm.yaml:3:5",
        "third_party",
        "H203",
    ),
    "language": ("language: fr\n", "hauslm.yaml:1:1", "de, en", "H203"),
    "list item": (
        "scenario:\n  options:\n  - id: a\n    kind: clod\n",
        "hauslm.yaml:4:5",
        "cloud",
        "H203",
    ),
    "missing in item": ("scenario:\n  options:\n  - id: a\n", "hauslm.yaml:3:5", "kind", "H202"),
    "syntax": ("a: [1, 2\nb: 3\n", "hauslm.yaml:2:", "YAML", "H212"),
    "tabs": ("a:\n\tb: 1\n", "hauslm.yaml:2:1", "YAML", "H212"),
    "duplicate": ("name: a\nname: b\n", "hauslm.yaml:2:1", "", "H212"),
    "alias": ("name: &a x\nlanguage: *a\n", "hauslm.yaml:1:7", "Anchors", "H211"),
    "tag": ("name: !!python/object/apply:os.system ['true']\n", "hauslm.yaml:1:7", "", "H211"),
    "list": ("- a\n", "hauslm.yaml:1:1", "key: value", "H213"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_a_mistake_has_place_reason_and_next_step(case: str) -> None:
    text, where, hint, code = MISTAKES[case]
    with pytest.raises(ProjectFileError) as caught:
        scenario.parse(text)
    assert caught.value.exit_code == 2
    english = caught.value.text("en")
    assert where in english and hint in english and code in english, english
    german = caught.value.text("de")
    assert german != english and where in german and code in german


def test_every_mistake_is_told_not_only_the_first() -> None:
    with pytest.raises(ProjectFileError) as caught:
        scenario.parse("adapter:\n  r: 0\n  lora_alpha: -1\nfoo: 1\n")
    assert [m.where for m in caught.value.mistakes] == [
        "hauslm.yaml:2:3",
        "hauslm.yaml:3:3",
        "hauslm.yaml:4:1",
    ]


def test_defaults_and_short_forms() -> None:
    assert scenario.parse("").scenario.hardware.gpu == "rtx-4090"
    assert scenario.parse("documents: articles\n").documents.paths == ["articles"]
    assert scenario.parse("model: mistral-7b-v0.3\n").model.base == "mistral-7b-v0.3"
    assert scenario.parse("scenario: {data: {personal: yes}}\n").scenario.data.personal == "yes"
    assert scenario.parse("scenario: {data: {personal: true}}\n").scenario.data.personal == "yes"


def test_presets_fill_what_is_left_empty() -> None:
    lab = scenario.parse("adapter: {preset: lab}\n").adapter.resolved()
    assert (lab["r"], lab["lora_alpha"], lab["lora_dropout"]) == (8, 16, 0.05)
    assert lab["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert scenario.parse("adapter: {preset: lab, r: 4}\n").adapter.resolved()["r"] == 4


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_no_text_yields_an_untyped_exception(text: str) -> None:
    try:
        scenario.parse(text)
    except HauslmError as error:
        assert error.text("de") and error.exit_code == 2


YAML_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["scenario", "adapter", "r", "workload", "options", "id", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(YAML_LIKE)
def test_no_structure_yields_an_untyped_exception(value: object) -> None:
    import io

    from ruamel.yaml import YAML

    stream = io.StringIO()
    YAML().dump({"adapter": value, "scenario": value}, stream)
    try:
        scenario.parse(stream.getvalue())
    except HauslmError as error:
        assert error.exit_code == 2


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="H220"):
        scenario.load(tmp_path / "hauslm.yaml")
    (tmp_path / "hauslm.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UsageError, match="H221"):
        scenario.load(tmp_path / "hauslm.yaml")
    (tmp_path / "hauslm.yaml").write_text("name: x\n" + "# " + "x" * (1 << 20))
    with pytest.raises(UsageError, match="H210"):
        scenario.load(tmp_path / "hauslm.yaml")


def test_schema_describes_every_field_with_default() -> None:
    def walk(node: dict, path: str) -> None:
        for name, field in node.get("properties", {}).items():
            described = field.get("description") or "$ref" in str(field)
            assert described, f"{path}.{name} has no description"

    for language in ("en", "de"):
        schema = scenario.json_schema(language)
        walk(schema, "")
        for name, definition in schema["$defs"].items():
            walk(definition, name)
    assert (
        scenario.json_schema("de")["$defs"]["AdapterSection"]
        != scenario.json_schema("en")["$defs"]["AdapterSection"]
    )
