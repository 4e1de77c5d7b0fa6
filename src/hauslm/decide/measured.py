"""What was measured on this machine? Figures from records that replace the speed formula.

A plan with evidence probe and a training run measure training tokens a second, an analysis measures
documents. They count for the machine that the project file names as the team's own, and only if they
ran on a GPU: a run on the processor says nothing about it, and then a notice says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.decide.machines import Measurement
from hauslm.decide.places import has_gpu
from hauslm.decide.tokens import density
from hauslm.records import Analysis, Plan, Record, Run
from hauslm.scenario import ScenarioAnswers

_FORMS = {"lora": "bf16", "full": "bf16", "qlora": "nf4"}


def measurements(
    records: Sequence[Record], scenario: ScenarioAnswers
) -> tuple[tuple[Measurement, ...], list[Sentence]]:
    """Measurements for the team's own GPU, and a sentence for each one used or set aside."""
    found: list[Measurement] = []
    notices: list[Sentence] = []
    if not has_gpu(scenario):
        return (), notices
    for record in records:
        row = _from(record, scenario)
        if row is None:
            continue
        if isinstance(row, Sentence):
            notices.append(row)
            continue
        found.append(row)
        notices.append(
            say(
                "A speed measured on this machine replaces the estimate for {model}.",
                model=row.model,
            )
        )
    return tuple(found), notices


def _from(record: Record, scenario: ScenarioAnswers) -> Measurement | Sentence | None:
    gpu = scenario.hardware.gpu
    known = load.ids("models")
    if isinstance(record, Plan):
        if record.evidence != "probe" or record.model not in known:
            return None
        form = _FORMS.get(record.method, "")
        return Measurement(
            record.model, gpu, form, training_tokens_per_second=record.throughput.tokens_per_second
        )
    if isinstance(record, Run):
        model = record.base.get("id", "")
        if model not in known:
            return None
        if record.device.startswith("cpu"):
            return say("The training of {model} ran on the processor; its speed says nothing about "
                       "the GPU and is not used.", model=model)  # fmt: skip
        form = _FORMS.get(record.method, "")
        return Measurement(model, gpu, form, training_tokens_per_second=record.tokens_per_second)
    if isinstance(record, Analysis):
        return _analysis(record, scenario, known)
    return None


def _analysis(
    record: Analysis, scenario: ScenarioAnswers, known: tuple[str, ...]
) -> Measurement | Sentence | None:
    """Documents an hour for documents of the scenario's length, from the tokens per second."""
    model = record.model.get("id") or record.model.get("base", "")
    if model not in known or record.tokens_per_second.value <= 0:
        return None
    if record.model.get("device", "").startswith("cpu"):
        return say("The analysis with {model} ran on the processor; its speed says nothing about the "
                   "GPU and is not used.", model=model)  # fmt: skip
    dense = density(load.model(model), scenario.workload.languages).quantity.value
    work = scenario.workload
    tokens = work.characters_per_document / dense + work.tokens_out_per_document
    speed = record.tokens_per_second.times(3600 / tokens, "documents/h")
    return Measurement(model, scenario.hardware.gpu, "", documents_per_hour=speed)
