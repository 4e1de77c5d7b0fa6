"""How fast is a machine at this work? The planner's formula, split into reading and writing.

`estimate.serving` answers for one length of document; the cost formula needs seconds per token, so
that a longer document or another tokenizer costs more time. Analysis is counted with the engine that
`hauslm analyse` uses by default, and an adapter beside a quantised base (a 16-bit base is merged).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity, derived
from hauslm.catalog import load
from hauslm.estimate.efficiency import LORA_SERVING
from hauslm.estimate.serving import analysis_throughput
from hauslm.estimate.setup import Quantisation, TrainingSetup
from hauslm.estimate.speed import training_tokens_per_second

QUANTISATIONS: dict[str, Quantisation] = {"bf16": "none", "int8": "int8", "nf4": "nf4"}
CONCURRENCY = 8  # analysis.batch_size


@dataclass(frozen=True)
class Pace:
    """Seconds of one GPU per token read and per token written, and what that makes an hour."""

    seconds_per_input_token: float
    seconds_per_output_token: float
    documents_per_hour: Quantity


def pace(
    model_id: str, quantisation: str, gpu_id: str, tokens_in: int, tokens_out: int, tuned: bool
) -> Pace | None:
    """Speed of the analysis on one GPU; None where the planner cannot say (it does not fit).

    An adapter is merged into a 16-bit base and costs nothing then; beside a quantised base it slows
    every step down by the share that servers have been measured with.
    """
    base = _base_pace(model_id, quantisation, gpu_id, tokens_in, tokens_out)
    if base is None or not tuned or quantisation == "bf16":
        return base
    share = LORA_SERVING
    speed = base.documents_per_hour
    slower = derived(
        speed.value * share.value,
        "documents/h",
        f"{speed.source}, adapter beside the base",
        speed.lowest * share.lowest,
        speed.highest * share.highest,
    )
    return Pace(
        base.seconds_per_input_token / share.value,
        base.seconds_per_output_token / share.value,
        slower,
    )


@cache
def _base_pace(
    model_id: str, quantisation: str, gpu_id: str, tokens_in: int, tokens_out: int
) -> Pace | None:
    architecture = load.model(model_id).architecture
    if architecture is None:
        return None
    try:
        found = analysis_throughput(
            architecture,
            load.gpu(gpu_id),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            quantisation=QUANTISATIONS[quantisation],
            engine="transformers",
            concurrency=CONCURRENCY,
        )
    except HauslmError:
        return None
    return Pace(
        found.prefill_s / max(1, tokens_in),
        found.decode_s / max(1, tokens_out),
        found.documents_per_hour,
    )


@cache
def training_pace(model_id: str, quantisation: str, gpu_id: str, seq_len: int) -> Quantity | None:
    """Training tokens per second of the adapter on one GPU, checkpointing on."""
    architecture = load.model(model_id).architecture
    if architecture is None:
        return None
    form = QUANTISATIONS[quantisation]
    setup = TrainingSetup(
        architecture,
        "lora" if form == "none" else "qlora",
        min(seq_len, architecture.max_context),
        quantisation=form,
        checkpointed_layers=architecture.n_layers,
    )
    return training_tokens_per_second(setup, load.gpu(gpu_id))
