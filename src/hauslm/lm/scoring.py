"""How likely is a given continuation? Log-probabilities in memory that does not grow with the text.

The decoder runs once per batch; logits are made for some positions at a time and reduced at once,
so a 128k vocabulary costs megabytes, not gigabytes.

Pairs with the same prompt share its computation: the labels of an item read its text once.

Shapes: B rows, T tokens, N scored tokens of a batch, E hidden size, V vocabulary.
"""

# ruff: noqa: N803, N806 - tensor names carry their shape, see the legend
from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hauslm.base.errors import DataError
from hauslm.base.words import say
from hauslm.lm.interface import Scored

if TYPE_CHECKING:
    from hauslm.lm.local import LocalModel

LOGIT_BYTES = 64 << 20  # most memory for logits at one time
BATCH_TOKENS = {"cpu": 4096}  # padded tokens per forward pass
BATCH_TOKENS_GPU = 16384


def encode_pair(model: LocalModel, prompt: str, continuation: str) -> tuple[list[int], int]:
    """Token ids of both together, and how many of them are context.

    The two are tokenized as one text, begun as in training and generation; a token across the
    border belongs to the continuation. If nothing stands before the continuation, the context is
    the beginning-of-text token (or the end token, as in training on concatenated documents).
    """
    if not continuation:
        raise DataError("H815", say("There is nothing to score: the continuation is empty."))
    ids, ends = model.encode_with_ends(prompt, continuation)
    context = next((i for i, end in enumerate(ends) if end > len(prompt)), len(ids))
    prefix = model.text_prefix(prompt)
    ids, context = [*prefix, *ids], context + len(prefix)
    if context == 0:
        start = model.start_id
        if start is None:
            raise DataError(
                "H815",
                say("This model has no token to begin a text with, so a prompt is needed."),
            )
        ids, context = [start, *ids], 1
    if len(ids) > model.context_length:
        raise model.too_long(len(ids), 0)
    return ids, context


def score(model: LocalModel, pairs: Sequence[tuple[str, str]], adapter: str) -> list[Scored]:
    """One `Scored` per pair, in order; see `LanguageModel.score`."""
    encoded = [encode_pair(model, p, c) for p, c in pairs]
    order = sorted(shared_rows(encoded), key=lambda row: (-row.length, row.pairs[0]))
    budget = BATCH_TOKENS.get(model.device, BATCH_TOKENS_GPU)
    batches = []
    while order:
        # The longest comes first, so its length times the rows is what the batch costs.
        rows = max(1, budget // order[0].length)
        batches.append(order[:rows])
        order = order[rows:]

    def one(batch: list[_Row]) -> list[tuple[float, int, bool]]:
        return _score_batch(model, batch, adapter)

    results: dict[int, Scored] = {}
    with model.threads(0), ThreadPoolExecutor(model.lanes) as pool:
        for batch, scores in zip(batches, pool.map(one, batches), strict=True):
            indices = [i for row in batch for i in row.pairs]
            for i, (logprob, count, greedy) in zip(indices, scores, strict=True):
                results[i] = Scored(logprob, count, len(pairs[i][1].encode()), greedy)
    return [results[i] for i in range(len(pairs))]


SHARED_TOKENS = 2048  # longest row that holds several continuations: its mask is length squared


@dataclass
class _Row:
    """One context and the continuations scored after it, each of which sees the context and itself."""

    context: list[int]
    continuations: list[list[int]]
    pairs: list[int]  # which pair each continuation belongs to

    @property
    def length(self) -> int:
        return len(self.context) + sum(map(len, self.continuations))


def shared_rows(encoded: Sequence[tuple[list[int], int]]) -> list[_Row]:
    """Pairs with the same context in one row: the labels of an item read its text only once."""
    rows: list[_Row] = []
    open_rows: dict[tuple[int, ...], _Row] = {}
    for i, (ids, context) in enumerate(encoded):
        key, rest = tuple(ids[:context]), ids[context:]
        row = open_rows.get(key)
        if row is None or row.length + len(rest) > SHARED_TOKENS:
            row = open_rows[key] = _Row(ids[:context], [], [])
            rows.append(row)
        row.continuations.append(rest)
        row.pairs.append(i)
    return rows


@torch.inference_mode()
def _score_batch(
    model: LocalModel, batch: Sequence[_Row], adapter: str
) -> list[tuple[float, int, bool]]:
    """(log-probability, tokens, greedy) per continuation, rows and continuations in order."""
    width = max(row.length for row in batch)
    tokens_BT, positions_BT, parts_BT = (
        torch.tensor(values, device=model.device) for values in _layout(batch, width)
    )
    rows, places, targets, sizes = [], [], [], []
    for b, row in enumerate(batch):
        start = len(row.context)
        for rest in row.continuations:
            rows += [b] * len(rest)
            # The end of the context predicts the first token, every token predicts the next.
            places += [len(row.context) - 1, *range(start, start + len(rest) - 1)]
            targets += rest
            sizes.append(len(rest))
            start += len(rest)
    shared = any(len(row.continuations) > 1 for row in batch)
    hidden_BTE = model.hidden(tokens_BT, adapter, *((positions_BT, parts_BT) if shared else ()))
    row_index = torch.tensor(rows, device=model.device)
    hidden_NE = hidden_BTE[row_index, torch.tensor(places, device=model.device)]
    targets_N = torch.tensor(targets, device=model.device)
    step = max(1, LOGIT_BYTES // (4 * model.vocabulary_size))
    logprobs, greedy = [], []
    for start in range(0, len(rows), step):
        logits_NV = model.head(hidden_NE[start : start + step])
        target = targets_N[start : start + step, None]
        picked = logits_NV.gather(1, target)[:, 0]
        logprobs.append((picked - logits_NV.logsumexp(dim=1)).double())
        greedy.append(logits_NV.argmax(dim=1) == target[:, 0])
    summed = torch.split(torch.cat(logprobs), sizes)
    first = torch.split(torch.cat(greedy), sizes)
    return [
        (float(p.sum()), n, bool(g.all())) for p, n, g in zip(summed, sizes, first, strict=True)
    ]


def _layout(batch: Sequence[_Row], width: int) -> tuple[list[list[int]], ...]:
    """Token ids, positions and part numbers of every row, [B, T] each; part 0 is the context.

    Padding stands behind, in a part of its own.
    """
    tokens, positions, parts = [], [], []
    for row in batch:
        begin, empty = len(row.context), width - row.length
        ids, place, part = list(row.context), list(range(begin)), [0] * begin
        for number, rest in enumerate(row.continuations, 1):
            ids += rest
            place += range(begin, begin + len(rest))
            part += [number] * len(rest)
        tokens.append(ids + [0] * empty)
        positions.append(place + [0] * empty)
        parts.append(part + [len(row.continuations) + 1] * empty)
    return tokens, positions, parts


def part_mask(
    positions_BT: torch.Tensor, parts_BT: torch.Tensor, window: int | None = None
) -> torch.Tensor:
    """[B, 1, T, T] bool: a token sees what stands before it in the context and in its own part."""
    length = positions_BT.shape[1]
    order = torch.arange(length, device=positions_BT.device)
    own_BTT = parts_BT[:, :, None] == parts_BT[:, None, :]
    mask_BTT = (order[:, None] >= order) & (own_BTT | (parts_BT == 0)[:, None, :])
    if window is not None:
        mask_BTT &= positions_BT[:, :, None] - positions_BT[:, None, :] < window
    return mask_BTT[:, None]
