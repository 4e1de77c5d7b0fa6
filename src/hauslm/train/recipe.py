"""What would somebody need to repeat this training without hauslm?

The settings in force, the order of the rows, the start values where a method computes them, and a script
of torch, transformers and PEFT alone that takes these (plain_script.py, copied as it stands). The
examples stay where they are: they are the team's texts.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.files import ProjectFolder, canonical_json, read_json
from hauslm.base.words import Sentence, say
from hauslm.records import Run

if TYPE_CHECKING:
    from hauslm.train.batches import Schedule
    from hauslm.train.settings import Settings

SCRIPT = "train.py"
RECIPE = "training.json"
# How a row is computed; these modules import nothing of hauslm, so they are copied as they stand.
ARITHMETIC = ("attention.py", "lean.py", "loss.py", "rows.py")
START = "start.safetensors"
# Their start values come from the data or from the error of the stored base, not from PEFT's own routine.
COMPUTED_STARTS = ("eva", "loftq")


@dataclass
class Recipe:
    """Files by name, and what to know about them."""

    files: dict[str, bytes]
    notes: list[Sentence] = field(default_factory=list)


def recipe(folder: ProjectFolder, run: Run, target: Path) -> Recipe:
    """The script and its inputs for the run; paths in them are relative to `target`.

    H648: the prepared examples are no longer those of the run. H649: the order of the rows cannot be
    found again (the record is of another version).
    """
    from hauslm.data.store import ExampleStore
    from hauslm.train import adapters
    from hauslm.train.batches import Schedule, label_counts, split_examples

    settings = _settings(run)
    prefix = folder.work / "prepared" / "train"
    _check_examples(prefix, run)
    store = ExampleStore.open(prefix)
    usable = [int(i) for i in label_counts(store).nonzero()[0]]
    schedule = Schedule(store, settings, usable)
    if schedule.steps != run.settings.get("steps"):
        raise _other_version()
    base = (folder.root / run.base["path"]).resolve()
    variant = adapters.find(settings.adapter["variant"]) if settings.method != "full" else None
    config = dict(variant.config(settings.adapter)) if variant else {}
    config.pop("eva_config", None)
    if config.get("layers_to_transform"):  # PEFT takes them with names only; the adapter has these
        saved = read_json(folder.root / run.adapter.path / "adapter_config.json")
        config["target_modules"] = saved["target_modules"]
    computed = variant is not None and variant.NAME in COMPUTED_STARTS
    if computed:
        config.pop("init_lora_weights", None)
    values = {name: run.settings[name] for name in _names() if name in run.settings}
    content = {
        "base": {**run.base, "path": _from(target, base)},
        "data": {"prefix": _from(target, prefix), "sha256": run.data},
        "settings": values | {"steps": schedule.steps, "kept_step": run.settings["kept_step"]},
        "warmup_steps": math.ceil(settings.warmup_ratio * schedule.steps),
        "lora": config,
        "lora_plus_ratio": getattr(variant.module, "RATIO", None) if variant else None,
        "versions": run.versions,
        "adapter_sha256": run.adapter.sha256,
        "steps": [
            split_examples(schedule.bins(step), settings.micro_batch_size, settings.packing)
            for step in range(schedule.steps)
        ],
    }
    made = Recipe(
        {
            SCRIPT: _source("plain_script.py"),
            **{f"arithmetic/{name}": _source(name) for name in ARITHMETIC},
            RECIPE: canonical_json(content) + b"\n",
        }
    )
    if computed:
        made.files[START] = _start_values(base, settings, schedule, store, run)
    made.notes += _notes(run, settings)
    return made


def _source(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _names() -> list[str]:
    from hauslm.train.settings import Settings

    return [f.name for f in fields(Settings) if f.name != "reasons"]


def _settings(run: Run) -> Settings:
    """The settings as the record keeps them."""
    from hauslm.train.settings import Settings

    given = {name: run.settings[name] for name in _names() if name in run.settings}
    try:
        return Settings(**{**given, "report_to": tuple(given.get("report_to", ()))})
    except TypeError as error:
        raise _other_version() from error


def _other_version() -> DataError:
    return DataError(
        "H649",
        say("The record of the run does not tell how its rows were ordered; another version of hauslm wrote it."),
        where="records/run.json",
        next_step=say("Train again: {command}", command="hauslm train"),
    )  # fmt: skip


def _check_examples(prefix: Path, run: Run) -> None:
    """The prepared files must be those that were trained on."""
    from hauslm.train.seal import data_hashes

    now = data_hashes(prefix)
    if (run.data and any(now.get(name) != run.data[name] for name in run.data if name in now)) or not now:  # fmt: skip
        raise RefusedError(
            "H648",
            say("The prepared examples are no longer those that the adapter was trained on."),
            where=str(prefix.parent),
            next_step=say("Run: {command}", command="hauslm prepare && hauslm train"),
        )


def _from(target: Path, path: Path) -> str:
    return Path(os.path.relpath(path, target.resolve())).as_posix()


def _start_values(
    base: Path, settings: Settings, schedule: Schedule, store: Any, run: Run
) -> bytes:
    """The adapter before its first step, as PEFT names its tensors."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    from hauslm.lm.quiet import quiet
    from hauslm.train import adapters, model
    from hauslm.train.batches import make_row, split_examples
    from hauslm.train.trainer import Compute

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet():
        loaded = model.load_base(base, settings, device)
        adapted: Any = model.attach(loaded, settings, base, run.base["id"])
        compute = Compute(adapted, settings, device)
        groups = split_examples(schedule.bins(0), 1, settings.packing)
        rows = [make_row(store, g, device) for g in groups]
        adapters.find(settings.adapter["variant"]).seen(compute, rows)
    state = get_peft_model_state_dict(adapted)
    return save({name: t.detach().to("cpu").contiguous() for name, t in state.items()})


def _notes(run: Run, settings: Settings) -> list[Sentence]:
    notes = [
        say(
            "The script reads the prepared examples where they are; they are the team's texts, pass them on only if you may."
        )
    ]
    if not run.data:
        notes.append(
            say(
                "The record is of an older version and does not hold the examples' hashes; whether they are still the same was not checked."
            )
        )
    if run.settings.get("started_from"):
        notes.append(
            say(
                "This run went on from the adapter of {name} under other settings; the script begins anew and gives another adapter.",
                name=run.settings["started_from"],
            )
        )
    if settings.base_precision != "full":
        notes.append(
            say(
                "The base was multiplied in {stored}, by hauslm's own layers; the script multiplies in {precision}, so the adapter is near, not the same.",
                stored=settings.base_precision,
                precision=settings.precision,
            )
        )
    if run.determinism != "bitwise":
        notes.append(
            say(
                "The run itself is not repeatable bit for bit; the script's adapter differs as a repetition would."
            )
        )
    return notes
