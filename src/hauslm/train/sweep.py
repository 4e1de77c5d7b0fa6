"""Which learning rate, rank and targets? Short real trainings, compared on the validation split.

    hauslm sweep --learning-rate 1e-4 --learning-rate 3e-4 --rank 8 --rank 16 --steps 200

Every combination is a trial: the training of this house with those settings, on the same prepared
examples, in a folder of its own below work/sweep. Ray Tune runs them, as many at once as there are GPUs,
and stops the worse half at each rung (ASHA, arXiv 1810.05934). The project's own settings are always
among the trials. A trial that ended is kept: a sweep that is started again trains only what is missing,
and the scheduler is told the earlier figures again. lora_alpha stays as the project has it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base import egress, files, words
from hauslm.base.errors import DataError, HauslmError, MissingError
from hauslm.base.files import ProjectFolder, canonical_json, read_json, sha256_bytes, write_json
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, as_text, say
from hauslm.lm.workers import Cluster, load_ray, use_token
from hauslm.records import Corpus, Plan, Said, Sweep, SweepTrial
from hauslm.scenario import Scenario
from hauslm.train.meter import METRICS

RESULT = "trial.json"
VALIDATIONS = 8  # of a trial of full length
FIRST_RUNG = 2  # validations before a trial may be stopped
KEEP_ONE_OF = 2  # at each rung the better half goes on
RATE_FACTORS = (1 / 3, 1.0, 3.0)
RANKS = (8, 16, 32)


@dataclass(frozen=True)
class Grid:
    """What is tried. Empty: three learning rates around the project's, ranks 8, 16, 32, its targets."""

    learning_rates: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()  # "all-linear", or module names with commas
    steps: int | None = (
        None  # optimizer steps of a whole trial; None: those of the project's training
    )


def sweep(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    plan: Plan | None,
    corpus: Corpus,
    grid: Grid = Grid(),
    parallel: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Train the grid and compare. The project file is not changed: `offer` in the record is the text
    that one may put there.

    Errors: H841 Ray is missing or does not start, H646 no validation examples or no trial that ended,
    H410 a sweep that runs already, and those of training for the project's own settings.
    """
    progress = progress or Silent()
    work = folder.work / "sweep"
    with files.lock(work, "sweep"):
        own, steps = _own_settings(scenario, folder, plan, corpus, grid)
        every = scenario.training.validate_every_steps or max(1, steps // VALIDATIONS)
        tried = _combinations(grid, own)
        trials = [
            _described(scenario, folder, plan, corpus, values, steps, every) for values in tried
        ]
        use_token()
        load_ray("tune")  # told before anything is started
        cluster = Cluster(scenario, cpus=max(parallel or 1, os.cpu_count() or 1))
        try:
            at_once = parallel or max(1, cluster.gpus)
            progress.say(
                say(
                    "{count} trials of up to {steps:,} steps, {parallel} at once; for that this command runs without the kernel's filter, the audit hook is in mode {mode}.",
                    count=len(trials), steps=steps, parallel=at_once, mode=egress.mode(),
                )
            )  # fmt: skip
            _run(cluster, work, trials, steps, every, at_once, progress)
        finally:
            cluster.close()
        return _record([_outcome(t) for t in trials], own, steps, every)


# ---------------------------------------------------------------- what is tried


def _own_settings(
    scenario: Scenario, folder: ProjectFolder, plan: Plan | None, corpus: Corpus, grid: Grid
) -> tuple[dict[str, Any], int]:
    """Learning rate, rank and targets in force in the project, and the steps of a whole trial."""
    from hauslm.train import inputs

    given = inputs.read(
        _with(scenario, {}, grid.steps, None), folder, plan, corpus, inputs.Notices(Silent())
    )
    if given.validation_store is None or given.settings.method == "full":
        raise DataError(
            "H646",
            say("A sweep compares adapters on validation examples, and here are none."),
            where=str(folder.work / "prepared"),
            next_step=say("Prepare more documents; validation takes a share of them."),
        )
    settings = given.settings
    own = {
        "learning_rate": settings.learning_rate,
        "r": settings.adapter["r"],
        "target_modules": settings.adapter["target_modules"],
    }
    return own, given.schedule.steps


def _combinations(grid: Grid, own: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations, the project's own settings first, each once."""
    rates = grid.learning_rates or tuple(
        float(f"{factor * own['learning_rate']:.2g}") if factor != 1 else own["learning_rate"]
        for factor in RATE_FACTORS
    )
    targets: tuple[Any, ...] = tuple(_targets(t) for t in grid.targets) or (own["target_modules"],)
    found = [own]
    for rate, rank, target in itertools.product(rates, grid.ranks or RANKS, targets):
        values = {"learning_rate": rate, "r": rank, "target_modules": target}
        if values not in found:
            found.append(values)
    return found


def _targets(text: str) -> str | list[str]:
    return text if text == "all-linear" else [t.strip() for t in text.split(",") if t.strip()]


def _with(
    scenario: Scenario, values: dict[str, Any], steps: int | None, every: int | None
) -> Scenario:
    """The project's settings with those of a trial."""
    training: dict[str, Any] = {"report_to": [], "keep_checkpoints": 2}
    if steps is not None:
        training["max_steps"] = steps
    if every is not None:
        training["validate_every_steps"] = every
    if "learning_rate" in values:
        training["learning_rate"] = values["learning_rate"]
    adapter: dict[str, Any] = {k: values[k] for k in ("r", "target_modules") if k in values}
    return scenario.model_copy(
        update={
            "training": scenario.training.model_copy(update=training),
            "adapter": scenario.adapter.model_copy(update=adapter),
        }
    )


def _described(
    scenario: Scenario,
    folder: ProjectFolder,
    plan: Plan | None,
    corpus: Corpus,
    values: dict[str, Any],
    steps: int,
    every: int,
) -> dict[str, Any]:
    """A trial as JSON: everything a worker needs. Its name is a hash of what shapes its result."""
    wanted = _with(_placed(scenario, folder), values, steps, every)
    shaping = {
        "training": wanted.training.model_dump(mode="json"),
        "adapter": wanted.adapter.model_dump(mode="json"),
        "model": wanted.model.model_dump(mode="json"),
        "corpus": corpus.fingerprint,
    }
    name = sha256_bytes(canonical_json(shaping))[:16]
    return {
        "name": name,
        "root": str(folder.work / "sweep" / name),
        "prepared": str(folder.work / "prepared"),
        "values": values,
        "steps": steps,
        "scenario": wanted.model_dump_json(by_alias=True),
        "plan": plan.model_dump_json(by_alias=True) if plan is not None else "",
        "corpus": corpus.model_dump_json(by_alias=True),
        "language": words.language(),
        "guard": "loopback" if egress.mode() == "strict" else egress.mode(),
    }


def _placed(scenario: Scenario, folder: ProjectFolder) -> Scenario:
    """The base model by its whole path, since trials have folders of their own."""
    model = scenario.model
    for name in ("path", "base"):
        value = getattr(model, name)
        if value and (folder.root / value).expanduser().is_dir():
            place = str((folder.root / value).expanduser().resolve())
            model = model.model_copy(update={name: place})
    return scenario.model_copy(update={"model": model})


# ---------------------------------------------------------------- one trial, in a worker


class _Reporting(Silent):
    """Tells Ray Tune each validation; where Tune ends the trial, SystemExit comes out of `step`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._path = root / "work" / "train" / METRICS
        self._told = 0

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        self.tell()

    def tell(self) -> None:
        for step, loss in itertools.islice(_validations(self._path), self._told, None):
            self._told += 1
            _report(step, loss)


def _validations(path: Path) -> Iterator[tuple[int, float]]:
    """(step, loss) of the trial so far; step 0 is the base alone."""
    if not path.is_file():
        return
    data = path.read_bytes()
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        row = json.loads(line)
        if row.get("validation") is not None and row["step"] > 0:
            yield int(row["step"]), float(row["validation"])


def _report(step: int, loss: float) -> None:
    from ray import tune

    tune.report({"validation": loss, "step": step})


def trial(config: dict[str, Any]) -> None:
    """One trial, as Ray Tune calls it: train, and tell each validation. What ended is only retold."""
    given = json.loads(config["trial"])
    if given["guard"] != "open":
        egress.shut(given["guard"], kernel=False)
    words.use_language(given["language"])
    root = Path(given["root"])
    if (root / RESULT).is_file():
        for step, loss in read_json(root / RESULT)["history"]:
            _report(step, loss)
        return
    _trained(given, root)


def _trained(given: dict[str, Any], root: Path) -> None:
    from hauslm.train.loop import train

    work = root / "work"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "prepared").exists():
        (work / "prepared").symlink_to(given["prepared"], target_is_directory=True)
    progress = _Reporting(root)
    started, state, message = time.monotonic(), "done", ""
    try:
        train(
            Scenario.model_validate_json(given["scenario"]),
            ProjectFolder(root),
            plan=Plan.model_validate_json(given["plan"]) if given["plan"] else None,
            corpus=Corpus.model_validate_json(given["corpus"]),
            resume=True,
            progress=progress,
        )
        progress.tell()
    except SystemExit:  # Tune has seen enough of it
        state = "stopped"
        raise
    except HauslmError as error:
        if error.exit_code == 75:  # the sweep itself was stopped: this trial goes on another time
            raise
        state, message = "failed", error.text()
    finally:
        if state != "done" or progress._told:
            _write(given, root, state, message, time.monotonic() - started)


def _write(given: dict[str, Any], root: Path, state: str, message: str, seconds: float) -> None:
    history = list(_validations(root / "work" / "train" / METRICS))
    if state == "stopped" and history and history[-1][0] >= given["steps"]:
        state = "done"  # stopped at its last step: nothing of it is missing
    write_json(
        root / RESULT,
        {"values": given["values"], "state": state, "message": message, "history": history,
         "seconds": round(seconds, 3)},
    )  # fmt: skip
    # Figures are kept, not the weights: the best settings are trained by `hauslm train`.
    shutil.rmtree(root / "work" / "train" / "checkpoints", ignore_errors=True)


# ---------------------------------------------------------------- all trials


def _run(
    cluster: Cluster,
    work: Path,
    trials: Sequence[dict[str, Any]],
    steps: int,
    every: int,
    at_once: int,
    progress: Progress,
) -> None:
    """Ray Tune over the trials."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # no files of its own beside ours
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")  # a stopped trial writes its end
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    class Told(tune.Callback):  # type: ignore[misc, unused-ignore]
        """Each figure as it comes."""

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            done = sum(t.is_finished() for t in trials)
            progress.step(
                say("Trials"), done, count, validation=result["validation"], step=result["step"]
            )

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            progress.step(say("Trials"), sum(t.is_finished() for t in trials), count)

    count = len(trials)
    gpus = 1 if cluster.gpus else 0
    share = max(1, cluster.cpus // at_once) if not gpus else 1
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": share, "gpu": gpus}),
        param_space={"trial": tune.grid_search([json.dumps(t) for t in trials])},
        tune_config=tune.TuneConfig(
            metric="validation",
            mode="min",
            max_concurrent_trials=at_once,
            reuse_actors=False,
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=max(steps, FIRST_RUNG * every) + every,  # whole trials end by themselves
                grace_period=FIRST_RUNG * every,
                reduction_factor=KEEP_ONE_OF,
            ),
            trial_dirname_creator=lambda t: t.trial_id,
            trial_name_creator=lambda t: t.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str((work / "tune").resolve()),
            name=time.strftime("%Y%m%d-%H%M%S"),
            verbose=0,
            callbacks=[Told()],
        ),
    )
    # Standard output belongs to the record; what Tune prints all the same is kept.
    with (work / "tune.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        results = tuner.fit()
    shutil.rmtree(work / "tune", ignore_errors=True)
    for error in results.errors:
        raise MissingError(
            "H647",
            say("A trial of the sweep broke off: {reason}", reason=str(error).strip()[-300:]),
            next_step=say("Run the same command again; trials that ended are kept."),
        )


def _outcome(given: dict[str, Any]) -> SweepTrial:
    path = Path(given["root"]) / RESULT
    if not path.is_file():
        return SweepTrial(name=given["name"], state="missing", **given["values"])
    found = read_json(path)
    history = tuple((int(s), float(v)) for s, v in found["history"])
    best = min(history, key=lambda pair: pair[1], default=None)
    return SweepTrial(
        name=given["name"],
        **given["values"],
        state=found["state"],
        message=found["message"],
        validation=best[1] if best else None,
        best_step=best[0] if best else None,
        steps=history[-1][0] if history else 0,
        seconds=found["seconds"],
        history=history,
    )


def _record(trials: Sequence[SweepTrial], own: dict[str, Any], steps: int, every: int) -> Sweep:
    ended = [t for t in trials if t.validation is not None]
    if not ended:
        reasons = [t.message for t in trials if t.message]
        raise DataError(
            "H646",
            say("No trial of the sweep ended."),
            next_step=reasons[0] if reasons else say("Give more steps with --steps."),
        )
    ranked = sorted(ended, key=lambda t: t.validation if t.validation is not None else 0.0)
    best, base = ranked[0], trials[0]
    rest = [t for t in trials if t.validation is None]
    offer = {
        "training": {"learning_rate": best.learning_rate},
        "adapter": {
            "r": best.r,
            "target_modules": best.target_modules
            if isinstance(best.target_modules, str)
            else list(best.target_modules),
        },
    }
    return Sweep(
        trials=(*ranked, *rest),
        best=best.name,
        own=base.name,
        gain=None
        if base.validation is None or best.validation is None
        else base.validation - best.validation,
        steps=steps,
        validate_every_steps=every,
        offer=offer,
        notices=tuple(Said.of(as_text(n)) if isinstance(n, str) else Said.of(n)
                      for n in _notices(trials, best, base)),
    )  # fmt: skip


def _notices(
    trials: Sequence[SweepTrial], best: SweepTrial, base: SweepTrial
) -> list[Sentence | str]:
    found: list[Sentence | str] = []
    stopped = sum(t.state == "stopped" for t in trials)
    failed = sum(t.state in ("failed", "missing") for t in trials)
    if stopped:
        found.append(
            say("{count} trials were stopped early, being in the worse half.", count=stopped)
        )
    if failed:
        found.append(say("{count} trials failed; the table says why.", count=failed))
    if best.name == base.name:
        found.append(say("The project's own settings are the best of those tried."))
    found.append(
        say("The lowest of {count} validation losses is a little too good by chance; the test split was not looked at.",
            count=len(trials))
    )  # fmt: skip
    return found
