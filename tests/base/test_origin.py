"""Is every figure's origin said in the reader's language? Citations alone stay as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hauslm import flow
from hauslm.base import origin

# What is no sentence: an address, an identity, a file, the name of a card or of a data set.
CITED = re.compile(r"https?://|genai-prices|^hauslm\.yaml$|^[\w./-]+ - [\w./-]+$|^[\w .+-]{1,40}$")
ENGLISH = re.compile(r"\b(?:the|of|with|and|at once|tokens|measured|formula|beside)\b")


def test_composed_origins_are_taken_apart_and_said_anew() -> None:
    speed = "GeForce RTX 4090: 165.2 TFLOP/s x 0.80 (no published LoRA run with full settings; GEMM efficiency assumed)"
    german = origin.said(f"5,000,000 tokens / ({speed})", "de")
    assert german.startswith("5.000.000 Token / (GeForce RTX 4090: 165,2 TFLOP/s × 0,80 (kein ver")
    read = f"35,502 tokens (estimated from the size of the files) / ({speed})"
    assert origin.said(read, "de").startswith(
        "35.502 Token (aus der Größe der Dateien geschätzt) / (G"
    )
    used = (
        "0.0344 s of model time (measured) at 100 W (assumed: a computer whose processor is busy); "
        "this machine offers no counter; https://x.example/a (b)"
    )
    assert origin.said(used, "de").endswith("bietet keinen Zähler; https://x.example/a (b)")
    box = "24 GB on the box x 1; https://x.example/a (b, c)"
    assert origin.said(box, "de") == "24 GB laut Hersteller x 1; https://x.example/a (b, c)"
    assert origin.said(box, "en") == box
    assert origin.said("A title. Somebody, 2024", "de") == "A title. Somebody, 2024"


def _origins(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if {"value", "unit", "known"} <= set(value) and value.get("source"):
            yield value["known"], value["source"]
        for inner in value.values():
            yield from _origins(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _origins(inner)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("origins")
    flow.init(folder, {"language": "en"})
    records = [flow.compare(folder), flow.decide(folder), flow.plan(folder)]
    ask = {"gpu": "rtx-4090", "seq_len": 2048}
    records += [
        flow.plan_free(model="mistral-7b-v0.1", method=method, **ask)
        for method in ("lora", "qlora", "full", "inference")
    ]
    records.append(flow.plan_free(model="llama-3.1-70b", method="qlora", gpu="h100-sxm", gpus=2,
                                  sharding="fsdp", seq_len=2048))  # fmt: skip
    return {o for r in records for o in _origins(json.loads(r.model_dump_json(by_alias=True)))}


def test_no_origin_that_hauslm_writes_itself_stays_english(found: set[tuple[str, str]]) -> None:
    assert len(found) > 50
    left = [
        text
        for known, text in sorted(found)
        if known != "sourced" and origin.said(text, "de") == text
        and (not CITED.search(text) or ENGLISH.search(re.sub(r"https?://\S+", "", text)))
    ]  # fmt: skip
    assert left == []
