"""What is to be done: the sections of the project file, with default, limits and description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hauslm.base.words import N_, available_languages
from hauslm.scenario.answers import ScenarioAnswers, Section


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
