"""Block by block equals torch's own attention; the last layer's shortcut changes no logit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hauslm.lm import attention, decode
from hauslm.lm.cache import SlotCache, slot_mask
from hauslm.lm.interface import BASE, Message, Request
from hauslm.lm.local import LocalModel


@settings(max_examples=40, deadline=None)
@example(new=2, starts=[0], stored=2, group=3, written_mask=False)
@given(
    new=st.integers(2, 200),
    starts=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    stored=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 3]),
    written_mask=st.booleans(),
)
def test_blocks_equal_the_fused_kernel(
    new: int, starts: list[int], stored: int, group: int, written_mask: bool
) -> None:
    torch.manual_seed(new)
    if not written_mask:
        starts = [0] * len(starts)
    rows, slots = len(starts), max(starts) + new
    query = torch.randn(rows, stored * group, new, 8)
    key, value = torch.randn(2, rows, stored, slots, 8)
    positions = torch.tensor(starts)[:, None] + torch.arange(new)
    mask = slot_mask(positions, slots)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, enable_gqa=True
    ).transpose(1, 2)
    given_mask = None
    if written_mask:
        given_mask = mask
        attention.see_up_to(given_mask, starts)
    module: Any = torch.nn.Module()
    module.num_key_value_groups = group  # a few tokens without a mask stay with the fused kernel
    found, _ = attention.attention(module, query, key, value, given_mask)
    assert torch.allclose(found, expected, atol=2e-5)


def test_the_last_layer_leaves_out_only_what_nobody_reads(
    tiny: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same logits and the same keys and values as when all positions are computed."""
    tokens = torch.arange(40).reshape(2, 20) % tiny.vocabulary_size
    positions = torch.arange(20).expand(2, 20)
    sizes: list[int] = []
    layers = tiny._model.get_decoder().layers
    layers[-1].mlp.register_forward_hook(lambda _, given, out: sizes.append(out.shape[1]))
    inner = next(m for m in layers[-1].mlp.modules() if isinstance(m, torch.nn.Linear))
    inner.register_forward_hook(lambda _, given, out: sizes.append(given[0].shape[1]))

    def read() -> tuple[torch.Tensor, SlotCache]:
        cache = SlotCache(2)
        cache.aim([0, 1], positions, 20, fresh=True)
        with torch.inference_mode():
            return tiny.forward_last(tokens, positions, None, cache, [BASE, BASE], [19, 7]), cache

    short, kept = read()
    assert 2 in sizes, "the last MLP saw every position"
    sizes.clear()
    monkeypatch.setattr(tiny, "_last_layer", -1)
    monkeypatch.setattr(
        layers[-1].mlp, "forward", type(layers[-1].mlp).forward.__get__(layers[-1].mlp)
    )
    whole, all_of_it = read()
    assert 2 not in sizes
    assert torch.allclose(short, whole, atol=1e-5)
    for mine, theirs in zip(kept.keys, all_of_it.keys, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_other_threads_passes_are_not_cut_short(tiny: LocalModel) -> None:
    """What one lane asks for is no other lane's business, and ends with the pass."""
    with attention.only([3], 10, 0, "cpu"):
        assert attention._now.wanted is not None
    assert attention._now.wanted is None


def test_forced_tokens_are_not_padded_to_a_prompts_length(
    tiny: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that share a beginning go on from it; a short forced piece beside a long prompt would be
    read as if it were as long."""
    forced = "a sentence that the schema forces letter by letter " * 2
    schema = {"type": "object", "properties": {"q": {"const": forced}}, "required": ["q"],
              "additionalProperties": False}  # fmt: skip
    head = "the same instruction for every one of these questions " * 3
    requests = [
        Request((Message("user", head + "word " * n),), json_schema=schema, max_new_tokens=150)
        for n in (5, 40, 60, 80, 90)
    ]
    widths: list[tuple[int, int]] = []
    read = decode.Decoder._read

    def watched(self: decode.Decoder, cache: SlotCache, places: list[int], rows, pieces):  # type: ignore[no-untyped-def]
        widths.append((sum(map(len, pieces)), max(map(len, pieces)) * len(pieces)))
        return read(self, cache, places, rows, pieces)

    alone = [tiny.generate([r])[0].text for r in requests]
    monkeypatch.setattr(decode.Decoder, "_read", watched)
    monkeypatch.setattr(tiny, "batch_size", 2)
    assert [r.text for r in tiny.generate(requests)] == alone
    assert sum(real for real, _ in widths) > 0.8 * sum(padded for _, padded in widths)
