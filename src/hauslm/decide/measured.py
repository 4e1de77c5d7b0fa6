"""What was measured on this machine? Figures from records that replace the speed formula.

A plan with evidence probe and a training run measure training tokens a second, an analysis measures
documents. They count for the machine that the project file names as the team's own, and only if they
ran on a GPU: a run on the processor says nothing about it, and then a notice says so. The prepared
documents (a corpus record) replace the assumed length of a document and the tokens it makes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.decide.machines import Measurement
from hauslm.decide.places import has_gpu
from hauslm.decide.tokens import Counted, density, tokenizer_of
from hauslm.records import Analysis, Corpus, Plan, Record, Run
from hauslm.scenario import ScenarioAnswers

LENGTH_TOLERANCE = 0.25  # a stated length further off from the documents is mentioned
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


def counted(
    records: Sequence[Record], scenario: ScenarioAnswers, base: str
) -> tuple[Counted | None, list[Sentence]]:
    """What the prepared documents say of length and tokens, and a sentence that they are used.

    `base` is the project's base model, whose tokenizer counted them.
    """
    corpus = next((r for r in records if isinstance(r, Corpus)), None)
    if corpus is None or not corpus.documents.read or corpus.characters_per_token <= 0:
        return None, []
    tokenizers = dict(corpus.tokenizers)
    if base in load.ids("models"):
        name, same = tokenizer_of(load.model(base))
        if name is not None and same:
            tokenizers.setdefault(name, corpus.characters_per_token)
    mean = corpus.documents.characters / corpus.documents.read
    found = Counted(
        model=base,
        characters_per_token=corpus.characters_per_token,
        documents=corpus.documents.read,
        characters_per_document=mean,
        training_tokens=corpus.tokens.train,
        date=corpus.created[:10],
        languages=tuple(scenario.workload.languages),
        tokenizers=tokenizers,
    )
    return found, _about(found, scenario)


def _about(found: Counted, scenario: ScenarioAnswers) -> list[Sentence]:
    """That the documents were counted; and where the project file states another length."""
    said = [
        say(
            "Lengths and tokens were counted on the {documents:,} prepared documents ({characters:,} "
            "characters each on average); real tokenizers: {names}.",
            documents=found.documents,
            characters=round(found.characters_per_document),
            names=", ".join(sorted({*found.tokenizers, found.model})),
        )
    ]
    stated = scenario.workload.characters_per_document
    off = abs(stated - found.characters_per_document) > LENGTH_TOLERANCE * stated
    if "characters_per_document" in scenario.workload.model_fields_set and off:
        said.append(
            say(
                "The project file says {stated:,} characters per document, the prepared ones have "
                "{counted:,}: the project file counts. Correct it if the prepared ones are typical.",
                stated=stated, counted=round(found.characters_per_document),
            )
        )  # fmt: skip
    return said


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
