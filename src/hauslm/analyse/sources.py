"""Who answers, about what? The engine of an analysis and the articles that it reads.

The engine is the project's base model with its adapter (checked with the canary, then merged where
that changes nothing), an OpenAI-compatible endpoint with a permit, or a model that the caller brings.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hauslm.analyse.canary import check_canary, make_canary, read_canary
from hauslm.analyse.parts import WHOLE, Part
from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, read_json, sha256_bytes, sha256_file
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.lm.interface import BASE, LanguageModel
from hauslm.records import Rejected, Run
from hauslm.scenario import Scenario

if TYPE_CHECKING:
    from hauslm.catalog.local import BaseFolder
    from hauslm.data.document import Document
    from hauslm.lm.local import LocalModel

ADAPTER = "adapter"
PREPARED = "work/prepared/documents.jsonl"
MANY_PER_FILE = (".jsonl", ".ndjson", ".gz", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Engine:
    """What answers: the model, which adapter to ask, and how rows name them."""

    model: LanguageModel
    adapter: str
    facts: Mapping[str, Any]
    bind_quotes: bool
    close: Callable[[], None] = lambda: None  # what was started for this job


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
    if model is None and scenario.analysis.engine == "vllm":
        return _vllm(scenario, folder, run, progress)
    facts: dict[str, Any] = {"model_sha256": "", "adapter_sha256": ""}
    own = model is None
    if model is None:
        model, facts = _local(scenario, folder, run)
    adapter = next((n for n in (ADAPTER, *model.adapters()) if n in model.adapters()), BASE)
    canary = folder.adapter / "canary.json"
    if adapter != BASE and canary.is_file():
        check_canary(model, adapter, read_canary(canary))
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


def _checked_base(
    scenario: Scenario, folder: ProjectFolder, run: Run | None
) -> tuple[BaseFolder, str]:
    """The base model and the SHA-256 of its weights; H832 if the run's adapter is not for them."""
    from hauslm.catalog.local import base_of, weights_sha256

    base = base_of(scenario.model, folder.root)
    base_sha256 = weights_sha256(base.path, folder.work / "base-hashes.json")
    if run is not None and run.base.get("sha256") not in (None, "", base_sha256):
        raise RefusedError(
            "H832",
            say("The adapter was trained on other weights than the base model has now."),
            where=str(base.path),
            next_step=say("Run hauslm train again, or name the base it was trained on."),
        )
    return base, base_sha256


def _local(
    scenario: Scenario, folder: ProjectFolder, run: Run | None
) -> tuple[LocalModel, dict[str, Any]]:
    from hauslm.catalog.local import weights_sha256
    from hauslm.lm.local import LocalModel

    base, base_sha256 = _checked_base(scenario, folder, run)
    adapters: dict[str, Path] = {}
    weights, name = base.path, base.id
    if run is not None:
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
    address = urlsplit(section.endpoint)
    permit = permit_for(scenario, address.hostname or "")
    model = RemoteModel(
        section.endpoint,
        {BASE: section.endpoint_model},
        permit,
        context_length=section.endpoint_context,
        concurrency=section.batch_size,
    )
    # The address is part of a row's key: another server's model of the same name is another model.
    # It holds no password: RemoteModel refuses one there.
    kind = {"endpoint": section.endpoint.rstrip("/"), "name": "openai"}
    engine = json.dumps(kind, separators=(",", ":"))
    facts = {
        "model_sha256": "", "adapter_sha256": "", **_identity(model, BASE), "engine": engine,
    }  # fmt: skip
    # Endpoints limit the size of enumerations, so quotes are free there and looked up afterwards.
    return Engine(model, BASE, facts, bind_quotes=False)


def _vllm(scenario: Scenario, folder: ProjectFolder, run: Run | None, progress: Progress) -> Engine:
    """vLLM in its own environment, started for this job and stopped after it; canary checked."""
    from hauslm.lm import vllm
    from hauslm.lm.permit import permit_for
    from hauslm.lm.remote import RemoteModel

    base, base_sha256 = _checked_base(scenario, folder, run)
    where, adapters = base.path, dict[str, Path]()
    if run is not None:
        path = (folder.root / run.adapter.path).resolve()
        if run.method == "full":
            where = path  # a whole model, not an adapter
        else:
            adapters[ADAPTER] = path
    port = vllm.free_port()
    config = read_json(where / "config.json")
    context = int(config.get("max_position_embeddings", section_context(scenario)))
    template = where / "chat_template.jinja"
    launch = vllm.Launch(
        scenario.serving.vllm_python, where.resolve(), "base-model", port, adapters,
        max_model_len=context, max_num_seqs=max(8, scenario.analysis.batch_size),
        chat_template=template.resolve() if template.is_file() else None,
        quantisation=vllm.form_of_weights(scenario.model.quantisation, run),
    )  # fmt: skip
    progress.say(say("Starting vLLM; its log is {path}.", path=str(folder.logs / "vllm.log")))
    stack = ExitStack()
    stack.enter_context(vllm.launched(launch, secrets.token_urlsafe(32), folder.logs / "vllm.log"))
    try:
        model = RemoteModel(
            f"http://{vllm.HOST}:{port}/v1",
            {BASE: launch.name, **{n: n for n in adapters}},
            permit_for(scenario, vllm.HOST),
            context_length=context,
            key_variable=vllm.KEY_VARIABLE,
            timeout_s=600.0,
            concurrency=max(8, scenario.analysis.batch_size),
            tokenizer=base.path / "tokenizer.json",
        )
        for name in adapters:
            canary = folder.adapter / "canary.json"
            recorded = read_canary(canary) if canary.is_file() else make_canary(model, name)
            check_canary(model, name, recorded)
    except BaseException:
        stack.close()
        raise
    facts = {
        "model_sha256": base_sha256,
        "adapter_sha256": sha256_file(adapters[ADAPTER] / "adapter_model.safetensors")
        if adapters
        else "",
        **_identity(model, ADAPTER if adapters else BASE),
        "model": base.id,
        "engine": '{"name":"vllm"}',
    }
    # vLLM's grammars take large enumerations slowly: quotes are free and looked up afterwards.
    return Engine(model, ADAPTER if adapters else BASE, facts, False, stack.close)


def section_context(scenario: Scenario) -> int:
    return scenario.analysis.endpoint_context


@dataclass(frozen=True)
class Placed:
    """An article and where it was found: its file, and its number among the articles of that file."""

    document: Document
    file: str
    number: int

    @property
    def identity(self) -> tuple[str, str]:
        """Id and sha256 of the text: what the rows of this article name."""
        return self.document.id, article_sha256(self.document)


def article_sha256(document: Document) -> str:
    return document.sha256 or sha256_bytes(document.text.encode())


def articles(
    scenario: Scenario, folder: ProjectFolder, part: Part = WHOLE
) -> tuple[Iterator[Placed], list[Rejected], int | None]:
    """The articles of `part` in order, the list of unreadable files (fills meanwhile), and how many
    articles there are, as far as that is known before they are read."""
    limit = scenario.analysis.max_documents
    rejected: list[Rejected] = []
    if not scenario.analysis.paths:
        total: int | None = None
        if not part.several:
            total = sum(1 for _ in _held_out(folder))
        found = _of_part(_held_out(folder), part, by_file=lambda file: False)
    else:
        found, rejected, total = _of_paths(scenario, folder, part)
    if limit is not None:
        found = itertools.islice(found, limit)
        total = limit if total is None else min(total, limit)
    return found, rejected, total


def _of_paths(
    scenario: Scenario, folder: ProjectFolder, part: Part
) -> tuple[Iterator[Placed], list[Rejected], int | None]:
    from hauslm.data.reading import find_files, read_documents

    paths = scenario.analysis.paths
    wanted = total = 0
    any_many = False
    for source in find_files(paths, folder.root):
        total += 1
        any_many = any_many or _holds_many(source.shown)
        wanted += part.holds(source.shown)
    count = None if any_many else wanted if part.several else total
    # Reading is told as part of the analysis, which it is interleaved with.
    found, rejected = read_documents(
        paths,
        folder.root,
        text_field=scenario.documents.text_field,
        # A file that holds one article is of one part, and the others need not read it.
        keep=lambda source: _holds_many(source.shown) or part.holds(source.shown),
    )
    return _of_part(found, part, by_file=lambda f: not _holds_many(f)), rejected, count


def _holds_many(file: str) -> bool:
    return file.lower().endswith(MANY_PER_FILE)


def _of_part(
    documents: Iterator[Document], part: Part, by_file: Callable[[str], bool]
) -> Iterator[Placed]:
    """Those of `part`: by the name of the file where it holds one article, else by the text."""
    file, number = "", -1
    for document in documents:
        number = number + 1 if document.source_file == file else 0
        file = document.source_file
        if by_file(file) or part.holds(article_sha256(document)):
            yield Placed(document, file, number)


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
                found = from_row({k: v for k, v in row.items() if k not in ("split", "work")})
                # In the order of that file, whatever files the documents came from.
                yield replace(found, source_file=PREPARED)
