"""How do many answers grow at once? One decoding loop that rows enter and leave as they please.

A row is admitted when a place is free, gets its prompt read (prefill), then one token per step
together with all other rows, whatever adapter each of them uses and whatever schema binds it.
Tokens that a schema forces are not sampled but read in one go. A finished row makes room at once.
The result of a row does not depend on its neighbours beyond floating-point rounding.

This is the engine behind `LocalModel.generate` and `.stream` and behind the server: `admit`, then
`step` until nothing is pending. Not thread-safe; one thread drives one decoder.
"""

# ruff: noqa: N803, N806 - tensor names carry their shape, see the legend
from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hauslm.lm.cache import SlotCache, slot_mask
from hauslm.lm.interface import FinishReason, Reply, Request, TokenLogprob, Usage
from hauslm.lm.sampling import apply_bitmask, choose, fresh_generator, log_probabilities
from hauslm.lm.text import TextSoFar

if TYPE_CHECKING:
    from hauslm.lm.local import LocalModel

# Rows with at most this many tokens to read (forced by a grammar) go along in the decoding pass.
RAGGED_TOKENS = 8
SHORT_TOKENS = 64  # pieces of at most this many, forced by grammars, are read together as they are
# Several rows share a pass up to so many tokens; what more of them write no longer fits a core's cache
# (products over 1,900 tokens of the embedded model ran at 75 GFLOP/s, over 900 at 94).
CPU_PASS = 1024
MOST_PADDED = 0.9  # of a pass over longer pieces, this share at least is tokens and not padding

Prefix = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Row:
    """One answer in the making: `length` tokens are in the cache, `pending` still to be read."""

    handle: int
    request: Request
    prompt_ids: list[int]
    matcher: Any
    generator: torch.Generator | None
    text: TextSoFar
    pending: list[int] = field(default_factory=list)
    started: float = 0.0  # when it got a place in the batch
    length: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None

    @property
    def wants_logprobs(self) -> bool:
        return self.request.logprobs or self.request.top_logprobs > 0


@dataclass(frozen=True)
class Event:
    """What a step brought for one row: new text, log-probabilities, and, at the end, the reply."""

    handle: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reply: Reply | None = None


class Decoder:
    """A running batch of at most `batch_size` rows over one model.

    `prefill_tokens`: most tokens read in one forward pass; longer prompts are read in pieces.
    """

    def __init__(
        self, model: LocalModel, batch_size: int = 8, prefill_tokens: int | None = None
    ) -> None:
        self._model = model
        self._cache = SlotCache(batch_size)
        self._batch_size = batch_size
        self._prefill_tokens = prefill_tokens or (8192 if model.device != "cpu" else 2048)
        self._shared_tokens = min(self._prefill_tokens, 8192 if model.device != "cpu" else CPU_PASS)
        self._rows: list[Row] = []
        self._queue: deque[Row] = deque()
        self._prefixes: list[tuple[str, list[int], Prefix]] = []
        self._next_handle = 0

    # ------------------------------------------------------------ in and out

    @property
    def pending(self) -> int:
        """Rows that are not finished, waiting ones included."""
        return len(self._rows) + len(self._queue)

    @property
    def active(self) -> int:
        return len(self._rows)

    def admit(self, request: Request, prompt_ids: Sequence[int] | None = None) -> int:
        """Queue a request; returns its handle. Everything that can be refused is refused here."""
        ids = list(prompt_ids) if prompt_ids is not None else self._model.prompt_ids(request)
        matcher = self._model.matcher(request)
        row = Row(
            self._next_handle,
            request,
            ids,
            matcher,
            fresh_generator(request),
            TextSoFar(self._model.decode, request.stop),
            pending=list(ids),
        )
        self._queue.append(row)
        self._next_handle += 1
        return row.handle

    @torch.inference_mode()
    def cancel(self, handle: int) -> None:
        """Forget a row; its place is free at the next step. Unknown handles are ignored."""
        self._queue = deque(r for r in self._queue if r.handle != handle)
        for place, row in enumerate(self._rows):
            if row.handle == handle:
                self._vacate([place])
                return

    @torch.inference_mode()
    def share_prefix(self, adapter: str, ids: Sequence[int]) -> None:
        """Read a common beginning once; rows of `adapter` that start with it copy it."""
        row = Row(-1, Request((), adapter=adapter), [], None, None, TextSoFar(str), list(ids))
        scratch = SlotCache(1)
        while row.pending:
            self._forward(scratch, [0], [row], [self._piece(row, len(row.pending))])
        self._prefixes.append((adapter, list(ids), scratch.take_prefix(0, len(ids))))

    # ------------------------------------------------------------ one step

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit what fits, read pending tokens, write a token per ready row; what became of it."""
        self._admit_waiting()
        if not self._rows:
            return []
        with self._model.threads(sum(len(r.pending) for r in self._rows)):
            return self._write(self._prefill() if self._must_prefill() else self._decode())

    def _admit_waiting(self) -> None:
        while self._queue and len(self._rows) < self._batch_size:
            row = self._queue.popleft()
            row.started = time.monotonic()
            self._rows.append(row)
            for adapter, ids, prefix in self._prefixes:
                longer = len(row.prompt_ids) > len(ids)
                if adapter == row.request.adapter and longer and row.prompt_ids[: len(ids)] == ids:
                    self._cache.put_prefix(len(self._rows) - 1, prefix)
                    row.length, row.pending = len(ids), row.prompt_ids[len(ids) :]
                    break

    def _piece(self, row: Row, budget: int) -> list[int]:
        return row.pending[: max(1, min(budget, self._prefill_tokens))]

    def _must_prefill(self) -> bool:
        return any(len(row.pending) > RAGGED_TOKENS for row in self._rows)

    def _prefill(self) -> list[tuple[Row, torch.Tensor]]:
        """Read prompts, as many rows as fit the budget: rows that begin at the same slot (so that no
        mask is needed) or short ones, and of similar length (so that little is padded)."""
        waiting = [p for p, row in enumerate(self._rows) if len(row.pending) > RAGGED_TOKENS]
        first = self._rows[waiting[0]]
        short = len(first.pending) <= SHORT_TOKENS and first.length > 0
        places: list[int] = []
        longest, real = 0, 0
        for place in waiting:
            row = self._rows[place]
            size = min(len(row.pending), self._prefill_tokens)
            width = max(longest, size)
            if short:
                alike = size <= SHORT_TOKENS and row.length > 0
            else:
                alike = row.length == first.length and real + size >= MOST_PADDED * width * (
                    len(places) + 1
                )
            if not alike or (places and width * (len(places) + 1) > self._shared_tokens):
                continue
            places.append(place)
            longest, real = width, real + size
        rows = [self._rows[p] for p in places]
        return self._forward(self._cache, places, rows, [self._piece(r, longest) for r in rows])

    def _decode(self) -> list[tuple[Row, torch.Tensor]]:
        """One pass over all rows: the last token of each, or the few that its grammar forced."""
        places = list(range(len(self._rows)))
        return self._forward(self._cache, places, self._rows, [r.pending for r in self._rows])

    def _forward(
        self, cache: SlotCache, places: list[int], rows: Sequence[Row], pieces: list[list[int]]
    ) -> list[tuple[Row, torch.Tensor]]:
        """Read one piece per row; the rows with nothing left to read, with their logits [V]."""
        logits_BV: dict[int, torch.Tensor] = {}
        for part in self._model.mixable([r.request.adapter for r in rows]):
            logits = self._read(
                cache, [places[i] for i in part], [rows[i] for i in part], [pieces[i] for i in part]
            )
            logits_BV.update(zip(part, logits, strict=True))
        ready = []
        for i, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
            row.length += len(piece)
            row.pending = row.pending[len(piece) :]
            if not row.pending:
                ready.append((row, logits_BV[i]))
        return ready

    def _read(
        self, cache: SlotCache, places: list[int], rows: Sequence[Row], pieces: list[list[int]]
    ) -> torch.Tensor:
        """One forward pass; logits of each row's last new token, [B, V] float32."""
        device = self._model.device
        width = max(len(p) for p in pieces)
        tokens_BK = torch.tensor([p + [0] * (width - len(p)) for p in pieces], device=device)
        starts_B = torch.tensor([r.length for r in rows], device=device)
        positions_BK = starts_B[:, None] + torch.arange(width, device=device)
        used = max(r.length for r in rows) + width
        # A single token in an empty cache still needs the mask path: position 0 alone.
        fresh = all(r.length == 0 for r in rows) and width > 1
        cache.aim(places, positions_BK, used, fresh=fresh)
        starts = [r.length for r in rows]
        mask = None if fresh else self._model.attention_mask(positions_BK, used, slot_mask, starts)
        ends = [len(p) - 1 for p in pieces]
        return self._model.forward_last(
            tokens_BK, positions_BK, mask, cache, [r.request.adapter for r in rows], ends
        )

    # ------------------------------------------------------------ from logits to text

    def _write(self, ready: list[tuple[Row, torch.Tensor]]) -> list[Event]:
        if not ready:
            return []
        rows = [row for row, _ in ready]
        logits_NV = torch.stack([logits for _, logits in ready])
        raw = logits_NV.clone() if any(r.wants_logprobs for r in rows) else None
        self._model.forbid_unknown_tokens(logits_NV)
        bound = [i for i, r in enumerate(rows) if r.matcher is not None]
        if bound:
            masks = self._model.bitmasks([rows[i].matcher for i in bound])
            apply_bitmask(logits_NV, bound, masks)
            self._model.forbid_control_tokens(logits_NV, bound)
        chosen = choose(logits_NV, [r.request for r in rows], [r.generator for r in rows])
        reports: list[TokenLogprob | None] = [None] * len(rows)
        if raw is not None:
            reports = self._report(rows, raw, chosen)
        events = [
            self._take(row, token, report)
            for row, token, report in zip(rows, chosen, reports, strict=True)
        ]
        self._vacate([p for p, row in enumerate(self._rows) if row.finish])
        return events

    def _report(
        self, rows: list[Row], raw_NV: torch.Tensor, chosen: list[int]
    ) -> list[TokenLogprob | None]:
        top = max(r.request.top_logprobs for r in rows)
        piece = self._model.token_text
        reports: list[TokenLogprob | None] = []
        for row, token, (logprob, best) in zip(
            rows, chosen, log_probabilities(raw_NV, chosen, top), strict=True
        ):
            alternatives = tuple((i, piece(i), v) for i, v in best[: row.request.top_logprobs])
            report = TokenLogprob(token, piece(token), logprob, alternatives)
            reports.append(report if row.wants_logprobs else None)
        return reports

    def _take(self, row: Row, token: int, report: TokenLogprob | None) -> Event:
        """Give the chosen token to its row; forced tokens follow without a choice."""
        if token in self._model.eos_ids:
            row.finish = "stop"
            return self._event(row, ())
        reports = (report,) if report is not None else ()
        self._append(row, token)
        if row.matcher is not None and row.finish is None:
            self._follow_grammar(row, token)
        row.logprobs.extend(reports)
        return self._event(row, reports)

    def _append(self, row: Row, token: int) -> None:
        row.text.add(token)
        row.pending.append(token)
        if row.text.stopped:
            row.finish = "stop"
        elif len(row.text.token_ids) >= row.request.max_new_tokens:
            row.finish = "length"

    def _follow_grammar(self, row: Row, token: int) -> None:
        matcher = row.matcher
        if not matcher.consume_token(token) or matcher.is_error():
            row.finish = "error"
            return
        if matcher.is_stopped():
            row.finish = "stop"
        elif not row.wants_logprobs:
            # Tokens that the grammar leaves no choice about. With log-probabilities asked for,
            # every token is read singly, so that each one has its own.
            for forced in matcher.compute_ff_tokens():
                if row.finish is not None or forced in self._model.control_ids:
                    break
                if not matcher.consume_token(forced):
                    row.finish = "error"
                    break
                self._append(row, forced)
            if row.finish is None and matcher.is_stopped():
                row.finish = "stop"

    def _event(self, row: Row, reports: tuple[TokenLogprob, ...]) -> Event:
        if row.finish is None:
            return Event(row.handle, row.text.delta(), reports)
        text = row.text.finish()
        if row.matcher is not None and row.finish == "length" and row.matcher.is_accepting():
            row.finish = "stop"  # the limit fell exactly on the end of a complete value
        reply = Reply(
            text,
            row.finish,
            Usage(len(row.prompt_ids), len(row.text.token_ids)),
            time.monotonic() - row.started,
            tuple(row.logprobs),
        )
        return Event(row.handle, row.text.delta(final=True), reports, reply)

    def _vacate(self, places: list[int]) -> None:
        """Remove rows; the last rows move into the gaps, so that places stay 0..n-1."""
        for place in sorted(places, reverse=True):
            last = len(self._rows) - 1
            if place != last:
                self._cache.copy_row(last, place, self._rows[last].length)
                self._rows[place] = self._rows[last]
            self._rows.pop()
