"""From documents to training examples: pieces of text, conversations, labelled items.

Nothing is ever cut off. A text longer than the sequence length becomes several pieces that overlap at
sentence or paragraph boundaries; the repeated tokens of a piece are context only, so each token of a
document is trained exactly once. In conversations and tasks only the answer and its end token are
trained.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hauslm.base.errors import DataError
from hauslm.base.files import canonical_json
from hauslm.base.words import say
from hauslm.data.document import Document
from hauslm.data.store import Example, Examples
from hauslm.data.task import Task, TaskItem, answer_text, task_messages
from hauslm.data.tokens import Encoded, Tokenizer
from hauslm.records import Sample

OVERLAP_SHARE = 8  # one eighth of the sequence length ...
SMALLEST_PART = 128  # characters of a labelled text; a smaller part would ask about nothing
OVERLAP_MOST = 64  # ... but at most this many tokens

_PARAGRAPH = re.compile(rb"\n\s*\n\s*|\n")
_SENTENCE = re.compile(rb"[.!?:;][\"')\]]*(?=\s+[A-Z0-9\"'(\[\x80-\xff])")


class Piece(NamedTuple):
    """Tokens `start` to `end` of a document, of which those before `fresh` are context only."""

    start: int
    fresh: int
    end: int


def overlap_of(seq_len: int) -> int:
    return min(OVERLAP_MOST, seq_len // OVERLAP_SHARE)


def pieces(text: bytes, ends: NDArray[np.int64], capacity: int, overlap: int) -> list[Piece]:
    """Cut a tokenized text (`ends`: byte where each token ends) into pieces of at most `capacity`.

    The fresh parts of the pieces are the whole text, once, in order. Cuts are looked for at the end of
    a paragraph in the last quarter of the room, then of a sentence in the last half, then between words;
    never inside a character.
    """
    total = len(ends)
    if total <= capacity:
        return [Piece(0, 0, total)] if total else []
    # Lists, and the standard bisection: one number at a time is what numpy is slow at.
    breaks = _token_places(_PARAGRAPH, text, ends)
    paragraphs: list[int] = breaks.tolist()
    both = np.concatenate((breaks, _token_places(_SENTENCE, text, ends)))
    sentences: list[int] = _once(np.sort(both)).tolist()
    overlap = min(overlap, capacity // 4)
    found: list[Piece] = []
    start = fresh = 0
    while True:
        end = _cut(text, ends, start, fresh, min(start + capacity, total), paragraphs, sentences)
        found.append(Piece(start, fresh, end))
        if end == total:
            return found
        earliest = max(end - overlap, fresh + 1)
        place = bisect_left(sentences, earliest)
        start = sentences[place] if place < len(sentences) and sentences[place] < end else earliest
        while start < end and not _between_characters(text, ends, start):
            start += 1
        fresh = end


def _token_places(
    pattern: re.Pattern[bytes], text: bytes, ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the tokens that begin where (or just after) a match of the pattern ends."""
    stops = np.array([m.end() for m in pattern.finditer(text)], dtype=np.int64)
    return _once(np.searchsorted(ends, stops, side="left") + 1)


def _once(ascending: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each of these numbers once."""
    new = np.ones(len(ascending), dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    return ascending[new]


def _between_characters(text: bytes, ends: NDArray[np.int64], token: int) -> bool:
    place = int(ends[token - 1]) if token else 0
    fresh_byte = token == 0 or token < 2 or ends[token - 1] > ends[token - 2] or place == len(text)
    return fresh_byte and (place >= len(text) or (text[place] & 0xC0) != 0x80)


def _cut(
    text: bytes,
    ends: NDArray[np.int64],
    start: int,
    fresh: int,
    limit: int,
    paragraphs: Sequence[int],
    sentences: Sequence[int],
) -> int:
    """Where the piece that starts at `start` ends: at most `limit`, and after `fresh`."""
    if limit == len(ends):
        return limit
    room = limit - max(start, fresh)
    for places, share in ((paragraphs, 0.75), (sentences, 0.5), (sentences, 0.25)):
        index = bisect_right(places, limit) - 1
        if index >= 0 and places[index] > max(start, fresh) + room * share:
            return places[index]
    for place in range(limit, max(max(start, fresh), limit - 24), -1):
        byte = int(ends[place - 1])
        if text[byte : byte + 1].isspace() and _between_characters(text, ends, place):
            return place
    for place in range(limit, max(start, fresh), -1):
        if _between_characters(text, ends, place):
            return place
    return limit  # one character of more tokens than fit: nothing better exists


# ------------------------------------------------------------------ raw text


def text_examples(
    document: Document, encoded: Encoded, tokenizer: Tokenizer, seq_len: int
) -> Examples:
    """The document as pieces of at most `seq_len` tokens: begin token, text, end token after the last."""
    prefix = np.array(tokenizer.text_prefix, dtype=np.uint32)
    before = len(prefix)
    capacity = seq_len - before - 1
    cut = pieces(encoded.raw, encoded.ends, capacity, overlap_of(seq_len))
    parts: list[NDArray[np.uint32]] = []
    for piece in cut:
        parts += (prefix, encoded.ids[piece.start : piece.end])
    starts, fresh, ends = np.array(cut, dtype=np.int64).reshape(-1, 3).T
    lengths = before + ends - starts
    if cut:
        parts.append(np.array([tokenizer.eos_id], dtype=np.uint32))
        lengths[-1] += 1
    tokens = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)
    trained = np.ones(len(tokens), dtype=np.bool_)
    # Context only is what stands before the fresh part; and nothing predicts the first token of a row.
    context = np.maximum(before + fresh - starts, 1)
    rows = np.cumsum(lengths) - lengths
    for start, stop in zip(rows.tolist(), (rows + context).tolist(), strict=True):
        trained[start:stop] = False
    return Examples(tokens, trained, lengths, _meta_lines(document, "text", len(cut)))


def _meta_lines(document: Document, kind: str, count: int) -> bytes:
    """`_meta` of the document's examples 0, 1, ... as lines of canonical JSON: only the number differs."""
    mark = canonical_json(_meta(f"{document.id}:\x1f", document.id, kind, document.language))
    head, tail = mark.rsplit(b"\\u001f", 1)
    return b"".join([b"%b%d%b\n" % (head, number, tail) for number in range(count)])


def _meta(id_: str, document: str, kind: str, language: str) -> dict[str, str]:
    return {"id": id_, "document": document, "kind": kind, "language": language}


# ------------------------------------------------------------------ conversations


def encode_chat(
    messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer
) -> list[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    """Token ids and answer mask of a conversation in the base model's template.

    One row, unless the template rewrites earlier turns (some drop reasoning): then one row per
    answer. The end token after an answer is trained; if the template writes none, the model's own is
    added.
    """
    clean = [{"role": m["role"], "content": tokenizer.neutral(m["content"])} for m in messages]
    answers = [i for i, m in enumerate(clean) if m["role"] == "assistant" and m["content"].strip()]
    if not answers:
        return []
    whole = tokenizer.render(clean[: answers[-1] + 1])
    spans = []
    for index in answers:
        before = tokenizer.render(clean[:index], add_generation_prompt=True)
        until = tokenizer.render(clean[: index + 1])
        if not (whole.startswith(before) and whole.startswith(until) and until.startswith(before)):
            break
        spans.append((len(before), len(until)))
    if len(spans) == len(answers):
        return [_masked(whole, spans, tokenizer)]
    rows = []
    for index in answers:
        before = tokenizer.render(clean[:index], add_generation_prompt=True)
        until = tokenizer.render(clean[: index + 1])
        if not until.startswith(
            before
        ):  # the template treats a last answer specially: write it plainly
            until = before + clean[index]["content"] + tokenizer.eos_token
        rows.append(_masked(until, [(len(before), len(until))], tokenizer))
    return rows


def _masked(
    text: str, spans: list[tuple[int, int]], tokenizer: Tokenizer
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Tokens of a rendered text; trained are those of the spans up to the first control token."""
    segments: list[tuple[str, bool]] = []
    place = 0
    for start, end in spans:
        segments += [(text[place:start], False), (text[start:end], True)]
        place = end
    ids: list[int] = []
    trained: list[bool] = []
    joint, offsets = tokenizer.rendered_spans(text)
    if _cuts_agree(text, spans, joint, tokenizer):
        for token, (start, end) in zip(joint, offsets, strict=True):
            ids.append(token)
            trained.append(any(end > s and start < e for s, e in spans))
    else:  # the tokenizer merges across the seam: tokenize as generation will meet it
        for segment, answer in segments:
            part = tokenizer.encode_rendered(segment)
            ids += part
            trained += [answer] * len(part)
    return _until_control(ids, trained, tokenizer)


def _cuts_agree(
    text: str, spans: list[tuple[int, int]], joint: list[int], tokenizer: Tokenizer
) -> bool:
    """Does tokenizing the prompt alone give the beginning of the joint tokens, at every answer?"""
    for start, _ in spans:
        alone = tokenizer.encode_rendered(text[:start])
        if joint[: len(alone)] != alone:
            return False
    return True


def _until_control(
    ids: list[int], trained: list[bool], tokenizer: Tokenizer
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Every answer is trained up to its end token; what the template writes after it is not."""
    control = set(tokenizer.special_tokens.values())
    out_ids: list[int] = []
    out: list[bool] = []
    ended = False
    for index, (token, is_answer) in enumerate(zip(ids, trained, strict=True)):
        if not is_answer:
            ended = False
        out_ids.append(token)
        out.append(is_answer and not ended)
        if is_answer and token in control:
            ended = True
        last_of_answer = is_answer and (index + 1 == len(ids) or not trained[index + 1])
        if last_of_answer and not ended:
            out_ids.append(tokenizer.eos_id)
            out.append(True)
    if out:
        out[0] = False
    return np.array(out_ids, dtype=np.uint32), np.array(out, dtype=np.bool_)


def windows(
    ids: NDArray[np.uint32], trained: NDArray[np.bool_], seq_len: int
) -> list[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    """A row longer than `seq_len` as rows that each hold as much context as fits.

    Every trained token is trained in exactly one window; windows without any are left out, since
    they hold context only.
    """
    if len(ids) <= seq_len:
        return [(ids, trained)]
    found = []
    step = max(1, seq_len // 2)
    fresh = 0
    while fresh < len(ids):
        end = min(len(ids), fresh + (seq_len if fresh == 0 else step))
        start = max(0, end - seq_len)
        mask = trained[start:end].copy()
        mask[: fresh - start] = False
        mask[0] = False if start == 0 else mask[0]
        if mask.any():
            found.append((ids[start:end], mask))
        fresh = end
    return found


def chat_examples(document: Document, tokenizer: Tokenizer, seq_len: int) -> Iterator[Example]:
    number = 0
    for ids, trained in encode_chat(document.messages, tokenizer):
        for part_ids, part_mask in windows(ids, trained, seq_len):
            yield Example(
                part_ids,
                part_mask,
                _meta(f"{document.id}:{number}", document.id, "chat", document.language),
            )
            number += 1


# ------------------------------------------------------------------ tasks


def task_examples(
    task: Task, items: Iterable[TaskItem], tokenizer: Tokenizer, seq_len: int
) -> Iterator[Example]:
    """Instruction, text (with what stands around it) and the answer. A text that does not fit is
    split into overlapping parts that each carry the answer that belongs to them."""
    for item in items:
        rows = list(_task_rows(task, item, tokenizer, seq_len))
        for number, (ids, mask) in enumerate(rows):
            id_ = item.id if len(rows) == 1 else f"{item.id}:{number}"
            yield Example(ids, mask, _meta(id_, item.document, "task", item.language))


def _task_rows(
    task: Task, item: TaskItem, tokenizer: Tokenizer, seq_len: int
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    for candidate in (item, item.without_neighbours()):
        (row,) = encode_chat(_with_answer(task, candidate), tokenizer)
        if len(row[0]) <= seq_len:
            yield row
            return
    yield from _fitting_parts(task, item.without_neighbours(), tokenizer, seq_len, len(item.text))


def _fitting_parts(
    task: Task, item: TaskItem, tokenizer: Tokenizer, seq_len: int, characters: int
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
    """Parts of the item, halved until each fits with its instruction and answer."""
    for part in item.parts(max(1, characters // 2)):
        (row,) = encode_chat(_with_answer(task, part), tokenizer)
        if len(row[0]) <= seq_len:
            yield row
        elif characters > SMALLEST_PART:
            yield from _fitting_parts(task, part, tokenizer, seq_len, characters // 2)
        else:
            (empty,) = encode_chat(_with_answer(task, part.with_text("")), tokenizer)
            raise DataError(
                "H332",
                say(
                    "Instruction and answer of item {id} leave no room for its text in {seq_len:,} tokens.",
                    id=item.id,
                    seq_len=seq_len,
                ),
                next_step=say(
                    "Raise training.seq_len to at least {tokens:,}.", tokens=2 * len(empty[0])
                ),
            )


def _with_answer(task: Task, item: TaskItem) -> list[dict[str, str]]:
    return [*task_messages(task, item), {"role": "assistant", "content": answer_text(task, item)}]


def sample(example: Example, tokenizer: Tokenizer, most_tokens: int = 400) -> Sample:
    """The example as pieces of text, each trained or not; long ones are shown from the first answer."""
    tokens, trained = example.tokens, example.trained
    if len(tokens) > most_tokens:
        first = int(np.argmax(trained))
        start = max(0, min(first - most_tokens // 2, len(tokens) - most_tokens))
        tokens, trained = tokens[start : start + most_tokens], trained[start : start + most_tokens]
    shown: list[tuple[str, bool]] = []
    start = 0
    for index in range(1, len(tokens) + 1):
        if index == len(tokens) or trained[index] != trained[start]:
            shown.append(
                (tokenizer.decode(tokens[start:index], skip_special=False), bool(trained[start]))
            )
            start = index
    return Sample(id=str(example.meta.get("id", "")), pieces=tuple(shown))


__all__ = [
    "Piece", "Task", "TaskItem", "answer_text", "chat_examples", "encode_chat", "overlap_of", "pieces",
    "sample", "task_examples", "task_messages", "text_examples", "windows",
]  # fmt: skip
