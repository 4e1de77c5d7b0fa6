"""Is every schema-bound answer valid, and is what cannot be bound refused before the first token?"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.base.errors import UsageError
from hauslm.lm import schema as schemas
from hauslm.lm.interface import BASE, Message, Request
from hauslm.lm.local import LocalModel


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


BOUND: dict[str, dict[str, Any]] = {
    "enum": {"enum": ["yes", "no", "nicht angegeben"]},
    "string": {"type": "string", "maxLength": 12},
    "object": an_object(
        label={"enum": ["a", "b"]},
        n={"type": "integer", "minimum": -3, "maximum": 120},
        quote={"type": "string", "maxLength": 20},
    ),
    "array": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": an_object(name={"type": "string", "minLength": 1, "maxLength": 6}),
    },
    "reference": {
        "$defs": {"p": an_object(x={"type": ["string", "null"], "maxLength": 5})},
        **an_object(first={"$ref": "#/$defs/p"}, second={"$ref": "#/$defs/p"}),
    },
    "choice": {"anyOf": [{"type": "boolean"}, an_object(ok={"const": 1})]},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "date": {"type": "string", "format": "date"},
}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_every_answer_is_valid_in_one_mixed_batch(tiny: LocalModel, temperature: float) -> None:
    asked = [
        Request(
            (Message("user", f"Fill in: {name}"),),
            max_new_tokens=120,
            adapter=adapter,
            temperature=temperature,
            seed=seed,
            json_schema=schema,
        )
        for name, schema in BOUND.items()
        for seed, adapter in enumerate((BASE, "one", "two"))
    ]
    asked.insert(1, Request((Message("user", "free text"),), max_new_tokens=5))
    for request, reply in zip(asked, tiny.generate(asked), strict=True):
        if request.json_schema is not None:
            assert reply.finish_reason == "stop"
            value, reason = schemas.parse(reply.text, request.json_schema)
            assert reason == "", (reply.text, reason)
            jsonschema.validate(value, request.json_schema)
        else:
            assert reply.usage.completion_tokens <= 5


def test_forced_tokens_do_not_change_log_probability_mode(tiny: LocalModel) -> None:
    request = Request((Message("user", "x"),), json_schema=BOUND["object"], max_new_tokens=90)
    counted = Request(
        request.messages, json_schema=BOUND["object"], max_new_tokens=90, logprobs=True
    )
    plain, singly = tiny.generate([request, counted])
    assert singly.finish_reason == plain.finish_reason == "stop"
    assert len(singly.logprobs) == singly.usage.completion_tokens
    assert schemas.parse(singly.text, BOUND["object"])[1] == ""


@pytest.mark.parametrize("logprobs", [False, True])
def test_spellings_of_control_tokens_can_be_quoted(tiny: LocalModel, logprobs: bool) -> None:
    sentences = ["Say [/INST] results </s> now.", "Then [INST] <s> again."]
    schema = an_object(q={"enum": sentences})
    request = Request(
        (Message("user", "x"),), json_schema=schema, max_new_tokens=60, logprobs=logprobs
    )
    reply = tiny.generate([request])[0]
    assert reply.finish_reason == "stop"
    assert json.loads(reply.text)["q"] in sentences


def test_a_cut_answer_says_so(tiny: LocalModel) -> None:
    reply = tiny.generate(
        [Request((Message("user", "x"),), json_schema=BOUND["object"], max_new_tokens=6)]
    )[0]
    assert reply.finish_reason == "length"
    assert schemas.parse(reply.text, BOUND["object"])[1].startswith("JSON")


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "H802"),
        ({"not": {"type": "string"}}, "H802"),
        ({"type": "string", "format": "shoe-size"}, "H802"),
        ({"type": "sandwich"}, "H801"),
        ({"$ref": "https://example.org/schema.json"}, "H801"),
        ({"type": "object", "properties": 3}, "H801"),
    ],
)
def test_what_cannot_be_enforced_is_refused(
    tiny: LocalModel, schema: dict[str, Any], code: str
) -> None:
    good = Request((Message("user", "x"),), max_new_tokens=3)
    bad = Request((Message("user", "x"),), max_new_tokens=3, json_schema=schema)
    with pytest.raises(UsageError, match=code):
        tiny.generate([good, bad])


def test_deep_schemas_are_refused_not_followed(tiny: LocalModel) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    with pytest.raises(UsageError, match="H801"):
        schemas.check(deep)


leaves = st.one_of(
    st.builds(
        lambda low, extra: {"type": "string", "minLength": low, "maxLength": low + extra},
        st.integers(0, 5),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, extra: {"type": "integer", "minimum": low, "maximum": low + extra},
        st.integers(-50, 50),
        st.integers(0, 50),
    ),
    st.builds(
        lambda v: {"enum": v}, st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)
    ),
    st.just({"type": "boolean"}),
    st.just({"type": ["null", "string"], "maxLength": 3}),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda item, low, extra: {
                "type": "array", "items": item, "minItems": low, "maxItems": low + extra
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 3),
        ),
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(
            lambda p: an_object(**p)
        ),
    ),
    max_leaves=6,
)  # fmt: skip


@given(schema=trees, factor=st.floats(0.1, 1.0))
def test_smallest_instances_and_tightened_schemas_fit(
    schema: dict[str, Any], factor: float
) -> None:
    value = schemas.smallest_instance(schema)
    tight = schemas.tightened(schema, factor)
    assert schemas.invalid(schemas.smallest_instance(tight), schema) == ""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert len(written) <= schemas.longest_characters(schema)
    assert schemas.longest_characters(tight) <= schemas.longest_characters(schema)


def test_unbounded_schemas_are_known_as_such() -> None:
    assert schemas.longest_characters({"type": "string"}) == float("inf")
    assert schemas.longest_characters({"type": "object", "properties": {}}) == float("inf")
    assert schemas.longest_characters(BOUND["object"]) < 80
