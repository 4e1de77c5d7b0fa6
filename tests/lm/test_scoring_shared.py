"""Pairs that share a prompt read it once; nothing of the result changes."""

from __future__ import annotations

import pytest
import torch

from hauslm.lm import scoring
from hauslm.lm.interface import BASE
from hauslm.lm.local import LocalModel


@pytest.mark.parametrize("adapter", [BASE, "one"])
def test_pairs_with_one_prompt_share_it_and_change_nothing(
    tiny: LocalModel, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [
        (prompt, label)
        for prompt in ("Proteins fold in many", "Genes " * 30, "")
        for label in (" ways", " ways and more", " zebra stripes", " Köln")
    ]
    together = tiny.score(pairs, adapter)
    rows = scoring.shared_rows([scoring.encode_pair(tiny, *p) for p in pairs])
    assert len(rows) == 3
    monkeypatch.setattr(scoring, "SHARED_TOKENS", 0)
    for a, b in zip(together, tiny.score(pairs, adapter), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.tokens, a.greedy) == (b.tokens, b.greedy)


def test_continuations_in_a_sliding_window_do_not_see_too_far() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 3, 4]])
    parts = torch.tensor([[0, 0, 0, 1, 2, 2]])
    seen = scoring.part_mask(positions, parts, window=3)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 1, 0],
        [0, 0, 1, 0, 1, 1],
    ]
