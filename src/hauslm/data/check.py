"""Look before you spend: what would waste a training run? Sentences, each with a next step.

Everything here is computed from facts that `prepare` already holds; no text is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hauslm.base.words import Sentence, say
from hauslm.data.rights import FREE
from hauslm.data.task import CLASSIFICATION, Task, TaskItem

MINIMUM_DOCUMENTS = 20
MINIMUM_TOKENS = 100_000
MINIMUM_ITEMS_PER_LABEL = 20
MINIMUM_TEST_DOCUMENTS = 10
OVERLAP_WORTH_A_WORD = 0.01

# What LoRA can hold: about 2 bit per adapter parameter; what a text holds: about 3 bit per token for
# scientific prose (an estimate). See the notes on capacity in docs; both only give the order of magnitude.
BITS_PER_PARAMETER = 2.0
BITS_PER_TOKEN = 3.0

HINTS = {
    "email": say("e-mail addresses"),
    "phone": say("telephone numbers"),
    "iban": say("bank accounts (IBAN)"),
    "card": say("card numbers"),
    "birth date": say("birth dates"),
}

_EDGES = (0, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass
class Findings:
    """What the passes over the corpus counted; input of `check`."""

    documents: Mapping[str, int]  # split -> works' documents
    tokens: Mapping[str, int]  # split -> trained and context tokens
    document_tokens: Sequence[int]
    languages: Mapping[str, int]
    rights: Mapping[str, int]
    hints: Mapping[str, int]
    documents_with_hints: int = 0
    near_duplicates: int = 0
    exact_duplicates: int = 0
    overlap: float = 0.0
    worst_overlap: Sequence[tuple[str, float]] = ()
    lent: int = 0
    adapter_parameters: int | None = None
    vocab_size: int = 0
    seq_len: int = 512
    expected_languages: Sequence[str] = ()
    licence_gate: str = "warn"
    share_to: str = "no"
    control_spellings: int = 0
    characters_per_token: float = 0.0


def histogram(lengths: Iterable[int]) -> dict[str, int]:
    """Documents by tokens, in doubling classes: {"0-127": 3, "128-255": 10, ...}; empty ones left out."""
    counts: Counter[int] = Counter()
    for length in lengths:
        counts[max(i for i, edge in enumerate(_EDGES) if edge <= length)] += 1
    names = [f"{low}-{high - 1}" for low, high in pairwise(_EDGES)] + [f"{_EDGES[-1]}-"]
    return {names[i]: counts[i] for i in sorted(counts)}


def check(found: Findings, task: Task | None, items: Sequence[TaskItem]) -> list[Sentence]:
    """All findings worth a sentence, the most consequential first."""
    sentences = [
        *_amount(found),
        *_capacity(found),
        *_overlap(found),
        *_rights(found),
        *_personal(found),
    ]
    sentences += [*_languages(found), *_tokenizer(found), *_duplicates(found), *_splits(found)]
    return sentences + (_task(task, items) if task is not None else [])


def _amount(found: Findings) -> list[Sentence]:
    out = []
    total, tokens = sum(found.documents.values()), sum(found.tokens.values())
    if 0 < total < MINIMUM_DOCUMENTS:
        out.append(
            say("The number of documents is {count:,}: too few to show a gain beyond chance. Add documents, at least {minimum:,}.",
                count=total, minimum=MINIMUM_DOCUMENTS)
        )  # fmt: skip
    if 0 < found.tokens.get("train", 0) < MINIMUM_TOKENS:
        out.append(
            say("The training part has {tokens:,} tokens; below {minimum:,} an adapter mostly learns the form. "
                "Add texts or use it for a task only.", tokens=found.tokens.get("train", 0), minimum=MINIMUM_TOKENS)
        )  # fmt: skip
    longest = max(found.document_tokens, default=0)
    if longest > found.seq_len and tokens:
        longer = sum(n > found.seq_len for n in found.document_tokens)
        out.append(
            say("Documents longer than the sequence length of {seq_len:,} tokens: {count:,} (longest: {longest:,}). They "
                "were split with overlap, nothing was cut off. Raise training.seq_len if the memory allows.",
                count=longer, seq_len=found.seq_len, longest=longest)
        )  # fmt: skip
    return out


def _capacity(found: Findings) -> list[Sentence]:
    parameters = found.adapter_parameters
    tokens = found.tokens.get("train", 0)
    if not parameters or tokens * BITS_PER_TOKEN <= parameters * BITS_PER_PARAMETER:
        return []
    return [
        say("The training part ({tokens:,} tokens) holds more than the adapter of {parameters:,} parameters can take up "
            "(about {fits:,} tokens). Raise adapter.r by a factor of {factor:.1f}, or expect style rather than facts.",
            tokens=tokens, parameters=parameters, fits=parameters * BITS_PER_PARAMETER / BITS_PER_TOKEN,
            factor=tokens * BITS_PER_TOKEN / (parameters * BITS_PER_PARAMETER))
    ]  # fmt: skip


def _overlap(found: Findings) -> list[Sentence]:
    if found.overlap < OVERLAP_WORTH_A_WORD and not any(s > 0.1 for _, s in found.worst_overlap):
        return []
    names = [f"{d} ({s:.0%})" for d, s in found.worst_overlap]
    return [
        say("{share:.1%} of the 13-word sequences of the test part also stand in the training part (most: {names}). "
            "Look at these documents; a test text that was trained on proves nothing.", share=found.overlap, names=names)
    ]  # fmt: skip


def _rights(found: Findings) -> list[Sentence]:
    out = []
    conflicting, unknown = found.rights.get("conflicting", 0), found.rights.get("unknown", 0)
    closed = sum(n for c, n in found.rights.items() if c not in FREE | {"conflicting", "unknown"})
    if conflicting:
        out.append(
            say("Documents whose licence statements contradict themselves: {count:,}. Read the statements (licence_class: "
                "conflicting in work/prepared/documents.jsonl) and correct the source.", count=conflicting)
        )  # fmt: skip
    if closed:
        out.append(
            say("Documents that are not under an open licence: {count:,}. Training inside may still be lawful; sharing the "
                "adapter needs a check by a person. documents: licence_gate: open_only leaves them out.", count=closed)
        )  # fmt: skip
    if unknown:
        out.append(
            say("Documents without a licence that is known here: {count:,}. If they are your own, say so with "
                "scenario: data: copyright: own.", count=unknown)
        )  # fmt: skip
    return out


def _personal(found: Findings) -> list[Sentence]:
    if not found.documents_with_hints:
        return []
    kinds = [
        say("{kind}: {count:,}", kind=HINTS[kind], count=count)
        for kind, count in sorted(found.hints.items(), key=lambda i: -i[1])
    ]
    return [
        say("Documents with strings that look like personal data: {count:,} ({kinds}). Check them before training; "
            "an adapter can repeat what it was trained on.", count=found.documents_with_hints, kinds=kinds)
    ]  # fmt: skip


def _languages(found: Findings) -> list[Sentence]:
    total = sum(found.languages.values())
    out = []
    unknown = found.languages.get("unknown", 0)
    if total and unknown / total > 0.05:
        out.append(
            say("Documents that are neither English nor German, or too short to tell: {count:,}. Check that they are texts.", count=unknown)
        )  # fmt: skip
    missing = [c for c in found.expected_languages if total and not found.languages.get(c)]
    if missing:
        out.append(
            say("The project works in {languages}, but no document is in that language. Add some, or expect no gain there.",
                languages=missing)
        )  # fmt: skip
    return out


def _tokenizer(found: Findings) -> list[Sentence]:
    out = []
    if 0 < found.characters_per_token < 2.5:
        out.append(
            say("The base model needs a token for every {characters:.1f} characters of these texts, which makes training "
                "and use dear. Consider a base model with a larger vocabulary.", characters=found.characters_per_token)
        )  # fmt: skip
    if found.control_spellings:
        out.append(
            say("Documents that spell the model's control tokens: {count:,}. They are read as ordinary text; check that "
                "this is no attempt to steer the model.", count=found.control_spellings)
        )  # fmt: skip
    return out


def _duplicates(found: Findings) -> list[Sentence]:
    out = []
    if found.exact_duplicates:
        out.append(
            say("Exact copies of another document: {count:,}. Each text was taken once. Delete the copies.",
                count=found.exact_duplicates)
        )  # fmt: skip
    if found.near_duplicates:
        out.append(
            say("Pairs of documents with nearly the same text: {count:,}. They stay in one part of the split; keep only "
                "the better version if they should not count twice.", count=found.near_duplicates)
        )  # fmt: skip
    return out


def _splits(found: Findings) -> list[Sentence]:
    out = []
    if found.lent:
        out.append(
            say("With so few works the hash alone would leave a part of the split empty. Works lent to it: {count:,}; they "
                "move back when the corpus grows.", count=found.lent)
        )  # fmt: skip
    test = found.documents.get("test", 0)
    if 0 < test < MINIMUM_TEST_DOCUMENTS:
        out.append(
            say("Documents held out for the test: {count:,}. With so few only a large difference can be shown. Add documents "
                "or raise documents: test_share.", count=test)
        )  # fmt: skip
    return out


def _task(task: Task, items: Sequence[TaskItem]) -> list[Sentence]:
    by_split = Counter(item.split for item in items)
    out: list[Sentence] = [
        say("The task has no items in the {split} part. Add labelled documents, or name evaluation: task: "
            "train_file and test_file.", split=split)
        for split in ("train", "test") if not by_split.get(split)
    ]  # fmt: skip
    documents = {item.document for item in items if item.split == "test"}
    if 0 < len(documents) < MINIMUM_TEST_DOCUMENTS:
        out.append(
            say("Documents behind the test items: {count:,}. The document is what counts in the statistics: label more "
                "documents rather than more items of the same ones.", count=len(documents))
        )  # fmt: skip
    if task.kind != CLASSIFICATION:
        return out
    counts = Counter(str(item.label) for item in items if item.split == "train")
    rare = [
        f"{label}: {counts.get(label, 0)}"
        for label in task.labels
        if counts.get(label, 0) < MINIMUM_ITEMS_PER_LABEL
    ]
    if rare:
        out.append(
            say("Some labels have fewer than {minimum:,} training items ({labels}). Label more of them, or merge them.",
                minimum=MINIMUM_ITEMS_PER_LABEL, labels=rare[:8])
        )  # fmt: skip
    total = sum(counts.values())
    if len(task.labels) == 1:
        out.append(
            say("Every item has the label {label}, so there is nothing to tell apart. Add items with other labels, or "
                "check evaluation: task: label_field.", label=task.labels[0])
        )  # fmt: skip
        return out
    if total and counts and max(counts.values()) / total > 0.8:
        label = counts.most_common(1)[0][0]
        out.append(
            say("{share:.0%} of the training items have the label {label}: accuracy alone would mislead. Read macro-F1.",
                share=counts[label] / total, label=label)
        )  # fmt: skip
    unseen = sorted({str(i.label) for i in items if i.split == "test"} - set(counts))
    if unseen and total:
        out.append(
            say("The test part has labels that no training item has: {labels}. Label some training items with them.",
                labels=unseen[:8])
        )  # fmt: skip
    return out
