"""The figures in other viewers: written for real where the package is there, refused where it is not."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import Interrupted, MissingError
from hauslm.train import reporters
from tests.train.conftest import Project, corpus_of

TRAINING = {"max_steps": 4, "validate_every_steps": 2, "checkpoint_every_steps": 1}


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is an extra and not installed")


def interrupted_then_finished(project: Project, name: str) -> None:
    """Stopped in step 2, resumed: the viewer shows one run with every step once."""
    from hauslm.train.loop import train
    from tests.train.test_seal import SignalAt

    with pytest.raises(Interrupted):
        train(
            project.scenario(TRAINING | {"report_to": [name]}, {}),
            project.folder,
            plan=None,
            corpus=corpus_of(project.folder),
            progress=SignalAt(2, signal.SIGTERM),
        )
    project.run(TRAINING | {"report_to": [name]}, resume=True)


def test_none_is_the_default(project: Project) -> None:
    project.run(TRAINING)
    assert {p.name for p in (project.folder.work / "train").iterdir()}.isdisjoint(
        {"tensorboard", "mlflow", "trackio"}
    )


@pytest.mark.parametrize("name", sorted(reporters.PACKAGES))
def test_a_missing_package_is_refused_before_anything_is_spent(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(reporters.PACKAGES, name, f"{name}_that_is_not_there")
    with pytest.raises(MissingError) as caught:
        project.run(TRAINING | {"report_to": [name]})
    assert caught.value.code == "H548"
    assert caught.value.exit_code == 5
    assert f"hauslm[{name}]" in str(caught.value)
    assert not project.checkpoints


def test_tensorboard(project: Project) -> None:
    need("tensorboard")
    interrupted_then_finished(project, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Any = EventAccumulator(str(project.folder.work / "train" / "tensorboard"))
    found.Reload()
    assert [s.step for s in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [s.step for s in found.Scalars("validation/loss")] == [0, 2, 4]


def test_mlflow(project: Project) -> None:
    need("mlflow")
    interrupted_then_finished(project, "mlflow")
    from mlflow.tracking import MlflowClient

    store = project.folder.work / "train" / "mlflow"
    client: Any = MlflowClient(tracking_uri=store.resolve().as_uri())
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(m.step for m in history) == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


def test_trackio(project: Project) -> None:
    need("trackio")
    interrupted_then_finished(project, "trackio")
    databases = list(Path(project.folder.work / "train" / "trackio").rglob("*.db"))
    assert databases
