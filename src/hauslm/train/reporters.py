"""Where else do the figures of a run go? To TensorBoard, MLflow or Trackio, on this machine, if asked.

`training.report_to` names them; none by default. Each is an extra (`pip install 'hauslm[tensorboard]'`)
and writes below work/train: event files, MLflow's file store, Trackio's database. Nothing leaves the
machine; their own telemetry is switched off. metrics.jsonl is written in any case.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hauslm.base.errors import MissingError
from hauslm.base.words import say

# name -> package that must be importable
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "trackio": "trackio"}
# name in metrics.jsonl -> name that these viewers group by
NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "validation": "validation/loss",
    "tokens_per_second": "speed/tokens_per_second",
    "memory_gib": "machine/memory_gib",
}


class Reporter(Protocol):
    def write(self, step: int, figures: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def check(names: Sequence[str]) -> None:
    """MissingError H548 for the first of `names` whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MissingError(
                "H548",
                say("The package {package} is not installed.", package=PACKAGES[name]),
                where="training.report_to",
                next_step=say(
                    "Install it with: pip install 'hauslm[{name}]', or leave it out of training.report_to.",
                    name=name,
                ),
            )


class Reporters:
    """All that were asked for. `start`: the step that the run goes on from."""

    def __init__(self, names: Sequence[str], work: Path, project: str, start: int) -> None:
        check(names)
        self._open = [_MAKERS[name](work, project, start) for name in names]

    def write(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""
        figures = {NAMES[k]: float(v) for k, v in row.items() if k in NAMES and v is not None}
        for one in self._open:
            one.write(int(row["step"]), figures)

    def close(self) -> None:
        for one in self._open:
            one.close()
        self._open = []


class TensorBoard:
    """Event files in work/train/tensorboard: `tensorboard --logdir work/train/tensorboard`."""

    def __init__(self, work: Path, project: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make: Any = SummaryWriter
        # What a killed run wrote beyond its checkpoint is hidden: those steps are done again.
        self._writer = make(str(work / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A SQLite or file store in work/train/mlflow: `mlflow ui --backend-store-uri ...`."""

    def __init__(self, work: Path, project: str, start: int) -> None:
        for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_ALLOW_FILE_STORE"):
            os.environ.setdefault(name, "true")
        tracking: Any = importlib.import_module("mlflow.tracking")
        folder = work / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        self._client = tracking.MlflowClient(tracking_uri=folder.resolve().as_uri())
        known = folder / "hauslm-run"  # so that a resumed run goes on in the same one
        if start and known.is_file():
            self._run = known.read_text(encoding="ascii").strip()
            return
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._run = self._client.create_run(number).info.run_id
        known.write_text(self._run, encoding="ascii")

    def write(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class Trackio:
    """Trackio's database in work/train/trackio: `TRACKIO_DIR=work/train/trackio trackio show`."""

    def __init__(self, work: Path, project: str, start: int) -> None:
        os.environ["TRACKIO_DIR"] = str((work / "trackio").resolve())
        module: Any = importlib.import_module("trackio")
        module.init(
            project=project, name="train", resume="allow" if start else "never", embed=False
        )
        self._module = module

    def write(self, step: int, figures: dict[str, float]) -> None:
        self._module.log(figures, step=step)

    def close(self) -> None:
        self._module.finish()


_MAKERS: dict[str, Callable[[Path, str, int], Reporter]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "trackio": Trackio,
}
