"""First step of preparing: read everything once, apply the gate, take each text once, fill the spool.

What comes out is small (`Gathered`) and is saved beside the spool, so that an interrupted preparation need
not read the PDFs again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hauslm.base.files import read_json, write_json
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.data.document import PARTS, Document
from hauslm.data.reading import read_documents
from hauslm.data.rights import FREE
from hauslm.data.spool import Shard, SpoolWriter
from hauslm.records import Rejected, Said
from hauslm.scenario import Scenario

SHARD_BYTES = 2 << 20  # small: all processes end at about the same time


@dataclass
class Gathered:
    """What reading found. `copies` are (kept id, rejected copy); `left_out` counts parts by kind."""

    shards: list[Shard] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: dict[str, tuple[int, Said]] = field(default_factory=dict)
    limited: int = 0

    @property
    def count(self) -> int:
        return sum(shard.documents for shard in self.shards)

    def notices(self) -> list[Sentence]:
        """What a reader must know about reading: limits, parts left out, remarks of the readers."""
        found: list[Sentence] = []
        if self.limited:
            found.append(
                say(
                    "Reading stopped after {count:,} documents (documents: max_documents).",
                    count=self.limited,
                )
            )
        if self.left_out:
            parts = [
                say("{kind}: {count:,}", kind=PARTS[kind], count=n)
                for kind, n in sorted(self.left_out.items(), key=lambda i: (-i[1], i[0]))
            ]
            found.append(say("Left out of the texts on purpose: {parts}.", parts=parts))
        for count, remark in self.remarks.values():
            found.append(
                say(
                    "Remark on {count:,} of the documents, for instance: {remark}",
                    count=count,
                    remark=remark.sentence(),
                )
            )
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "shards": [list(s) for s in self.shards],
            "rejected": [r.model_dump(mode="json") for r in self.rejected],
            "copies": self.copies,
            "left_out": dict(self.left_out),
            "remarks": {
                k: [n, said.model_dump(mode="json")] for k, (n, said) in self.remarks.items()
            },
            "limited": self.limited,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Gathered:
        return cls(
            shards=[Shard(*s) for s in data["shards"]],
            rejected=[Rejected.model_validate(r) for r in data["rejected"]],
            copies=[(a, b) for a, b in data["copies"]],
            left_out=Counter(data["left_out"]),
            remarks={k: (n, Said.model_validate(said)) for k, (n, said) in data["remarks"].items()},
            limited=data["limited"],
        )


def gather(
    scenario: Scenario,
    root: Path,
    building: Path,
    progress: Progress,
    *,
    paths: bool = True,
    closed: Callable[[Shard], object] = bool,
) -> Gathered:
    """Read the project's documents into `building/spool.jsonl`, or take the finished spool there.

    `closed` is told of each shard while reading goes on; of none where the spool was finished before.
    """
    done = building / "spool.done.json"
    spool = building / "spool.jsonl"
    if done.is_file() and spool.is_file():
        return Gathered.from_json(read_json(done))
    gathered = Gathered()
    section = scenario.documents
    writer = SpoolWriter(spool, SHARD_BYTES, closed)
    if paths:
        documents, gathered.rejected = read_documents(
            section.paths,
            root,
            text_field=section.text_field,
            progress=progress,
            minimum_characters=section.minimum_characters,
        )
        for document in _chosen(documents, scenario, gathered):
            writer.append(document)
    gathered.shards = writer.close()
    write_json(done, gathered.to_json())
    return gathered


def _chosen(
    documents: Iterator[Document], scenario: Scenario, gathered: Gathered
) -> Iterator[Document]:
    """Documents that pass the gate, each text once, at most `max_documents`."""
    section = scenario.documents
    own = scenario.scenario.data.copyright == "own"
    seen: dict[str, str] = {}
    count = 0
    for document in documents:
        if section.max_documents is not None and count >= section.max_documents:
            gathered.limited = count
            return
        if own and document.licence_class == "unknown":
            document = replace(document, licence_class="own")
        if section.licence_gate == "open_only" and document.licence_class not in FREE:
            gathered.rejected.append(_gated(document))
            continue
        first = seen.setdefault(document.sha256, document.id)
        if first != document.id:
            gathered.copies.append((first, document.id))
            reason = say("The text is exactly that of {id}; it was taken once.", id=first)
            gathered.rejected.append(Rejected(file=_name(document), reason=Said.of(reason)))
            continue
        count += 1
        gathered.left_out.update(document.left_out)
        for notice in document.notices:
            number, said = gathered.remarks.get(notice.template, (0, Said.of(notice)))
            gathered.remarks[notice.template] = (number + 1, said)
        yield document


def _name(document: Document) -> str:
    return f"{document.source_file} ({document.id})"


def _gated(document: Document) -> Rejected:
    reason = say(
        "Its licence is {licence_class}, not open (documents: licence_gate is open_only).",
        licence_class=document.licence_class,
    )
    return Rejected(file=_name(document), reason=Said.of(reason))
