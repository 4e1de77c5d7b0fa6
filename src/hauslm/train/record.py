"""The record of a finished run: figures with how they are known, settings with their reasons."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from hauslm.base.quantity import measured
from hauslm.base.words import as_text, say
from hauslm.records import AdapterFile, Loss, Run, Said, StoppedEarly
from hauslm.train.inputs import plain_json
from hauslm.train.meter import thinned

if TYPE_CHECKING:
    from hauslm.train.leg import Leg


def record_of(leg: Leg, adapter_sha256: str) -> Run:
    """`loss.validation` is that of the adapter that was kept."""
    today = datetime.date.today().isoformat()
    given, folder, meter = leg.inputs, leg.folder, leg.meter
    best = leg.best
    return Run(
        adapter=AdapterFile(
            path=folder.relative(leg.target),
            sha256=adapter_sha256,
            parameters=leg.parameters,
            config=given.settings.adapter,
        ),
        base={
            "id": given.base.id,
            "path": folder.relative(given.base.path),
            "sha256": given.base_sha256,
        },
        method=given.settings.method,
        steps=leg.step,
        epochs=given.schedule.epochs_done(leg.step),
        tokens=meter.tokens,
        tokens_per_second=measured(
            meter.tokens_per_second,
            "tokens/s",
            today,
            as_text(say("tokens read while learning over the time of the steps; no padding")),
        ),
        peak_memory_gib=leg.memory.quantity(today),
        seconds=meter.seconds,
        energy_kwh=leg.energy.quantity(today),
        loss=Loss(
            first=leg.losses.first,
            last=leg.losses.last,
            validation=best.loss if best.step >= 0 else leg.losses.validation,
            validation_first=leg.losses.validation_first,
        ),
        history=thinned(meter.rows),
        determinism="bitwise" if leg.bitwise else "statistical",
        resumed_from=tuple(leg.resumed_from),
        stopped_early=_stopped_early(leg),
        saving=_saving(leg),
        settings=_settings(leg),
        data={k: v for k, v in given.identity.data.items() if k.startswith("train.")},
        device=given.device,
        distributed=leg.ranks.plain(),
        versions=given.versions,
        notices=tuple(leg.notices.said),
    )


def _stopped_early(leg: Leg) -> StoppedEarly | None:
    if not leg.stopped_early:
        return None
    return StoppedEarly(
        step=leg.step,
        planned_steps=leg.schedule.steps,
        best_step=leg.best.step,
        patience=leg.settings.early_stopping_patience or 0,
    )


def _saving(leg: Leg) -> dict[str, float]:
    """What the checkpoints of this process cost: times in seconds, share of the steps' time."""
    writer, steps = leg.writer, leg.meter.leg_seconds
    return {
        "checkpoints": writer.written,
        "held_seconds": round(writer.held_seconds, 4),
        "write_seconds": round(writer.write_seconds, 4),
        "held_share": round(writer.held_seconds / steps, 5) if steps else 0.0,
    }


def _limit(leg: Leg) -> dict[str, Any] | None:
    """Which share of the measured matmul peak the run reached; None where its work cannot be counted."""
    limit, meter = leg.limit, leg.meter
    if limit is None or not meter.step_seconds:
        return None
    return {
        "share": round(
            limit.share(meter.tokens, meter.labels, meter.squares, meter.step_seconds), 4
        ),
        "peak_gflops": round(limit.peak / 1e9, 1),
        "number_format": limit.number_format,
        "flop_per_token": round(
            limit.work(meter.tokens, meter.labels, meter.squares) / max(1, meter.tokens)
        ),
        "formula": "4 x weights + 4 x head x labels + 12 x heads x head size x layers x length / 2",
    }


def _settings(leg: Leg) -> dict[str, Any]:
    """The values in force, what followed from them, and the reason for each chosen one."""
    settings, schedule = leg.inputs.settings, leg.inputs.schedule
    values: dict[str, Any] = plain_json(settings.plain())
    values["validate_every_steps"] = leg.validate_every
    values["steps"] = schedule.steps
    values["kept_step"] = leg.best.step if leg.best.step >= 0 else leg.step
    if leg.started_from:
        values["started_from"] = leg.started_from
    values["packing_proof"] = {"logits": leg.proof.logits, "loss": leg.proof.loss}
    values["limit"] = _limit(leg)
    values["gate"] = leg.gate.plain() if leg.gate is not None else None
    values["reasons"] = {
        name: Said.of(reason).model_dump(mode="json") for name, reason in settings.reasons.items()
    }
    return values
