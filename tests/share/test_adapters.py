"""Many adapters: kept, brought back, compared, combined exactly, and taken in from other tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.embedded import MODEL
from hauslm.scenario import Scenario
from hauslm.share import adapters
from hauslm.share import weights as merging
from hauslm.share.bundle import bundle
from tests.share.making import records
from tests.share.test_ways_out import make_adapter, run_of

SCENARIO = Scenario.model_validate({"name": "terms", "model": {"base": "embedded"}})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("source") / "a")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("other") / "b", r=2, lora_alpha=3)


@pytest.fixture
def team(tmp_path: Path, source: Path) -> ProjectFolder:
    folder = ProjectFolder(tmp_path / "team")
    shutil.copytree(source, folder.adapter)
    run_of(folder.adapter).model_copy(update={"created": "2026-11-01T00:00:00+00:00"}).save(
        folder.records
    )
    folder.file.write_text("name: terms\n")
    return folder


def _train_again(folder: ProjectFolder, new: Path) -> None:
    """What a training does: keep, then replace adapter and record."""
    adapters.keep(folder)
    shutil.rmtree(folder.adapter)
    shutil.copytree(new, folder.adapter)
    run_of(folder.adapter).model_copy(update={"created": "2026-11-02T00:00:00+00:00"}).save(
        folder.records
    )


def test_a_replaced_adapter_is_kept_and_comes_back(team: ProjectFolder, other: Path) -> None:
    with pytest.raises(DataError, match="H753"):
        adapters.roll_back(team, None)
    first = (team.adapter / "adapter_model.safetensors").read_bytes()
    _train_again(team, other)
    team.file.write_text("name: terms\nadapter: {r: 2}\n")
    second = (team.adapter / "adapter_model.safetensors").read_bytes()
    back = adapters.roll_back(team, None)
    assert (team.adapter / "adapter_model.safetensors").read_bytes() == first
    assert json.loads(team.record("run").read_text())["created"].startswith("2026-11-01")
    assert "--settings" in back["notes"][0]
    again = adapters.roll_back(team, back["kept"], settings=True)  # and forward again
    assert (team.adapter / "adapter_model.safetensors").read_bytes() == second
    assert again["notes"] == []
    assert len(adapters.names(team)) == 3  # the own one and both kept


def test_an_adapter_without_its_record_is_not_kept_as_if_it_had_one(team: ProjectFolder) -> None:
    (team.adapter / "adapter_model.safetensors").write_bytes(b"changed")
    assert adapters.keep(team) is None


def test_comparing_shows_what_differs(team: ProjectFolder, other: Path) -> None:
    adapters.take_in(SCENARIO, team, other, "guest")
    rows = {r["key"]: r for r in adapters.compare(team, "current", "guest")}
    assert (rows["r"]["current"], rows["r"]["guest"], rows["r"]["same"]) == (4, 2, False)
    assert rows["target_modules"]["same"]
    with pytest.raises(UsageError, match="H752"):
        adapters.compare(team, "current", "gust")


def _deltas(folder: Path) -> dict[str, np.ndarray]:
    return {n: m.scaling * (m.b @ m.a) for n, m in merging.Adapter(folder).modules.items()}


def test_combining_is_the_weighted_sum(team: ProjectFolder, other: Path) -> None:
    adapters.take_in(SCENARIO, team, other, "guest")
    made = adapters.combine(SCENARIO, team, [("current", 0.7), ("guest", 0.3)], "both", "cat")
    assert made["relative_difference"] < 1e-4
    left, right, both = (_deltas(p) for p in (team.adapter, other, Path(made["path"])))
    for name, value in both.items():
        np.testing.assert_allclose(value, 0.7 * left[name] + 0.3 * right[name], atol=1e-4)
    with pytest.raises(RefusedError, match="H754"):
        adapters.roll_back(team, "both")
    with pytest.raises(UsageError, match="H755"):
        adapters.combine(SCENARIO, team, [("current", 1), ("guest", 1)], "both", "cat")
    with pytest.raises(UsageError, match="H756"):
        adapters.combine(SCENARIO, team, [("current", 1)], "one", "cat")


# ---------------------------------------------------------------- from elsewhere


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _llama_factory(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    (folder / "trainer_log.jsonl").write_text("{}\n")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"\x80\x04.")


def _trl(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def _unsloth(folder: Path) -> None:
    pattern = (
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))"
    )
    _config(folder, base_model_name_or_path="unsloth/mistral-7b-bnb-4bit", target_modules=pattern,
            auto_mapping={"base_model_class": "MistralForCausalLM", "parent_library": "unsloth"})  # fmt: skip


def _axolotl(folder: Path) -> None:
    (folder / "debug.log").write_text("x")
    _config(folder, base_model_name_or_path="/data/models/base", a_key_of_tomorrow=None)


TOOLS: dict[str, Callable[[Path], None]] = {
    "LLaMA-Factory": _llama_factory, "TRL or Trainer": _trl, "Unsloth": _unsloth, "Axolotl": _axolotl,
}  # fmt: skip


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_folders_of_other_tools_come_in(
    tool: str, team: ProjectFolder, source: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(source, theirs)
    TOOLS[tool](theirs)
    done = adapters.take_in(SCENARIO, team, theirs, None)
    assert done["tool"] == tool and done["name"] == "theirs"
    kept = Path(done["path"])
    assert (kept / "adapter_model.safetensors").read_bytes() == (
        source / "adapter_model.safetensors"
    ).read_bytes()
    assert not any(p.suffix in (".bin", ".pt") for p in kept.rglob("*"))
    config = json.loads((kept / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "embedded" and isinstance(
        config["target_modules"], list
    )
    notes = " ".join(done["notes"])
    assert ("checkpoint-10" in notes) == (tool == "LLaMA-Factory")
    assert ("no tokenizer" in notes) == (tool == "TRL or Trainer")
    assert ("pattern" in notes) == (tool == "Unsloth")
    from hauslm.lm.local import LocalModel

    assert LocalModel.load(MODEL, {"a": kept}).adapters() == ("a",)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "H716"),
        (lambda f: _config(f, r=9), "H713"),
        (lambda f: _config(f, load_from="http://192.0.2.1"), "H712"),
        (lambda f: _config(f, bias="all"), "H712"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "H704"),
        (lambda f: (f / "x").symlink_to("/etc/passwd"), "H715"),
    ],
    ids=["pickle", "rank", "unknown key", "bias", "no object", "link"],
)
def test_what_verify_refuses_does_not_come_in(
    change: Callable[[Path], Any], code: str, team: ProjectFolder, source: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(source, theirs)
    change(theirs)
    with pytest.raises(RefusedError, match=code):
        adapters.take_in(SCENARIO, team, theirs, None)
    assert adapters.names(team) == ["current"]


def test_an_adapter_of_other_widths_does_not_come_in(team: ProjectFolder, tmp_path: Path) -> None:
    from tests.share.making import adapter

    with pytest.raises(RefusedError, match="H713"):
        adapters.take_in(SCENARIO, team, adapter(tmp_path / "small"), None)


def test_a_bundle_comes_in_only_on_its_own_base(
    project: ProjectFolder, packed: Path, team: ProjectFolder
) -> None:
    with pytest.raises(RefusedError, match=r"H71[37]"):
        adapters.take_in(SCENARIO, team, packed, None)
    from hauslm.catalog.local import weights_sha256

    run = run_of(team.adapter)
    run = run.model_copy(
        update={"base": {"id": "embedded", "path": "x", "sha256": weights_sha256(MODEL)}}
    )
    _, corpus = records(project)
    record = bundle(SCENARIO, team, run=run, corpus=corpus, evaluation=None)
    done = adapters.take_in(SCENARIO, team, team.root / record.path, "guest")
    assert (Path(done["path"]) / "adapter_model.safetensors").is_file()
