"""The situation that is judged: the work, the data, the people, the machine, the money."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hauslm.base.words import N_

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
