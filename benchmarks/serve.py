"""What does the server cost above the engine? The same answers, asked of the engine and over HTTP.

    python benchmarks/serve.py [--answers 48] [--new-tokens 64] [--rounds 5] [--base FOLDER] [--hidden N] [--save]

Batch 8, greedy. `engine`: the running batch driven directly, as the server drives it. `http`: the same
requests of a client in a process of its own, whole answers; `stream`: as server-sent events. The rounds
are interleaved; what counts is the processor time of the server's process (the client's is its own affair)
and, beside it, the wall time, which on two cores the client shares. Torch has one thread, so that the
client has a core. Two ratios: `overhead_cpu` against the engine's own round, which on a busy machine moves by
more than what is measured (caches, clock); and `overhead_within`, in which numerator and denominator are of
the same round: all processor time of the process over that spent inside the engine's steps and admissions.
The engine's own round has that ratio too: what driving it costs without any server, and the server's idle
tick. What the server's threads do to the engine's speed (caches, the interpreter's lock) is in the first
ratio alone. `outside_us_per_token` is the second one's numerator less its denominator; most of it belongs to
the request and not to the token, so `tokens_per_answer` stands beside it; and a stream's grows with
`events_per_answer`, since pieces go by the clock: more of them on a slower or busier machine. Every answer
has a connection of its own, whose making counts. The collector is told what is loaded for good, as `serve.start` does, before any
of the rounds: else a full collection of 0.2 s falls into one round in twelve.
The steps of both are counted, since more of them for the same answers would be the server's fault as well.
`--hidden N` takes a random Llama of that width and 12 layers instead of the embedded
model: the server's cost per token does not grow with the model, its share falls.
One JSON object; --save writes it to benchmarks/results/serve.json (one entry for each model).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata as metadata
import json
import multiprocessing
import os
import platform
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in hauslm

import torch

from hauslm.embedded import MODEL
from hauslm.lm.decode import Decoder
from hauslm.lm.interface import Message, Request
from hauslm.lm.local import LocalModel
from hauslm.serve.app import create_app
from hauslm.serve.start import loaded_for_good, server_for

RESULT = Path(__file__).parent / "results" / "serve.json"
TOKEN = "t" * 43
BATCH = 8


def question(number: int) -> str:
    return f"Question {number % 8}: what did the study find?"


def client(pipe: Any, url: str) -> None:
    """In a process of its own: for each (stream, answers, tokens) asked of it, ask them all at once."""
    import httpx

    async def ask(stream: bool, answers: int, tokens: int) -> int:
        limits = httpx.Limits(max_connections=answers)
        async with httpx.AsyncClient(timeout=600, limits=limits) as session:

            async def one(number: int) -> int:
                body = {
                    "model": "bench", "messages": [{"role": "user", "content": question(number)}],
                    "max_tokens": tokens, "temperature": 0, "stream": stream,
                }  # fmt: skip
                reply = await session.post(
                    url + "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {TOKEN}"}
                )  # fmt: skip
                reply.raise_for_status()
                if stream:
                    assert reply.text.endswith("data: [DONE]\n\n")
                    return reply.text.count("data: ")
                return int(reply.json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*(one(i) for i in range(answers))))

    while (work := pipe.recv()) is not None:
        pipe.send(asyncio.run(ask(*work)))


class Inside:
    """Processor seconds that threads spend inside the running batch, and how many steps it makes."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        for name in ("step", "admit"):
            self._watch(name)

    def _watch(self, name: str) -> None:
        inner = getattr(Decoder, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - began
                self.steps += name == "step"

        setattr(Decoder, name, watched)


def engine_alone(model: LocalModel, answers: int, tokens: int) -> int:
    """The running batch, filled up as places get free."""
    batch = model.decoder(BATCH)
    waiting = [
        Request((Message("user", question(i)),), max_new_tokens=tokens) for i in range(answers)
    ]
    running, written = 0, 0
    while waiting or running:
        while waiting and running < BATCH:
            batch.admit(waiting.pop(0))
            running += 1
        for event in batch.step():
            if event.reply is not None:
                running -= 1
                written += event.reply.usage.completion_tokens
    return written


def random_base(hidden: int, folder: Path) -> Path:
    """A random Llama with the embedded tokenizer."""
    import shutil

    from transformers import AutoModelForCausalLM, LlamaConfig

    make: Any = AutoModelForCausalLM.from_config
    torch.manual_seed(0)
    make(
        LlamaConfig(
            hidden_size=hidden, intermediate_size=hidden * 3, num_hidden_layers=12,
            num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, vocab_size=6144,
            max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=5,
        )
    ).save_pretrained(folder)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return folder


def measure(base: Path, answers: int, tokens: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = LocalModel.load(base, name="bench")
    app = create_app(model, token=TOKEN, max_queue=2 * answers)
    server = server_for(app)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    here, there = multiprocessing.get_context("spawn").Pipe()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    other = multiprocessing.get_context("spawn").Process(target=client, args=(there, address))
    other.start()

    def over_http(stream: bool) -> int:
        here.send((stream, answers, tokens))
        return int(here.recv())

    ways: dict[str, Any] = {
        "engine": lambda: engine_alone(model, answers, tokens),
        "http": lambda: over_http(False),
        "stream": lambda: over_http(True),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    counted: dict[str, int] = {}
    inside = Inside()
    with loaded_for_good():
        for number in range(rounds + 1):  # the first warms up
            for name, way in ways.items():
                own, steps = inside.seconds, inside.steps
                cpu, wall = time.process_time(), time.perf_counter()
                counted[name] = way()
                row = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
                row |= {"inside_s": inside.seconds - own, "steps": inside.steps - steps}
                if number:
                    rows[name].append(row)
    here.send(None)
    other.join()
    server.should_exit = True
    thread.join()
    if counted["engine"] != counted["http"]:
        raise SystemExit(f"not the same work: {counted}")
    found = _summary(rows, counted["engine"], answers)
    found["stream"]["events_per_answer"] = counted["stream"] / answers
    return found


def _summary(rows: dict[str, list[dict[str, float]]], tokens: int, answers: int) -> dict[str, Any]:
    """Medians, and the median over rounds of each round's ratio to the engine."""
    found: dict[str, Any] = {"tokens": tokens, "tokens_per_answer": tokens / answers}
    for name, measured in rows.items():
        outside = [r["cpu_s"] - r["inside_s"] for r in measured]
        found[name] = {
            "cpu_ms_per_token": statistics.median(r["cpu_s"] for r in measured) / tokens * 1e3,
            "tokens_per_second": tokens / statistics.median(r["wall_s"] for r in measured),
            "outside_us_per_token": statistics.median(outside) / tokens * 1e6,
            "steps": statistics.median(r["steps"] for r in measured),
        }
        found[name]["overhead_within"] = _spread([r["cpu_s"] / r["inside_s"] - 1 for r in measured])
        if name == "engine":
            continue
        alone = rows["engine"]
        for key in ("cpu_s", "wall_s"):
            ratios = [a[key] / b[key] - 1 for a, b in zip(measured, alone, strict=True)]
            found[name]["overhead_" + key[:-2]] = _spread(ratios)
    return found


def _spread(ratios: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(ratios), 4),
        "low": round(min(ratios), 4), "high": round(max(ratios), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=48)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, default=MODEL)
    parser.add_argument("--hidden", type=int, help="a random Llama of this width instead")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = random_base(given.hidden, Path(scratch)) if given.hidden else given.base
        found = measure(base, given.answers, given.new_tokens, given.rounds)
    name = f"llama-{given.hidden}" if given.hidden else base.name
    name = "embedded" if base == MODEL else name
    result = {
        "model": name, "batch": BATCH, "answers": given.answers, "rounds": given.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch with 1 thread",
        "versions": {p: metadata.version(p) for p in ("torch", "transformers", "uvicorn", "starlette")},
        **found,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if given.save:
        kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        RESULT.write_text(json.dumps(kept | {name: result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
