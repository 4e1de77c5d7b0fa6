"""Do tasks of lm-evaluation-harness run from local files, on the systems that are compared?"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import DataError, MissingError
from hauslm.evaluate import lm_eval
from hauslm.evaluate.run import evaluate
from hauslm.records import Evaluation
from hauslm.scenario import parse

from .conftest import Knowing, Prepared

INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed (extra lm-eval)")

CHOICE = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
ROLLING = """
task: prose
dataset_path: json
dataset_kwargs: {data_files: {test: prose.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""
PROJECT = "evaluation: {lm_eval: {tasks: [colours, prose], include_path: tasks}}"


def tasks(root: Path) -> None:
    folder = root / "tasks"
    folder.mkdir(parents=True)
    (folder / "colours.yaml").write_text(CHOICE)
    (folder / "prose.yaml").write_text(ROLLING)
    rows = [{"question": f"Grass number {n} is", "choices": ["red", "green"], "answer": 1}
            for n in range(12)]  # fmt: skip
    (folder / "colours.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "prose.jsonl").write_text('{"text": "The quick brown fox."}\n{"text": "A dog."}\n')


def belief(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    """The adapter knows that grass is green, the base takes it for red; other text costs 1 or 2 bits."""
    if "Grass" in prompt:
        right = "green" if adapter == "adapter" else "red"
        return (0.1 if continuation.strip() == right else 2.0), False
    return math.log(2) * (1 if adapter == "adapter" else 2), False


def judged(prepared: Prepared, text: str, model: Any = None) -> Evaluation:
    if not prepared.documents:
        prepared.document("t1", "Some held-out text of a few words.", "test")
        prepared.document("t2", "Some other training text of a few words.", "train")
    corpus, run = prepared.write()
    return evaluate(
        parse(text), prepared.folder, corpus=corpus, run=run, model=model or Knowing(belief)
    )


@needs_harness
def test_tasks_of_the_project_file_run_from_its_files(prepared: Prepared) -> None:
    tasks(prepared.folder.root)
    model = Knowing(belief)
    result = judged(prepared, PROJECT, model)
    accuracy = result.lm_eval["colours"]["acc,none"]
    assert accuracy["systems"]["base"]["value"] == 0 and accuracy["items"] == 12
    assert accuracy["systems"]["adapter"]["value"] == 1
    assert accuracy["difference"]["value"] == 1 and accuracy["difference"]["p"] < 0.01
    bits = result.lm_eval["prose"]["bits_per_byte,none"]["systems"]
    assert bits["base"]["value"] == pytest.approx(2)
    assert bits["adapter"]["value"] == pytest.approx(1)
    scored = model.scored
    judged(prepared, PROJECT, model)
    assert model.scored == scored  # every answer came from the journal


@needs_harness
def test_a_task_that_is_not_here_is_told_and_nothing_fetched(prepared: Prepared) -> None:
    tasks(prepared.folder.root)
    with pytest.raises(DataError, match="H669"):
        judged(prepared, PROJECT.replace("prose", "hellaswag"))
    with pytest.raises(DataError, match="not there"):
        judged(prepared, PROJECT.replace("include_path: tasks", "include_path: nowhere"))


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_without_the_harness_it_is_told_before_anything_runs(prepared: Prepared) -> None:
    model = Knowing(belief)
    with pytest.raises(MissingError, match="H668"):
        judged(prepared, PROJECT, model)
    assert model.scored == 0


def test_differences_are_paired_over_the_items() -> None:
    def run(values: list[float]) -> dict[str, Any]:
        return {
            "results": {"t": {"acc,none": sum(values) / len(values), "acc_stderr,none": 0.1,
                              "alias": "t", "sample_len": 10}},
            "samples": {"t": [{"doc_id": n, "acc": v} for n, v in enumerate(values)]},
        }  # fmt: skip

    found = {"base": run([0.0] * 8 + [1.0] * 2), "adapter": run([1.0] * 10)}
    row = lm_eval._joined(found, ["base", "adapter"])["t"]
    assert set(row) == {"acc,none"}
    made = row["acc,none"]
    assert made["items"] == 10 and made["systems"]["base"] == {"value": 0.2, "stderr": 0.1}
    difference = made["difference"]
    assert difference["value"] == pytest.approx(0.8)
    assert difference["low"] < 0.8 < difference["high"] and difference["p"] < 0.05
