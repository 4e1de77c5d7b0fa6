"""What goes into a run? Examples, base, settings, and the identity that these make together."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.estimate import rate
from hauslm.records import Corpus, Plan, Said
from hauslm.scenario import Scenario
from hauslm.train import reporters, seal, tokens, watch
from hauslm.train.settings import Facts, Settings, resolve

if TYPE_CHECKING:
    from hauslm.catalog.local import BaseFolder
    from hauslm.data.store import ExampleStore
    from hauslm.train.batches import Schedule

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy")


@dataclass
class Notices:
    """Sentences that are told at once and kept for the record, each once."""

    progress: Progress
    said: list[Said] = field(default_factory=list)

    def tell(self, sentence: Sentence | None) -> None:
        if sentence is None:
            return
        said = Said.of(sentence)
        if said not in self.said:
            self.said.append(said)
            self.progress.say(sentence)


@dataclass(frozen=True)
class Inputs:
    """Everything the adapter depends on."""

    store: ExampleStore
    usable: list[int]  # examples with a label that counts
    validation_store: ExampleStore | None
    validation_usable: list[int]
    base: BaseFolder
    base_name: str  # what others know it by
    base_sha256: str
    facts: Facts
    settings: Settings
    schedule: Schedule
    device: str
    versions: dict[str, str]
    identity: seal.Identity
    planned_gib: float | None  # peak memory, by the plan; None: there is none for this device
    eur_per_hour: float | None  # what an hour of training costs, by the plan; None: it does not say

    @property
    def tokens(self) -> int:
        """Tokens of one pass over the usable examples."""
        return sum(self.schedule.lengths)

    @property
    def validation_tokens(self) -> int:
        if self.validation_store is None:
            return 0
        return int(self.validation_store.lengths()[self.validation_usable].sum())


def read(
    scenario: Scenario,
    folder: ProjectFolder,
    plan: Plan | None,
    corpus: Corpus,
    notices: Notices,
) -> Inputs:
    """Open the prepared examples, find the base, settle the settings. Errors: H330, H530, H60x, H631."""
    import torch

    from hauslm.catalog.local import base_of, weights_sha256
    from hauslm.data.store import ExampleStore
    from hauslm.train.batches import Schedule, label_counts

    prepared = folder.work / "prepared"
    store = ExampleStore.open(prepared / "train")
    usable, said = watch.usable_examples(store, label_counts(store))
    asked = scenario.model
    base = base_of(asked, folder.root)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = _facts(base, store, usable, device)
    settings = tokens.learning(resolve(scenario, plan, facts), base.added_ids, base.config)
    reporters.check(settings.report_to)
    _check_template(base, corpus)
    if settings.method == "full" and base.path.resolve() == folder.trained_model.resolve():
        raise RefusedError(
            "H615",
            say("Training would write over its own base model."),
            where=str(base.path),
            next_step=say("Give the base folder another name and set model.path to it."),
        )
    for sentence in (*base.notes, *said, watch.end_token(store, usable, _end_ids(base.config))):
        notices.tell(sentence)
    validation, validation_usable = _validation(prepared, notices)
    sha256 = weights_sha256(base.path, folder.work / "train" / "base-hashes.json")
    identity = seal.Identity(
        settings=plain_json(settings.identity()),
        data={
            "fingerprint": corpus.fingerprint,
            **seal.data_hashes(prepared / "train"),
            **seal.data_hashes(prepared / "validation"),
        },
        base={"id": base.id, "sha256": sha256},
    )
    return Inputs(
        store=store,
        usable=usable,
        validation_store=validation,
        validation_usable=validation_usable,
        base=base,
        base_name=_public_name(base),
        base_sha256=sha256,
        facts=facts,
        settings=settings,
        schedule=Schedule(store, settings, usable),
        device=device,
        versions=_versions(device),
        identity=identity,
        planned_gib=_planned_gib(plan, device),
        eur_per_hour=_eur_per_hour(plan),
    )


def _check_template(base: BaseFolder, corpus: Corpus) -> None:
    """DataError H635 if the base would now speak in other tokens or another form than the examples."""
    from hauslm.data.tokens import template_sha256

    where = base.path / "tokenizer.json"
    found = sha256_file(where) if where.is_file() else ""
    if corpus.tokenizer_sha256 and found != corpus.tokenizer_sha256:
        what = say("The examples were made with another tokenizer than the base has now.")
    elif corpus.template_sha256 and template_sha256(base.path) != corpus.template_sha256:
        what = say("The examples were made with another chat template than the base has now.")
        where = base.path / "chat_template.jinja"
    else:
        return
    raise DataError(
        "H635",
        what,
        where=str(where),
        next_step=say(
            "Put the file back, or run hauslm prepare again: serving uses what is there."
        ),
    )


def _planned_gib(plan: Plan | None, device: str) -> float | None:
    """The plan's peak, where it was made for this kind of device."""
    if plan is None or plan.device is None or (plan.device.id == "cpu") != (device == "cpu"):
        return None
    return round(plan.memory.peak_gib.value, 3)


def _eur_per_hour(plan: Plan | None) -> float | None:
    if plan is None or plan.cost.unit != "EUR" or plan.time.hours.value <= 0:
        return None
    return plan.cost.value / plan.time.hours.value


def _validation(prepared: Path, notices: Notices) -> tuple[ExampleStore | None, list[int]]:
    """The validation examples with labels; told when there are none."""
    from hauslm.data.store import ExampleStore
    from hauslm.train.batches import label_counts

    if (prepared / "validation.offsets.bin").is_file():
        store = ExampleStore.open(prepared / "validation")
        usable = [int(i) for i in label_counts(store).nonzero()[0]]
        if usable:
            return store, usable
    notices.tell(say("There are no validation examples: overfitting would go unseen."))
    return None, []


def _facts(base: BaseFolder, store: ExampleStore, usable: list[int], device: str) -> Facts:
    from hauslm.train.model import has_fast_bfloat16

    config, lengths = base.config, store.lengths()[usable]
    stored_bytes = sum(p.stat().st_size for p in base.path.glob("*.safetensors"))
    bytes_each = 4 if config.get("dtype", config.get("torch_dtype")) == "float32" else 2
    return Facts(
        model_type=str(config.get("model_type", "")),
        hidden=int(config.get("hidden_size", rate.REFERENCE_HIDDEN)),
        layers=int(config.get("num_hidden_layers", 1)),
        parameters=stored_bytes / bytes_each,
        context=int(config.get("max_position_embeddings", 1 << 20)),
        examples=len(usable),
        longest=int(lengths.max()),
        tokens=int(lengths.sum()),
        device=device,
        bfloat16=has_fast_bfloat16(device),
    )


def _end_ids(config: dict[str, Any]) -> set[int]:
    """The ids that end a text, by the base's config (one or several)."""
    ends = config.get("eos_token_id")
    return {int(e) for e in (ends if isinstance(ends, list) else [ends]) if e is not None}


def _public_name(base: BaseFolder) -> str:
    """Its Hugging Face name if the catalog knows one, else the name in the project file."""
    if base.catalog_id:
        from hauslm.catalog import load

        return load.model(base.catalog_id).hf_id or base.id
    return base.id


def _versions(device: str) -> dict[str, str]:
    """What may change the last bit of a result."""
    import torch

    versions = {name: metadata.version(name) for name in PACKAGES}
    versions["python"] = platform.python_version()
    versions["threads"] = str(torch.get_num_threads())
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    versions["device"] = torch.cuda.get_device_name() if device == "cuda" else processor
    return versions


def plain_json(value: Any) -> Any:
    """As JSON gives it back (tuples become lists)."""
    return json.loads(json.dumps(value, sort_keys=True))
