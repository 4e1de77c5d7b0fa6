"""A prepared project of a few lines, and a stand-in whose knowledge a test can set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.files import ProjectFolder
from hauslm.base.quantity import measured
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import BASE, Scored
from hauslm.records import AdapterFile, Corpus, Documents, Loss, Run, Split

# (prompt, continuation, adapter) -> nats per byte, and whether greedy decoding would write it.
Belief = Callable[[str, str, str], tuple[float, bool]]


class Knowing(EchoModel):
    """A model without weights that finds texts as probable as `belief` says; counts its calls."""

    def __init__(self, belief: Belief, **options: Any) -> None:
        super().__init__(("adapter",), **options)
        self.belief = belief
        self.scored = 0

    def score(self, pairs: Sequence[tuple[str, str]], adapter: str = BASE) -> list[Scored]:
        self._need_adapter(adapter)
        self.scored += len(pairs)
        found = []
        for prompt, continuation in pairs:
            nats, greedy = self.belief(prompt, continuation, adapter)
            size = len(continuation.encode())
            found.append(Scored(-nats * size, self.count_tokens(continuation), size, greedy))
        return found


def indifferent(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    return math.log(256) / 4, False


class Prepared:
    """`work/prepared` of a project, written without `prepare`."""

    def __init__(self, root: Path) -> None:
        self.folder = ProjectFolder(root)
        self.documents: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.labels: tuple[str, ...] = ()
        self.kind = "classification"

    def document(self, id_: str, text: str, split: str, language: str = "en") -> None:
        self.documents.append(
            {"id": id_, "title": id_, "split": split, "language": language, "text": text}
        )

    def item(self, id_: str, document: str, text: str, label: Any, split: str, **more: Any) -> None:
        self.items.append(
            {
                "id": id_,
                "document": document,
                "text": text,
                "label": label,
                "split": split,
                "language": "en",
                "position": None,
                "extra": {},
                **more,
            }
        )

    def write(self) -> tuple[Corpus, Run]:
        target = self.folder.work / "prepared"
        target.mkdir(parents=True, exist_ok=True)
        for name, rows in (("documents", self.documents), ("task", self.items)):
            if rows:
                lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in rows]
                (target / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        return self._corpus(), run_of("0" * 64)

    def _corpus(self) -> Corpus:
        counts = {s: sum(d["split"] == s for d in self.documents) for s in Split.model_fields}
        tokens = {
            s: sum(len(d["text"].split()) for d in self.documents if d["split"] == s)
            for s in Split.model_fields
        }
        task = {"kind": self.kind, "labels": list(self.labels)} if self.items else {}
        return Corpus(
            documents=Documents(read=len(self.documents)),
            documents_split=Split(**counts),
            examples=Split(**counts),
            tokens=Split(**tokens),
            fingerprint="0",
            task=task,
        )


def run_of(adapter_sha256: str, path: str = "adapter", base_sha256: str = "") -> Run:
    today = "2026-01-01"
    return Run(
        adapter=AdapterFile(path=path, sha256=adapter_sha256, parameters=1),
        base={"id": "embedded", "path": "", "sha256": base_sha256},
        method="lora",
        steps=1,
        epochs=1,
        tokens=1,
        tokens_per_second=measured(1, "tokens/s", today),
        peak_memory_gib=measured(1, "GiB", today),
        seconds=1,
        loss=Loss(first=2, last=1),
        determinism="bitwise",
        settings={"seq_len": 512},
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return Prepared(tmp_path / "project")
