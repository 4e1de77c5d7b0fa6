"""How well is the memory known? Three levels: formula, trace, probe.

The search always runs on the formula. A trace rebuilds the chosen setting's step with fake tensors and
replaces the memory; a probe runs a few real steps on the real device and is kept in the machine
profile, from where it recalibrates later plans for the same machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError, UsageError
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.estimate.memory import as_estimate
from hauslm.estimate.setup import TrainingSetup
from hauslm.plan.choose import NOTHING_MEASURED, Correction, Point, judged
from hauslm.plan.record import Evidence
from hauslm.plan.subject import Machine, Subject

PROFILE_VERSION = 1
MOST_TRACES = 3


def profile_path() -> Path:
    """Where probes of this computer are kept, unless the caller names another file."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "hauslm" / "machine.json"


def correction(
    machine: Machine, profile: Path | None, evidence: Evidence = "formula"
) -> tuple[Correction, list[Sentence]]:
    """What an earlier probe on this kind of machine measured, with a sentence that says so.

    A new probe starts from the plain formula: it must not be compared with a corrected one.
    """
    profile = profile or profile_path()
    if evidence == "probe" or not profile.is_file():
        return NOTHING_MEASURED, []
    try:
        entry = json.loads(profile.read_text(encoding="utf-8"))["machines"][machine.id]
        memory, speed = float(entry["memory_factor"]), float(entry["speed_factor"])
        date = str(entry["date"])
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING_MEASURED, []
    found = Correction(memory, speed, f"recalibrated by a probe of {date}")
    return found, [
        say(
            "Recalibrated by a probe of {date} on this machine: memory x {memory:.2f}, speed x {speed:.2f}.",
            date=date, memory=memory, speed=speed,
        )
    ]  # fmt: skip


def confirm(
    chosen: Point,
    base: Subject,
    machine: Machine,
    evidence: Evidence,
    may_checkpoint: bool,
    profile: Path | None,
    progress: Progress | None,
) -> tuple[Point, Evidence, list[Sentence]]:
    """The chosen point at the level of evidence asked for."""
    if evidence == "trace":
        return _traced(chosen, base, machine, may_checkpoint, progress)
    if evidence == "probe":
        return _probed(chosen, base, machine, profile, progress)
    return chosen, "formula", []


def _config(base: Subject) -> dict[str, Any]:
    from hauslm.estimate.trace import config_of  # transformers' keys; torch only when it traces

    return base.config if base.config is not None else config_of(base.architecture)


def _traced(
    chosen: Point, base: Subject, machine: Machine, may_checkpoint: bool, progress: Progress | None
) -> tuple[Point, Evidence, list[Sentence]]:
    """Trace the point; if it then fails to fit, checkpoint more layers and trace again."""
    from hauslm.estimate.trace import trace_training_peak

    layers = chosen.setup.architecture.n_layers
    for _ in range(MOST_TRACES):
        if progress is not None:
            progress.say(say("Tracing a training step with fake tensors ..."))
        memory = trace_training_peak(_config(base), chosen.setup)
        traced = judged(chosen.setup, memory, chosen.speed, machine)
        k = chosen.setup.checkpointed_layers
        if traced.fits_with_margin or not may_checkpoint or k == layers:
            return traced, "trace", []
        more = min(layers, k + max(1, (layers - k) // 3))
        chosen = replace(traced, setup=replace(chosen.setup, checkpointed_layers=more))
    return traced, "trace", []


def _probed(
    chosen: Point, base: Subject, machine: Machine, profile: Path | None, progress: Progress | None
) -> tuple[Point, Evidence, list[Sentence]]:
    from hauslm.estimate.probe import device_for, probe, store

    device = device_for(machine.gpu.name if machine.gpu is not None else None)
    if device is None:
        raise MissingError(
            "H545",
            say("There is no {gpu} in this computer to probe.", gpu=str(machine.name)),
            next_step=say("Run the plan on the machine that will train, or use --evidence trace."),
        )
    if progress is not None:
        progress.say(say("Running a few real training steps on {device} ...", device=device))
    measured = probe(_config(base), chosen.setup, device)
    path = profile or profile_path()
    store(path, machine.id, measured, chosen.memory, chosen.speed)
    memory = as_estimate(
        chosen.memory.moment, measured.parts(chosen.memory), chosen.memory.device, measured.source
    )
    point = judged(chosen.setup, memory, measured.speed, machine)
    return (
        point,
        "probe",
        [
            say(
                "Measured on {device}; kept in {file} for later plans.",
                device=device,
                file=str(path),
            )
        ],
    )


def refuse_probe_of_inference(evidence: Evidence, setup: TrainingSetup | None) -> None:
    """Traces and probes are of training steps only (H157)."""
    if evidence != "formula" and setup is None:
        raise UsageError(
            "H157",
            say("Inference is planned by formula only."),
            next_step=say("Leave --evidence out, or plan a training method."),
        )
