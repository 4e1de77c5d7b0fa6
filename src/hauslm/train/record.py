"""The record of a finished run: figures with how they are known, settings with their reasons."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from hauslm.base.quantity import measured
from hauslm.base.words import as_text, say
from hauslm.records import AdapterFile, Loss, Run, Said
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
            path=folder.relative(folder.adapter),
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
        steps=given.schedule.steps,
        epochs=given.schedule.epochs_done(given.schedule.steps),
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
        settings=_settings(leg),
        device=given.device,
        versions=given.versions,
        notices=tuple(leg.notices.said),
    )


def _settings(leg: Leg) -> dict[str, Any]:
    """The values in force, what followed from them, and the reason for each chosen one."""
    settings, schedule = leg.inputs.settings, leg.inputs.schedule
    values: dict[str, Any] = plain_json(settings.plain())
    values["validate_every_steps"] = leg.validate_every
    values["steps"] = schedule.steps
    values["kept_step"] = leg.best.step if leg.best.step >= 0 else schedule.steps
    values["packing_proof"] = {"logits": leg.proof.logits, "loss": leg.proof.loss}
    values["reasons"] = {
        name: Said.of(reason).model_dump(mode="json") for name, reason in settings.reasons.items()
    }
    return values
