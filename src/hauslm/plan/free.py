"""A free-standing question: does this model, trained or served like this, fit that card?

What is not asked for is taken as the plain path of the field does it, so that the answer is
comparable with what people measure: transformers' own loss (all logits), PEFT's adapters in fp32
without dropout beside a bf16 base, SDPA attention, AdamW, no k-bit upcast; nf4 with double
quantisation for qlora. Micro-batch, length and checkpointing are chosen where they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.estimate.memory import inference_memory
from hauslm.estimate.money import electricity_price
from hauslm.estimate.setup import InferenceSetup, Quantisation, TrainingSetup
from hauslm.estimate.shape import Targets
from hauslm.estimate.speed import analysis_throughput, concurrent_sequences
from hauslm.plan import evidence as levels
from hauslm.plan import subject as subjects
from hauslm.plan import values
from hauslm.plan.advice import USUAL_CARDS_GB, suggestions
from hauslm.plan.choose import NOTHING_MEASURED, Correction, Point, evaluate
from hauslm.plan.record import Evidence, Outcome, adapter_words, record, stored_as
from hauslm.plan.subject import Machine, Subject
from hauslm.plan.values import Chosen
from hauslm.plan.values import given as by_user
from hauslm.records import Plan

METHODS = ("lora", "qlora", "full", "inference")
USUAL_LENGTH = 2048
USUAL_RANK = 16
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
    quantisation: Quantisation | None = None,
    root: Path | None = None,
    machine_profile: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Memory, verdict, speed of one setting; time, energy and cost are for a million tokens.

    `model`: catalog id, folder or config.json. `gpu`: catalog id, "cpu" for this computer, None for
    the smallest common card size that fits. `targets`: attention, all-linear, mlp, or names.
    Raises UsageError for unknown names and for combinations that cannot exist.
    """
    if method not in METHODS:
        raise UsageError(
            "H158",
            say("'{method}' is no way of using a model.", method=method),
            next_step=did_you_mean(method, METHODS),
        )
    base = subjects.subject(model, root or Path.cwd(), trace=evidence == "trace")
    length = _length(base, seq_len)
    machine = _machine(gpu)
    if method == "inference":
        levels.refuse_probe_of_inference(evidence, None)
        return _serving(base, machine, length, micro_batch_size, quantisation or "none")
    stored: Quantisation = quantisation or ("nf4_dq" if method == "qlora" else "none")
    setup = TrainingSetup(
        base.architecture,
        method,  # type: ignore[arg-type]
        int(length.value),
        quantisation=stored,
        rank=rank or USUAL_RANK,
        targets=_targets(targets),
        dropout=dropout or 0.0,
        arithmetic="mixed" if method != "full" else "lean",
        attention="sdpa",
        loss="naive",
        device="cpu" if machine is not None and machine.is_cpu else "cuda",
    )
    setup.check()
    return _training(
        base, machine, setup, length, micro_batch_size, checkpointing, rank, targets, evidence,
        machine_profile, progress,
    )  # fmt: skip


def _machine(gpu: str | None) -> Machine | None:
    if gpu is None:
        return None
    return subjects.this_computer() if gpu in ("cpu", "none") else subjects.card(gpu)


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


def _targets(targets: str | Sequence[str] | None) -> Targets:
    """ "attention", "all-linear", "mlp", "a,b,c" or a list of names; all-linear if left out."""
    if targets is None:
        return "all-linear"
    names = [t.strip() for t in targets.split(",")] if isinstance(targets, str) else list(targets)
    names = [n for n in names if n]
    if len(names) == 1 and names[0] in ("attention", "all-linear", "mlp"):
        return names[0]  # type: ignore[return-value]
    return tuple(names) or "all-linear"


# ---------------------------------------------------------------- training


def _training(
    base: Subject,
    machine: Machine | None,
    setup: TrainingSetup,
    length: Chosen,
    micro: int | None,
    checkpointing: bool | None,
    rank: int | None,
    targets: str | Sequence[str] | None,
    evidence: Evidence,
    profile: Path | None,
    progress: Progress | None,
) -> Plan:
    machine = machine or _smallest(setup, micro, checkpointing)
    correction, notices = levels.correction(machine, profile, evidence)
    chosen = _chosen(setup, machine, micro, checkpointing, correction)
    chosen, level, said = levels.confirm(chosen, base, machine, evidence, False, profile, progress)
    advice: list[Sentence] = []
    if not chosen.fits_with_margin:
        advice, _ = suggestions(chosen.setup, machine, correction)
    s = chosen.setup
    settings = {
        "method": by_user(s.method),
        "quantisation": Chosen(stored_as(s.quantisation), _stored_reason(s)),
        "precision": Chosen("bfloat16", say("The usual format of a base model.")),
        "seq_len": length,
        "micro_batch_size": by_user(micro) if micro else Chosen(
            s.micro_batch_size, say("The largest of 1, 2, 4 and 8 that fits.")),
        "gradient_accumulation_steps": Chosen(1, say("Does not change the memory of an adapter.")),
        "activation_checkpointing": _checkpointing(chosen, checkpointing, "on" if s.checkpointed_layers else "off"),
        "checkpointed_layers": _checkpointing(chosen, checkpointing, s.checkpointed_layers),
        "loss": Chosen(s.loss, say("The plain path keeps all logits; hauslm train computes them in chunks.")),
        "learning_rate": values.learning_rate(s.architecture, s.method),
        "packing": Chosen(True, say("Every token of the pass counts.")),
        "optimizer": Chosen("adamw", say("The usual one.")),
    }  # fmt: skip
    if s.method != "full":
        shown = s.targets if isinstance(s.targets, str) else list(s.targets)
        settings["r"] = (
            by_user(rank) if rank else Chosen(s.rank, adapter_words(base, s.targets, s.rank))
        )
        settings["target_modules"] = by_user(shown) if targets else Chosen(
            shown, say("All linear layers learn more per parameter than attention alone."))  # fmt: skip
        settings["lora_dropout"] = Chosen(s.dropout, say("None unless asked for."))
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


def _stored_reason(s: TrainingSetup) -> Sentence:
    if s.quantisation == "none":
        return say("Nothing is rounded.")
    return say("4 bit with double quantisation, the smallest base that trains well (QLoRA).")


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
    stored: Quantisation,
) -> Plan:
    context = int(length.value)
    answer = min(LONGEST_ANSWER, max(1, int(context * ANSWER_SHARE)))
    machine = machine or subjects.card("rtx-4090")
    if machine.gpu is None:
        raise UsageError(
            "H159",
            say("Inference is planned for a card of the catalog."),
            where="--gpu",
            next_step=say("hauslm catalog gpus lists them."),
        )
    room = concurrent_sequences(base.architecture, machine.gpu, context, quantisation=stored)
    at_once = sequences or max(1, min(room, 64))
    memory = inference_memory(
        InferenceSetup(base.architecture, context, at_once, quantisation=stored)
    )
    fits = memory.peak.value <= machine.usable_gib
    speed = analysis_throughput(
        base.architecture,
        machine.gpu,
        tokens_in=context - answer,
        tokens_out=answer,
        quantisation=stored,
        concurrency=at_once,
        even_if_too_large=True,
    ).tokens_per_second
    settings = {
        "method": by_user("inference"),
        "quantisation": Chosen(stored_as(stored), say("Nothing is rounded.") if stored == "none" else say("Given by you.")),
        "precision": Chosen("bfloat16", say("The usual format of a base model.")),
        "seq_len": length,
        "micro_batch_size": by_user(sequences) if sequences else Chosen(
            at_once, say("As many sequences at once as the cache has room for, at most 64.")),
        "tokens_out": Chosen(answer, say("Part of the length that is the answer, at most 500 tokens.")),
    }  # fmt: skip
    advice = [] if fits else _serving_advice(base, machine, context, at_once)
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


def _serving_advice(
    base: Subject, machine: Machine, context: int, sequences: int
) -> list[Sentence]:
    """Fewer at once, a smaller format, a shorter length: each that suffices."""
    formats: tuple[tuple[Quantisation, Literal["8 bit", "4 bit"]], ...] = (
        ("int8", "8 bit"), ("nf4_dq", "4 bit"),
    )  # fmt: skip

    def peak(**changes: object) -> float:
        setup = InferenceSetup(base.architecture, context, sequences)
        return inference_memory(replace(setup, **changes)).peak.highest  # type: ignore[arg-type]

    said: list[Sentence] = []
    if sequences > 1 and peak(sequences=1) <= machine.usable_gib:
        said.append(say("One sequence at a time fits."))
    for stored, words in formats:
        if peak(quantisation=stored) <= machine.usable_gib:
            said.append(say("Weights in {words} fit.", words=words))
    if context > 2 * USUAL_LENGTH and peak(context=context // 2) <= machine.usable_gib:
        said.append(say("Sequences of {tokens:,} tokens fit.", tokens=context // 2))
    for size in USUAL_CARDS_GB:
        if size > machine.memory_gib and peak() <= subjects.smaller_card(machine, size).usable_gib:
            said.append(say("As it is, it fits a card with {size} GB.", size=size))
            break
    return said
