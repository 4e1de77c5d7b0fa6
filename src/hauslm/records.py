"""The spine: what each room hands to the next. Whoever reads this file has read the programme.

    Scenario -> Decision -> Plan -> Corpus -> Run -> Evaluation -> Bundle -> Analysis -> report

A record is a small immutable value that is also a JSON file in the project's `records/` folder.
`inputs` names the sha256 of everything it was made from, so that `flow` knows when it is out of date.
Figures are quantities (`base/quantity.py`); sentences keep their template and values (`Said`), so a
record written in German can be reported in English.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hauslm.base.errors import DataError
from hauslm.base.files import read_json, sha256_file, write_json
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, as_text, say

SCHEMA_VERSION = 1


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Value(BaseModel):
    """Base of everything inside a record: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Said(Value):
    """A sentence in a record: `text` as written then, template and values to say it again."""

    text: str
    template: str = ""
    values: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, sentence: Sentence | str) -> Said:
        if isinstance(sentence, str):
            return cls(text=sentence)
        return cls(
            text=sentence.text(), template=sentence.template, values=_plain_values(sentence.values)
        )

    def say(self, language: str | None = None) -> str:
        """The sentence in `language`; a plain text stays as it is."""
        return self.sentence().text(language) if self.template else self.text

    def sentence(self) -> Sentence:
        return Sentence(self.template or "{text}", _live_values(self.values) or {"text": self.text})


def _plain_values(values: Any) -> dict[str, Any]:
    """Values as JSON: a nested sentence becomes {"template", "values"}."""

    def plain(value: Any) -> Any:
        if isinstance(value, Sentence):
            return {"template": value.template, "values": _plain_values(value.values)}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if isinstance(value, dict):  # one text per language (a rule, a fact file)
            return {str(k): str(v) for k, v in value.items()}
        return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)

    return {k: plain(v) for k, v in dict(values).items()}


def _live_values(values: dict[str, Any]) -> dict[str, Any]:
    def live(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"template", "values"}:
            return Sentence(value["template"], _live_values(value["values"]))
        if isinstance(value, list):
            return [live(v) for v in value]
        return value

    return {k: live(v) for k, v in values.items()}


class Fact(Value):
    """A labelled figure: 'memory bandwidth: 936 GB/s (sourced, ..., ...)'."""

    label: Said
    quantity: Quantity


class Record(Value):
    """What all records share."""

    name: ClassVar[str] = ""

    schema_version: int = SCHEMA_VERSION
    created: str = Field(default_factory=now)
    hauslm_version: str = ""
    language: str = "en"
    inputs: dict[str, str] = Field(default_factory=dict)
    notices: tuple[Said, ...] = ()  # everything a reader must not miss, in full sentences

    def save(self, folder: Path) -> str:
        """Write `records/<name>.json` sealed; returns its sha256."""
        return write_json(folder / f"{self.name}.json", self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record; H312 if it is not one of this version."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                "H312",
                say(
                    "This is not a {name} record of this hauslm version ({key}: {reason}).",
                    name=cls.name,
                    key=".".join(str(p) for p in first["loc"]),
                    reason=first["msg"],
                ),
                where=str(path),
                next_step=say("Delete the file; the stage that writes it will run again."),
            ) from error


# ---------------------------------------------------------------- compare


class Cell(Value):
    """One cell of the comparison: a judgement in words, with the figures it rests on."""

    judgement: Said
    facts: tuple[Fact, ...] = ()


class ComparisonRow(Value):
    """One criterion: the cloud side, the local side, and who is ahead ('' if it depends)."""

    criterion: str
    title: Said
    cloud: Cell
    local: Cell
    ahead: Literal["cloud", "local", ""] = ""


class Comparison(Record):
    """The lab's table: cloud/API against local open-weight models, criterion by criterion."""

    name: ClassVar[str] = "comparison"

    rows: tuple[ComparisonRow, ...]
    cloud_option: str = ""
    local_option: str = ""
    cloud_title: Said | None = None
    local_title: Said | None = None


# ---------------------------------------------------------------- decide


class Gate(Value):
    """A rule applied to an option."""

    rule: str
    effect: Literal["BLOCK", "REQUIRE", "WARN", "ALLOW", "FAVOUR"]
    severity: str = ""  # of a REQUIRE: high = somebody else's permission is missing
    why: Said
    source: str = ""
    source_expired: bool = False


class Cost(Value):
    """Cost of one option, in EUR; `lines` add up to `horizon`."""

    monthly: Quantity
    horizon: Quantity
    per_document: Quantity
    lines: tuple[Fact, ...] = ()


class Option(Value):
    """One way to do it."""

    id: str
    kind: Literal["local", "rented", "cloud", "hosted"]
    title: Said
    model: str
    hardware: str = ""
    quantisation: str = ""
    adaptation: str = ""
    admissible: bool = True
    complete: bool = True  # False when a price is missing: listed, never ranked
    gates: tuple[Gate, ...] = ()
    cost: Cost | None = None
    criteria: dict[str, Said] = Field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    dominated_by: str = ""


class Reason(Said):
    """A full sentence for or against, under one criterion."""

    criterion: str
    facts: tuple[Fact, ...] = ()


class Verdict(Value):
    option: str
    kind: Literal["local", "rented", "cloud", "hosted"]
    title: Said
    reasons: tuple[Reason, ...]
    cheaper_option: str = ""  # the cheapest complete option, when a rule or a floor ruled it out


class BreakEven(Value):
    """Where the chosen option and its best rival cost the same; None with `reason` if nowhere."""

    against: str = ""
    documents_per_month: float | None = None
    tokens_per_month: float | None = None
    months: float | None = None
    reason: Said | None = None


class Alternative(Value):
    """The best option of another kind, and what taking it instead would change.

    `difference` is the chosen option's monthly cost minus this one's, EUR/month: positive, the
    chosen one costs that much more. `obstacles` are the rules that keep it out; empty: none does.
    """

    option: str
    kind: Literal["local", "rented", "cloud", "hosted"]
    title: Said
    monthly: Quantity
    difference: Quantity
    adapted: bool  # it can be tuned to the team's texts
    obstacles: tuple[str, ...] = ()
    break_even: BreakEven


class Flip(Value):
    """If `parameter` went `from` -> `to`, the verdict would become `becomes`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, populate_by_name=True)

    parameter: str
    title: Said
    from_: float | str | bool | None = Field(alias="from", serialization_alias="from")
    to: float | str | bool | None
    becomes: str
    becomes_title: Said | None = None  # the option in words; it need not be among the options kept
    unit: str = ""
    known: str = ""


class Influence(Value):
    """One bar of the tornado: cost advantage over the rival at the low and high end (EUR)."""

    parameter: str
    title: Said
    low: float
    high: float
    advantage_at_low: float
    advantage_at_high: float
    known: str = ""


class Decision(Record):
    """Which option, why, and what would overturn it."""

    name: ClassVar[str] = "decision"

    verdict: Verdict
    options: tuple[Option, ...]
    break_even: BreakEven
    alternatives: tuple[Alternative, ...] = ()  # best of every other kind, cheapest first
    flips: tuple[Flip, ...] = ()
    sensitivity: tuple[Influence, ...] = ()
    probability_verdict_holds: Quantity
    switching_value: Quantity | None = None
    considered: int = 0
    pruned: dict[str, Said] = Field(default_factory=dict)
    assumptions: tuple[Fact, ...] = ()
    parameters: tuple[Fact, ...] = ()  # every figure that all options share
    unanswered: tuple[str, ...] = ()  # answers that are 'unknown' and that a rule asks for
    decision_date: str = ""
    revisit_on: str = ""  # ISO date on which this decision is to be looked at again
    triggers: tuple[Said, ...] = ()  # events that call for it earlier
    changes: tuple[Said, ...] = ()  # against the decision before, where there is one

    def save(self, folder: Path) -> str:
        return write_json(folder / f"{self.name}.json", self.model_dump(mode="json", by_alias=True))


# ---------------------------------------------------------------- plan


class MemoryParts(Value):
    """Peak device memory by part, GiB. They add up to the peak."""

    weights: Quantity
    adapter: Quantity
    gradients: Quantity
    optimizer: Quantity
    activations: Quantity
    logits: Quantity
    kv_cache: Quantity
    overhead: Quantity


class Memory(Value):
    peak_gib: Quantity
    parts: MemoryParts


class Setting(Value):
    """One chosen setting and why."""

    value: Any
    reason: Said


class Throughput(Value):
    tokens_per_second: Quantity


class Duration(Value):
    hours: Quantity


class Energy(Value):
    kwh: Quantity


class PlannedDevice(Value):
    """What a plan is for: a card of the catalog, a card size, or this computer ("cpu")."""

    id: str
    memory_gib: float
    usable_gib: float
    count: int = 1


class ContextCheck(Value):
    """The team's own document lengths against what the model reads at once; shares from 0 to 1."""

    documents: int
    median_tokens: float
    context: int
    seq_len: int
    longer_than_context: float
    longer_than_seq_len: float
    counted: bool  # False: one length stated in the scenario, no histogram
    text: Said


class Plan(Record):
    """Whether it fits, how long it takes, what it costs, and the settings that were chosen."""

    name: ClassVar[str] = "plan"

    model: str
    method: str
    memory: Memory
    fits: dict[str, bool]
    margin: Said
    settings: dict[str, Setting]
    throughput: Throughput
    time: Duration
    energy: Energy
    cost: Quantity
    evidence: Literal["formula", "trace", "probe"]
    suggestions: tuple[Said, ...] = ()
    candidates: tuple[dict[str, Any], ...] = ()
    device: PlannedDevice | None = None
    context: ContextCheck | None = None
    # "models" that fit the device, "gpus" that fit the model: lines of plan/tables.py
    tables: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict)


# ---------------------------------------------------------------- prepare


class Rejected(Value):
    """A file that was not used, and why."""

    file: str
    reason: Said


class Documents(Value):
    read: int
    rejected: tuple[Rejected, ...] = ()
    by_format: dict[str, int] = Field(default_factory=dict)
    by_language: dict[str, int] = Field(default_factory=dict)
    characters: int = 0


class Split(Value):
    train: int
    validation: int
    test: int


class Sample(Value):
    """A rendered example with its loss mask: pieces of text, each trained or not."""

    id: str
    pieces: tuple[tuple[str, bool], ...]


class Corpus(Record):
    """The team's documents as checked, split, packed examples."""

    name: ClassVar[str] = "corpus"

    documents: Documents
    documents_split: Split
    examples: Split
    tokens: Split
    truncated: Literal[0] = 0
    duplicates: tuple[tuple[str, str], ...] = ()
    overlap_13gram: float = 0.0  # share of test 13-grams that also stand in train
    fingerprint: str
    rights: dict[str, int] = Field(default_factory=dict)
    token_histogram: dict[str, int] = Field(default_factory=dict)
    tokenizer_sha256: str = ""
    template_sha256: str = ""
    characters_per_token: float = 0.0
    tokenizers: dict[str, float] = Field(default_factory=dict)  # others' characters per token
    samples: tuple[Sample, ...] = ()
    checks: tuple[Said, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)  # role -> path inside the project
    task: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0


# ---------------------------------------------------------------- train


class AdapterFile(Value):
    path: str
    sha256: str
    parameters: int
    config: dict[str, Any] = Field(default_factory=dict)


class Loss(Value):
    first: float
    last: float
    validation: float | None = None
    validation_first: float | None = None


class StoppedEarly(Value):
    """The validation loss had not improved for `patience` validations in a row."""

    step: int
    planned_steps: int
    best_step: int
    patience: int


class Run(Record):
    """The trained adapter and how it came about."""

    name: ClassVar[str] = "run"

    adapter: AdapterFile
    base: dict[str, str]  # id, path, sha256
    method: str
    steps: int
    epochs: float
    tokens: int
    tokens_per_second: Quantity
    peak_memory_gib: Quantity
    seconds: float
    energy_kwh: Quantity | None = None
    loss: Loss
    history: tuple[dict[str, float], ...] = ()  # step, loss, learning_rate, validation
    determinism: Literal["bitwise", "statistical"]
    resumed_from: tuple[str, ...] = ()
    stopped_early: StoppedEarly | None = None
    saving: dict[str, float] = Field(default_factory=dict)  # checkpoints, held and write seconds
    settings: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)  # sha256 of the prepared files
    device: str = "cpu"
    distributed: dict[str, Any] = Field(
        default_factory=dict
    )  # processes, strategy, wrapped, network
    versions: dict[str, str] = Field(default_factory=dict)


# ---------------------------------------------------------------- evaluate


class CostPerItem(Value):
    """What one item of the task (or one held-out document) cost a system, each figure with its source.

    tokens: read and written, mean; seconds: waiting time of one item asked alone (a cloud model: among
    as many requests as it was asked at once); energy Wh, money EUR. A figure that does not exist is
    None with its reason in `absent`, never 0.
    """

    unit: Literal["item", "document"]
    items: int
    tokens: Quantity | None = None
    seconds_p50: Quantity | None = None
    seconds_p95: Quantity | None = None
    energy: Quantity | None = None
    money: Quantity | None = None
    absent: dict[str, Said] = Field(default_factory=dict)


class SystemScore(Value):
    """One system's figures; a metric that does not exist for it is None with a reason in `absent`."""

    name: str
    kind: Literal["base", "adapter", "cloud", "baseline"]
    metrics: dict[str, float | None]
    absent: dict[str, Said] = Field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    per_item: CostPerItem | None = None


class Difference(Value):
    """Paired difference adapter - other, document-clustered interval, sign-flip p."""

    metric: str
    system: str
    against: str
    value: float
    low: float
    high: float
    p: float
    p_holm: float | None = None
    documents: int
    # The smallest difference this sample could have shown; None: no difference, or nothing is known of it.
    detectable: float | None
    higher_is_better: bool = True


class Evaluation(Record):
    """Base against adapter (against cloud) on the team's own task and text."""

    name: ClassVar[str] = "evaluation"

    n: int
    documents: int
    systems: tuple[SystemScore, ...]
    differences: tuple[Difference, ...]
    forgetting: dict[str, Any]
    memorisation: dict[str, Any]
    verdict: Literal["better", "no_evidence", "worse"]
    verdict_text: Said
    examples: tuple[dict[str, Any], ...] = ()
    task: dict[str, Any] = Field(default_factory=dict)
    lm_eval: dict[str, Any] = Field(
        default_factory=dict
    )  # per task, metric and system: value, stderr


# ---------------------------------------------------------------- bundle


class Bundle(Record):
    """What was packed, and its hashes."""

    name: ClassVar[str] = "bundle"

    path: str
    sha256: str
    bytes: int
    files: dict[str, str]
    signature: dict[str, Any] = Field(default_factory=dict)
    licence: dict[str, Any] = Field(default_factory=dict)
    canary: dict[str, Any] = Field(default_factory=dict)
    accepted_memorisation: Said | None = None  # what was measured and shared on the user's word


# ---------------------------------------------------------------- analyse


class Failed(Value):
    document: str
    reason: Said


class OutputFile(Value):
    path: str
    parquet: str = ""
    sha256: str = ""


class Analysis(Record):
    """Articles -> schema-valid rows."""

    name: ClassVar[str] = "analysis"

    documents: int
    rows: int
    failed: tuple[Failed, ...] = ()
    truncated: Literal[0] = 0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: Quantity
    documents_per_hour: Quantity
    output: OutputFile
    template: str = ""
    engine: str = "transformers"
    model: dict[str, str] = Field(default_factory=dict)
    quotes_verified: int = 0
    quotes_missing: int = 0
    resumed: bool = False
    sections: int = 0  # sections (times questions) that were asked about
    flagged: int = 0  # rows from text that tries to steer its reader
    retried: int = 0  # rows that needed a second attempt
    failures: int = 0  # files and rows, of which `failed` names the first
    # By the plan's power and price over the time that passed, and by its speed; None: it says nothing.
    energy_kwh: Quantity | None = None
    cost: Quantity | None = None
    planned_documents_per_hour: Quantity | None = None


class SweepTrial(Value):
    """One short training: its settings and how it did on the validation split."""

    name: str
    learning_rate: float
    r: int
    target_modules: str | tuple[str, ...]
    state: Literal["done", "stopped", "failed", "missing"]
    message: str = ""
    validation: float | None = None  # the lowest loss, nats per label
    best_step: int | None = None
    steps: int = 0
    seconds: float = 0.0
    history: tuple[tuple[int, float], ...] = ()  # step, loss


class Sweep(Record):
    """Which settings learn best, by short trainings; ranked, best first."""

    name: ClassVar[str] = "sweep"

    trials: tuple[SweepTrial, ...]
    best: str
    own: str  # the trial with the project's own settings
    gain: float | None = None  # validation loss of its own minus the best
    steps: int
    validate_every_steps: int
    offer: dict[str, dict[str, Any]] = Field(default_factory=dict)  # for the project file


class Privacy(Record):
    """What tried to leave while the stages ran in a trap."""

    name: ClassVar[str] = "privacy"

    passed: bool
    packets: int | None
    control_packets: int | None
    attempts: tuple[dict[str, str], ...] = ()
    layers: dict[str, Said] = Field(default_factory=dict)
    stages: dict[str, str] = Field(default_factory=dict)  # packets by stage
    controls: dict[str, int] = Field(default_factory=dict)  # packets by way out, past the guard
    kernel: str = ""
    limits: tuple[Said, ...] = ()


RECORDS: dict[str, type[Record]] = {
    r.name: r
    for r in (Comparison, Decision, Plan, Corpus, Run, Evaluation, Bundle, Analysis, Sweep, Privacy)
}


def hash_of(path: Path) -> str:
    """sha256 of a record file: what a later stage stores in its `inputs`."""
    return sha256_file(path)


def sentences(items: Sequence[Sentence | str]) -> tuple[Said, ...]:
    return tuple(Said.of(i) for i in items)


__all__ = [n for n in dir() if n[:1].isupper()] + ["as_text", "hash_of", "now", "sentences"]
