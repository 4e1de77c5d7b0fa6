"""Tasks of lm-evaluation-harness that the project file names, run offline on base and adapter.

The harness brings prompts and metrics; the answers come from the very systems that everything else here
is measured on, through the same journal. (Its own loading of adapters has measured the base in silence
before.) Its files must lie on this machine: the door to the network is shut, so a task whose data would
have to be fetched fails by name. Beside the harness's own figures stands the paired difference over the
items, with the interval of `statistics.py`; the items of such tasks name no documents, so each counts as
one. They are further figures: the verdict does not rest on them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, MissingError
from hauslm.base.files import ProjectFolder
from hauslm.base.words import Sentence, say
from hauslm.evaluate.language import document_windows
from hauslm.evaluate.ledger import Ledger, Question, System, Unit
from hauslm.evaluate.statistics import compare
from hauslm.lm.interface import Request
from hauslm.scenario import Scenario

PART = "lm_eval"
DEFAULT_NEW_TOKENS = 256  # the harness's own default for tasks that name none


def need(scenario: Scenario) -> None:
    """H668 if tasks are named and the harness is not installed: told before hours are spent."""
    if scenario.evaluation.lm_eval.tasks and importlib.util.find_spec("lm_eval") is None:
        raise MissingError(
            "H668",
            say("lm-evaluation-harness is not installed, but the project file names tasks of it."),
            where="evaluation.lm_eval.tasks",
            next_step=say("Run: {command}", command='pip install "hauslm[lm-eval]"'),
        )


def measure(
    scenario: Scenario, folder: ProjectFolder, ledger: Ledger, systems: Sequence[System]
) -> tuple[dict[str, Any], list[Sentence]]:
    """Per task and metric the value and standard error of each system, and adapter minus base.

    H669 for a task that cannot be found or run from local files.
    """
    section = scenario.evaluation.lm_eval
    if not section.tasks:
        return {}, []
    # Read when `datasets` is imported: prepared data belongs to the project, not to the home folder.
    os.environ["HF_DATASETS_CACHE"] = str((folder.work / "lm-eval-data").resolve())
    place = (
        (folder.root / Path(section.include_path).expanduser()) if section.include_path else None
    )
    found = {
        system.name: _run(ledger, system, list(section.tasks), place, section.limit)
        for system in systems
    }
    notices = []
    if place is not None and _runs_code(place):
        notices.append(
            say("The task files in {folder} run Python code of their own.", folder=str(place))
        )
    return _joined(found, [s.name for s in systems]), notices


def _run(
    ledger: Ledger, system: System, tasks: list[str], place: Path | None, limit: int | None
) -> Any:
    import lm_eval
    from lm_eval.tasks import TaskManager

    with contextlib.ExitStack() as stack:
        if place is not None:  # relative names of data files in a task are relative to its folder
            if not place.is_dir():
                raise _failed(tasks, say("the folder {path} is not there", path=str(place)))
            stack.enter_context(contextlib.chdir(place))
        try:
            manager = TaskManager(
                include_path=str(place.resolve()) if place else None, include_defaults=place is None
            )
            return lm_eval.simple_evaluate(
                model=_adapted(ledger, system),
                tasks=tasks,
                task_manager=manager,
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
            )
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # the harness raises whatever its parts raise
            if hasattr(error, "next_step"):  # one of ours, from the model
                raise
            raise _failed(
                tasks, say("{kind}: {text}", kind=type(error).__name__, text=str(error)[:300])
            ) from error


def _failed(tasks: Sequence[str], reason: Sentence) -> DataError:
    return DataError(
        "H669",
        say("The tasks {tasks} of lm-evaluation-harness did not run ({reason}).",
            tasks=", ".join(tasks), reason=reason),
        where="evaluation.lm_eval",
        next_step=say(
            "Put the task's YAML file and its data into evaluation.lm_eval.include_path; nothing is fetched."
        ),
    )  # fmt: skip


def _adapted(ledger: Ledger, system: System) -> Any:
    """One of our systems as a model of the harness."""
    from lm_eval.api.model import LM

    title = say("lm-evaluation-harness ({system})", system=system.shown)

    class Ours(LM):  # type: ignore[misc, unused-ignore]  # untyped where it is installed
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
            units = [Unit(PART, f"{r.task_name}:{r.doc_id}:{n}", f"{r.task_name}:{r.doc_id}",
                          ((str(r.args[0]), str(r.args[1])),)) for n, r in enumerate(requests)]  # fmt: skip
            return [(s[0].logprob, s[0].greedy) for s in ledger.score(system, units, title)]

        def loglikelihood_rolling(
            self, requests: list[Any], disable_tqdm: bool = False
        ) -> list[float]:
            units = [Unit(PART, f"{r.task_name}:{r.doc_id}", f"{r.task_name}:{r.doc_id}",
                          document_windows(str(r.args[0]), system)) for r in requests]  # fmt: skip
            return [sum(s.logprob for s in all_) for all_ in ledger.score(system, units, title)]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            questions = [
                Question(
                    PART, f"{r.task_name}:{r.doc_id}", f"{r.task_name}:{r.doc_id}", _request(r)
                )
                for r in requests
            ]
            return [str(row["text"]) for row in ledger.generate(system, questions, title)]

    return Ours()


def _request(asked: Any) -> Request:
    context, options = str(asked.args[0]), dict(asked.args[1])
    until = options.get("until") or []
    sampled = bool(options.get("do_sample")) and float(options.get("temperature", 1.0)) > 0
    return Request(
        (),
        max_new_tokens=int(options.get("max_gen_toks", DEFAULT_NEW_TOKENS)),
        temperature=float(options.get("temperature", 1.0)) if sampled else 0.0,
        stop=tuple([until] if isinstance(until, str) else map(str, until)),
        raw_prompt=context,
        seed=0,
    )


def _runs_code(place: Path) -> bool:
    return any("!function" in p.read_text(encoding="utf-8", errors="replace")
               for p in place.rglob("*.yaml"))  # fmt: skip


# ---------------------------------------------------------------- results


def _joined(found: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for name in names:
        for task, figures in found[name]["results"].items():
            for metric, value in _metrics(figures):
                row = tasks.setdefault(task, {}).setdefault(metric, {"systems": {}})
                stderr = figures.get(metric.replace(",", "_stderr,", 1))
                row["systems"][name] = {
                    "value": value,
                    "stderr": stderr if isinstance(stderr, float) else None,
                }
    for task, metrics in tasks.items():
        samples = {n: found[n].get("samples", {}).get(task, []) for n in names}
        for metric, row in metrics.items():
            row["items"] = len(samples[names[0]])
            row |= _difference(samples, metric.split(",")[0], names)
    return tasks


def _metrics(figures: dict[str, Any]) -> list[tuple[str, float]]:
    return [
        (key, float(value))
        for key, value in figures.items()
        if _is_number(value) and "," in key and "_stderr" not in key
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(
    samples: dict[str, list[dict[str, Any]]], metric: str, names: Sequence[str]
) -> dict[str, Any]:
    """adapter minus base over the same items; nothing for metrics that are no mean over items."""
    rows: list[dict[Any, Any]] = [
        {s["doc_id"]: s.get(metric) for s in samples[n]} for n in names[:2]
    ]
    base, adapter = rows
    if not base or any(not _is_number(base[i]) or not _is_number(adapter.get(i)) for i in base):
        return {}
    one, other = ([[float(v[i]), 1.0] for i in base] for v in (adapter, base))
    if len(base) < 2:
        return {}
    made = compare(one, other)  # type: ignore[arg-type]
    return {"difference": {"value": made.value, "low": made.low, "high": made.high, "p": made.p}}
