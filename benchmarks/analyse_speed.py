"""How much faster is analysing with hauslm than with what one would write oneself? On the same work.

    python benchmarks/analyse_speed.py [--rows 24] [--new-tokens 120] [--base FOLDER] [--save]

Two kinds of work on sections of the sample documents. `rows`: what `hauslm analyse` asks, an answer
bound to a JSON Schema with one of the section's sentences as its quote; `text`: a free summary of at
most 48 tokens. Compared with a loop of `model.generate`, one prompt at a
time, and with transformers in padded batches (for `text` through its text-generation pipeline); both
are bound by llguidance as its documentation shows, a mask before every token. Greedy, float32.
Wall time depends on what else the machine does, processor time hardly: both are printed, rounds are
interleaved and the median counts. One JSON object; --save writes it to
benchmarks/results/analyse_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in hauslm; for all who are compared

import torch

from hauslm.analyse import templates
from hauslm.analyse.evidence import SHORTEST_QUOTE
from hauslm.analyse.run import MOST_QUOTES, WINDOW_TOKENS
from hauslm.analyse.windows import quotable, windows
from hauslm.data.reading import read_documents
from hauslm.embedded import DOCUMENTS, MODEL
from hauslm.lm.interface import Request
from hauslm.lm.local import LocalModel

RESULT = Path(__file__).parent / "results" / "analyse_speed.json"


def sections(model: LocalModel, rows: int, new_tokens: int, template: str) -> list[Request]:
    """The requests that `analyse` makes for the sample documents, the first `rows` of them."""
    asked = templates.load(template, "en")
    documents, _ = read_documents([str(DOCUMENTS)], DOCUMENTS)
    found = []
    for document in documents:
        for window in windows(document, WINDOW_TOKENS, model.count_tokens):
            text = document.text[window.start : window.end]
            quotes = quotable(
                document.text, window, SHORTEST_QUOTE, templates.MAX_QUOTE_CHARACTERS, MOST_QUOTES
            )
            found.append(
                Request(
                    asked.messages(document.title, window.section, text),
                    max_new_tokens=new_tokens,
                    json_schema=asked.row_schema(quotes, bind_quote=True),
                )
            )
    assert len(found) >= rows, f"only {len(found)} sections"
    return found[:rows]


class Bound:
    """llguidance as a logits processor of `generate`: one matcher per row, a mask per token."""

    def __init__(self, model: LocalModel, requests: Sequence[Request], prompt: int) -> None:
        self.model, self.prompt = model, prompt
        self.matchers = [model.matcher(r) for r in requests]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > self.prompt:
            for matcher, token in zip(self.matchers, ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        words = self.model.bitmasks(self.matchers)
        bits = (words[:, :, None] >> torch.arange(32)) & 1
        allowed = bits.reshape(len(self.matchers), -1)[:, : scores.shape[1]].bool()
        stopped = torch.tensor([m.is_stopped() for m in self.matchers])
        allowed[stopped] = False
        allowed[stopped, min(self.model.eos_ids)] = True
        return scores.masked_fill(~allowed, float("-inf"))


class Others:
    """What one would write oneself, on the very same model and tokenizer."""

    def __init__(self, model: LocalModel, batch_size: int) -> None:
        self.ours, self.plain, self.tokenizer = model, model._model, model._tokenizer
        self.batch_size = batch_size

    def _generate(self, requests: Sequence[Request], free: bool) -> list[str]:
        prompts = [self.ours.prompt_ids(r) for r in requests]
        width, pad = max(map(len, prompts)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        new = requests[0].max_new_tokens
        options: dict[str, Any] = {"max_new_tokens": new, "do_sample": False, "pad_token_id": pad}
        if not free:
            options["logits_processor"] = [Bound(self.ours, requests, width)]
        with torch.inference_mode():
            out = self.plain.generate(input_ids=ids, attention_mask=mask, **options)
        answers = []
        for row in out[:, width:].tolist():
            end = next((i for i, t in enumerate(row) if t in self.ours.eos_ids), len(row))
            answers.append(self.ours.decode(row[:end]))
        return answers

    def loop(self, requests: Sequence[Request], free: bool) -> list[str]:
        return [self._generate([r], free)[0] for r in requests]

    def batches(self, requests: Sequence[Request], free: bool) -> list[str]:
        if free:
            return self._pipeline(requests)
        size = self.batch_size
        parts = [requests[i : i + size] for i in range(0, len(requests), size)]
        return [a for part in parts for a in self._generate(part, free)]

    def _pipeline(self, requests: Sequence[Request]) -> list[str]:
        from transformers import pipeline

        self.tokenizer.padding_side = "left"
        run = pipeline("text-generation", model=self.plain, tokenizer=self.tokenizer)
        new = requests[0].max_new_tokens
        found = run(
            [self.ours.render(r.messages) for r in requests],
            batch_size=self.batch_size, return_full_text=False, add_special_tokens=False,
            max_new_tokens=new, do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )  # fmt: skip
        return [f[0]["generated_text"] for f in found]


def timed(work: Callable[[], list[str]]) -> tuple[list[str], float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compare(model: LocalModel, requests: list[Request], free: bool, options: Any) -> Any:
    others = Others(model, options.batch_size)
    ways: dict[str, Callable[[], list[str]]] = {
        "ours": lambda: [r.text for r in model.generate(requests)],
        "loop": lambda: others.loop(requests, free),
        "batches": lambda: others.batches(requests, free),
    }
    seconds: dict[str, list[tuple[float, float]]] = {n: [] for n in ways}
    answers: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            answers[name], wall, cpu = timed(way)
            seconds[name].append((wall, cpu))
    result: dict[str, Any] = {}
    for name, rounds in seconds.items():
        wall = statistics.median(w for w, _ in rounds)
        cpu = statistics.median(c for _, c in rounds)
        result[name] = {
            "seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "rows_per_hour": round(3600 * len(requests) / wall),
        }
    for name in ("loop", "batches"):
        for figure in ("seconds", "cpu_seconds"):
            ratio = result[name][figure] / result["ours"][figure]
            result[name][f"ours_is_faster_by_{figure}"] = round(ratio, 2)
        same = sum(a == b for a, b in zip(answers[name], answers["ours"], strict=True))
        result[name]["same_answers"] = f"{same}/{len(requests)}"
    lengths = [len(model.prompt_ids(r)) for r in requests]
    written = [len(model.generate([r])[0].text) for r in requests[:4]]
    result["prompt_tokens"] = [min(lengths), max(lengths)]
    result["answer_characters_of_the_first"] = written
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=Path, default=MODEL)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of the others; 0: torch's default")
    parser.add_argument("--work", default="rows,text")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    for work in options.work.split(","):
        model = LocalModel.load(options.base, batch_size=options.batch_size)
        if work == "rows":
            requests = sections(model, options.rows, options.new_tokens, "classification")
        else:
            requests = [
                Request(r.messages, max_new_tokens=min(48, options.new_tokens))
                for r in sections(model, options.rows, options.new_tokens, "summary")
            ]
        model.generate(requests[:2])  # warm
        results[work] = compare(model, requests, work == "text", options)
    results["setting"] = {
        **{n: getattr(options, n) for n in ("rows", "new_tokens", "rounds", "batch_size")},
        "threads_of_the_others": torch.get_num_threads(),
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps(results, indent=1)
    print(text)
    if options.save:
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
