"""How much text is there to train on? Counted where a corpus is prepared, estimated before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Literal

from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import N_
from hauslm.plan import values
from hauslm.records import Corpus
from hauslm.scenario import Scenario

# Before anything is read: English text with a 32k vocabulary (measured on articles), and the share
# of a file that is text. PDF and packed formats say little about their text by their size.
CHARACTERS_PER_TOKEN = 3.75
TEXT_SHARE = {
    ".md": 1.0,
    ".txt": 1.0,
    ".jsonl": 0.9,
    ".xml": 0.5,
    ".html": 0.3,
    ".htm": 0.3,
    ".csv": 0.9,
}
OTHER_TEXT_SHARE = 0.05
MOST_FILES = 20_000
# Vocabularies between 8k and 256k, markup, and prompts around labelled items: nobody has counted yet.
ESTIMATE_LOW, ESTIMATE_HIGH = 0.5, 2.5


Known = Literal["counted", "estimated from the files", "stated in the scenario"]
SOURCES: dict[Known, str] = {
    "counted": N_("counted in the prepared corpus"),
    "estimated from the files": N_("estimated from the size of the files"),
    "stated in the scenario": N_("stated in the scenario"),
}


@dataclass(frozen=True)
class Amount:
    """Training tokens of one pass, and how the documents' lengths are spread (if counted)."""

    tokens: float
    known: Known
    histogram: Mapping[str, int] = field(default_factory=dict)
    stated_length: float | None = None  # tokens of a document, by the scenario's characters

    def trained(self, epochs: float) -> Quantity:
        """Tokens of `epochs` passes, with their range and how they are known."""
        value = max(1.0, self.tokens * epochs)
        if self.known == "estimated from the files":
            ends: tuple[float | None, float | None] = (ESTIMATE_LOW * value, ESTIMATE_HIGH * value)
        else:
            ends = (None, None)
        return derived(value, "tokens", SOURCES[self.known], *ends)

    @property
    def median_tokens(self) -> float | None:
        counted = values.median_tokens(self.histogram)
        return counted if counted is not None else self.stated_length


def amount(scenario: Scenario, corpus: Corpus | None, root: Path) -> Amount:
    """From the prepared corpus, else from the size of the files, else what the scenario says."""
    if corpus is not None:
        return Amount(max(1, corpus.tokens.train), "counted", corpus.token_histogram)
    length = scenario.scenario.workload.characters_per_document / CHARACTERS_PER_TOKEN
    held_out = scenario.documents.validation_share + scenario.documents.test_share
    size = 0.0
    if scenario.training.use_text:
        texts = sum(_text_bytes(root, entry) for entry in scenario.documents.paths)
        size += (1 - held_out) * texts
    task = scenario.evaluation.task
    if scenario.training.use_task:
        size += (1 - held_out) * _text_bytes(root, task.file) if task.file else 0.0
        size += _text_bytes(root, task.train_file) if task.train_file else 0.0
    if size > 0:
        tokens = size / CHARACTERS_PER_TOKEN
        return Amount(max(1.0, tokens), "estimated from the files", stated_length=length)
    stated = max(1.0, scenario.scenario.adaptation.training_tokens)
    return Amount(stated, "stated in the scenario", stated_length=length)


def _text_bytes(root: Path, entry: str) -> float:
    """Bytes of text below one entry of documents.paths (a file, a folder, a glob)."""
    place = (root / entry).expanduser()
    try:
        if has_magic(entry):
            files = [p for p in root.glob(entry) if p.is_file()]
        elif place.is_dir():
            files = [p for p in place.rglob("*") if p.is_file()]
        else:
            files = [place] if place.is_file() else []
        return sum(
            p.stat().st_size * TEXT_SHARE.get(p.suffix.lower(), OTHER_TEXT_SHARE)
            for p in files[:MOST_FILES]
        )
    except (OSError, ValueError, NotImplementedError):
        return 0.0  # unreadable here: `prepare` will say so with the file's name
