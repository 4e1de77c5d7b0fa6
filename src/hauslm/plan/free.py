"""A free-standing question: does this model, trained or served like this, fit that card?

What is not asked for is taken as the plain path of the field does it (`question`), so that the answer is
comparable with what people measure; where that path forks, the range covers the forks. Micro-batch,
length and checkpointing are chosen where they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hauslm.base.errors import UsageError
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.estimate.memory import GIB, covering, inference_memory, training_memory
from hauslm.estimate.money import electricity_price
from hauslm.estimate.setup import InferenceSetup, Quantisation, Sharding, TrainingSetup
from hauslm.estimate.speed import analysis_throughput, concurrent_sequences
from hauslm.plan import evidence as levels
from hauslm.plan import subject as subjects
from hauslm.plan import values
from hauslm.plan.advice import USUAL_CARDS_GB, fastest_that_fits, suggestions
from hauslm.plan.choose import NOTHING_MEASURED, Correction, Point, evaluate, judged
from hauslm.plan.question import FORMATS, KV_BYTES, METHODS, Question, one_of, reasons
from hauslm.plan.record import Evidence, Outcome, adapter_words, record, stored_as
from hauslm.plan.subject import Machine, Subject
from hauslm.plan.values import Chosen
from hauslm.plan.values import given as by_user
from hauslm.records import Plan

USUAL_LENGTH = 2048
TOKENS_PLANNED = 1_000_000.0
ANSWER_SHARE, LONGEST_ANSWER = 0.25, 500
REGION = "DE"


def plan_free(
    model: str,
    method: str = "qlora",
    gpu: str | None = None,
    seq_len: int | None = None,
    micro_batch_size: int | None = None,
    checkpointing: bool | None = None,
    rank: int | None = None,
    targets: str | Sequence[str] | None = None,
    evidence: Evidence = "formula",
    *,
    dropout: float | None = None,
    quantisation: str | None = None,
    loss: str | None = None,
    attention: str | None = None,
    arithmetic: str | None = None,
    optimizer: str | None = None,
    variant: str | None = None,
    kbit_upcast: bool = False,
    kv_cache: str | None = None,
    gpus: int = 1,
    sharding: Sharding | None = None,
    suggest: bool = False,
    root: Path | None = None,
    machine_profile: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Memory, verdict, speed of one setting; time, energy and cost are for a million tokens.

    `model`: catalog id, folder or config.json. `gpu`: catalog id, "cpu" for this computer, None for
    the smallest common card size that fits; `gpus` of them (memory is per GPU). `targets`: attention,
    all-linear, mlp, or names. `suggest` adds the fastest setting that fits. Raises UsageError for
    unknown names and for combinations that cannot exist.
    """
    one_of(method, METHODS, "--method")
    base = subjects.subject(model, root or Path.cwd(), trace=evidence == "trace")
    length = _length(base, seq_len)
    machine = _machine(gpu, gpus)
    if method == "inference":
        levels.refuse_probe_of_inference(evidence, None)
        return _serving(base, machine, length, micro_batch_size, quantisation, kv_cache, gpus)
    if kv_cache is not None:
        raise UsageError(
            "H174",
            say("Training keeps no KV cache."),
            where="--kv-cache",
            next_step=say("Leave it out, or plan inference."),
        )
    asked = Question(
        method, int(length.value), micro_batch_size, checkpointing, rank, targets, quantisation,
        dropout, loss, attention, arithmetic, optimizer, variant, kbit_upcast, gpus, sharding,
    )  # fmt: skip
    setup = asked.setup(
        base.architecture, "cpu" if machine is not None and machine.is_cpu else "cuda"
    )
    return _training(
        base, machine, asked, setup, length, evidence, suggest, machine_profile, progress
    )


def _machine(gpu: str | None, count: int) -> Machine | None:
    if gpu is None:
        return None
    if gpu in ("cpu", "none"):
        return subjects.this_computer()
    return subjects.card(gpu, count)


def _length(base: Subject, seq_len: int | None) -> Chosen:
    context = base.architecture.max_context
    if seq_len is None:
        value = min(USUAL_LENGTH, context)
        return Chosen(value, say("A usual length, as none was given."))
    if seq_len > context:
        raise UsageError(
            "H156",
            say("Sequences of {tokens:,} tokens exceed the {context:,} that the model reads.",
                tokens=seq_len, context=context),
            where="--seq-len",
            next_step=say("Give at most {context}.", context=context),
        )  # fmt: skip
    return by_user(seq_len)


# ---------------------------------------------------------------- training


def _training(
    base: Subject,
    machine: Machine | None,
    asked: Question,
    setup: TrainingSetup,
    length: Chosen,
    evidence: Evidence,
    suggest: bool,
    profile: Path | None,
    progress: Progress | None,
) -> Plan:
    micro, checkpointing = asked.micro_batch_size, asked.checkpointing
    machine = machine or _smallest(setup, micro, checkpointing)
    correction, notices = levels.correction(machine, profile, evidence)
    chosen = _chosen(setup, machine, micro, checkpointing, correction)
    chosen, level, said = levels.confirm(chosen, base, machine, evidence, False, profile, progress)
    advice: list[Sentence] = []
    if not chosen.fits_with_margin:
        advice, _ = suggestions(chosen.setup, machine, correction)
    if suggest:
        advice.append(fastest_that_fits(chosen.setup, machine, correction))
    if level == "formula":
        others = (training_memory(s) for s in asked.forks(chosen.setup))
        chosen = judged(chosen.setup, covering(chosen.memory, others), chosen.speed, machine)
    s = chosen.setup
    settings = {
        "method": by_user(s.method),
        "quantisation": _stored(asked, s),
        "precision": Chosen("bfloat16", say("The usual format of a base model.")),
        "seq_len": length,
        "micro_batch_size": by_user(micro) if micro else Chosen(
            s.micro_batch_size, say("The largest of 1, 2, 4 and 8 that fits.")),
        "gradient_accumulation_steps": Chosen(1, say("Does not change the memory of an adapter.")),
        "activation_checkpointing": _checkpointing(chosen, checkpointing, "on" if s.checkpointed_layers else "off"),
        "checkpointed_layers": _checkpointing(chosen, checkpointing, s.checkpointed_layers),
        "learning_rate": values.learning_rate(s.architecture, s.method),
        "packing": Chosen(True, say("Every token of the pass counts.")),
        **reasons(asked, s),
    }  # fmt: skip
    if s.method != "full":
        shown = s.targets if isinstance(s.targets, str) else list(s.targets)
        settings["r"] = (
            by_user(s.rank)
            if asked.rank
            else Chosen(s.rank, adapter_words(base, s.targets, s.rank))
        )
        settings["target_modules"] = by_user(shown) if asked.targets else Chosen(
            shown, say("All linear layers learn more per parameter than attention alone."))  # fmt: skip
    return record(
        Outcome(
            base, machine, s.method, chosen.memory, chosen.speed, TOKENS_PLANNED, settings,
            electricity_price(REGION), level, tuple(advice),
            notices=(
                *notices, *said,
                say("Time, energy and cost are for a million tokens, at a household's price in Germany."),
            ),
        )
    )  # fmt: skip


def _stored(asked: Question, s: TrainingSetup) -> Chosen:
    if asked.quantisation is not None:
        return by_user(stored_as(s.quantisation))
    if s.quantisation == "none":
        return Chosen("none", say("Nothing is rounded."))
    return Chosen(
        stored_as(s.quantisation),
        say("4 bit with double quantisation, the smallest base that trains well (QLoRA)."),
    )


def _checkpointing(chosen: Point, asked: bool | None, value: object) -> Chosen:
    if asked is not None:
        return by_user(value)
    if chosen.setup.checkpointed_layers:
        return Chosen(value, say("All layers have to be recomputed for it to fit."))
    return Chosen(value, say("Everything fits without; recomputing costs up to 48 % more work."))


def _chosen(
    setup: TrainingSetup,
    machine: Machine,
    micro: int | None,
    checkpointing: bool | None,
    correction: Correction = NOTHING_MEASURED,
) -> Point:
    """Largest micro-batch that fits; without checkpointing where that fits too."""
    layers = setup.architecture.n_layers
    modes = {True: (layers,), False: (0,), None: (0, layers)}[checkpointing]
    last: Point | None = None
    for size in (micro,) if micro else (8, 4, 2, 1):
        for count in modes:
            changed = replace(setup, micro_batch_size=size, checkpointed_layers=count)
            last = evaluate(changed, machine, correction)
            if last.fits_with_margin:
                return last
    assert last is not None  # noqa: S101 - both loops have at least one round
    return last


def _smallest(setup: TrainingSetup, micro: int | None, checkpointing: bool | None) -> Machine:
    """The smallest common size that fits, as a card with the speed of an RTX 4090."""
    card = subjects.card("rtx-4090")
    for size in USUAL_CARDS_GB:
        machine = subjects.smaller_card(card, size)
        if _chosen(setup, machine, micro or 1, checkpointing).fits_with_margin:
            return machine
    return subjects.smaller_card(card, USUAL_CARDS_GB[-1])


# ---------------------------------------------------------------- inference


def _serving(
    base: Subject,
    machine: Machine | None,
    length: Chosen,
    sequences: int | None,
    quantisation: str | None,
    kv_cache: str | None,
    gpus: int,
) -> Plan:
    shape, context = base.architecture, int(length.value)
    answer = min(LONGEST_ANSWER, max(1, int(context * ANSWER_SHARE)))
    machine = machine or subjects.card("rtx-4090", gpus)
    if machine.gpu is None:
        raise UsageError(
            "H159",
            say("Inference is planned for a card of the catalog."),
            where="--gpu",
            next_step=say("hauslm catalog gpus lists them."),
        )
    stored = _served_format(base, quantisation)
    kv_bytes = KV_BYTES[one_of(kv_cache or "16bit", KV_BYTES, "--kv-cache")]
    room = concurrent_sequences(
        shape, machine.gpu, context, quantisation=stored.value, kv_bytes=kv_bytes, gpus=gpus
    )
    at_once = sequences or max(1, min(room, 64))
    setup = InferenceSetup(
        shape, context, at_once, quantisation=stored.value, kv_bytes=kv_bytes, ranks=gpus
    )
    memory = inference_memory(setup)
    fits = memory.peak.value <= machine.usable_gib
    speed = analysis_throughput(
        shape,
        machine.gpu,
        tokens_in=context - answer,
        tokens_out=answer,
        quantisation=stored.value,
        kv_bytes=kv_bytes,
        concurrency=at_once,
        gpus=gpus,
        even_if_too_large=True,
    ).tokens_per_second
    per_sequence = memory.bytes["kv_cache"] / at_once / GIB
    settings = {
        "method": by_user("inference"),
        "quantisation": Chosen(stored_as(stored.value), stored.reason),
        "precision": Chosen("bfloat16", say("The usual format of a base model.")),
        "kv_cache": by_user(kv_cache) if kv_cache else Chosen(
            "16bit", say("{size:.2f} GiB per sequence of this length.", size=per_sequence)),
        "seq_len": length,
        "micro_batch_size": by_user(sequences) if sequences else Chosen(
            at_once, say("As many sequences at once as the cache has room for, at most 64.")),
        "tokens_out": Chosen(answer, say("Part of the length that is the answer, at most 500 tokens.")),
    }  # fmt: skip
    advice = [] if fits else _serving_advice(setup, machine)
    return record(
        Outcome(
            base, machine, "inference", memory, speed, TOKENS_PLANNED, settings,
            electricity_price(REGION), "formula", tuple(advice),
            notices=(
                say("Tokens per second count prompt and answer of documents that fill the length."),
                say("Time, energy and cost are for a million tokens, at a household's price in Germany."),
            ),
        )
    )  # fmt: skip


def _served_format(base: Subject, quantisation: str | None) -> Chosen:
    """The format asked for, else that in which the model is published."""
    if quantisation is not None:
        stored = FORMATS[one_of(quantisation, FORMATS, "--quantisation")]
        if stored == "mxfp4" and base.architecture.family != "gpt_oss":
            raise UsageError(
                "H174",
                say("mxfp4 is the format of gpt-oss's experts; this model has none in it."),
                where="--quantisation",
                next_step=say("Choose nf4, int8, fp8, int8_mm or none."),
            )
        return by_user(stored)
    if base.architecture.family == "gpt_oss":
        return Chosen("mxfp4", say("Its makers publish the experts in 4 bit (mxfp4)."))
    return Chosen("none", say("Nothing is rounded."))


def _serving_advice(setup: InferenceSetup, machine: Machine) -> list[Sentence]:
    """Fewer at once, a smaller format, a shorter length: each that suffices."""
    formats: tuple[tuple[Quantisation, Literal["8 bit", "4 bit"]], ...] = (
        ("int8", "8 bit"), ("nf4_dq", "4 bit"),
    )  # fmt: skip

    def peak(**changes: object) -> float:
        return inference_memory(replace(setup, **changes)).peak.highest  # type: ignore[arg-type]

    said: list[Sentence] = []
    if setup.sequences > 1 and peak(sequences=1) <= machine.usable_gib:
        said.append(say("One sequence at a time fits."))
    if setup.kv_bytes > 1 and peak(kv_bytes=1.0) <= machine.usable_gib:
        said.append(say("A KV cache in 8 bit fits."))
    for stored, words in formats:
        if setup.quantisation != stored and peak(quantisation=stored) <= machine.usable_gib:
            said.append(say("Weights in {words} fit.", words=words))
    if setup.context > 2 * USUAL_LENGTH and peak(context=setup.context // 2) <= machine.usable_gib:
        said.append(say("Sequences of {tokens:,} tokens fit.", tokens=setup.context // 2))
    for size in USUAL_CARDS_GB:
        if size > machine.memory_gib and peak() <= subjects.smaller_card(machine, size).usable_gib:
            said.append(say("As it is, it fits a card with {size} GB.", size=size))
            break
    return said
