"""Does the canary die when somebody else answers?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hauslm.analyse import run as room
from hauslm.base.errors import RefusedError
from hauslm.lm.canary import check_canary, distance, make_canary, read_canary
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import BASE, Reply, Request
from hauslm.lm.local import LocalModel
from hauslm.records import Run

Project = Callable[..., Any]


@pytest.fixture(scope="module")
def model(reader_model: Path, reader_adapter: Path) -> LocalModel:
    return LocalModel.load(reader_model, {"adapter": reader_adapter})


@pytest.fixture(scope="module")
def canary(model: LocalModel) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(make_canary(model, "adapter")))
    return made


def test_the_right_model_passes(model: LocalModel, canary: dict[str, Any]) -> None:
    check_canary(model, "adapter", canary)
    assert len(canary["prompts"]) == 3 and all(p["token_ids"] for p in canary["prompts"])


class Swapped:
    """A faulty engine: in batches of more than one, the base's rows get the adapter."""

    def __init__(self, model: LocalModel, *, always: bool) -> None:
        self._model, self._always = model, always
        self.dtype = model.dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        import dataclasses

        mixed = len({r.adapter for r in requests}) > 1
        wrong = self._always or mixed
        return self._model.generate(
            [dataclasses.replace(r, adapter="adapter" if wrong else r.adapter) for r in requests]
        )


@pytest.mark.parametrize("always", [True, False])
def test_the_wrong_adapter_is_caught(
    model: LocalModel, canary: dict[str, Any], always: bool
) -> None:
    with pytest.raises(RefusedError, match="H834") as caught:
        check_canary(Swapped(model, always=always), "adapter", canary)  # type: ignore[arg-type]
    assert ("mixed batch" in str(caught.value)) is not always


def test_an_adapter_that_does_nothing_is_caught(model: LocalModel) -> None:
    with pytest.raises(RefusedError, match="H833"):
        make_canary(Swapped(model, always=True), "adapter")  # type: ignore[arg-type]


def test_engines_without_log_probabilities_prove_nothing() -> None:
    with pytest.raises(RefusedError, match="H834"):
        make_canary(EchoModel(["adapter"]), "adapter")


@pytest.mark.parametrize("damage", [{"version": 9}, {"prompts": []}, {"prompts": [{"text": "x"}]}])
def test_damaged_canaries_stop_the_job(
    model: LocalModel, canary: dict[str, Any], damage: dict[str, Any]
) -> None:
    with pytest.raises(RefusedError, match="H834"):
        check_canary(model, "adapter", canary | damage)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"'])
def test_a_canary_that_is_no_record_is_told_with_its_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "canary.json").write_text(text)
    with pytest.raises(RefusedError) as caught:
        read_canary(tmp_path / "canary.json")
    assert caught.value.code == "H834" and caught.value.where.endswith("canary.json")


def test_another_tokenizer_is_caught(model: LocalModel, canary: dict[str, Any]) -> None:
    other = json.loads(json.dumps(canary))
    other["prompts"][0]["token_ids"][0] += 1
    with pytest.raises(RefusedError, match="tokenizer"):
        check_canary(model, "adapter", other)


def test_distance_counts_what_only_one_side_knows() -> None:
    assert distance([[1, "a", -1.0]], [[1, "a", -1.5]]) == pytest.approx(0.5)
    assert distance(
        [[1, "a", -1.0], [2, "b", -3.0]], [[1, "a", -1.0], [3, "c", -3.2]]
    ) == pytest.approx(0.2)
    assert distance([[-1, "a", -1.0]], [[-1, "a", -1.0]]) == 0
    assert distance([], [[1, "a", -1.0]]) == float("inf")


def trained(path: Path, base_sha256: str) -> Run:
    from hauslm.base.quantity import measured
    from hauslm.records import AdapterFile, Loss

    return Run(
        adapter=AdapterFile(path=str(path), sha256="", parameters=1),
        base={"id": "x", "path": "x", "sha256": base_sha256},
        method="lora",
        steps=1,
        epochs=1,
        tokens=1,
        tokens_per_second=measured(1, "tokens/s", "2026-01-01"),
        peak_memory_gib=measured(1, "GiB", "2026-01-01"),
        seconds=1,
        loss=Loss(first=1, last=1),
        determinism="bitwise",
    )


def test_analyse_checks_the_canary_of_the_project(
    project: Project, reader_model: Path, reader_adapter: Path, canary: dict[str, Any]
) -> None:
    from hauslm.catalog.local import weights_sha256

    scenario, folder = project(template="classification")
    run = trained(reader_adapter, weights_sha256(reader_model))
    folder.adapter.mkdir()
    (folder.adapter / "canary.json").write_text(json.dumps(canary))
    record = room.analyse(scenario, folder, run=run, corpus=None)
    assert record.model["adapter"] == "adapter" and len(record.model["adapter_sha256"]) == 64
    assert '"merged":"adapter"' in record.model["engine"]
    wrong = json.loads(json.dumps(canary))
    wrong["prompts"][1]["adapter"][0][2] -= 0.5
    (folder.adapter / "canary.json").write_text(json.dumps(wrong))
    with pytest.raises(RefusedError, match="H834"):
        room.analyse(scenario, folder, run=run, corpus=None)
    with pytest.raises(RefusedError, match="H832"):
        room.analyse(scenario, folder, run=trained(reader_adapter, "0" * 64), corpus=None)
    assert BASE not in record.model["adapter"]
