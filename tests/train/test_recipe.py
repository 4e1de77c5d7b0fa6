"""Does the exported script give the run's own adapter, without hauslm?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hauslm.base.errors import DataError, RefusedError
from hauslm.records import Run
from hauslm.train.recipe import RECIPE, SCRIPT, START, recipe
from tests.train.conftest import Project, make_examples

# Refuses hauslm, then runs the script as a user would.
ALONE = "import runpy, sys; sys.modules['hauslm'] = None; sys.argv[0] = sys.argv.pop(1); runpy.run_path(sys.argv[0], run_name='__main__')"


def export(project: Project, run: Run, name: str = "out") -> Path:
    target = project.folder.root / name
    for path, content in recipe(project.folder, run, target).files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(content)
    return target


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / SCRIPT), *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip


def tensors(folder: Path, name: str = "adapter_model.safetensors") -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / name)


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lab, with dropout, unpacked": ({"packing": False}, {"lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}),
    "stops at the best step": ({"max_steps": 60, "learning_rate": 0.05, "validate_every_steps": 5, "early_stopping_patience": None}, {}),
    "eva": ({}, {"variant": "eva"}),
    "head trained whole, one layer, bfloat16": (
        {"precision": "bfloat16"},
        {"modules_to_save": ["lm_head"], "layers_to_transform": [1]},
    ),
    "lora_plus": ({"activation_checkpointing": "on"}, {"variant": "lora_plus"}),
    "dora": ({}, {"variant": "dora"}),
    "rslora": ({"weight_decay": 0.1}, {"variant": "rslora", "lora_dropout": 0.1}),
}  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(SAME)[4:]]


@pytest.mark.parametrize("case", [*list(SAME)[:4], *SLOW])
def test_the_script_gives_the_run_s_adapter_bit_for_bit(case: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    training, adapter = SAME[case]
    if case.startswith("stops"):
        project.prepare(make_examples(6), make_examples(12, seed=5))
    run = project.run(training, adapter)
    folder = export(project, run)
    done = start(folder, "--compare", str(project.folder.adapter))
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"distance of the (.+): (\S+)", done.stdout))
    whole = case == "dora" or case.startswith("head")
    assert {k: float(v) for k, v in told.items()} == dict.fromkeys(
        ("updates", "other tensors") if whole else ("updates",), 0.0
    )
    ours, theirs = tensors(project.folder.adapter), tensors(folder / "adapter")
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{case}: {name}")
    assert (folder / START).is_file() == (case == "eva")
    if case.startswith("stops"):
        assert run.settings["kept_step"] < run.steps
        assert f"of {run.settings['kept_step']}: loss" in done.stdout


@pytest.mark.parametrize("variant", ["pissa", pytest.param("olora", marks=pytest.mark.slow)])
def test_variants_that_move_the_base_come_out_on_the_whole_base(
    variant: str, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    folder = export(project, project.run({}, {"variant": variant}))
    done = start(folder, "--compare", str(project.folder.adapter))
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"updates: (\S+)", done.stdout)[0]) < 1e-4
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 8


def test_the_libraries_own_arithmetic_gives_nearly_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run({}, {"lora_dropout": 0.05})
    folder = export(project, run)
    done = start(folder, "--plain", "--compare", str(project.folder.adapter))
    assert done.returncode == 0, done.stderr
    assert 0 < float(re.findall(r"updates: (\S+)", done.stdout)[0]) < 1e-3


@pytest.mark.parametrize("variant", [pytest.param("lora", marks=pytest.mark.slow), "loftq"])
def test_four_bit(variant: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    project = Project(tmp_path, hidden_size=64, intermediate_size=64)
    run = project.run({"method": "qlora"}, {"variant": variant})
    folder = export(project, run)
    done = start(folder, "--compare", str(project.folder.adapter))
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"updates: (\S+)", done.stdout)[0]) < 1e-6
    assert (folder / START).is_file() == (variant == "loftq")


def test_a_difference_in_what_was_trained_whole_is_told(tmp_path: Path) -> None:
    """Rows of added tokens, modules trained whole: not LoRA's, and compared all the same."""
    from safetensors.numpy import save_file

    from hauslm.train import plain_script

    here, there = tmp_path / "here", tmp_path / "there"
    one = {"x.lora_A.weight": np.eye(2, 4), "x.lora_B.weight": np.ones((3, 2)), "rows": np.ones(5)}
    for folder, rows in ((here, 1.0), (there, 1.5)):
        folder.mkdir()
        made = {n: a.astype(np.float32) for n, a in (one | {"rows": one["rows"] * rows}).items()}
        save_file(made, folder / "adapter_model.safetensors")
    assert plain_script.compare(here, there) == {
        "updates": 0.0, "other tensors": pytest.approx(1 / 3),
    }  # fmt: skip


@pytest.mark.slow
def test_a_whole_model(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run({"method": "full", "learning_rate": 1e-3, "weight_decay": 0.1})
    folder = export(project, run)
    done = start(folder, "--compare", str(project.folder.trained_model))
    assert done.returncode == 0, done.stderr
    assert "distance of the other tensors: 0.00e+00" in done.stdout
    ours = tensors(project.folder.trained_model, "model.safetensors")
    theirs = tensors(folder / "adapter", "model.safetensors")
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_other_examples_are_refused_by_the_export_and_by_the_script(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run()
    folder = export(project, run)
    project.prepare(make_examples(30, seed=7), make_examples(6, seed=1))
    with pytest.raises(RefusedError) as refused:
        recipe(project.folder, run, folder)
    assert refused.value.code == "H648"
    done = start(folder)
    assert done.returncode != 0
    assert "is not what the run was trained on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_that_does_not_tell_the_order_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run()
    old = {k: v for k, v in run.settings.items() if k != "seq_len"}
    with pytest.raises(DataError) as refused:
        recipe(project.folder, run.model_copy(update={"settings": old}), tmp_path / "out")
    assert refused.value.code == "H649"


def test_what_cannot_be_repeated_is_said(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run({"max_steps": 2})
    run = project.run({"max_steps": 3}, resume=True, accept_change=True)
    assert run.settings["started_from"]
    notes = " ".join(str(n) for n in recipe(project.folder, run, tmp_path / "out").notes)
    assert "went on from the adapter of" in notes
    plain = json.loads(recipe(project.folder, run, tmp_path / "out").files[RECIPE])
    assert plain["data"]["prefix"].endswith("prepared/train")
    rounded = run.model_copy(update={"settings": run.settings | {"base_precision": "int8"}})
    notes = " ".join(str(n) for n in recipe(project.folder, rounded, tmp_path / "out").notes)
    assert "multiplied in int8" in notes
    older = run.model_copy(update={"data": {}})
    notes = " ".join(str(n) for n in recipe(project.folder, older, tmp_path / "out").notes)
    assert "was not checked" in notes
