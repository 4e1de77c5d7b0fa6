"""How likely is a given continuation? Log-probabilities in memory that does not grow with the text.

The decoder runs once per batch; logits are made for some positions at a time and reduced at once,
so a 128k vocabulary costs megabytes, not gigabytes.

Shapes: B pairs, T tokens, N scored tokens of a batch, E hidden size, V vocabulary.
"""

# ruff: noqa: N806 - tensor names carry their shape, see the legend
from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
    order = sorted(range(len(pairs)), key=lambda i: (-len(encoded[i][0]), i))
    budget = BATCH_TOKENS.get(model.device, BATCH_TOKENS_GPU)
    batches = []
    while order:
        # The longest comes first, so its length times the rows is what the batch costs.
        rows = max(1, budget // len(encoded[order[0]][0]))
        batches.append(order[:rows])
        order = order[rows:]

    def one(batch: list[int]) -> list[tuple[float, int, bool]]:
        return _score_batch(model, [encoded[i] for i in batch], adapter)

    results: dict[int, Scored] = {}
    with model.threads(0), ThreadPoolExecutor(model.lanes) as pool:
        for batch, scores in zip(batches, pool.map(one, batches), strict=True):
            for i, (logprob, count, greedy) in zip(batch, scores, strict=True):
                results[i] = Scored(logprob, count, len(pairs[i][1].encode()), greedy)
    return [results[i] for i in range(len(pairs))]


@torch.inference_mode()
def _score_batch(
    model: LocalModel, batch: Sequence[tuple[list[int], int]], adapter: str
) -> list[tuple[float, int, bool]]:
    width = max(len(ids) for ids, _ in batch)
    # Padding stands behind, where causal attention never looks.
    tokens_BT = torch.tensor(
        [ids + [0] * (width - len(ids)) for ids, _ in batch], device=model.device
    )
    rows = [b for b, (ids, context) in enumerate(batch) for _ in range(context, len(ids))]
    positions = [t for ids, context in batch for t in range(context - 1, len(ids) - 1)]
    row_index = torch.tensor(rows, device=model.device)
    position_index = torch.tensor(positions, device=model.device)
    hidden_NE = model.hidden(tokens_BT, adapter)[row_index, position_index]
    targets_N = tokens_BT[row_index, position_index + 1]
    step = max(1, LOGIT_BYTES // (4 * model.vocabulary_size))
    logprobs, greedy = [], []
    for start in range(0, len(rows), step):
        logits_NV = model.head(hidden_NE[start : start + step])
        target = targets_N[start : start + step, None]
        picked = logits_NV.gather(1, target)[:, 0]
        logprobs.append((picked - logits_NV.logsumexp(dim=1)).double())
        greedy.append(logits_NV.argmax(dim=1) == target[:, 0])
    all_logprobs, all_greedy = torch.cat(logprobs), torch.cat(greedy)
    scored, start = [], 0
    for ids, context in batch:
        count = len(ids) - context
        part = slice(start, start + count)
        scored.append((float(all_logprobs[part].sum()), count, bool(all_greedy[part].all())))
        start += count
    return scored
