"""What is this adapter made of? A CycloneDX 1.6 bill of materials (ML-BOM), written from the records.

Base model, adapter, data set (fingerprint, rights, counts; never text, never file names), licences and
the tools that made it. Same records, same bytes: the serial number is derived from the contents, the
time is that of the training. Specification: ECMA-424, cyclonedx.org/docs/1.6/json.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from hauslm.base.version import __version__
from hauslm.records import Corpus, Evaluation, Run
from hauslm.share.licence import Duties

NAME = "bom.cdx.json"
SPEC_VERSION = "1.6"
# SPDX ids among the catalog's licence names; all others are named, as CycloneDX asks.
_SPDX = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0")


def bom(
    name: str,
    run: Run,
    corpus: Corpus,
    evaluation: Evaluation | None,
    duties: Duties,
    adapter_sha256: str,
    revision: str,
) -> bytes:
    """The bill as JSON text."""
    base_id = run.base.get("id", "")
    adapter = _adapter(name, run, evaluation, duties, adapter_sha256)
    value: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "timestamp": run.created,
            "tools": {
                "components": [{"type": "application", "name": "hauslm", "version": __version__}]
            },
            "component": adapter,
        },
        "components": [
            _base(base_id, revision, run, duties),
            _data(corpus),
            *_libraries(run),
        ],
        "dependencies": [
            {"ref": "adapter", "dependsOn": sorted(["base", "data", *_library_refs(run)])},
            {"ref": "base"},
            {"ref": "data"},
        ],
    }
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    value["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _licences(duties: Duties) -> list[dict[str, Any]]:
    if not duties.licence:
        return []
    key = "id" if duties.licence in _SPDX else "name"
    return [{"license": {key: duties.licence}}]


def _adapter(
    name: str, run: Run, evaluation: Evaluation | None, duties: Duties, sha256: str
) -> dict[str, Any]:
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": f"LoRA ({run.method})",
            "datasets": [{"ref": "data"}],
        }
    }
    metrics = [
        {"type": metric, "value": f"{value:.6g}", "slice": system.name}
        for system in (evaluation.systems if evaluation else ())
        for metric, value in sorted(system.metrics.items())
        if value is not None
    ]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "adapter",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "modelCard": card,
        "properties": [
            {"name": "hauslm:parameters", "value": str(run.adapter.parameters)},
            {"name": "hauslm:steps", "value": str(run.steps)},
            {"name": "hauslm:determinism", "value": run.determinism},
        ],
        "pedigree": {"ancestors": [{"type": "machine-learning-model", "name": run.base.get("id", "")}]},
    }  # fmt: skip
    if licences := _licences(duties):
        found["licenses"] = licences
    return found


def _base(base_id: str, revision: str, run: Run, duties: Duties) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "base",
        "name": base_id or "unknown",
    }
    if revision:
        found["version"] = revision
    if digest := run.base.get("sha256", ""):
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if licences := _licences(duties):
        found["licenses"] = licences
    return found


def _data(corpus: Corpus) -> dict[str, Any]:
    properties = [
        {"name": "hauslm:fingerprint", "value": corpus.fingerprint},
        {"name": "hauslm:documents", "value": str(corpus.documents.read)},
        {"name": "hauslm:training-tokens", "value": str(corpus.tokens.train)},
        *(
            {"name": f"hauslm:rights:{kind}", "value": str(count)}
            for kind, count in sorted(corpus.rights.items())
        ),
    ]
    return {
        "type": "data",
        "bom-ref": "data",
        "name": "training documents",
        "data": [
            {
                "type": "dataset",
                "name": "training documents",
                "classification": "team-internal",
            }
        ],
        "properties": properties,
    }


def _library_refs(run: Run) -> list[str]:
    return [str(row["bom-ref"]) for row in _libraries(run)]


def _libraries(run: Run) -> list[dict[str, Any]]:
    """The packages that trained it, as the run record names them."""
    packages = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy")
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
        }
        for name, version in sorted(run.versions.items())
        if name in packages
    ]


def problem(value: Any, adapter_sha256: str) -> bool:
    """Is this no bill of materials of that adapter?"""
    try:
        main = value["metadata"]["component"]
        return not (
            value["bomFormat"] == "CycloneDX"
            and value["specVersion"] in ("1.6", "1.7")
            and {"alg": "SHA-256", "content": adapter_sha256} in main["hashes"]
            and {c["bom-ref"] for c in value["components"]} >= {"base", "data"}
        )
    except (KeyError, TypeError):
        return True
