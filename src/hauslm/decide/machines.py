"""Which machines could do it, with which model? The own GPU, one to be bought, one by the hour.

Every open model with a known architecture, in 16 bit, 8 bit and 4 bit, with and without an adapter,
on every GPU of the catalog that has a price: what fits (by the planner's memory formula, for the
analysis and for the training of the adapter) becomes a candidate with its speed (by the planner's
speed formula, or as measured on this machine). One model has to fit on one GPU; several GPUs share
the documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.schema import Model
from hauslm.decide.candidate import Candidate, Collected, fact
from hauslm.decide.cost import Bill, Bills, Settings, costs
from hauslm.decide.gates import floor
from hauslm.decide.places import Place, outdone
from hauslm.decide.scores import rank_panel
from hauslm.decide.speed import Pace, pace, training_pace
from hauslm.decide.tokens import Counted, density, reasons
from hauslm.estimate.memory import inference_memory, training_memory
from hauslm.estimate.setup import InferenceSetup, Quantisation, TrainingSetup
from hauslm.records import Fact, Gate
from hauslm.scenario import ScenarioAnswers

QUANTISATIONS: Mapping[str, Quantisation] = {"bf16": "none", "int8": "int8", "nf4": "nf4"}
SHEET_MODELS = ("mistral-7b-v0.1", "mistral-7b-v0.3", "llama-3-8b")  # the lab sheet's
TRAINING_SEQ_LEN = 2048  # what an adapter is trained on at least; longer articles are packed
MOST_GPUS = 8
IDLE_SHARE = 0.05  # of the rated power, a card without work
LEAST_IDLE_W = 12.0


@dataclass(frozen=True)
class Measurement:
    """A speed measured on this machine, for one model, quantisation ('' any) and GPU."""

    model: str
    gpu: str
    quantisation: str
    documents_per_hour: Quantity | None = None
    training_tokens_per_second: Quantity | None = None


@dataclass(frozen=True)
class Workshop:
    """What the candidates of one scenario share."""

    languages: tuple[str, ...]
    settings: Settings
    measured: Sequence[Measurement] = ()
    deadline_days: float | None = None
    places: tuple[Place, ...] = field(default=())
    counted: Counted | None = None


def machine_candidates(scenario: ScenarioAnswers, shop: Workshop, collected: Collected) -> None:
    """Add every candidate on a machine; what is out by plain comparison is left out with a reason.

    On the own machine every model is tried. A machine to be bought or rented is skipped if another
    one costs no more and has no less of anything; on the others only models are tried that no
    smaller model outscores.
    """
    short = shortlist(_open_models(), shop.languages)
    combinations = len(QUANTISATIONS) * 2
    for place in shop.places:
        better = outdone(place, shop.places)
        if better is not None:
            collected.leave_out(
                f"{place.name}/*",
                say("The {other} costs no more and has no less memory, bandwidth or computing power.",
                    other=better.gpu.name),
            )  # fmt: skip
            collected.considered += len(_open_models()) * combinations - 1
            continue
        for model in _open_models():
            if place.setting != "own" and model.id in short:
                collected.left_out.setdefault(f"*/{model.id}/*", short[model.id])
                collected.considered += combinations
                continue
            for name in QUANTISATIONS:
                if name == "int8" and place.setting != "own":
                    collected.left_out.setdefault(f"{place.name}/*/int8/*", _between())
                    collected.considered += 2
                    continue
                for tuned in (False, True):
                    _consider(place, model, name, tuned, shop, collected)


def _between() -> Sentence:
    return say("8 bit lies between 16 and 4 bit; it is tried on the own machine only.")


def shortlist(models: Sequence[Model], languages: Sequence[str]) -> dict[str, Sentence]:
    """Models that need not be tried on further machines, each with the reason.

    A model is out if a model with no more parameters (in all and per token) has a better score in
    the panel of mean ranks, or if it has no score there. The lab sheet's models always stay.
    """
    panel = rank_panel(models, languages)
    if panel is None:
        return {}
    size = {m.id: _sizes(m) for m in models}
    names = {m.id: m.name for m in models}
    out: dict[str, Sentence] = {}
    for model in models:
        if model.id in SHEET_MODELS:
            continue
        if model.id not in panel.scores:
            out[model.id] = say("No comparable score of {model} was found.", model=model.name)
            continue
        for other in panel.scores:
            smaller = all(b <= a for a, b in zip(size[model.id], size[other], strict=True))
            if other != model.id and smaller and panel.place(other) < panel.place(model.id):
                out[model.id] = say(
                    "{other} is no larger and scores better ({harness}, {language}).",
                    other=names[other], harness=panel.key.harness, language=panel.key.language,
                )  # fmt: skip
                break
    return out


def _sizes(model: Model) -> tuple[float, float]:
    assert model.parameters is not None  # noqa: S101 - _open_models filters
    return model.parameters.value, (model.active_parameters or model.parameters).value


def _consider(
    place: Place, model: Model, quantisation: str, tuned: bool, shop: Workshop, into: Collected
) -> None:
    identity = f"{place.name}/{model.id}/{quantisation}/{'lora' if tuned else 'base'}"
    context = _context(model, shop)
    limit = model.architecture.max_context if model.architecture else 0
    if context > limit and model.id not in SHEET_MODELS:
        into.leave_out(identity, _too_long(model, context, limit))
        return
    room = place.gpu.memory_gib.value
    needed, why = _needed_gib(model, quantisation, tuned, shop)
    if needed is None:
        into.leave_out(identity, why)
        return
    if needed.highest > room:
        into.leave_out(
            identity,
            say("{model} in {format} needs {need:.1f} GiB; {gpu} has {room:.0f} GiB.",
                model=model.name, format=quantisation, need=needed.highest, gpu=place.gpu.name, room=room),
        )  # fmt: skip
        return
    candidate = _candidate(identity, place, model, quantisation, tuned, shop)
    if isinstance(candidate, Candidate):
        into.add(_enough(candidate, place, shop))
    else:
        into.leave_out(identity, candidate)


def _enough(candidate: Candidate, place: Place, shop: Workshop) -> Candidate:
    """A machine to be bought gets as many GPUs as the demand needs, up to `MOST_GPUS`."""
    if place.setting != "buy" or candidate.bill is None:
        return candidate
    found = costs(Bills([candidate.bill]), shop.settings)
    s = shop.settings
    hours = float(s.available_hours_per_month)
    running = float(found.hours_per_month[0, 0])
    running += float(found.training_hours[0, 0]) / float(s.months)
    backlog = float(found.backlog_hours[0, 0])
    share = max(running / hours, (running + backlog / float(s.months)) / hours)
    if shop.deadline_days is not None:
        days = shop.deadline_days
        share = max(share, (running + backlog * 365 / 12 / days) / hours)
    more = math.ceil(share - 1e-9)
    if more <= 1 or place.count * more > MOST_GPUS:
        return candidate
    return _with_gpus(candidate, replace(place, count=place.count * more))


def _with_gpus(candidate: Candidate, place: Place) -> Candidate:
    """The same candidate on more GPUs of the same kind, under the name of that machine."""
    assert candidate.bill is not None and candidate.scored is not None  # noqa: S101
    name = f"{place.name}/{candidate.id.split('/', 1)[1]}"
    terms = _machine_terms(place)
    bill = replace(candidate.bill, id=name, gpus=float(place.count), **terms)  # type: ignore[arg-type]
    title = _title(place, candidate.scored, candidate.quantisation, candidate.tuned)
    return replace(candidate, id=name, setting=place.name, title=title, bill=bill)


def _too_long(model: Model, need: int, limit: int) -> Sentence:
    return say(
        "A document with instructions and answer is {need:,} tokens; {model} holds {limit:,}. It "
        "would have to be analysed in sections.",
        need=need, model=model.name, limit=limit,
    )  # fmt: skip


@cache
def _open_models() -> tuple[Model, ...]:
    return tuple(
        m
        for m in load.models()
        if m.kind == "open" and m.architecture is not None and m.parameters is not None
    )


# ---------------------------------------------------------------- fit


def _context(model: Model, shop: Workshop) -> int:
    """Tokens of one document with instructions and answer, in the model's own tokens."""
    s = shop.settings
    dense = density(model, shop.languages, shop.counted).quantity.value
    ratio = float(s.reference_characters_per_token) / dense
    extra = float(s.instruction_tokens) + float(s.tokens_out_per_document)
    return math.ceil(float(s.characters_per_document) / dense + extra * ratio)


def _needed_gib(
    model: Model, quantisation: str, tuned: bool, shop: Workshop
) -> tuple[Quantity | None, Sentence]:
    """GiB for the analysis of one document and, if tuned, for one training step; the larger. The
    upper end of the estimate has to fit."""
    assert model.architecture is not None  # noqa: S101 - _open_models filters
    context = min(_context(model, shop), model.architecture.max_context)
    try:
        return _memory_gib(model.id, quantisation, tuned, context), say("")
    except HauslmError as error:
        what = (
            error.what if isinstance(error.what, Sentence) else say("Its layout is not understood.")
        )
        return None, what


@cache
def _memory_gib(model_id: str, quantisation: str, tuned: bool, context: int) -> Quantity:
    architecture = load.model(model_id).architecture
    assert architecture is not None  # noqa: S101 - _open_models filters
    form = QUANTISATIONS[quantisation]
    serving = inference_memory(
        InferenceSetup(architecture, context, quantisation=form, adapters=1 if tuned else 0)
    )
    if not tuned:
        return serving.peak
    setup = TrainingSetup(
        architecture,
        "lora" if form == "none" else "qlora",
        min(TRAINING_SEQ_LEN, architecture.max_context),
        quantisation=form,
        checkpointed_layers=architecture.n_layers,
    )
    return max(serving.peak, training_memory(setup).peak, key=lambda q: q.highest)


# ---------------------------------------------------------------- candidates


def _candidate(
    identity: str, place: Place, model: Model, quantisation: str, tuned: bool, shop: Workshop
) -> Candidate | Sentence:
    assert model.architecture is not None and model.parameters is not None  # noqa: S101
    dense = density(model, shop.languages, shop.counted)
    context = _context(model, shop)
    found = _pace(place, model, quantisation, tuned, shop, context)
    if found is None:
        return say("The speed of {gpu} is not known: its catalog entry lacks figures.",
                   gpu=place.gpu.name)  # fmt: skip
    training = 0.0
    if tuned:
        speed = _training_pace(place, model, quantisation, shop)
        if speed is None:
            return say("The training speed of {gpu} is not known: its catalog entry lacks figures.",
                       gpu=place.gpu.name)  # fmt: skip
        training = 1 / speed.value
    s = shop.settings
    tokens = float(s.training_tokens) * float(s.training_epochs)
    active = model.active_parameters or model.parameters
    bill = Bill(
        identity,
        characters_per_token=dense.quantity.value,
        tokenizer_known=dense.known,
        reasons=reasons(model),
        tuned=tuned,
        gpus=float(place.count),
        seconds_per_input_token=found.seconds_per_input_token,
        seconds_per_output_token=found.seconds_per_output_token,
        training_seconds_per_token=training,
        own_staff=True,
        **_machine_terms(place),  # type: ignore[arg-type]
    )
    return Candidate(
        id=identity,
        kind="rented" if place.setting == "rent" else "local",
        setting=place.name,
        title=_title(place, model, quantisation, tuned),
        model=model.id,
        bill=bill,
        traits=_traits(place, model, tuned),
        scored=model,
        hardware=place.gpu.id,
        quantisation=quantisation,
        adaptation="lora" if tuned else "none",
        paid=place.setting == "own",
        context_tokens=float(model.architecture.max_context),
        training_flop=6 * active.value * tokens if tuned else 0.0,
        floors=_context_floor(model, context),
        details=lambda: _facts(place, model, quantisation, tuned, shop, found, dense.quantity),
        notes=_notes(place),
    )


def _context_floor(model: Model, context: int) -> tuple[Gate, ...]:
    shape = model.architecture
    assert shape is not None  # noqa: S101 - _open_models filters
    if context <= shape.max_context:
        return ()
    return (floor("context", _too_long(model, context, shape.max_context)),)


def _machine_terms(place: Place) -> dict[str, float | bool]:
    tdp = place.gpu.tdp_w.value if place.gpu.tdp_w else 0.0
    if place.setting == "rent":
        assert place.rent is not None  # noqa: S101 - rented places have a price
        return {"rent_per_hour": place.rent.value, "usd": place.rent.unit.startswith("USD")}
    purchase = place.purchase
    return {
        "own_machine": True,
        "paid": place.setting == "own",
        "load_w": tdp,
        "idle_w": max(LEAST_IDLE_W, IDLE_SHARE * tdp),
        "gpu_price": purchase.value * place.count if purchase else 0.0,
        "gpu_price_in_usd": bool(purchase and purchase.unit == "USD"),
        "host_price_eur": place.host_eur.value if place.host_eur else 0.0,
    }


def _traits(place: Place, model: Model, tuned: bool) -> dict[str, str]:
    away = place.setting == "rent"
    licence = model.licence
    name = (licence.id if licence else "unknown").lower()
    family = "llama" if "llama" in name else "gemma" if "gemma" in name else name
    return {
        "third_party": "yes" if away else "no",
        "us_provider": "unknown" if away else "no",
        "eu": "unknown" if away else "yes",
        "transfer_ground": "unknown" if away else "yes",
        "trains_on_inputs": "no",
        "tuned": "yes" if tuned else "no",
        "licence": family,
        "commercial_licence": "unknown" if licence is None else
        ("yes" if licence.commercial_use else "no"),
    }  # fmt: skip


def _title(place: Place, model: Model, quantisation: str, tuned: bool) -> Sentence:
    form = {"bf16": say("16 bit"), "int8": say("8 bit"), "nf4": say("4 bit")}[quantisation]
    values = {
        "model": model.name,
        "form": form,
        "with_lora": say(" with LoRA") if tuned else say(" without adapter"),
        "gpu": (f"{place.count} x " if place.count > 1 else "") + place.gpu.name,
    }
    if place.setting == "own":
        return say("{model} in {form}{with_lora} on the own {gpu}", **values)
    if place.setting == "buy":
        return say("{model} in {form}{with_lora} on a {gpu} to be bought", **values)
    return say("{model} in {form}{with_lora} on a rented {gpu}", **values)


def _facts(
    place: Place, model: Model, quantisation: str, tuned: bool, shop: Workshop, found: Pace,
    dense: Quantity,
) -> tuple[Fact, ...]:  # fmt: skip
    needed, _ = _needed_gib(model, quantisation, tuned, shop)
    rows = [
        *((fact(say("Memory needed"), needed),) if needed is not None else ()),
        fact(say("Memory of the GPU"), place.gpu.memory_gib),
        fact(say("Documents per hour"), found.documents_per_hour),
        fact(say("Characters per token"), dense),
    ]
    if place.purchase is not None and place.setting == "buy":
        rows.append(fact(say("Purchase price of the GPU"), place.purchase))
    if place.host_eur is not None and place.setting == "buy":
        rows.append(fact(say("Price of the computer around it"), place.host_eur))
    if place.rent is not None:
        rows.append(fact(say("Rent per hour"), place.rent))
    if place.gpu.tdp_w is not None:
        rows.append(fact(say("Rated power of the GPU"), place.gpu.tdp_w))
    return tuple(rows)


def _notes(place: Place) -> tuple[Sentence, ...]:
    if place.setting == "own" and place.purchase is None:
        return (
            say("No price of {gpu} is known, so its repair and renewal are not counted.",
                gpu=place.gpu.name),
        )  # fmt: skip
    return ()


# ---------------------------------------------------------------- speed


def _pace(
    place: Place, model: Model, quantisation: str, tuned: bool, shop: Workshop, context: int
) -> Pace | None:
    """Measured on this machine where it was, else by the formula."""
    s = shop.settings
    out = max(1, round(float(s.tokens_out_per_document)))
    formula = pace(model.id, quantisation, place.gpu.id, max(1, context - out), out, tuned)
    for row in shop.measured:
        same = row.model == model.id and row.gpu == place.gpu.id
        if same and row.quantisation in ("", quantisation) and row.documents_per_hour is not None:
            return _scaled(formula, row.documents_per_hour, context, out)
    return formula


def _scaled(formula: Pace | None, measured: Quantity, context: int, out: int) -> Pace:
    """The measured documents per hour, split over input and output as the formula does."""
    seconds = 3600 / measured.value
    if formula is None:
        return Pace(seconds / context, seconds / context, measured)
    guess = formula.seconds_per_input_token * max(1, context - out)
    guess += formula.seconds_per_output_token * out
    factor = seconds / guess
    return Pace(
        formula.seconds_per_input_token * factor,
        formula.seconds_per_output_token * factor,
        measured,
    )


def _training_pace(
    place: Place, model: Model, quantisation: str, shop: Workshop
) -> Quantity | None:
    for row in shop.measured:
        same = row.model == model.id and row.gpu == place.gpu.id
        if same and row.quantisation in ("", quantisation) and row.training_tokens_per_second:
            return row.training_tokens_per_second
    return training_pace(model.id, quantisation, place.gpu.id, TRAINING_SEQ_LEN)
