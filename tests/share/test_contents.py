"""Card, licence, bill of materials and reports: really there, and their absence is noticed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import RefusedError
from hauslm.base.files import ProjectFolder, sha256_bytes
from hauslm.records import Evaluation, Privacy, Said, SystemScore
from hauslm.scenario import Scenario
from hauslm.share import archive, bom, licence
from hauslm.share.bundle import bundle
from hauslm.share.verify import verify
from tests.share.making import SECRET, records

WORDS = "a planted canary sentence"


def evaluation(passed: bool = True) -> Evaluation:
    return Evaluation(
        n=4, documents=2, verdict="better", verdict_text=Said(text="better"), forgetting={}, differences=(),
        systems=(
            SystemScore(name="base", kind="base", metrics={"accuracy": 0.25, "bits_per_byte": None}),
            SystemScore(name="adapter", kind="adapter", metrics={"accuracy": 0.5, "bits_per_byte": 1.5}),
        ),
        memorisation={
            "passed": passed, "limit": 0.005, "spans": 40, "exact_base": 0.0, "exact_adapter": 0.0,
            "canaries": [{"text": WORDS, "planted": True, "memorised": False}],
        },
        examples=({"text": SECRET},),
    )  # fmt: skip


def privacy() -> Privacy:
    return Privacy(passed=True, packets=0, control_packets=9, stages={"train": "0"})


@pytest.fixture
def full(project: ProjectFolder) -> Path:
    run, corpus = records(project)
    record = bundle(
        Scenario(name="terms"), project, run=run, corpus=corpus,
        evaluation=evaluation(), privacy=privacy(),
    )  # fmt: skip
    return project.root / record.path


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {i.filename: opened.read(i) for i in opened.infolist()}


def resealed(files: dict[str, bytes], target: Path, **manifest: Any) -> Path:
    """As somebody would who takes something out and makes the manifest fit."""
    old = json.loads(files["manifest.json"]) | manifest
    old["files"] = {n: sha256_bytes(b) for n, b in files.items() if n != "manifest.json"}
    target.write_bytes(archive.write(files | {"manifest.json": json.dumps(old).encode()}))
    return target


def test_everything_a_colleague_needs_is_in_it(full: Path) -> None:
    files = entries(full)
    assert {
        "README.md", "LICENSE.base.txt", "CHANGES.md", "bom.cdx.json", "training.json", "data.json",
        "evaluation.json", "memorisation.json", "privacy.json",
    } <= set(files)  # fmt: skip
    raw = full.read_bytes()
    assert SECRET.encode() not in raw and WORDS.encode() not in raw
    assert b"Apache License" in files["LICENSE.base.txt"]
    changes = files["CHANGES.md"].decode()
    assert "This is a modification of" in changes and "Dies ist eine Bearbeitung" in changes
    assert verify(full)["manifest"]["memorisation_passed"] is True


def test_the_card_is_in_both_languages_with_their_own_numbers(full: Path) -> None:
    import yaml

    text = entries(full)["README.md"].decode()
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["base_model"] == "embedded" and front["license"] == "apache-2.0"
    english, german = body.split("<!-- de -->")
    assert "Memorisation: of 40 training passages" in english and "0.50%" in english
    assert "40" in german and "0,50 %" in german
    assert "0.500" in english  # accuracy of the adapter


LACKING: dict[str, tuple[str, Callable[[dict[str, bytes]], dict[str, Any]]]] = {
    "card": ("H719", lambda f: f.pop("README.md") and {}),
    "card in one language": (
        "H719",
        lambda f: f.update({"README.md": f["README.md"].replace(b"<!-- de -->", b"")}) or {},
    ),
    "bill of materials": ("H719", lambda f: f.pop("bom.cdx.json") and {}),
    "bill of another adapter": (
        "H719",
        lambda f: f.update({"bom.cdx.json": f["bom.cdx.json"].replace(b'"content": "', b'"content": "0')}) or {},
    ),
    "bill that is no bill": ("H719", lambda f: f.update({"bom.cdx.json": b"{}"}) or {}),
    "licence text": ("H714", lambda f: f.pop("LICENSE.base.txt") and {"licence": {}}),
    "change notice": ("H714", lambda f: f.pop("CHANGES.md") and {}),
    "evaluation": ("H718", lambda f: f.pop("evaluation.json") and {}),
    "evaluation, and the list says so": (
        "H718",
        lambda f: f.pop("evaluation.json") and {"reports": ["memorisation.json", "privacy.json"]},
    ),
    "memorisation": ("H718", lambda f: f.pop("memorisation.json") and {}),
    "memorisation that did not pass": (
        "H718",
        lambda f: f.update({"memorisation.json": b'{"passed": false}'}) or {},
    ),
    "training record": ("H718", lambda f: f.pop("training.json") and {}),
    "data of another corpus": ("H718", lambda f: f.update({"data.json": b'{"fingerprint": "0"}'}) or {}),
    "another base in the manifest": ("H718", lambda f: {"base": {"id": "llama-3-8b", "sha256": "0" * 64, "revision": ""}}),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(LACKING))
def test_what_is_lacking_is_noticed(case: str, full: Path, tmp_path: Path) -> None:
    code, change = LACKING[case]
    files = entries(full)
    extra = change(files)
    target = resealed(files, tmp_path / "lacking.hlm", **extra)
    with pytest.raises(RefusedError, match=code):
        verify(target)


# ---------------------------------------------------------------- licences


def test_llama_3_asks_for_name_notice_licence_and_words(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(RefusedError, match="H721"):
        licence.check_texts(licence.duties_of("llama-3-8b", base), base)
    (base / "LICENSE").write_text("META LLAMA 3 COMMUNITY LICENSE AGREEMENT")
    (base / "USE_POLICY.md").write_text("policy")
    duties = licence.duties_of("llama-3-8b", base)
    licence.check_texts(duties, base)
    assert duties.name_prefix == "Llama 3" and duties.shown == "Built with Meta Llama 3"
    assert set(duties.texts) == {"LICENSE.base.LICENSE", "USE_POLICY.md", "Notice.txt"}
    assert "Meta Llama 3 is licensed under" in duties.texts["Notice.txt"]
    with pytest.raises(RefusedError, match="H720"):
        licence.check_name("terms", duties)
    licence.check_name("Llama 3 terms", duties)


@pytest.mark.parametrize(
    ("lacking", "word"),
    [
        ("name", "begins"),
        ("LICENSE.base.LICENSE", "text"),
        ("Notice.txt", "notice"),
        ("words", "card"),
    ],
)
def test_a_strangers_llama_bundle_is_held_to_its_duties(lacking: str, word: str) -> None:
    notice = b"Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved."
    files = {
        "README.md": b"Built with Meta Llama 3",
        "LICENSE.base.LICENSE": b"x",
        "Notice.txt": notice,
    }
    assert licence.problem("llama-3-8b", "Llama 3 terms", files, files.__getitem__) is None
    assert (
        licence.problem("meta-llama/Meta-Llama-3-8B", "Llama-3-terms", files, files.__getitem__)
        is None
    )
    files.pop(lacking, None)
    if lacking == "words":
        files["README.md"] = b"a card"
    name = "terms" if lacking == "name" else "Llama 3 terms"
    found = licence.problem("llama-3-8b", name, files, files.__getitem__)
    assert found is not None and word in found.text("en")


@pytest.mark.parametrize(
    ("base", "prefix", "shown"),
    [
        ("llama-3.1-8b", "Llama", "Built with Llama"),
        ("gemma-3-12b", "", ""),
        ("mistral-7b-v0.1", "", ""),
    ],
)
def test_other_licences(base: str, prefix: str, shown: str, tmp_path: Path) -> None:
    duties = licence.duties_of(base, tmp_path)
    assert (duties.name_prefix, duties.shown) == (prefix, shown)
    assert duties.needs_text


# ---------------------------------------------------------------- the bill of materials


def test_the_bill_is_valid_cyclonedx(full: Path) -> None:
    validation = pytest.importorskip(
        "cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed"
    )
    schema = pytest.importorskip("cyclonedx.schema")
    text = entries(full)[bom.NAME].decode()
    checker = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert checker.validate_str(text) is None
    broken = json.loads(text) | {"components": [{"type": "no such type"}]}
    assert checker.validate_str(json.dumps(broken)) is not None


def test_the_bill_names_model_data_licence_and_tools(full: Path) -> None:
    bill = json.loads(entries(full)[bom.NAME])
    main = bill["metadata"]["component"]
    assert main["type"] == "machine-learning-model" and main["licenses"] == [
        {"license": {"id": "Apache-2.0"}}
    ]
    parts = {c["bom-ref"]: c for c in bill["components"]}
    assert parts["base"]["hashes"][0]["content"] == "0" * 64
    assert {"name": "hauslm:rights:open", "value": "5"} in parts["data"]["properties"]
    metrics = main["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "accuracy", "value": "0.5", "slice": "adapter"} in metrics
