"""The three places where the time goes give what the plain path gives: attention, loss, lean LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import nn
from torch.nn.functional import cross_entropy

from hauslm.base.errors import RefusedError
from hauslm.train import attention, lean, loss
from tests.train.conftest import FAMILIES, Project, make_base

LENGTHS = (5, 1, 17, 9)


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def packed_inputs() -> tuple[list[torch.Tensor], dict[str, Any]]:
    torch.manual_seed(1)
    documents = [torch.randint(3, 90, (n,)) for n in LENGTHS]
    return documents, {
        "input_ids": torch.cat(documents).unsqueeze(0),
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS]).unsqueeze(0),
        "use_cache": False,
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [None, 6])
def test_packed_logits_are_those_of_single_documents(
    tmp_path: Path, family: str, window: int | None
) -> None:
    changes = {"sliding_window": window} if family == "mistral" else {}
    if window and not changes:
        pytest.skip("this family has no sliding window")
    model = load(make_base(tmp_path / "base", family, **changes))
    documents, inputs = packed_inputs()
    with torch.no_grad():
        alone = torch.cat([model(d.unsqueeze(0), use_cache=False).logits[0] for d in documents])
        model.set_attn_implementation(attention.register())
        packed = model(**inputs, documents=attention.Documents.of(LENGTHS)).logits[0]
        leaking = model(**inputs, documents=attention.Documents.of([sum(LENGTHS)])).logits[0]
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)
    assert (leaking - alone).abs().max() > 0.05  # the comparison would notice


def test_attention_without_bounds_is_refused(tmp_path: Path) -> None:
    model = load(make_base(tmp_path / "base"))
    model.set_attn_implementation(attention.register())
    with pytest.raises(attention.UnsupportedAttention):
        model(**packed_inputs()[1])


def test_gradients_of_packed_attention(tmp_path: Path) -> None:
    model = load(make_base(tmp_path / "base", "mistral"))
    documents, inputs = packed_inputs()
    weight = model.model.layers[0].self_attn.k_proj.weight
    for d in documents:
        model(d.unsqueeze(0), use_cache=False).logits.pow(2).sum().backward()
    expected = weight.grad.clone()
    model.zero_grad()
    model.set_attn_implementation(attention.register())
    model(**inputs, documents=attention.Documents.of(LENGTHS)).logits.pow(2).sum().backward()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("longest", [0, 512], ids=["bfloat16", "float32"])
def test_short_bfloat16_documents_attend_no_less_exactly(
    monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """Outputs and gradients of bfloat16 rows lie near those of float32, whichever way short ones go."""
    monkeypatch.setattr(attention, "FLOAT32_UP_TO", longest)
    torch.manual_seed(5)
    whole = [torch.randn(1, heads, sum(LENGTHS), 16) for heads in (4, 2, 2)]
    outer = torch.randn(1, sum(LENGTHS), 4, 16)

    def outcome(dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.to(dtype).requires_grad_() for t in whole]
        out, _ = attention.attend(
            nn.Identity(), *inputs, None, documents=attention.Documents.of(LENGTHS)
        )
        assert out.dtype == dtype
        out.backward(outer.to(dtype))
        return [out.detach().float(), *(t.grad.float() for t in inputs)]

    for ours, exact in zip(outcome(torch.bfloat16), outcome(torch.float32), strict=True):
        assert (ours - exact).norm() <= 0.01 * exact.norm()


def test_short_documents_leave_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way is taken: up to FLOAT32_UP_TO tokens torch's attention sees float32."""
    seen = []
    real = attention.scaled_dot_product_attention

    def looking(q: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.append((q.shape[2], q.dtype))
        return real(q, *rest, **more)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", looking)
    lengths = (attention.FLOAT32_UP_TO, attention.FLOAT32_UP_TO + 1)
    row = [torch.randn(1, 2, sum(lengths), 8, dtype=torch.bfloat16) for _ in range(3)]
    attention.attend(nn.Identity(), *row, None, documents=attention.Documents.of(lengths))
    assert seen == [(lengths[0], torch.float32), (lengths[1], torch.bfloat16)]


@given(
    rows=strategies.integers(1, 40),
    chunk=strategies.integers(1, 50),
    vocabulary=strategies.integers(2, 60),
    frozen=strategies.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_chunked_loss_is_cross_entropy(
    rows: int, chunk: int, vocabulary: int, frozen: bool
) -> None:
    torch.manual_seed(rows * 1000 + chunk)
    head = nn.Linear(8, vocabulary, bias=False)
    head.requires_grad_(not frozen)
    labels = torch.randint(0, vocabulary, (rows,))
    hidden = torch.randn(rows, 8, requires_grad=True)
    plain = cross_entropy(head(hidden).float(), labels, reduction="sum")
    plain.backward()
    expected, weight = hidden.grad.clone(), head.weight.grad
    hidden.grad, head.weight.grad = None, None
    ours = loss.summed_loss(hidden, head, labels, rows=chunk)
    ours.backward()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, expected, rtol=1e-4, atol=1e-6)
    if not frozen:
        torch.testing.assert_close(head.weight.grad, weight, rtol=1e-4, atol=1e-6)


def test_the_loss_holds_one_chunk_of_logits() -> None:
    assert loss.chunk_rows(32_000) * 32_000 <= loss.CHUNK_ELEMENTS
    assert loss.chunk_rows(10**9) == loss.SMALLEST_CHUNK


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_lean_layers_are_pefts(tmp_path: Path, rate: float) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        load(make_base(tmp_path / "base")),
        LoraConfig(r=4, lora_alpha=12, lora_dropout=rate, target_modules="all-linear"),
    ).train()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    torch.manual_seed(3)
    for parameter in learning.values():
        parameter.data.normal_(std=0.1)
    ids = torch.randint(3, 90, (1, 12))

    def outcome() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(4)
        model.zero_grad()
        logits = model(ids, use_cache=False).logits
        logits.pow(2).mean().backward()
        return logits.detach(), {n: p.grad.clone() for n, p in learning.items()}

    plain = outcome()
    assert lean.make_lean(model) == 14
    ours = outcome()
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-4, atol=1e-5)
    for name, gradient in plain[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-3, atol=1e-6)
    lean.make_plain(model)
    assert "forward" not in vars(model.base_model.model.model.layers[0].self_attn.q_proj)


def test_a_base_that_leaks_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof before each run notices attention that mixes documents."""
    real = attention._each

    def leaking(q: Any, k: Any, v: Any, documents: Any, *rest: Any) -> torch.Tensor:
        return real(q, k, v, attention.Documents.of([documents.bounds[-1]]), *rest)

    monkeypatch.setattr(attention, "_each", leaking)
    with pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H620"
    project.run({"packing": False})  # the way out that the message names


def test_a_wrong_loss_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loss.summed_loss
    monkeypatch.setattr(loss, "summed_loss", lambda *a, **k: real(*a, **k) * 1.01)
    with pytest.raises(RefusedError) as caught:
        project.run()
    assert caught.value.code == "H620"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_proof_holds_for_each_family(tmp_path: Path, family: str, precision: str) -> None:
    project = Project(tmp_path / "project", family=family)
    run = project.run({"precision": precision, "max_steps": 1})
    assert run.settings["packing_proof"]["logits"] <= 3e-2
    assert run.settings["precision"] == precision
