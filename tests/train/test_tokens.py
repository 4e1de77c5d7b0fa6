"""Added tokens: only their rows learn, plain PEFT reads them, every way computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from hauslm.base.errors import DataError, RefusedError
from hauslm.data.store import Example
from hauslm.lm.checks import check_adapter
from hauslm.share.weights import Merged
from hauslm.train import rows, tokens
from tests.train.conftest import VOCABULARY, Project, make_examples
from tests.train.test_eightbit import relative
from tests.train.test_run import adapter_config, weights
from tests.train.test_variants import Kept, logits_of

NEW = ["w10 w11", "w20-w21", "<GEN>"]
IDS = [96, 97, 98]
ROWS = "token_adapter.trainable_tokens_delta"
MODEL = {"added_tokens": NEW}


def with_new_ids(examples: list[Example]) -> list[Example]:
    """The same documents with new tokens strewn in."""
    generator = np.random.default_rng(7)
    made = []
    for one in examples:
        tokens = one.tokens.copy()
        for place in generator.integers(1, len(tokens) - 1, 2):
            tokens[place] = generator.integers(96, 99)
        made.append(Example(tokens, one.trained, one.meta))
    return made


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def longer(request: pytest.FixtureRequest, make_project: Any) -> Project:
    return _longer(make_project(tie_word_embeddings=request.param))


def _longer(project: Project) -> Project:
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    rust = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.save(str(project.folder.root / "base" / "tokenizer.json"))
    project.prepare(with_new_ids(make_examples(30)), with_new_ids(make_examples(6, seed=1)))
    return project


def plain(project: Project) -> torch.Tensor:
    """transformers and PEFT alone: the original base, resized, with the adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(project.folder.root / "base", dtype=torch.float32)
    base.resize_token_embeddings(VOCABULARY + len(NEW), mean_resizing=False)
    return logits_of(PeftModel.from_pretrained(base, project.folder.adapter))


@pytest.fixture(autouse=True)
def _ids_with_new_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.arange(3, 40).unsqueeze(0)
    ids[0, 5:8] = torch.tensor(IDS)
    monkeypatch.setattr("tests.train.test_variants.IDS", ids)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plain_peft_on_the_resized_base_gives_the_same(
    longer: Project, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    kept = Kept(monkeypatch)
    run = longer.run({"precision": precision, "max_steps": 8}, model=MODEL)
    assert run.loss.last < run.loss.first
    saved = weights(longer)
    learnt = {n: t for n, t in saved.items() if n.endswith(ROWS)}
    given = adapter_config(longer)["trainable_token_indices"]
    assert len(learnt) == (1 if isinstance(given, list) else 2)
    assert all(t.shape == (3, 32) and t.dtype == torch.float32 for t in learnt.values())
    assert not any(t.shape[0] >= VOCABULARY for t in saved.values())  # no whole matrix
    check_adapter(longer.folder.adapter)
    assert relative(plain(longer), kept.logits) < (1e-4 if precision == "float32" else 0.03)
    assert "added_tokens" in (longer.folder.adapter / "tokenizer.json").read_text()


def test_the_rows_have_moved_and_the_others_have_not(longer: Project) -> None:
    longer.run({"max_steps": 8}, model=MODEL)
    (folder,) = (longer.folder.work / "base-with-tokens").glob("[0-9a-f]*")
    merged, base = Merged(folder, longer.folder.adapter), Merged(folder, None)
    for name in (n for n in base.names() if n.endswith(("embed_tokens.weight", "lm_head.weight"))):
        after, before = merged.read(name), base.read(name)
        assert np.array_equal(after[:96], before[:96])
        assert (np.abs(after[96:] - before[96:]).max(axis=1) > 1e-3).all()


def test_merged_is_what_peft_merges(longer: Project) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    longer.run(model=MODEL)
    (folder,) = (longer.folder.work / "base-with-tokens").glob("[0-9a-f]*")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    whole = PeftModel.from_pretrained(base, longer.folder.adapter).merge_and_unload().state_dict()
    merged = Merged(folder, longer.folder.adapter)
    for name in merged.names():
        assert np.allclose(merged.read(name), whole[name].numpy(), atol=1e-6), name


def test_lean_rows_compute_what_peft_computes(longer: Project, monkeypatch: Any) -> None:
    from hauslm.train import leg

    seen = []

    def both(self: Any, *_: Any) -> None:
        compute = self.compute
        found = []
        for switch in (rows.make_lean, rows.make_plain):
            switch(compute.model)
            compute.model.zero_grad()
            ids = torch.tensor([[5, 96, 7, 98, 97, 96]])
            states = compute.decoder(input_ids=ids, use_cache=False).last_hidden_state
            compute.head(states).float().square().mean().backward()
            gradients = {
                n: p.grad.clone() for n, p in compute.model.named_parameters() if p.requires_grad
            }
            found.append(gradients)
        seen.append(found)
        compute.model.zero_grad(set_to_none=True)
        rows.make_lean(compute.model)

    real = leg.Leg.look
    monkeypatch.setattr(leg.Leg, "look", lambda self: (real(self), both(self))[0])
    longer.run({"packing": False}, model=MODEL)
    ((lean, usual),) = seen
    moved = [n for n in lean if ".trainable_tokens_delta." in n]
    assert moved and all(float(lean[n].abs().max()) > 0 for n in moved)
    for name, value in lean.items():
        assert torch.allclose(value, usual[name], rtol=1e-4, atol=1e-6), name


def test_resume_is_exact(longer: Project) -> None:
    longer.run({"max_steps": 6, "checkpoint_every_steps": 3}, model=MODEL)
    whole = weights(longer)
    import shutil

    assert [p.name for p in longer.checkpoints][-1].endswith("6")
    shutil.rmtree(longer.checkpoints[-1])
    run = longer.run({"max_steps": 6, "checkpoint_every_steps": 3}, model=MODEL, resume=True)
    assert run.resumed_from
    again = weights(longer)
    assert all(torch.equal(whole[n], again[n]) for n in whole)


@pytest.mark.parametrize("training", [{"base_precision": "int8"}, {"method": "full"}])
def test_other_ways_of_training(longer: Project, training: dict[str, Any]) -> None:
    run = longer.run(training, model=MODEL)
    assert run.loss.last > 0
    if training.get("method") != "full":
        assert run.settings["gate"]["layers"] == 14  # the head with rows that learn is not rounded


@pytest.mark.parametrize("stored", ["nf4", "int8"])
def test_quantised_bases(longer: Project, stored: str) -> None:
    run = longer.run(model=MODEL | {"quantisation": stored})
    assert any(n.endswith(ROWS) for n in weights(longer)), run


def test_the_adapter_is_refused_on_the_shorter_base(longer: Project) -> None:
    from transformers import AutoModelForCausalLM

    from hauslm.lm.adapters import Adapters

    longer.run(model=MODEL)
    base: Any = AutoModelForCausalLM.from_pretrained(longer.folder.root / "base")
    with pytest.raises(RefusedError) as caught:
        Adapters(base).load("team", longer.folder.adapter)
    assert caught.value.code == "H807" and "model.added_tokens" in str(caught.value.next_step)


def test_a_strangers_rows_are_looked_at(longer: Project) -> None:
    from hauslm.share.tensors import problem

    longer.run(model=MODEL)
    file = longer.folder.adapter / "adapter_model.safetensors"
    config = adapter_config(longer)

    def found(config: dict[str, Any], base: dict[str, Any] | None = None) -> str:
        with file.open("rb") as stream:
            return str(problem(stream, file.stat().st_size, config, base) or "")

    base = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    base |= {"num_key_value_heads": 2, "intermediate_size": 64}
    assert found(config, base) == ""
    given = config["trainable_token_indices"]
    module = "embed_tokens"
    assert "one row" in found(
        config | {"trainable_token_indices": {module: IDS[:2], "lm_head": IDS}}
    )
    assert "does not belong" in found(config | {"trainable_token_indices": None})
    more = {module: IDS, "lm_head": IDS} if isinstance(given, list) else given | {"other": IDS}
    assert "no rows" in found(config | {"trainable_token_indices": more})


def test_what_contradicts_is_refused(longer: Project) -> None:
    with pytest.raises(RefusedError) as caught:
        longer.run({}, {"modules_to_save": ["embed_tokens"]}, model=MODEL)
    assert caught.value.code == "H605"
    with pytest.raises(DataError) as wrong:
        longer.run(model={"added_tokens": ["w10"]})
    assert wrong.value.code == "H447"


def test_without_added_tokens_nothing_changes(make_project: Any) -> None:
    project = make_project()
    project.run()
    assert adapter_config(project)["trainable_token_indices"] is None
    assert not (project.folder.work / "base-with-tokens").exists()
    assert tokens.KEY not in project.scenario({}, {}).adapter.resolved()
