"""Last step of preparing: what was made, told as a record with checks and samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hauslm.base.errors import HauslmError
from hauslm.base.files import canonical_json, sha256_bytes
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import BaseFolder, architecture_of
from hauslm.data.check import Findings, check, histogram
from hauslm.data.examples import sample
from hauslm.data.facts import Facts
from hauslm.data.gather import Gathered
from hauslm.data.ngrams import Overlap
from hauslm.data.split import SPLITS, TRAIN, Assignment
from hauslm.data.store import ExampleStore
from hauslm.data.task import Task, TaskItem
from hauslm.data.tokens import Tokenizer, template_sha256
from hauslm.estimate import shape
from hauslm.records import Corpus, Documents, Plan, Rejected, Sample, Split, sentences
from hauslm.scenario import Scenario

SAMPLES = 3
DEFAULT_RANK = 16


@dataclass
class Prepared:
    """Everything the steps left behind; input of `record`."""

    scenario: Scenario
    plan: Plan | None
    base: BaseFolder
    tokenizer: Tokenizer
    seq_len: int
    gathered: Gathered
    facts: list[Facts]
    task: Task | None
    items: list[TaskItem]
    task_rejected: list[Rejected]
    task_notices: list[Sentence]
    assignment: Assignment
    near: list[tuple[str, str]]
    overlap: Overlap
    stores: dict[str, ExampleStore]
    document_tokens: list[int]
    characters: int
    control_spellings: int
    split_items: int
    tokenizers: Mapping[str, float] = field(default_factory=dict)  # others' characters per token
    seconds: float = 0.0


def record(p: Prepared) -> Corpus:
    """The corpus record."""
    in_split = Counter(p.assignment.split_of[one.id] for one in p.facts)
    tokens = {s: p.stores[s].tokens for s in SPLITS}
    languages = Counter(one.language for one in p.facts)
    rights = Counter(one.licence_class for one in p.facts)
    files = {s: f"work/prepared/{s}" for s in SPLITS} | {
        "documents": "work/prepared/documents.jsonl"
    }
    if p.items:
        files["task"] = "work/prepared/task.jsonl"
    return Corpus(
        documents=Documents(
            read=len(p.facts),
            rejected=(*p.gathered.rejected, *p.task_rejected),
            by_format=dict(sorted(Counter(one.format for one in p.facts).items())),
            by_language=dict(sorted(languages.items())),
            characters=sum(one.characters for one in p.facts),
        ),
        documents_split=Split(**{s: in_split.get(s, 0) for s in SPLITS}),
        examples=Split(**{s: len(p.stores[s]) for s in SPLITS}),
        tokens=Split(**tokens),
        duplicates=(*p.gathered.copies, *p.near),
        overlap_13gram=p.overlap.share,
        fingerprint=fingerprint(p.facts, p.items, p.assignment),
        rights=dict(sorted(rights.items())),
        token_histogram=histogram(p.document_tokens),
        tokenizer_sha256=p.tokenizer.sha256,
        template_sha256=template_sha256(p.tokenizer.folder),
        characters_per_token=_per_token(p),
        tokenizers=dict(sorted(p.tokenizers.items())),
        samples=samples(p.stores, p.tokenizer),
        checks=sentences(check(_findings(p, in_split, tokens, languages, rights), p.task, p.items)),
        files=files,
        task=task_summary(p.task, p.items),
        seconds=p.seconds,
        notices=sentences([*p.gathered.notices(), *p.task_notices, *_notices(p)]),
    )


def _per_token(p: Prepared) -> float:
    return p.characters / max(1, sum(p.document_tokens))


def _findings(
    p: Prepared,
    in_split: Counter[str],
    tokens: dict[str, int],
    languages: Counter[str],
    rights: Counter[str],
) -> Findings:
    hints: Counter[str] = Counter()
    for one in p.facts:
        hints.update(one.hints)
    worst = [(name.removeprefix("task\0"), share) for name, share in p.overlap.worst()]
    return Findings(
        documents=in_split,
        tokens=tokens,
        document_tokens=p.document_tokens,
        languages=languages,
        rights=rights,
        hints=hints,
        documents_with_hints=sum(bool(one.hints) for one in p.facts),
        near_duplicates=len(p.near),
        exact_duplicates=len(p.gathered.copies),
        overlap=p.overlap.share,
        worst_overlap=worst,
        lent=len(p.assignment.lent),
        adapter_parameters=_adapter_parameters(p),
        seq_len=p.seq_len,
        expected_languages=p.scenario.scenario.workload.languages,
        control_spellings=p.control_spellings,
        characters_per_token=_per_token(p),
    )


def _notices(p: Prepared) -> list[Sentence]:
    found: list[Sentence] = []
    training = p.scenario.training
    if not training.use_text:
        found.append(
            say("The texts are not trained on (training: use_text is off); they serve evaluation.")
        )
    if p.task is not None and not training.use_task:
        found.append(
            say("The task is not trained on (training: use_task is off); it serves evaluation.")
        )
    if p.split_items:
        found.append(
            say(
                "Labelled texts longer than the sequence length: {count:,}. They were split into overlapping "
                "parts with their answers.",
                count=p.split_items,
            )
        )
    if not p.tokenizer.has_own_template:
        found.append(
            say(
                "The base model has no chat template; the plain one with 'Instruction' and 'Response' "
                "is used."
            )
        )
    if p.assignment.clashes:
        found.append(
            say(
                "Documents in both the train_file and the test_file of the task: {count:,}. They count as "
                "test.",
                count=len(p.assignment.clashes),
            )
        )
    return found


def _adapter_parameters(p: Prepared) -> int | None:
    """Parameters of the planned adapter; None for full fine-tuning and for unknown block layouts."""
    adapter = p.scenario.adapter
    if p.scenario.training.method == "full":
        return None
    rank = int(adapter.r or planned(p.plan, "r") or DEFAULT_RANK)
    chosen = adapter.target_modules
    targets: shape.Targets
    if isinstance(chosen, list):
        targets = tuple(chosen)
    else:
        targets = chosen or ("attention" if adapter.preset == "lab" else "all-linear")
    try:
        return shape.adapter_parameters(architecture_of(p.base.config), targets, rank)
    except HauslmError:
        return None


def planned(plan: Plan | None, name: str) -> Any:
    """The value of a planned setting, or None."""
    setting = plan.settings.get(name) if plan is not None else None
    return setting.value if setting is not None else None


def samples(stores: dict[str, ExampleStore], tokenizer: Tokenizer) -> tuple[Sample, ...]:
    """Three training examples with their loss mask, of as many kinds as there are."""
    store = next((s for s in (stores[TRAIN], *stores.values()) if len(s)), None)
    if store is None:
        return ()
    by_kind: dict[str, list[int]] = {}
    for index in range(0, len(store), max(1, len(store) // 1000)):
        by_kind.setdefault(store.meta(index)["kind"], []).append(index)
    chosen: list[int] = []
    while len(chosen) < SAMPLES and any(by_kind.values()):
        for indices in by_kind.values():
            if indices and len(chosen) < SAMPLES:
                chosen.append(indices.pop(len(indices) // 2))
    return tuple(sample(store[i], tokenizer) for i in chosen)


def fingerprint(facts: Sequence[Facts], items: Sequence[TaskItem], assignment: Assignment) -> str:
    """One hash of the whole corpus: texts, splits and labelled items, whatever their order."""
    lines = sorted(f"{one.sha256} {assignment.split_of[one.id]}" for one in facts)
    lines += sorted(sha256_bytes(canonical_json(item.to_json())) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def task_summary(task: Task | None, items: Sequence[TaskItem]) -> dict[str, Any]:
    """The task (read back by `Task.from_json`) and how many items and documents each split holds."""
    if task is None:
        return {}
    by_split = Counter(item.split for item in items)
    labels = Counter(
        str(i.label) for i in items if i.split == TRAIN and not isinstance(i.label, list)
    )
    return {
        **task.to_json(),
        "items": {s: by_split.get(s, 0) for s in SPLITS},
        "documents": {s: len({i.document for i in items if i.split == s}) for s in SPLITS},
        "train_labels": dict(sorted(labels.items())),
    }
