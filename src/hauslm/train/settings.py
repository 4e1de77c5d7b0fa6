"""Which values hold for this run, and why? The user's first, then the plan's, then the presets'.

`Settings` is everything that the result depends on; two runs with equal settings, data and base give
the same adapter. What it leaves to others: the values themselves (presets.py), the batches (batches.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.words import Sentence, say
from hauslm.records import Plan, Setting
from hauslm.scenario import Scenario
from hauslm.train import kernels, presets


@dataclass(frozen=True)
class Settings:
    """The values in force. `reasons` says for each automatic one why."""

    method: str  # lora, qlora, full
    quantisation: str  # none, nf4, int8
    precision: str  # float32, bfloat16: number format of the frozen base and of the products
    base_precision: str  # full: as precision says; int8, fp8: the frozen base's products in 8 bit
    adapter: dict[str, Any]  # r, lora_alpha, lora_dropout, target_modules, bias, task_type, variant
    seq_len: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    epochs: float
    max_steps: int | None
    seed: int
    packing: bool
    checkpointed_layers: int  # -1: all
    validate_every_steps: int | None
    checkpoint_every_steps: int | None
    keep_checkpoints: int
    early_stopping_patience: int | None  # validations; None: never
    report_to: tuple[str, ...]
    liger: bool
    compile: bool
    curriculum: str = "off"  # length: the first pass takes the short examples first
    reasons: dict[str, Sentence] = field(default_factory=dict, compare=False)

    @property
    def batch_bins(self) -> int:
        """Sequences per optimizer step."""
        return self.micro_batch_size * self.gradient_accumulation_steps

    def identity(self) -> dict[str, Any]:
        """Everything the adapter depends on, as JSON (checkpoint housekeeping left out)."""
        left_out = {"reasons", "checkpoint_every_steps", "keep_checkpoints", "report_to"}
        if self.curriculum == "off":  # runs from before the setting go on
            left_out.add("curriculum")
        return {k: v for k, v in asdict(self).items() if k not in left_out}

    def plain(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reasons"}


@dataclass(frozen=True)
class Facts:
    """What the settings are chosen from: the base, the data, the machine."""

    model_type: str
    hidden: int
    layers: int
    parameters: float
    context: int
    examples: int
    longest: int
    tokens: int
    device: str  # cpu, cuda
    bfloat16: bool  # the device multiplies bfloat16 at speed


class _Chooser:
    """Takes the first value that is there and keeps the reason for it."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan = plan
        self.reasons: dict[str, Sentence] = {}

    def planned(self, name: str) -> Setting | None:
        """What the plan says about it; nothing if it has no opinion."""
        found = self.plan.settings.get(name) if self.plan else None
        return found if found and found.value not in (None, "auto") else None

    def choose(self, name: str, given: Any, preset: presets.Chosen) -> Any:
        if given is not None and given != "auto":
            self.reasons[name] = say("Given in the project file.")
            return given
        planned = self.planned(name)
        if planned is not None:
            self.reasons[name] = _by_plan(planned)
            return planned.value
        self.reasons[name] = preset.reason
        return preset.value


def _by_plan(setting: Setting) -> Sentence:
    return say("The plan's value: {reason}", reason=setting.reason.sentence())


def resolve(scenario: Scenario, plan: Plan | None, facts: Facts) -> Settings:
    """The settings in force. Raises UsageError/RefusedError/DataError when they contradict."""
    training, chooser = scenario.training, _Chooser(plan)
    method, quantisation = _method(scenario, chooser, facts)
    seq_len = int(
        chooser.choose(
            "seq_len",
            training.seq_len,
            presets.Chosen(facts.longest, say("The longest prepared example.")),
        )
    )
    _check_length(seq_len, facts)
    precision = chooser.choose("precision", training.precision, _precision(method, facts))
    base_precision = _base_precision(scenario, chooser, facts, method, quantisation)
    advised = presets.learning_rate(facts.model_type, facts.hidden, facts.parameters, method)
    rate = float(chooser.choose("learning_rate", training.learning_rate, advised))
    micro, accumulation = _batch(training, chooser, facts, seq_len)
    hours = plan.time.hours.value if plan is not None and training.compile == "auto" else None
    liger, compiled = kernels.wanted(training.liger, training.compile, facts.device, hours)
    return Settings(
        method=method,
        quantisation=quantisation,
        precision=precision,
        base_precision=base_precision,
        adapter=scenario.adapter.resolved() if method != "full" else {},
        seq_len=seq_len,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_ratio=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        epochs=training.epochs,
        max_steps=training.max_steps,
        seed=training.seed,
        packing=training.packing,
        checkpointed_layers=_checkpointed(training.activation_checkpointing, chooser, facts),
        validate_every_steps=training.validate_every_steps,
        checkpoint_every_steps=training.checkpoint_every_steps,
        keep_checkpoints=training.keep_checkpoints,
        early_stopping_patience=training.early_stopping_patience,
        report_to=tuple(training.report_to),
        liger=liger,
        compile=compiled,
        curriculum=training.curriculum,
        reasons=chooser.reasons,
    )


def _method(scenario: Scenario, chooser: _Chooser, facts: Facts) -> tuple[str, str]:
    preset = presets.Chosen("lora", say("LoRA: the base stays as it is, the adapter is small."))
    method = chooser.choose("method", scenario.training.method, preset)
    if method not in ("lora", "qlora", "full"):
        raise UsageError(
            "H601",
            say("'{method}' is no way of training.", method=str(method)),
            next_step=say("Set training.method to lora, qlora or full."),
        )
    stored = scenario.model.quantisation
    if method == "full":
        if stored in ("nf4", "int8"):
            raise RefusedError(
                "H602",
                say("A base that is stored as {stored} cannot be trained in full.", stored=stored),
                next_step=say("Set training.method to qlora, or model.quantisation to none."),
            )
        return "full", "none"
    if stored == "auto":
        planned = chooser.planned("quantisation")
        if planned and planned.value in ("none", "nf4", "int8"):
            stored = planned.value
        else:
            stored = "nf4" if method == "qlora" else "none"
    if method == "qlora" and stored == "none":
        raise RefusedError(
            "H602",
            say("QLoRA means a quantised base, but model.quantisation is none."),
            next_step=say("Set training.method to lora, or model.quantisation to nf4."),
        )
    return ("qlora" if stored == "nf4" else method), stored


def _precision(method: str, facts: Facts) -> presets.Chosen:
    if facts.bfloat16:
        return presets.Chosen(
            "bfloat16", say("This device multiplies bfloat16 faster than float32.")
        )
    return presets.Chosen("float32", say("This device has no fast bfloat16."))


def _base_precision(
    scenario: Scenario, chooser: _Chooser, facts: Facts, method: str, quantisation: str
) -> str:
    """full, int8 or fp8: the user's word, the plan's, or for `auto` without a plan what the device has."""
    from hauslm.train.eightbit import choose

    asked: str = scenario.training.base_precision
    reason = say("Given in the project file.")
    if "base_precision" not in scenario.training.model_fields_set:
        reason = say("The base's products stay in the number format of the run.")
    if asked == "auto":
        planned = chooser.planned("base_precision")
        reason = say("The format in which this device multiplies fastest.")
        if planned is not None:
            asked, reason = str(planned.value), _by_plan(planned)
    chooser.reasons["base_precision"] = reason
    return choose(asked, facts.device, method, quantisation, scenario.adapter.variant)


def _check_length(seq_len: int, facts: Facts) -> None:
    if facts.longest > seq_len:
        raise DataError(
            "H603",
            say(
                "The examples were prepared with up to {longest:,} tokens, training allows {seq_len:,}; nothing is cut silently.",
                longest=facts.longest,
                seq_len=seq_len,
            ),
            next_step=say(
                "Run hauslm prepare again, or set training.seq_len to {longest}.",
                longest=facts.longest,
            ),
        )
    if seq_len > facts.context and facts.longest > facts.context:
        raise RefusedError(
            "H604",
            say(
                "Examples have up to {longest:,} tokens, the base reads {context:,}.",
                longest=facts.longest,
                context=facts.context,
            ),
            next_step=say(
                "Set training.seq_len to {context} and run hauslm prepare again.",
                context=facts.context,
            ),
        )


def _batch(training: Any, chooser: _Chooser, facts: Facts, seq_len: int) -> tuple[int, int]:
    """Sequences per forward pass, forward passes per step."""
    bins = max(1, -(-facts.tokens // seq_len)) if training.packing else facts.examples
    whole = presets.batch_bins(bins, facts.examples, training.epochs, training.max_steps)
    room = (
        presets.MICRO_BATCH_TOKENS_CPU if facts.device == "cpu" else presets.MICRO_BATCH_TOKENS_GPU
    )
    fits = max(1, min(whole.value, room // seq_len))
    micro = int(
        chooser.choose(
            "micro_batch_size",
            training.micro_batch_size,
            presets.Chosen(
                fits, say("About {tokens:,} tokens in one forward pass.", tokens=fits * seq_len)
            ),
        )
    )
    accumulation = int(
        chooser.choose(
            "gradient_accumulation_steps",
            training.gradient_accumulation_steps,
            presets.Chosen(max(1, round(whole.value / micro)), whole.reason),
        )
    )
    return micro, accumulation


def _checkpointed(given: str, chooser: _Chooser, facts: Facts) -> int:
    """How many layers recompute their activations; -1 is all of them."""
    if given in ("on", "off"):
        chooser.reasons["checkpointed_layers"] = say("Given in the project file.")
        return -1 if given == "on" else 0
    for name in ("checkpointed_layers", "activation_checkpointing"):
        planned = chooser.planned(name)
        if planned is None:
            continue
        value = planned.value
        chooser.reasons["checkpointed_layers"] = _by_plan(planned)
        if isinstance(value, bool) or value in ("on", "off"):
            return -1 if value in (True, "on") else 0
        if isinstance(value, (int, float)):
            return -1 if value >= facts.layers else int(value)
    chooser.reasons["checkpointed_layers"] = say(
        "No plan asks for it; recomputing costs 48 % more work."
    )
    return 0
