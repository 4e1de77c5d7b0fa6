"""Who answers, about what? The engine of an analysis and the articles that it reads.

The engine is the project's base model with its adapter (checked with the canary, then merged where
that changes nothing), an OpenAI-compatible endpoint with a permit, or a model that the caller brings.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hauslm.analyse.canary import check_canary
from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, read_json
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.lm.interface import BASE, LanguageModel
from hauslm.records import Rejected, Run
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.data.document import Document
    from hauslm.lm.local import LocalModel

ADAPTER = "adapter"
MANY_PER_FILE = (".jsonl", ".ndjson", ".gz", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Engine:
    """What answers: the model, which adapter to ask, and how rows name them."""

    model: LanguageModel
    adapter: str
    facts: Mapping[str, Any]
    bind_quotes: bool


def engine_for(
    scenario: Scenario,
    folder: ProjectFolder,
    run: Run | None,
    model: LanguageModel | None,
    progress: Progress,
) -> Engine:
    """The model that answers: the one given, the endpoint, or the project's base with its adapter.

    H832 if adapter and base do not belong together, H833-H834 if the canary differs.
    """
    if model is None and scenario.analysis.engine == "openai":
        return _remote(scenario)
    facts: dict[str, Any] = {"model_sha256": "", "adapter_sha256": ""}
    own = model is None
    if model is None:
        model, facts = _local(scenario, folder, run)
    adapter = next((n for n in (ADAPTER, *model.adapters()) if n in model.adapters()), BASE)
    canary = folder.adapter / "canary.json"
    if adapter != BASE and canary.is_file():
        check_canary(model, adapter, read_json(canary))
        progress.say(say("The adapter's canary answers as recorded, alone and in a mixed batch."))
    if own and adapter != BASE and getattr(model, "dtype", "") == "float32":
        model.merge(adapter)  # type: ignore[attr-defined]  # a LocalModel; a sixth faster
    return Engine(model, adapter, facts | _identity(model, adapter), bind_quotes=True)


def _identity(model: LanguageModel, adapter: str) -> dict[str, Any]:
    kind = getattr(model, "engine", {"name": type(model).__name__})
    return {
        "model": model.name,
        "adapter": "" if adapter == BASE else adapter,
        "engine": json.dumps(kind, sort_keys=True, separators=(",", ":")),
    }


def _local(
    scenario: Scenario, folder: ProjectFolder, run: Run | None
) -> tuple[LocalModel, dict[str, Any]]:
    from hauslm.catalog.local import find_base, weights_sha256
    from hauslm.lm.local import LocalModel

    section = scenario.model
    base = find_base(section.base, section.path, section.revision, folder.root)
    base_sha256 = weights_sha256(base.path, folder.work / "base-hashes.json")
    adapters: dict[str, Path] = {}
    weights, name = base.path, base.id
    if run is not None:
        if run.base.get("sha256") not in (None, "", base_sha256):
            raise RefusedError(
                "H832",
                say("The adapter was trained on other weights than the base model has now."),
                where=str(base.path),
                next_step=say("Run hauslm train again, or name the base it was trained on."),
            )
        path = (folder.root / run.adapter.path).resolve()
        if run.method == "full":  # a whole model, which stands in the base's place
            weights, name = path, f"{base.id}, trained"
            base_sha256 = weights_sha256(path, folder.work / "base-hashes.json")
        elif (path / "adapter_model.safetensors").is_file():
            adapters[ADAPTER] = path
    model = LocalModel.load(weights, adapters, name=name, batch_size=scenario.analysis.batch_size)
    return model, {
        "model_sha256": base_sha256,
        "adapter_sha256": model.adapter_sha256(ADAPTER) if adapters else "",
    }


def _remote(scenario: Scenario) -> Engine:
    from hauslm.lm.permit import permit_for
    from hauslm.lm.remote import RemoteModel

    section = scenario.analysis
    if not section.endpoint or not section.endpoint_model:
        raise UsageError(
            "H830",
            say("The engine 'openai' needs an address and a model name."),
            where="analysis.endpoint",
            next_step=say("Set analysis: endpoint and analysis: endpoint_model."),
        )
    permit = permit_for(scenario, urlsplit(section.endpoint).hostname or "")
    model = RemoteModel(
        section.endpoint,
        {BASE: section.endpoint_model},
        permit,
        context_length=section.endpoint_context,
        concurrency=section.batch_size,
    )
    facts = {"model_sha256": "", "adapter_sha256": "", **_identity(model, BASE)}
    # Endpoints limit the size of enumerations, so quotes are free there and looked up afterwards.
    return Engine(model, BASE, facts, bind_quotes=False)


def articles(
    scenario: Scenario, folder: ProjectFolder
) -> tuple[Iterator[Document], list[Rejected], int | None]:
    """The articles in order, the list of unreadable files (fills meanwhile), and how many articles
    there are, as far as that is known before they are read."""
    from hauslm.data.reading import find_files, read_documents

    limit = scenario.analysis.max_documents
    if not scenario.analysis.paths:
        held_out = _held_out(folder)
        total: int | None = sum(1 for _ in held_out)
        found: Iterator[Document] = _held_out(folder)
        rejected: list[Rejected] = []
    else:
        paths = scenario.analysis.paths
        suffixes = [s.path.suffix.lower() for s in find_files(paths, folder.root)]
        total = None if any(s in MANY_PER_FILE for s in suffixes) else len(suffixes)
        # Reading is told as part of the analysis, which it is interleaved with.
        found, rejected = read_documents(
            paths, folder.root, text_field=scenario.documents.text_field
        )
    if limit is not None:
        found = itertools.islice(found, limit)
        total = limit if total is None else min(total, limit)
    return found, rejected, total


def _held_out(folder: ProjectFolder) -> Iterator[Document]:
    """The test documents that `prepare` set aside."""
    from hauslm.data.spool import from_row

    path = folder.work / "prepared" / "documents.jsonl"
    if not path.is_file():
        raise DataError(
            "H835",
            say("There are no held-out documents to analyse."),
            where=str(path),
            next_step=say("Run hauslm prepare, or name articles under analysis: paths."),
        )
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("split") == "test":
                yield from_row({k: v for k, v in row.items() if k not in ("split", "work")})
