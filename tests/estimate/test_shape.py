"""Parameter counts from the shape alone equal the published ones."""

from __future__ import annotations

import pytest

from hauslm.base.errors import UsageError
from hauslm.catalog import load
from hauslm.catalog.schema import Architecture
from hauslm.estimate import shape

OPEN = [m for m in load.models() if m.architecture is not None]
# The published count holds a picture tower, counts a tied matrix twice, or counts scales of MXFP4.
MORE_THAN_THE_DECODER = {
    "gemma-3-4b", "gemma-3-12b", "gemma-3-27b", "ministral-3-8b", "ministral-3-14b",
    "mistral-small-3.2-24b", "qwen3-0.6b", "qwen3-1.7b", "gpt-oss-20b",
}  # fmt: skip


@pytest.mark.parametrize("model", OPEN, ids=lambda m: m.id)
def test_counts_equal_the_published_ones(model):
    if model.parameters is None:
        pytest.skip("no published count")
    total = shape.counts(model.architecture).total
    if model.id in MORE_THAN_THE_DECODER:
        assert total < model.parameters.value
    else:
        assert total == pytest.approx(model.parameters.value, rel=1e-3)


def _mistral() -> Architecture:
    found = load.model("mistral-7b-v0.3").architecture
    assert found is not None
    return found


def test_adapter_parameters_are_rank_times_in_plus_out():
    lab = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert shape.adapter_parameters(_mistral(), lab, 8) == 6_815_744
    assert shape.adapter_parameters(_mistral(), "attention", 8) == 6_815_744
    assert shape.adapter_parameters(_mistral(), "all-linear", 16) == 41_943_040


def test_joint_matrices_answer_to_the_separate_names():
    phi = load.model("phi-3-mini-4k").architecture
    names = {x.name for x in shape.adapted(phi, ("q_proj", "v_proj", "o_proj"))}
    assert names == {"qkv_proj", "o_proj"}


def test_unknown_module_names_the_nearest():
    with pytest.raises(UsageError) as caught:
        shape.adapted(_mistral(), ("q_porj",))
    assert caught.value.code == "H151"
    assert "q_proj" in str(caught.value)
