"""The training benchmarks: their page is what they gave, their arithmetic is right, their scripts run."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script(path: str) -> Any:
    name = "bench_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_page_is_what_the_benchmarks_gave(language: str) -> None:
    script = _script("scripts/performance.py")
    script.speak(language)
    assert script.PAGES[language].read_text(encoding="utf-8") == script.page()


def test_a_missed_target_is_said_with_its_distance() -> None:
    script = _script("scripts/performance.py")
    script.speak("en")

    def row(wall: float, memory: float, loss: float) -> dict[str, float]:
        return {
            "tokens_per_second_ours_over_it": wall,
            "tokens_per_cpu_second_ours_over_it": wall,
            "peak_rss_gib": memory,
            "validation_loss": loss,
        }

    rows = {"dynamic": row(2.0, 1.0, 4.0), "padded": row(6.0, 2.0, 4.0), "ours": row(1, 1.1, 4.1)}
    said = "\n".join(script._verdicts(rows))
    assert "2.00 by the clock: missed by 20%" in said and "6.00 by the clock: reached" in said
    assert "packed: target 1.3 times, not measured" in said
    assert "memory is higher than that of" in said and "by 10.0%" in said
    assert "validation loss is higher than that of" in said and "by 2.5%" in said
    rows["ours"] = row(1, 1.0, 4.01)
    said = "\n".join(script._verdicts(rows))
    assert said.count("no higher than any other's") == 2


def test_the_exponent_of_a_power_is_found() -> None:
    script = _script("benchmarks/scaling.py")
    sizes = [1.0, 4.0, 16.0]
    assert script.exponent(sizes, [3 * n**1.3 for n in sizes]) == pytest.approx(1.3)


def test_documents_have_the_amount_and_length_that_is_asked(tmp_path: Path) -> None:
    script = _script("benchmarks/scaling.py")
    found = script.documents(tmp_path, 3000, 256)  # no shared data there: the embedded documents
    assert max(map(len, found)) <= 256
    assert 3000 - 8 <= sum(map(len, found)) <= 3000


def test_real_documents_keep_their_prompts_unlabelled(shared_data: Path) -> None:
    script = _script("benchmarks/train_cpu.py")
    documents = script.tokenised(shared_data, 4000)
    train = documents["train"]
    assert all(len(d["input_ids"]) == len(d["labels"]) <= script.SEQ_LEN for d in train)
    counted = sum(x != -100 for d in train for x in d["labels"])
    assert 0.3 < counted / sum(len(d["labels"]) for d in train) < 1
    for d in train:
        assert all(x in (-100, i) for i, x in zip(d["input_ids"], d["labels"], strict=True))
    first = [d["input_ids"] for d in train]
    assert not any(d["input_ids"] in first for d in documents["validation"])


def test_operations_per_token_are_the_published_count() -> None:
    """Mistral-7B-v0.3 at 2,048 tokens: N = 7.114 billion, 30.1 GFLOP per token."""
    script = _script("benchmarks/gpu/train.py")
    shape = script._shape("mistral-7b-v0.3")
    assert script.flops_per_token(shape, 2048) == pytest.approx(30.1e9, rel=0.003)
    assert script.flops_per_token(shape, 4096) == pytest.approx(31.7e9, rel=0.003)


def test_empty_cells_of_the_gpu_grid_say_why() -> None:
    script = _script("benchmarks/gpu/train.py")
    pythons = {"ours": "p", "plain": "p", "trl": None, "unsloth": "p"}
    assert script.obstacle("trl", "bf16", "cuda", pythons) == "trl is not installed"
    assert "no frozen base in fp8" in script.obstacle("plain", "fp8", "cuda", pythons)
    assert script.obstacle("ours", "nf4", "cuda", pythons) is None


@pytest.mark.slow
def test_the_gpu_benchmark_goes_through_on_the_processor() -> None:
    script = _script("benchmarks/gpu/train.py")
    asked = argparse.Namespace(
        dry_run=True, trl_python=None, unsloth_python=None, lengths=[32], caps=[0.0],
        formats=["bf16"], contenders=["ours", "plain", "unsloth"], steps=3,
        ladder=script.LADDER[1:2],
    )  # fmt: skip
    result = json.loads(json.dumps(script.run(asked)))
    measured = [r for r in result["rows"] if "tokens_per_second" in r]
    assert {r["contender"] for r in measured} == {"ours", "plain"}
    assert all(0 < r["fraction_of_limit"] < 1 for r in measured)
    assert [r["contender"] for r in result["rows"] if "absent" in r] == ["unsloth"]
