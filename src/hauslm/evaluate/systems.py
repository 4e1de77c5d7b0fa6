"""Which systems are compared? The base, the adapter on it, perhaps a cloud model; checked to be them.

The model is loaded once and answers with and without the adapter, so both run in one process with the
same arithmetic. What the run record says about base and adapter is compared with what lies on the disk:
an evaluation of other files than the trained ones would be worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hauslm.base.energy import Counter
from hauslm.base.errors import HauslmError, MissingError, RefusedError
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import base_of, weights_sha256
from hauslm.evaluate.ledger import System
from hauslm.evaluate.verdict import ADAPTER, BASE_NAME, CLOUD
from hauslm.lm.interface import BASE, LanguageModel
from hauslm.records import Run
from hauslm.scenario import Scenario

WEIGHTS = ("adapter_model.safetensors", "model.safetensors")  # of an adapter, of a full training


@dataclass
class Systems:
    """The compared systems. `cloud` answers in words only."""

    base: System
    adapter: System
    cloud: System | None = None
    notices: list[Sentence] = field(default_factory=list)

    @property
    def local(self) -> tuple[System, System]:
        return self.base, self.adapter

    def all(self) -> tuple[System, ...]:
        return (*self.local, self.cloud) if self.cloud else self.local


def systems(
    scenario: Scenario,
    folder: ProjectFolder,
    run: Run,
    model: LanguageModel | None = None,
    cloud: LanguageModel | None = None,
) -> Systems:
    """Load the base with the adapter (or take `model`, which must offer one called "adapter").

    H660 if adapter or base are not those of the run record, H530 if the base is not here.
    """
    notices: list[Sentence] = []
    if model is not None:
        base_model = adapted = model
        identity = str(getattr(model, "base_sha256", "") or model.name)
        adapter_name = ADAPTER
    else:
        _check_adapter(folder, run)
        base_model, adapted, adapter_name, identity = _load(scenario, folder, run, notices)
    counter = Counter(str(getattr(base_model, "device", "cpu")))
    base = System(BASE_NAME, base_model, BASE, identity, "", counter)
    adapter = System(ADAPTER, adapted, adapter_name, identity, run.adapter.sha256, counter)
    away = System(CLOUD, cloud, BASE, f"cloud:{cloud.name}", "") if cloud is not None else None
    return Systems(base, adapter, away, notices)


def _check_adapter(folder: ProjectFolder, run: Run) -> None:
    path = folder.root / run.adapter.path
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise MissingError(
            "H660",
            say("There is no adapter in {path}.", path=str(path)),
            next_step=say("hauslm train makes it."),
        )
    if run.adapter.sha256 and sha256_file(weights) != run.adapter.sha256:
        raise RefusedError(
            "H660",
            say("The adapter is not the one that the run record describes."),
            where=str(weights),
            next_step=say("Train again, or put the adapter of records/run.json back."),
        )


def _load(
    scenario: Scenario, folder: ProjectFolder, run: Run, notices: list[Sentence]
) -> tuple[LanguageModel, LanguageModel, str, str]:
    """Base model, adapted model (the same one but for full training), adapter name, identity."""
    from hauslm.lm.local import LocalModel

    section = scenario.model
    found = base_of(section, folder.root)
    sha256 = weights_sha256(found.path, folder.work / "base-hashes.json")
    if run.base.get("sha256") and run.base["sha256"] != sha256:
        raise RefusedError(
            "H660",
            say("The base model is not the one that the adapter was trained on."),
            where=str(found.path),
            next_step=say("Put that base model back, or train again on this one."),
        )
    path = folder.root / run.adapter.path
    full = run.method == "full"
    adapters = {} if full else {ADAPTER: path}
    quantisation = str(run.settings.get("quantisation", "none"))
    try:
        model = LocalModel.load(found.path, adapters, name=section.base, quantisation=quantisation)
    except HauslmError as error:
        if error.code != "H810" or quantisation == "none":
            raise
        notices.append(
            say(
                "The adapter was trained on a base stored as {kind}; without a GPU both systems are "
                "evaluated on the unquantised base.",
                kind=quantisation,
            )
        )
        quantisation = "none"
        model = LocalModel.load(found.path, adapters, name=section.base)
    adapted = LocalModel.load(path, name=f"{section.base}, trained") if full else model
    identity = f"{sha256}:{quantisation}:{model.device}"
    return model, adapted, BASE if full else ADAPTER, identity
