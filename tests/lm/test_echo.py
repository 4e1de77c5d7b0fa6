"""Does the stand-in keep the contract that the real models keep?"""

from __future__ import annotations

import json

import pytest

from hauslm.base.errors import DataError, UsageError
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import BASE, LanguageModel, Message, Reply, Request
from hauslm.lm.schema import parse

ASK = Request((Message("user", "Was bindet DNA in der Hefe?"),))


def test_it_is_a_language_model_and_repeats_itself() -> None:
    model: LanguageModel = EchoModel(["team"])
    first, second = model.generate([ASK, ASK])
    assert first.text == second.text == "Was bindet DNA in der Hefe?"
    assert first.finish_reason == "stop" and first.usage.completion_tokens == 6
    assert model.generate([Request(ASK.messages, adapter="team")])[0].text.startswith("[team]")
    assert model.adapters() == ("team",) and BASE not in model.adapters()


def test_schemas_limits_and_stops_are_honoured() -> None:
    model = EchoModel()
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3}, "t": {"type": "string"}},
        "required": ["n"],
    }
    reply = model.generate([Request(ASK.messages, json_schema=schema)])[0]
    assert json.loads(reply.text) == {"n": 3} and parse(reply.text, schema)[1] == ""
    cut = model.generate([Request(ASK.messages, max_new_tokens=2)])[0]
    assert (cut.text, cut.finish_reason) == ("Was bindet", "length")
    stopped = model.generate([Request(ASK.messages, stop=("DNA",))])[0]
    assert (stopped.text, stopped.finish_reason) == ("Was bindet ", "stop")


def test_it_refuses_what_real_models_refuse() -> None:
    model = EchoModel(context_length=20)
    with pytest.raises(DataError, match="H803"):
        model.generate([Request((Message("user", "word " * 30),))])
    with pytest.raises(UsageError, match="H800"):
        model.generate([Request(ASK.messages, adapter="team", max_new_tokens=1)])
    with pytest.raises(UsageError, match="H801"):
        model.generate([Request(ASK.messages, json_schema={"type": "x"}, max_new_tokens=1)])


def test_streams_add_up() -> None:
    parts = list(EchoModel().stream(ASK))
    assert isinstance(parts[-1], Reply)
    assert "".join(p for p in parts if isinstance(p, str)) == parts[-1].text


def test_scores_are_uniform_over_bytes() -> None:
    scored = EchoModel().score([("a", "bcd"), ("", "ü")])
    assert [s.bytes for s in scored] == [3, 2]
    assert scored[0].logprob / 3 == pytest.approx(scored[1].logprob / 2)
