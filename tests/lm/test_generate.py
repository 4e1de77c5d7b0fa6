"""Does a row's answer depend on its prompt alone, and is it what the plain model would say?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.lm import lanes
from hauslm.lm.interface import BASE, Message, Reply, Request, TokenLogprob
from hauslm.lm.local import LocalModel

TEXTS = ("A cell.", "The protein binds DNA in yeast.", "Genes, genes and more genes. " * 9, "x")


def ask(text: str, **options: Any) -> Request:
    return Request((Message("user", text),), **({"max_new_tokens": 12} | options))


def requests(**options: Any) -> list[Request]:
    return [ask(t, adapter=a, **options) for t in TEXTS for a in (BASE, "one", "two")]


def essence(reply: Reply) -> tuple[Any, ...]:
    return reply.text, reply.finish_reason, reply.usage


def test_batch_equals_single_for_mixed_adapters(tiny: LocalModel) -> None:
    batch = tiny.generate(requests())
    single = [tiny.generate([r])[0] for r in requests()]
    assert [essence(r) for r in batch] == [essence(r) for r in single]
    assert len({r.text for r in batch[3:6]}) == 3, "the adapters must differ from the base"


def test_mixed_batch_logits_equal_single_adapter_logits(tiny: LocalModel) -> None:
    asked = requests(top_logprobs=5)
    batch = tiny.generate(asked)
    for request, reply in zip(asked, batch, strict=True):
        alone = tiny.generate([request])[0]
        assert reply.logprobs and len(reply.logprobs) == reply.usage.completion_tokens
        for a, b in zip(reply.logprobs, alone.logprobs, strict=True):
            assert a.token_id == b.token_id
            assert a.logprob == pytest.approx(b.logprob, abs=1e-5)
            assert [t[0] for t in a.top] == [t[0] for t in b.top]
            assert [t[2] for t in a.top] == pytest.approx([t[2] for t in b.top], abs=1e-5)


def test_adapter_equals_peft_itself(
    tiny_base: Path, adapter_folders: dict[str, Path], tiny: LocalModel
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    peft = PeftModel.from_pretrained(plain, adapter_folders["two"]).eval()
    request = ask(TEXTS[1], adapter="two", max_new_tokens=10)
    ids = torch.tensor([tiny.prompt_ids(request)])
    expected = peft.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False
    )
    new = expected[0, ids.shape[1] :].tolist()
    new = new[: new.index(2)] if 2 in new else new
    assert tiny.generate([request])[0].text == tiny.decode(new)


Sizes = dict[str, Any]
ARCHITECTURES: dict[str, Callable[[Sizes], Any]] = {}


def _architecture(make: Callable[[Sizes], Any]) -> Callable[[Sizes], Any]:
    ARCHITECTURES[make.__name__] = make
    return make


@_architecture
def mistral_sliding(sizes: Sizes) -> Any:
    from transformers import MistralConfig

    return MistralConfig(**sizes, sliding_window=24)


@_architecture
def qwen2_mixed_windows(sizes: Sizes) -> Any:
    from transformers import Qwen2Config

    own = {k: v for k, v in sizes.items() if k != "head_dim"}
    return Qwen2Config(**own, use_sliding_window=True, sliding_window=24, max_window_layers=1)


@_architecture
def gemma2_softcapped(sizes: Sizes) -> Any:
    from transformers import Gemma2Config

    return Gemma2Config(**sizes, sliding_window=24, query_pre_attn_scalar=16)


@_architecture
def qwen3(sizes: Sizes) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**sizes)


@_architecture
def gpt2_learned_positions(sizes: Sizes) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=6144,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=512,
        bos_token_id=1,
        eos_token_id=2,
    )


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_decoding_equals_the_plain_model(
    name: str, make_model: Callable[..., Path], sizes: Sizes
) -> None:
    """Our cache, masks and prefix sharing against full forward passes of transformers."""
    model = LocalModel.load(make_model(name, ARCHITECTURES[name](sizes)))
    asked = [ask(t, top_logprobs=1, max_new_tokens=8) for t in TEXTS] + [ask(TEXTS[2] * 2)]
    for request, reply in zip(asked, model.generate(asked), strict=True):
        ids = model.prompt_ids(request)
        for token in reply.logprobs:
            with torch.inference_mode():
                logits = model._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            logprob = torch.log_softmax(logits.float(), dim=-1)[token.token_id]
            assert token.logprob == pytest.approx(float(logprob), abs=2e-4)
            ids.append(token.token_id)


def test_shared_prefix_changes_nothing(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "Answer in one word and quote the passage of the article that you rest upon. "
    asked = [ask(long * 3 + t, adapter=a) for t in TEXTS for a in (BASE, "one")]
    monkeypatch.setattr(LocalModel, "prefix_pays", lambda *_: True)
    found = lanes.shared_prefixes(asked, [tiny.prompt_ids(r) for r in asked])
    assert [(adapter, len(ids) > 16) for adapter, ids, _ in found] == [(BASE, True), ("one", True)]
    shared = tiny.generate(asked)
    monkeypatch.setattr(lanes, "SHARED_PREFIX_TOKENS", 10_000)
    assert [essence(r) for r in shared] == [essence(r) for r in tiny.generate(asked)]


def test_prefixes_are_shared_where_that_saves_work(
    tiny: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.prefix_pays(20, 2000)  # our attention computes nothing that nobody may see
    monkeypatch.setattr(tiny, "_own_attention", False)
    assert tiny.prefix_pays(200, 30)
    assert not tiny.prefix_pays(20, 2000)


def test_merged_adapters_answer_alike_and_alone(
    tiny_base: Path, adapter_folders: dict[str, Path], tiny: LocalModel
) -> None:
    model = LocalModel.load(tiny_base, adapter_folders)
    model.merge("one")
    asked = [ask(t, adapter="one") for t in TEXTS]
    assert [r.text for r in model.generate(asked)] == [r.text for r in tiny.generate(asked)]
    assert model.engine["merged"] == "one" and "merged" not in tiny.engine
    with pytest.raises(UsageError, match="H800"):
        model.generate([ask("x")])
    half = LocalModel.load(tiny_base, adapter_folders, dtype="bfloat16")
    with pytest.raises(RefusedError, match="H817"):
        half.merge("one")


def test_long_prompts_are_read_in_pieces(tiny: LocalModel) -> None:
    request = ask(TEXTS[2] * 3, adapter="one")
    whole = tiny.generate([request])[0]
    decoder = tiny.decoder(2)
    decoder._prefill_tokens = 16
    decoder.admit(request)
    decoder.admit(ask(TEXTS[0]))
    replies = [e.reply for _ in range(200) for e in decoder.step() if e.reply]
    assert essence(whole) in [essence(r) for r in replies]
    assert decoder.pending == 0


def test_seeded_sampling_is_repeatable_and_independent(tiny: LocalModel) -> None:
    options = {"temperature": 1.2, "top_p": 0.9, "max_new_tokens": 10}
    asked = [ask(t, seed=s, **options) for t in TEXTS[:2] for s in (1, 2)]
    first = tiny.generate(asked)
    assert [r.text for r in first] == [r.text for r in tiny.generate(asked[::-1])][::-1]
    assert [r.text for r in first] == [tiny.generate([r])[0].text for r in asked]
    assert first[0].text != first[1].text


def test_top_p_keeps_only_the_nucleus(tiny: LocalModel) -> None:
    greedy = tiny.generate([ask(TEXTS[0])])[0]
    tight = tiny.generate([ask(TEXTS[0], temperature=1.0, top_p=1e-9, seed=3)])[0]
    assert greedy.text == tight.text


def test_stop_strings_cut_and_stop(tiny: LocalModel) -> None:
    free = tiny.generate([ask(TEXTS[1], max_new_tokens=20)])[0]
    assert free.finish_reason == "length" and free.usage.completion_tokens == 20
    stop = free.text[4:7]
    cut = tiny.generate([ask(TEXTS[1], max_new_tokens=20, stop=(stop, "never said"))])[0]
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.usage.completion_tokens < 20


def test_end_token_stops(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = tiny.generate([ask(TEXTS[1], logprobs=True)])[0]
    third = free.logprobs[2].token_id
    monkeypatch.setattr(tiny, "eos_ids", frozenset({third}))
    ended = tiny.generate([ask(TEXTS[1])])[0]
    assert ended.finish_reason == "stop"
    assert ended.usage.completion_tokens == [t.token_id for t in free.logprobs].index(third)


def test_stream_says_the_same_in_pieces(tiny: LocalModel) -> None:
    request = ask(TEXTS[1], stop=("zzz",), logprobs=True, adapter="two")
    parts = list(tiny.stream(request))
    whole = tiny.generate([request])[0]
    assert "".join(p for p in parts if isinstance(p, str)) == whole.text
    assert tuple(p for p in parts if isinstance(p, TokenLogprob)) == pytest.approx(whole.logprobs)
    assert isinstance(parts[-1], Reply) and essence(parts[-1]) == essence(whole)


def test_context_overflow_is_refused_not_cut(tiny: LocalModel) -> None:
    with pytest.raises(DataError, match="H803"):
        tiny.generate([ask("word " * 600)])
    fits = ask("word " * 100)
    room = tiny.context_length - len(tiny.prompt_ids(fits))
    with pytest.raises(DataError, match="H803"):
        tiny.generate([dataclasses.replace(fits, max_new_tokens=room + 1)])
    full = tiny.generate([dataclasses.replace(fits, max_new_tokens=room)])[0]
    assert full.usage.prompt_tokens + full.usage.completion_tokens <= tiny.context_length


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapter": "thre"},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"max_new_tokens": 0},
        {"top_logprobs": 21},
        {"stop": ("",)},
    ],
)
def test_impossible_requests_are_refused(tiny: LocalModel, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        tiny.generate([ask("x", **wrong)])


def test_rows_enter_and_leave_a_running_batch(tiny: LocalModel) -> None:
    expected = [essence(r) for r in tiny.generate(requests())]
    decoder = tiny.decoder(3)
    waiting = list(enumerate(requests()))
    handles: dict[int, int] = {}
    replies: dict[int, Reply] = {}
    while waiting or decoder.pending:
        if waiting:  # one more row joins at every step
            index, request = waiting.pop()
            handles[decoder.admit(request)] = index
        for event in decoder.step():
            if event.reply:
                replies[handles[event.handle]] = event.reply
    assert [essence(replies[i]) for i in range(len(expected))] == expected


def test_a_cancelled_row_leaves_the_others_alone(tiny: LocalModel) -> None:
    decoder = tiny.decoder(2)
    gone, kept = decoder.admit(ask(TEXTS[2])), decoder.admit(ask(TEXTS[1], adapter="one"))
    waiting = decoder.admit(ask(TEXTS[0]))
    decoder.step()
    decoder.step()
    decoder.cancel(gone)
    decoder.cancel(waiting)
    replies = {e.handle: e.reply for _ in range(40) for e in decoder.step() if e.reply}
    assert set(replies) == {kept}
    assert essence(replies[kept]) == essence(tiny.generate([ask(TEXTS[1], adapter="one")])[0])


def test_adapters_come_and_go(tiny_base: Path, adapter_folders: dict[str, Path]) -> None:
    model = LocalModel.load(tiny_base)
    before = model.generate([ask(TEXTS[1])])[0].text
    model.load_adapter("one", adapter_folders["one"])
    model.load_adapter("weight", adapter_folders["two"])  # a name that is an attribute inside PEFT
    adapted = [model.generate([ask(TEXTS[1], adapter=a)])[0].text for a in (BASE, "one", "weight")]
    assert adapted[0] == before and len(set(adapted)) == 3
    model.unload_adapter("one")
    assert model.adapters() == ("weight",)
    assert model.generate([ask(TEXTS[1], adapter="weight")])[0].text == adapted[2]
    with pytest.raises(UsageError, match="H800"):
        model.generate([ask(TEXTS[1], adapter="one")])
    model.unload_adapter("weight")
    assert model.generate([ask(TEXTS[1])])[0].text == before
    model.load_adapter("one", adapter_folders["one"])
    assert model.generate([ask(TEXTS[1], adapter="one")])[0].text == adapted[1]


def test_dora_adapters_share_a_batch_without_mixing(
    tiny_base: Path,
    adapter_folders: dict[str, Path],
    make_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """PEFT cannot mix DoRA into a batch; our rows are then run in groups, not refused or wrong."""
    dora = make_adapter(tiny_base, tmp_path / "dora", 5, use_dora=True)
    model = LocalModel.load(tiny_base, {**adapter_folders, "dora": dora})
    asked = [ask(t, adapter=a) for t in TEXTS[:2] for a in (BASE, "one", "dora")]
    alone = [model.generate([r])[0].text for r in asked]
    assert [r.text for r in model.generate(asked)] == alone
    assert len(set(alone[:3])) == 3


def test_raw_prompts_get_exactly_one_begin_token(tiny: LocalModel) -> None:
    rendered = tiny.render((Message("user", "Hello"),))
    raw = Request((), raw_prompt=rendered)
    assert tiny.prompt_ids(raw) == tiny.prompt_ids(ask("Hello"))
    assert tiny.prompt_ids(Request((), raw_prompt="Hello")).count(1) <= 1
    assert tiny.prompt_ids(Request((), raw_prompt="")) == [1]
