"""What does the team want? `hauslm.yaml` -> `Scenario`, every mistake with line, column, nearest name.

The project file is the whole input of every stage. Every field has a default, a unit in its name and
a one-line description; `hauslm schema` prints them as JSON Schema. The defaults are the lab sheet's
research team: masses of copyrighted scientific articles, domain terms, one 24-GB GPU already paid for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hauslm.base.errors import ProjectFileError, UsageError, nearest
from hauslm.base.words import N_, Sentence, available_languages, say, translate

MAX_FILE_BYTES = 1 << 20

Answer = Literal["yes", "no", "unknown"]


def _yes_no(value: object) -> object:
    """YAML reads a bare yes/no as a boolean in its 1.1 dialect; both spellings mean the same here."""
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _answers(cls, value: Any, info: Any) -> Any:
        annotation: Any = cls.model_fields[info.field_name].annotation
        return _yes_no(value) if annotation == Answer else value


class Workload(Section):
    documents_per_month: float = Field(
        3000, ge=0, le=1e9, description=N_("Documents to analyse per month.")
    )
    backlog_documents: float = Field(
        100_000, ge=0, le=1e10, description=N_("Documents waiting at the start, to be done once.")
    )
    characters_per_document: float = Field(
        35_000,
        gt=0,
        le=1e8,
        description=N_("Length of a document in characters (median article: 35,000)."),
    )
    tokens_out_per_document: float = Field(
        500, ge=0, le=1e6, description=N_("Tokens of the answer per document.")
    )
    languages: list[str] = Field(
        default_factory=lambda: ["en"],
        min_length=1,
        description=N_("Languages of the documents (en, de)."),
    )
    deadline_days: float | None = Field(
        None,
        gt=0,
        le=36500,
        description=N_("Days in which the backlog must be done; empty: no deadline."),
    )
    batch_possible: bool = Field(
        True, description=N_("Answers may wait up to a day (batch prices apply).")
    )


class DataAnswers(Section):
    personal: Answer = Field("no", description=N_("Do the documents contain personal data?"))
    special_category: Answer = Field(
        "no", description=N_("Health, religion or other special categories of personal data?")
    )
    legal_basis: Answer = Field(
        "unknown", description=N_("Is there a legal basis for the processing (GDPR 6)?")
    )
    processor_contract: Answer = Field(
        "unknown", description=N_("Is there a processor contract with the provider (GDPR 28)?")
    )
    may_leave: Answer = Field(
        "unknown", description=N_("May the documents leave the house at all?")
    )
    copyright: Literal["own", "open", "third_party", "unknown"] = Field(
        "third_party", description=N_("Whose works are the documents?")
    )
    lawful_access: Answer = Field("yes", description=N_("Is the access to the documents lawful?"))
    research_purpose: Literal["non_commercial", "commercial", "unknown"] = Field(
        "non_commercial", description=N_("Purpose of the text and data mining (UrhG 44b, 60d).")
    )
    reservation: Answer = Field(
        "unknown",
        description=N_(
            "Did the rightholders reserve text and data mining in machine-readable form?"
        ),
    )
    publisher_forbids_third_parties: Answer = Field(
        "unknown", description=N_("Do publisher terms forbid access by third parties?")
    )
    max_retention_days: float | None = Field(
        None, ge=0, description=N_("Longest retention by a provider that is acceptable, in days.")
    )
    eu_residency_required: Answer = Field(
        "no", description=N_("Must the processing stay in the EU?")
    )


class Adaptation(Section):
    needed: bool = Field(True, description=N_("Domain terms or house style call for fine-tuning."))
    training_tokens: float = Field(
        5_000_000, ge=0, le=1e13, description=N_("Tokens of one pass over the training texts.")
    )
    epochs: float = Field(2, gt=0, le=1000, description=N_("Passes over the training texts."))
    runs_per_year: float = Field(4, ge=0, le=10000, description=N_("Trainings per year."))
    share: Literal["no", "team", "public"] = Field("team", description=N_("Who gets the adapter."))


class Hardware(Section):
    gpu: str = Field("rtx-4090", description=N_("Catalog id of the GPU, or none."))
    owned: bool = Field(True, description=N_("The GPU is already paid for."))
    count: int = Field(1, ge=0, le=4096, description=N_("Number of GPUs."))
    purchase_eur: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description=N_("Purchase price per GPU if bought, in EUR; empty: catalog."),
    )
    host_purchase_eur: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description=N_("Price of the computer around a bought GPU, in EUR; empty: assumption."),
    )
    host_power_w: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description=N_("Power of the computer around the GPU, in W; empty: assumption."),
    )
    idle_hours_per_month: float | None = Field(
        None,
        ge=0,
        le=744,
        description=N_("Hours per month that the machine runs idle; empty: assumption."),
    )
    price_eur_per_kwh: float | None = Field(
        None,
        ge=0,
        le=10,
        description=N_("Electricity price in EUR per kWh; empty: catalog tariff."),
    )
    region: str = Field("DE", description=N_("Region of the electricity tariff."))


class People(Section):
    hourly_cost_eur: float | None = Field(
        None, ge=0, le=10000, description=N_("Full cost of a working hour in EUR; empty: catalog.")
    )
    setup_hours_local: float = Field(
        24, ge=0, le=1e5, description=N_("Hours to set up a local model.")
    )
    setup_hours_cloud: float = Field(
        6, ge=0, le=1e5, description=N_("Hours to set up a cloud API.")
    )
    upkeep_hours_per_month_local: float = Field(
        3, ge=0, le=744, description=N_("Hours per month to keep a local model running.")
    )
    upkeep_hours_per_month_cloud: float = Field(
        0.5, ge=0, le=744, description=N_("Hours per month to keep a cloud integration running.")
    )
    staff_available: bool = Field(True, description=N_("Somebody can look after a local machine."))


class Budget(Section):
    currency: Literal["EUR"] = Field("EUR", description=N_("Currency of all costs."))
    max_monthly_eur: float | None = Field(
        None, ge=0, description=N_("Upper limit per month in EUR.")
    )
    max_purchase_eur: float | None = Field(
        None, ge=0, description=N_("Upper limit of a purchase in EUR.")
    )
    eur_per_usd: float | None = Field(
        None, gt=0, le=100, description=N_("Exchange rate EUR per USD; empty: catalog.")
    )


class Quality(Section):
    floor: float | None = Field(
        None, description=N_("Smallest acceptable score on the quality benchmark below.")
    )
    benchmark: str = Field("MMLU", description=N_("Benchmark that the floor refers to."))


class Horizon(Section):
    months: float = Field(36, gt=0, le=240, description=N_("Months over which cost is counted."))
    decision_date: str | None = Field(
        None,
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description=N_("Date the prices are looked up for; empty: today."),
    )


class UserPrice(Section):
    """A price that the catalog lacks, with where the user has it from."""

    model: str = Field(description=N_("Catalog id of the model or GPU that the price is for."))
    input_usd_per_mtok: float | None = Field(
        None, ge=0, description=N_("USD per million input tokens.")
    )
    output_usd_per_mtok: float | None = Field(
        None, ge=0, description=N_("USD per million output tokens.")
    )
    training_usd_per_mtok: float | None = Field(
        None, ge=0, description=N_("USD per million training tokens.")
    )
    usd_per_hour: float | None = Field(None, ge=0, description=N_("USD per GPU hour."))
    purchase_eur: float | None = Field(None, ge=0, description=N_("Purchase price in EUR."))
    source: str = Field(description=N_("Where the price is from."))
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description=N_("Date of the price."))


class UserOption(Section):
    """An option that the catalog does not have, with the user's own figures."""

    id: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description=N_("Short name of the option.")
    )
    kind: Literal["local", "rented", "cloud", "hosted"] = Field(
        description=N_("Kind of the option.")
    )
    title: str = Field("", description=N_("Name of the option for the report."))
    model: str = Field("", description=N_("Model behind the option."))
    price_input_eur_per_mtok: float | None = Field(
        None, ge=0, description=N_("EUR per million input tokens.")
    )
    price_output_eur_per_mtok: float | None = Field(
        None, ge=0, description=N_("EUR per million output tokens.")
    )
    fixed_eur_per_month: float = Field(0, ge=0, description=N_("Fixed cost in EUR per month."))
    purchase_eur: float = Field(0, ge=0, description=N_("Purchase in EUR."))
    price_eur_per_hour: float | None = Field(None, ge=0, description=N_("EUR per hour of use."))
    tokens_per_second: float | None = Field(
        None, gt=0, description=N_("Total tokens per second it reaches.")
    )
    allows_fine_tuning: bool = Field(False, description=N_("An own adapter can be used."))
    eu: Answer = Field("unknown", description=N_("Processing in the EU."))
    processor_contract: Answer = Field(
        "unknown", description=N_("Processor contract (GDPR 28) exists.")
    )
    under_own_contract: bool = Field(
        False, description=N_("Run by the own institution, under its own data-protection contract.")
    )


class ScenarioAnswers(Section):
    """Everything the decision needs to know about the team."""

    workload: Workload = Field(default_factory=Workload)
    data: DataAnswers = Field(default_factory=DataAnswers)
    adaptation: Adaptation = Field(default_factory=Adaptation)
    hardware: Hardware = Field(default_factory=Hardware)
    people: People = Field(default_factory=People)
    budget: Budget = Field(default_factory=Budget)
    quality: Quality = Field(default_factory=Quality)
    horizon: Horizon = Field(default_factory=lambda: Horizon())
    options: list[UserOption] = Field(
        default_factory=list, description=N_("Own options with own figures.")
    )
    prices: list[UserPrice] = Field(
        default_factory=list, description=N_("Own prices where the catalog has none.")
    )


class DocumentsSection(Section):
    paths: list[str] = Field(
        default_factory=lambda: ["documents"],
        description=N_("Files, folders or globs with the documents."),
    )
    licence_gate: Literal["off", "warn", "open_only"] = Field(
        "warn", description=N_("What happens to documents whose licence is not open.")
    )
    text_field: str = Field(
        "text", description=N_("Field with the text in JSONL, CSV and Parquet files.")
    )
    max_documents: int | None = Field(
        None, ge=1, description=N_("Use at most this many documents.")
    )
    validation_share: float = Field(
        0.1, ge=0, lt=0.5, description=N_("Share of works held out for validation.")
    )
    test_share: float = Field(
        0.15, ge=0, lt=0.5, description=N_("Share of works held out for the test.")
    )
    split_salt: str = Field(
        "hauslm", description=N_("Salt of the hash that assigns works to splits.")
    )
    minimum_characters: int = Field(200, ge=0, description=N_("Shorter documents are rejected."))


class ModelSection(Section):
    base: str = Field(
        "embedded",
        description=N_("Base model: embedded, a catalog id, or a folder with config.json."),
    )
    path: str | None = Field(None, description=N_("Folder with the weights of the base model."))
    revision: str | None = Field(
        None, description=N_("Revision of the base model, for the record.")
    )
    quantisation: Literal["auto", "none", "nf4", "int8"] = Field(
        "auto", description=N_("How the frozen base is stored while training.")
    )
    added_tokens: list[str] = Field(
        default_factory=list,
        description=N_("Texts that each become one token of their own, for example <GEN>."),
    )


PRESETS: dict[str, dict[str, Any]] = {
    # The sheet's own values (task 3).
    "lab": {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    },
    # All linear layers, r 16, alpha 32, dropout 0: reasons and sources in train/presets.py.
    "default": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"},
}


class AdapterSection(Section):
    preset: Literal["default", "lab"] = Field(
        "default",
        description=N_(
            "Values for what is left empty: default (with evidence) or lab (the sheet)."
        ),
    )
    r: int | None = Field(None, ge=1, le=1024, description=N_("Rank of the low-rank matrices."))
    lora_alpha: float | None = Field(
        None, gt=0, le=4096, description=N_("Scaling factor; the update is scaled by alpha/r.")
    )
    lora_dropout: float | None = Field(
        None, ge=0, lt=1, description=N_("Dropout before the low-rank matrices.")
    )
    target_modules: list[str] | Literal["all-linear"] | None = Field(
        None, description=N_("Names of the adapted modules, or all-linear.")
    )
    layers_to_transform: list[int] | None = Field(
        None,
        description=N_("Numbers of the adapted layers, from 0; empty: all of them."),
    )
    modules_to_save: list[str] | None = Field(
        None,
        description=N_(
            "Modules that are trained and saved whole, for example lm_head; empty: none."
        ),
    )
    bias: Literal["none"] = Field("none", description=N_("Which biases are trained."))
    task_type: Literal["CAUSAL_LM"] = Field("CAUSAL_LM", description=N_("Kind of model."))
    variant: str = Field("lora", description=N_("Variant of LoRA: lora, rslora, dora, ..."))

    def resolved(self) -> dict[str, Any]:
        """The LoRA values in force, with the preset's for what is left empty."""
        values = dict(PRESETS[self.preset])
        for key in values:
            if getattr(self, key) is not None:
                values[key] = getattr(self, key)
        for key in ("layers_to_transform", "modules_to_save"):
            if getattr(self, key):  # only where asked for: the lab's file stays the lab's
                values[key] = getattr(self, key)
        return values | {"bias": self.bias, "task_type": self.task_type, "variant": self.variant}


class TrainingSection(Section):
    method: Literal["auto", "lora", "qlora", "full"] = Field(
        "auto", description=N_("auto: what the plan chose; lora, qlora or full.")
    )
    epochs: float = Field(1, gt=0, le=1000, description=N_("Passes over the training examples."))
    max_steps: int | None = Field(
        None, ge=1, description=N_("Stop after this many optimizer steps.")
    )
    seq_len: int | None = Field(
        None,
        ge=16,
        le=1_048_576,
        description=N_("Longest training sequence in tokens; empty: the plan's."),
    )
    micro_batch_size: int | None = Field(
        None, ge=1, le=65536, description=N_("Sequences per forward pass; empty: the plan's.")
    )
    gradient_accumulation_steps: int | None = Field(
        None,
        ge=1,
        le=65536,
        description=N_("Forward passes per optimizer step; empty: the plan's."),
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description=N_("Peak learning rate; empty: by method and size.")
    )
    lr_scheduler_type: Literal["cosine", "constant", "linear", "constant_with_warmup"] = Field(
        "cosine", description=N_("Course of the learning rate.")
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description=N_("Share of the steps with rising learning rate.")
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description=N_("Weight decay."))
    max_grad_norm: float = Field(1.0, gt=0, description=N_("Gradient norm limit."))
    seed: int = Field(0, ge=0, le=2**31 - 1, description=N_("Seed of order and dropout."))
    packing: bool = Field(
        True, description=N_("Put several documents into one sequence, without leakage.")
    )
    curriculum: Literal["off", "length"] = Field(
        "off",
        description=N_("Order of the first pass: off (by chance) or length (short ones first)."),
    )
    activation_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description=N_("Recompute activations to save memory.")
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description=N_("Steps between sealed checkpoints; empty: by time.")
    )
    keep_checkpoints: int = Field(
        2, ge=2, le=100, description=N_("Sealed checkpoints that are kept.")
    )
    validate_every_steps: int | None = Field(
        None, ge=1, description=N_("Steps between validations; empty: five times a run.")
    )
    early_stopping_patience: int | None = Field(
        3,
        ge=1,
        le=1000,
        description=N_(
            "Stop after this many validations in a row without a better one; null: never."
        ),
    )
    report_to: list[Literal["tensorboard", "mlflow", "trackio"]] = Field(
        default_factory=list,
        description=N_("Also write the figures for these viewers, on this machine only."),
    )
    use_text: bool = Field(True, description=N_("Train on the raw text of the documents."))
    use_task: bool = Field(True, description=N_("Train on the labelled examples of the task."))
    base_precision: Literal["full", "auto", "int8", "fp8"] = Field(
        "full",
        description=N_(
            "Products of the frozen base: full (in precision), int8 or fp8 (8 bit, behind a measured gate), auto (what the plan finds fastest)."
        ),
    )
    liger: bool = Field(
        False, description=N_("Liger's kernels for norms and activations (CUDA only).")
    )
    compile: Literal["off", "auto", "on"] = Field(
        "off",
        description=N_("Compile each layer (CUDA only); auto: for runs of an hour or more."),
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description=N_("Number format of the frozen base.")
    )


class TaskSection(Section):
    """A labelled task: items in a file, one label each."""

    file: str | None = Field(None, description=N_("JSONL file with the labelled items."))
    kind: Literal["classification", "extraction"] = Field(
        "classification", description=N_("Kind of task.")
    )
    text_field: str = Field(
        "text", description=N_("Field with the text (or list of sentences) of an item.")
    )
    label_field: str = Field(
        "label", description=N_("Field with the label (or list of labels, or entities).")
    )
    document_field: str = Field(
        "document", description=N_("Field that says which document an item belongs to.")
    )
    instruction: str = Field(
        "", description=N_("Instruction of the task; empty: a fitting one is made.")
    )
    labels: list[str] = Field(
        default_factory=list, description=N_("Allowed labels; empty: those in the file.")
    )
    train_file: str | None = Field(None, description=N_("Separate file with training items."))
    test_file: str | None = Field(None, description=N_("Separate file with test items."))


class CloudSection(Section):
    """A cloud model that answers the same items; asked only with a permit, never without a price."""

    endpoint: str = Field(
        "", description=N_("Address of an OpenAI-compatible endpoint (https://host/v1).")
    )
    model: str = Field("", description=N_("Name of the model at the endpoint."))
    context: int = Field(
        8192, ge=256, le=10_000_000, description=N_("Context length of that model, in tokens.")
    )
    key_variable: str = Field(
        "HAUSLM_API_KEY",
        pattern=r"^[A-Z][A-Z0-9_]{0,63}$",
        description=N_("Environment variable that holds the key; the key itself stands nowhere."),
    )
    concurrency: int = Field(4, ge=1, le=256, description=N_("Most requests at once."))
    price_model: str = Field(
        "", description=N_("Catalog id of the model whose list price holds; empty: prices below.")
    )
    price_input_eur_per_mtok: float | None = Field(
        None, ge=0, description=N_("EUR per million input tokens.")
    )
    price_output_eur_per_mtok: float | None = Field(
        None, ge=0, description=N_("EUR per million output tokens.")
    )
    price_source: str = Field("", description=N_("Where the price is from."))


class LmEvalSection(Section):
    """Tasks of lm-evaluation-harness, from files on this machine."""

    tasks: list[str] = Field(
        default_factory=list, description=N_("Names of lm-evaluation-harness tasks to run offline.")
    )
    include_path: str | None = Field(
        None, description=N_("Folder with the YAML files of these tasks and their data.")
    )
    limit: int | None = Field(
        None, ge=1, le=1_000_000, description=N_("Most items per task; empty: all.")
    )


class EvaluationSection(Section):
    task: TaskSection = Field(default_factory=TaskSection)
    cloud: CloudSection = Field(default_factory=CloudSection)
    lm_eval: LmEvalSection = Field(default_factory=LmEvalSection)
    max_items: int = Field(
        400,
        ge=1,
        le=1_000_000,
        description=N_("Most test items used; a larger test set is sampled by document."),
    )
    max_documents: int = Field(
        40, ge=1, le=1_000_000, description=N_("Most held-out documents for bits per byte.")
    )
    bits_per_byte: bool = Field(
        True, description=N_("Measure bits per byte on held-out documents.")
    )
    forgetting: bool = Field(
        True, description=N_("Measure forgetting on general text in both languages.")
    )
    memorisation: bool = Field(
        True, description=N_("Measure whether training text is regurgitated.")
    )
    glossary: str | None = Field(None, description=N_("YAML file with the domain's terms."))
    length_normalised: bool = Field(
        False,
        description=N_("Compare label probabilities per byte, so that long labels lose nothing."),
    )
    memorisation_limit: float = Field(
        0.005,
        ge=0,
        le=1,
        description=N_("Share of training spans that may be reproduced beyond the base model."),
    )
    canaries: list[str] = Field(
        default_factory=list,
        description=N_("Sentences planted in the training documents to find memorisation."),
    )


class AnalysisSection(Section):
    paths: list[str] = Field(
        default_factory=list, description=N_("Articles to analyse; empty: the held-out documents.")
    )
    template: str = Field(
        "summary", description=N_("Ready template: classification, extraction, summary, questions.")
    )
    questions: list[str] = Field(
        default_factory=list, description=N_("Questions asked of each article.")
    )
    labels: list[str] = Field(
        default_factory=list,
        description=N_("Categories of the classification; empty: the task's, else the template's."),
    )
    instruction: str = Field("", description=N_("Instruction to the model; empty: the template's."))
    json_schema: dict[str, Any] | None = Field(
        None, description=N_("JSON Schema of a row; empty: the template's.")
    )
    max_new_tokens: int = Field(200, ge=1, le=32768, description=N_("Most tokens per answer."))
    batch_size: int = Field(8, ge=1, le=4096, description=N_("Sections answered at once."))
    max_documents: int | None = Field(
        None, ge=1, description=N_("Analyse at most this many articles.")
    )
    engine: Literal["transformers", "vllm", "openai"] = Field(
        "transformers", description=N_("What runs the model.")
    )
    spread: Literal["none", "ray"] = Field(
        "none", description=N_("Who does the work: this process, or actors of a Ray cluster.")
    )
    endpoint: str = Field(
        "", description=N_("Address of an OpenAI-compatible endpoint (https://host/v1).")
    )
    endpoint_model: str = Field("", description=N_("Name of the model at the endpoint."))
    endpoint_context: int = Field(
        8192, ge=256, le=10_000_000, description=N_("Context length of that model, in tokens.")
    )


class ServingSection(Section):
    host: str = Field("127.0.0.1", description=N_("Address to listen on."))
    port: int = Field(8399, ge=1, le=65535, description=N_("Port to listen on."))
    max_queue: int = Field(
        64, ge=1, le=100000, description=N_("Requests that may wait before 429 is answered.")
    )
    batch_size: int = Field(8, ge=1, le=1024, description=N_("Requests answered in one batch."))
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description=N_("What runs the model.")
    )
    vllm_python: str = Field(
        "", description=N_("Python of the environment that vLLM is installed in (engine vllm).")
    )


class Scenario(Section):
    """The whole project file."""

    name: str = Field(
        "team", pattern=r"^[\w][\w .-]{0,79}$", description=N_("Name of the project.")
    )
    language: str = Field("en", description=N_("Language of reports and messages (de, en)."))
    scenario: ScenarioAnswers = Field(default_factory=ScenarioAnswers)
    documents: DocumentsSection = Field(default_factory=DocumentsSection)
    model: ModelSection = Field(default_factory=ModelSection)
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    analysis: AnalysisSection = Field(default_factory=AnalysisSection)
    serving: ServingSection = Field(default_factory=ServingSection)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """`documents: folder` is short for `documents: {paths: [folder]}`, `model: id` for `{base: id}`."""
        if isinstance(data, dict):
            documents = data.get("documents")
            if isinstance(documents, str):
                data = {**data, "documents": {"paths": [documents]}}
            elif isinstance(documents, list):
                data = {**data, "documents": {"paths": documents}}
            if isinstance(data.get("model"), str):
                data = {**data, "model": {"base": data["model"]}}
        return data

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        if value not in available_languages():
            raise ValueError("language")
        return value


# ---------------------------------------------------------------- reading the file

# pydantic's error types -> our sentences. {limit} etc. come from the error's context.
_REASONS: dict[str, str] = {
    "missing": N_("'{key}' is missing."),
    "int_parsing": N_("'{key}' must be a whole number, not {value}."),
    "int_type": N_("'{key}' must be a whole number, not {value}."),
    "int_from_float": N_("'{key}' must be a whole number, not {value}."),
    "float_parsing": N_("'{key}' must be a number, not {value}."),
    "float_type": N_("'{key}' must be a number, not {value}."),
    "finite_number": N_("'{key}' must be a finite number, not {value}."),
    "bool_parsing": N_("'{key}' must be true or false, not {value}."),
    "bool_type": N_("'{key}' must be true or false, not {value}."),
    "string_type": N_("'{key}' must be text, not {value}."),
    "list_type": N_("'{key}' must be a list, not {value}."),
    "model_type": N_("'{key}' must be a section with fields, not {value}."),
    "model_attributes_type": N_("'{key}' must be a section with fields, not {value}."),
    "dict_type": N_("'{key}' must be a section with fields, not {value}."),
    "greater_than": N_("'{key}' must be greater than {limit}, not {value}."),
    "greater_than_equal": N_("'{key}' must be at least {limit}, not {value}."),
    "less_than": N_("'{key}' must be less than {limit}, not {value}."),
    "less_than_equal": N_("'{key}' must be at most {limit}, not {value}."),
    "string_pattern_mismatch": N_("'{key}' has a form that is not allowed: {value}."),
    "too_short": N_("'{key}' must not be empty."),
}


def _field_names(path: tuple[Any, ...]) -> list[str]:
    """Names that are allowed beside the last element of `path`."""
    model: Any = Scenario
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", None)
        if not fields or part not in fields:
            return []
        model = _section_in(fields[part].annotation)
    return list(getattr(model, "model_fields", {}))


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _where_else(name: str) -> str:
    """Full path of a field called `name` in another section, if there is one."""

    def walk(model: Any, prefix: str) -> str:
        for key, info in model.model_fields.items():
            if key == name:
                return f"{prefix}{key}"
            section = _section_in(info.annotation)
            if section is not None and get_origin(info.annotation) is not list:
                found = walk(section, f"{prefix}{key}.")
                if found:
                    return str(found)
        return ""

    return str(walk(Scenario, ""))


def _mistake(error: Any, file: str, position: tuple[int, int]) -> UsageError:
    # pydantic names the members of a union among the keys ("list[str]"); an unknown key comes last.
    *above, last = error["loc"] or ("",)
    own = (last,) if error["type"] == "extra_forbidden" else ()
    above = above if own else [*above, last]
    location = (*(p for p in above if not (isinstance(p, str) and ("[" in p or "-" in p))), *own)
    key = ".".join(str(p) for p in location)
    where = f"{file}:{position[0]}:{position[1]}"
    kind = error["type"]
    value = _shown(error.get("input"))
    context = error.get("ctx") or {}
    step: Sentence | str = say("hauslm schema prints every field with its unit and default.")
    if kind == "extra_forbidden":
        name = str(location[-1])
        close = nearest(name, _field_names(location))
        elsewhere = _where_else(name)
        if close:
            step = say("Did you mean {names}?", names=", ".join(close))
        elif elsewhere:
            step = say("There is a field {path}; move it there.", path=elsewhere)
        return UsageError(
            "H201", say("There is no field '{key}'.", key=key), where=where, next_step=step
        )
    if kind in ("literal_error", "enum"):
        allowed = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        choices = [c.strip() for c in allowed.split(",") if c.strip()]
        close = nearest(str(error.get("input")), choices)
        if close:
            step = say("Did you mean {names}?", names=", ".join(close))
        what = say(
            "'{key}' must be one of {choices}, not {value}.", key=key, choices=allowed, value=value
        )
        return UsageError("H203", what, where=where, next_step=step)
    if kind == "value_error" and key == "language":
        what = say(
            "'{key}' must be one of {choices}, not {value}.",
            key=key,
            choices=", ".join(available_languages()),
            value=value,
        )
        return UsageError("H203", what, where=where, next_step=step)
    template = _REASONS.get(kind)
    if template is None:
        what = say(
            "'{key}' is not valid: {value} ({reason}).", key=key, value=value, reason=error["msg"]
        )
    else:
        limit = next((context[k] for k in ("gt", "ge", "lt", "le") if k in context), "")
        what = Sentence(template, {"key": key, "value": value, "limit": str(limit)})
    return UsageError("H202", what, where=where, next_step=step)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse(text: str, file: str = "hauslm.yaml") -> Scenario:
    """The scenario in a YAML text. Raises `ProjectFileError` with every mistake found."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedBase, CommentedMap
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    def refuse(
        code: str, what: Sentence, line: int = 1, column: int = 1, step: Sentence | str = ""
    ) -> ProjectFileError:
        return ProjectFileError(
            [UsageError(code, what, where=f"{file}:{line}:{column}", next_step=step)]
        )

    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise refuse(
            "H210",
            say("The project file is larger than 1 MiB."),
            step=say("Keep documents in files of their own."),
        )
    reader = YAML(typ="rt", pure=True)
    reader.allow_duplicate_keys = False
    try:
        # Aliases can blow a small file up to gigabytes ("billion laughs"); nobody needs them here.
        for token in YAML(typ="rt", pure=True).scan(text):
            if type(token).__name__ in ("AliasToken", "AnchorToken", "TagToken"):
                mark = token.start_mark
                raise refuse(
                    "H211",
                    say("Anchors, aliases and tags are not allowed in the project file."),
                    mark.line + 1,
                    mark.column + 1,
                    say("Write the value out."),
                )
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise refuse(
            "H212",
            say(
                "This is not valid YAML: {reason}.",
                reason=str(error.problem or "").splitlines()[0] if error.problem else "",
            ),
            line,
            column,
            say("Check indentation, colons and quotes in this line."),
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise refuse(
            "H212", say("This is not valid YAML: {reason}.", reason=str(error).splitlines()[0])
        ) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise refuse(
            "H213",
            say("The project file must consist of 'key: value' lines."),
            step=say("hauslm init writes a project file to start from."),
        )

    def position(location: tuple[Any, ...]) -> tuple[int, int]:
        node: Any = data
        found = (1, 1)
        for part in location:
            if not isinstance(node, CommentedBase):
                break
            marks: Any = node.lc
            container: Any = node
            try:
                line, column = (
                    marks.key(part) if isinstance(node, CommentedMap) else marks.item(part)
                )
                node = container[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
            found = (line + 1, column + 1)
        return found

    try:
        return Scenario.model_validate(_plain(data))
    except ValidationError as error:
        mistakes: list[UsageError] = []
        for detail in error.errors():
            mistake = _mistake(detail, file, position(detail["loc"]))
            if not any(m.where == mistake.where for m in mistakes):  # a union reports each branch
                mistakes.append(mistake)
        raise ProjectFileError(mistakes) from error


def _plain(node: Any) -> Any:
    """ruamel's containers and scalars as plain Python, so that pydantic judges types strictly."""
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def load(path: Path) -> Scenario:
    """Read the project file. H220 if there is none, H2xx with position for every mistake."""
    if not path.is_file():
        raise UsageError(
            "H220",
            say("There is no project file here."),
            where=str(path),
            next_step=say("hauslm init --yes writes one; -C DIR names another folder."),
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            "H221",
            say("The project file is not UTF-8 text (byte {position}).", position=error.start),
            where=str(path),
            next_step=say("Save it as UTF-8."),
        ) from error
    return parse(text, path.name)


def json_schema(language: str | None = None) -> dict[str, Any]:
    """JSON Schema of the project file, with the descriptions in `language`."""
    schema = Scenario.model_json_schema()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("description"), str):
                node["description"] = translate(node["description"], language)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "hauslm.yaml"
    return schema
