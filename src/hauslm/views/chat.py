"""Base and adapter side by side: one model in memory, both answers in one running batch.

The model is loaded and checked exactly as `hauslm serve` loads it. Questions come in and pieces of
answers go out as JSON lines, so that the model can live in a process of its own and the page never
waits for it:

    in   {"ask": 7, "side": "base", "messages": [...], "max_new_tokens": 200, "temperature": 0}
         {"cancel": 7}
    out  {"event": "loading" | "ready" | "failed", ...}
         {"id": 7, "side": "base", "text": "..."}
         {"id": 7, "side": "base", "done": true, "tokens": 63, "seconds": 2.1, "finish": "stop"}
         {"id": 7, "side": "base", "error": "..."}
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hauslm import flow
from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.words import Sentence, as_text, say
from hauslm.lm.interface import BASE, Message, Request

PLACES = 8
MOST_TOKENS = 2048

Tell = Callable[[dict[str, Any]], None]


@dataclass
class _Telling:
    """Progress of the loading as events."""

    tell: Tell

    def say(self, sentence: Sentence | str) -> None:
        self.tell({"event": "loading", "text": as_text(sentence)})

    def step(self, title: Sentence | str, done: float, total: float | None, **_: Any) -> None:
        self.tell({"event": "loading", "text": as_text(title), "done": done, "total": total})


def talk(project: flow.Project, lines: Iterable[str], tell: Tell) -> int:
    """Load the model, answer until `lines` ends; returns the exit code."""
    from hauslm.serve.start import load

    try:
        run = flow.load_record(project, "run")
        model, _ = load(project.scenario, project.folder, run, _Telling(tell))
    except HauslmError as error:
        tell({"event": "failed", "code": error.code, "text": error.text()})
        return error.exit_code
    tell({
        "event": "ready", "base": model.name, "adapters": list(model.adapters()),
        "context": model.context_length,
    })  # fmt: skip
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, orders), daemon=True).start()
    _answer(model, orders, tell)
    return 0


def _listen(lines: Iterable[str], orders: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in lines:
        try:
            order = json.loads(line)
        except ValueError:
            continue
        if isinstance(order, dict):
            orders.put(order)
    orders.put(None)  # whoever asked is gone


def _answer(model: Any, orders: queue.SimpleQueue[dict[str, Any] | None], tell: Tell) -> None:
    decoder = model.decoder(PLACES)
    asked: dict[int, tuple[Any, str]] = {}  # handle -> (id, side)
    while True:
        for order in _orders(orders, wait=not decoder.pending):
            if order is None:
                return
            if "cancel" in order:
                for handle in [h for h, (i, _) in asked.items() if i == order["cancel"]]:
                    decoder.cancel(handle)
                    del asked[handle]
                continue
            try:
                asked[decoder.admit(request_of(order))] = (order["ask"], str(order["side"]))
            except HauslmError as error:
                tell({"id": order.get("ask"), "side": order.get("side"), "error": error.text()})
        if not decoder.pending:
            continue
        for event in decoder.step():
            if event.handle not in asked:
                continue
            identity, side = asked[event.handle]
            if event.text:
                tell({"id": identity, "side": side, "text": event.text})
            if event.reply is not None:
                del asked[event.handle]
                tell({
                    "id": identity, "side": side, "done": True, "finish": event.reply.finish_reason,
                    "tokens": event.reply.usage.completion_tokens, "seconds": event.reply.seconds,
                })  # fmt: skip


def _orders(
    orders: queue.SimpleQueue[dict[str, Any] | None], *, wait: bool
) -> list[dict[str, Any] | None]:
    found = [orders.get()] if wait else []
    while not orders.empty():
        found.append(orders.get())
    return found


def request_of(order: dict[str, Any]) -> Request:
    """A question as the model takes it. H347 for one that is no conversation."""
    raw = order.get("messages")
    try:
        messages = tuple(Message(m["role"], str(m["content"])) for m in raw or ())
        roles_known = all(m.role in ("system", "user", "assistant") for m in messages)
        if not messages or not roles_known or messages[-1].role != "user":
            raise ValueError
        tokens = min(MOST_TOKENS, max(1, int(order.get("max_new_tokens", 256))))
        temperature = min(2.0, max(0.0, float(order.get("temperature", 0.0))))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("H347", say("This is no question that can be answered.")) from error
    return Request(
        messages,
        max_new_tokens=tokens,
        adapter=str(order.get("side", BASE)),
        temperature=temperature,
        seed=0 if temperature else None,
    )
