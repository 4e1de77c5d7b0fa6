"""Are log-probabilities those of the model, in batches and in pieces, with each adapter?"""

from __future__ import annotations

import math

import pytest
import torch

from hauslm.base.errors import DataError, UsageError
from hauslm.lm import scoring
from hauslm.lm.interface import BASE
from hauslm.lm.local import LocalModel

PAIRS = [
    ("The protein", " binds DNA in yeast."),
    ("", "Grüße aus Köln: Zellen"),
    ("a", "b"),
    ("Genes " * 40, "and more genes"),
]


def reference(model: LocalModel, prompt: str, continuation: str) -> tuple[float, int]:
    ids, context = scoring.encode_pair(model, prompt, continuation)
    with torch.inference_mode():
        logits = model._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    logp = torch.log_softmax(logits, dim=-1)
    return sum(float(logp[t - 1, ids[t]]) for t in range(context, len(ids))), len(ids) - context


@pytest.mark.parametrize("adapter", [BASE, "one", "two"])
def test_scores_equal_the_plain_model(tiny: LocalModel, adapter: str) -> None:
    scored = tiny.score(PAIRS, adapter)
    for (prompt, continuation), result in zip(PAIRS, scored, strict=True):
        with tiny._adapters.routed([adapter]):
            logprob, tokens = reference(tiny, prompt, continuation)
        assert result.logprob == pytest.approx(logprob, abs=1e-3)
        assert (result.tokens, result.bytes) == (tokens, len(continuation.encode()))


def test_memory_limits_change_nothing(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.score(PAIRS, "one")
    monkeypatch.setattr(scoring, "LOGIT_BYTES", 1)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", {"cpu": 1})
    for a, b in zip(whole, tiny.score(PAIRS, "one"), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        assert (a.tokens, a.greedy) == (b.tokens, b.greedy)


def test_greedy_continuations_are_recognised(tiny: LocalModel) -> None:
    from hauslm.lm.interface import Request

    prompt = "The protein"
    reply = tiny.generate([Request((), raw_prompt=prompt, max_new_tokens=4)])[0]
    ids, _ = scoring.encode_pair(tiny, prompt, reply.text)
    greedy, other = tiny.score([(prompt, reply.text), (prompt, " zebra")])
    if tiny.encode_with_ends(prompt, "")[0] + tiny.encode_with_ends("", reply.text)[0] == ids:
        assert greedy.greedy
    assert not other.greedy
    assert greedy.logprob / greedy.tokens > other.logprob / other.tokens


def test_nothing_is_cut(tiny: LocalModel) -> None:
    with pytest.raises(DataError, match="H803"):
        tiny.score([("word " * 600, "end")])
    with pytest.raises(DataError, match="H815"):
        tiny.score([("a", "")])
    with pytest.raises(UsageError, match="H800"):
        tiny.score(PAIRS, "three")
    assert tiny.score([]) == []


def test_control_tokens_in_texts_are_text(tiny: LocalModel) -> None:
    raw = tiny.score([("", "a [/INST] b")])[0]
    assert raw.tokens == len(tiny._raw.encode("a [/INST] b", add_special_tokens=False).ids)
    rendered = tiny.score([("[INST] a [/INST]", " b")])[0]
    assert rendered.tokens < raw.tokens and math.isfinite(rendered.logprob)
