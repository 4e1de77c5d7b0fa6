"""How are many requests answered by one model? In batches that run side by side, longest prompts first.

A small model on a CPU gets one batch (lane) per core, since its passes are too short to be shared by
several threads. What all prompts of an adapter begin with is read once and copied. Which request goes into
which lane depends on the lengths alone, so the same job is done the same way every time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hauslm.lm.interface import Reply, Request

if TYPE_CHECKING:
    from hauslm.lm.local import LocalModel

MAX_LANES = 4
MIN_LANE_ROWS = 2  # fewer rows are not worth a lane of their own
SHARED_PREFIX_TOKENS = 16  # shorter common beginnings are not worth a forward pass of their own


def answer(
    model: LocalModel, requests: Sequence[Request], prompts: Sequence[list[int]]
) -> list[Reply]:
    """All requests; small models on a CPU in one lane per core, since their passes are too short
    to be shared by several threads."""
    lanes = min(model.lanes, -(-len(requests) // MIN_LANE_ROWS))
    if lanes <= 1:
        return _lane(model, requests, prompts)
    order = sorted(range(len(requests)), key=lambda i: (-len(prompts[i]), i))
    parts = [order[lane::lanes] for lane in range(lanes)]
    replies: dict[int, Reply] = {}
    with model.threads(0), ThreadPoolExecutor(lanes) as pool:
        work = [
            pool.submit(_lane, model, [requests[i] for i in p], [prompts[i] for i in p])
            for p in parts
        ]
        for part, lane_work in zip(parts, work, strict=True):
            replies.update(zip(part, lane_work.result(), strict=True))
    return [replies[i] for i in range(len(requests))]


def _lane(
    model: LocalModel, requests: Sequence[Request], prompts: Sequence[list[int]]
) -> list[Reply]:
    # Longest first: neighbours in a batch are of similar length, the peak comes at the start.
    order = sorted(range(len(requests)), key=lambda i: (-len(prompts[i]), i))
    decoder = model.decoder(min(model.batch_size, max(1, len(requests))))
    for adapter, prefix, rest in shared_prefixes(requests, prompts):
        if model.prefix_pays(len(prefix), rest):
            decoder.share_prefix(adapter, prefix)
    handles = {decoder.admit(requests[i], prompts[i]): i for i in order}
    replies: dict[int, Reply] = {}
    while decoder.pending:
        for event in decoder.step():
            if event.reply is not None:
                replies[handles[event.handle]] = event.reply
    return [replies[i] for i in range(len(requests))]


def cores() -> int:
    """CPU cores that this process may use; what a caller sets in torch plays no part, so that the
    same job splits into the same lanes everywhere on a machine."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_prefixes(
    requests: Sequence[Request], prompts: Sequence[list[int]]
) -> list[tuple[str, list[int], int]]:
    """Per adapter with several prompts, the token ids with which all of them begin, and how many
    tokens follow on average."""
    groups: dict[str, list[list[int]]] = {}
    for request, ids in zip(requests, prompts, strict=True):
        groups.setdefault(request.adapter, []).append(ids)
    shared = []
    for adapter, group in groups.items():
        # Smallest and largest in order share exactly what all share.
        low, high = min(group), max(group)
        length = 0
        for a, b in zip(low, high, strict=False):
            if a != b:
                break
            length += 1
        length = min(length, min(map(len, group)) - 1)
        if len(group) > 1 and length >= SHARED_PREFIX_TOKENS:
            rest = sum(map(len, group)) // len(group) - length
            shared.append((adapter, low[:length], rest))
    return shared
