"""How much faster is analysing with hauslm than with what one would write oneself? On the same work.

    python benchmarks/analyse_speed.py [--rows 24] [--new-tokens 120] [--base FOLDER] [--lock FILE] [--save]

Two kinds of work on sections of the sample documents. `rows`: what `hauslm analyse` asks, an answer
bound to a JSON Schema with one of the section's sentences as its quote; `text`: a free summary of at
most 48 tokens. Compared with a loop of `model.generate`, one prompt at a time, and with transformers in
padded batches (for `text` through its text-generation pipeline), both on a plain model with torch's own
attention; for `rows` both are bound by llguidance as its documentation shows, a mask before every token.
Where `HAUSLM_LLAMA_PYTHON` names a Python with llama-cpp-python, `text` goes through llama.cpp as well, on
the GGUF files that `hauslm export` writes: with float32 everywhere, and as it is fastest (q8_0, flash
attention); prompt after prompt, as that package offers no batch, keeping common beginnings as it does.

Greedy, float32 (and once the loop in bfloat16, as the folder is stored). Every round all take their turn;
"ours / it" is the ratio within a round. Wall time depends on what else the machine does, processor time
hardly: both are given. One JSON object; --save writes it to benchmarks/results/analyse_speed.json, of which
scripts/performance.py makes the page.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata as metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    """What one would write oneself: a plain model of transformers on the same weights and tokenizer."""

    def __init__(self, model: LocalModel, batch_size: int, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        self.ours, self.tokenizer = model, model._tokenizer
        self.plain: Any = AutoModelForCausalLM.from_pretrained(model.folder, dtype=dtype).eval()
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


class Llama:
    """llama.cpp on an exported GGUF file, in a process of its own."""

    def __init__(self, model: LocalModel, folder: Path, kind: str, *, exact: bool) -> None:
        from hauslm.share.gguf_file import write_model
        from hauslm.share.llama import PYTHON_VARIABLE
        from hauslm.share.template import trained_template

        template = trained_template(model.folder, model.folder)
        file = folder / f"{kind}.gguf"
        write_model(
            model.folder, None, file, kind=kind, name="bench",
            template=template.source, begins_with_bos=template.begins_with_bos,
        )  # fmt: skip
        self.model = model
        self.child = subprocess.Popen(
            [os.environ[PYTHON_VARIABLE], str(Path(__file__).with_name("llama_answers.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        context = model.context_length
        self.version = self._ask(
            {
                "model": str(file), "threads": _cores(), "context": context, "flash": not exact,
                "exact": exact,
            }
        )["version"]  # fmt: skip

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self.child.stdin is not None and self.child.stdout is not None
        print(json.dumps(job), file=self.child.stdin, flush=True)
        found: dict[str, Any] = json.loads(self.child.stdout.readline())
        return found

    def answers(self, requests: Sequence[Request]) -> Round:
        found = self._ask(
            {
                "prompts": [self.model.prompt_ids(r) for r in requests],
                "new_tokens": requests[0].max_new_tokens,
                "ends": sorted(self.model.eos_ids),
            }
        )
        texts = [self.model.decode(a) for a in found["answers"]]
        return Round(texts, found["wall"], found["cpu"])

    def close(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


class Round(NamedTuple):
    """What one contender answered in one round, and the seconds it took."""

    answers: list[str]
    wall: float
    cpu: float


Way = Callable[[], Round]


def timed(work: Callable[[], list[str]]) -> Way:
    def run() -> Round:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        return Round(result, time.perf_counter() - wall, time.process_time() - cpu)

    return run


def ways_of(
    model: LocalModel, requests: list[Request], free: bool, options: Any, scratch: Path
) -> tuple[dict[str, Way], list[Llama]]:
    """All contenders by name; the model of each is loaded."""
    others = Others(model, options.batch_size, torch.float32)
    ways: dict[str, Way] = {
        "ours": timed(lambda: [r.text for r in model.generate(requests)]),
        "loop": timed(lambda: others.loop(requests, free)),
        "batches": timed(lambda: others.batches(requests, free)),
    }
    if not free:
        return ways, []
    half = Others(model, options.batch_size, torch.bfloat16)
    ways["loop_bfloat16"] = timed(lambda: half.loop(requests, free))
    if not os.environ.get("HAUSLM_LLAMA_PYTHON"):
        return ways, []
    exact = Llama(model, scratch, "f32", exact=True)
    best = Llama(model, scratch, "q8_0", exact=False)
    ways["llama_float32"] = lambda: exact.answers(requests)
    ways["llama_q8_0"] = lambda: best.answers(requests)
    return ways, [exact, best]


def compare(
    model: LocalModel, requests: list[Request], free: bool, options: Any, scratch: Path
) -> dict[str, Any]:
    """Rounds in turn, the first of which warms up and does not count."""
    ways, children = ways_of(model, requests, free, options, scratch)
    rounds: dict[str, list[Round]] = {n: [] for n in ways}
    for way in ways.values():
        way()
    for number in range(options.rounds):
        # Every round begins with another contender, so that nobody always comes first.
        names = [*ways][number % len(ways) :] + [*ways][: number % len(ways)]
        for name in names:
            rounds[name].append(ways[name]())
    result: dict[str, Any] = {
        name: _figures(found, rounds["ours"], len(requests)) for name, found in rounds.items()
    }
    for child in children:
        result["llama_version"] = child.version
        child.close()
    lengths = [len(model.prompt_ids(r)) for r in requests]
    result["prompt_tokens"] = [min(lengths), round(statistics.mean(lengths)), max(lengths)]
    written = [r.usage.completion_tokens for r in model.generate(requests)]
    result["answer_tokens"] = [min(written), round(statistics.mean(written)), max(written)]
    return result


def _figures(found: list[Round], ours: list[Round], rows: int) -> dict[str, Any]:
    wall = statistics.median(r.wall for r in found)
    figures: dict[str, Any] = {
        "seconds": round(wall, 3),
        "cpu_seconds": round(statistics.median(r.cpu for r in found), 3),
        "rows_per_hour": round(3600 * rows / wall),
        "same_answers": sum(a == b for a, b in zip(found[-1].answers, ours[-1].answers, strict=True)),
        "rows": rows,
    }  # fmt: skip
    for name in ("wall", "cpu"):
        ratios = [getattr(a, name) / getattr(b, name) for a, b in zip(found, ours, strict=True)]
        figures[f"ours_faster_{name}"] = {
            "median": round(statistics.median(ratios), 2),
            "low": round(min(ratios), 2), "high": round(max(ratios), 2),
        }  # fmt: skip
    return figures


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _machine(load: float) -> dict[str, Any]:
    """What the figures belong to; as in train_cpu.py, whose page they share."""
    sys.path.insert(0, str(Path(__file__).parent))
    import train_cpu

    found = train_cpu.machine(torch.get_num_threads()) | {"load_before": round(load, 1)}
    versions = {n: metadata.version(n) for n in ("torch", "transformers", "llguidance")}
    return found | {"versions": versions}


@contextlib.contextmanager
def _alone(lock: Path | None) -> Iterator[None]:
    if lock is None:
        yield
        return
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=Path, default=MODEL)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of the others; 0: torch's default")
    parser.add_argument("--work", default="rows,text")
    parser.add_argument("--lock", type=Path, help="file that is locked while it is measured")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    with _alone(options.lock), tempfile.TemporaryDirectory() as scratch:
        load = os.getloadavg()[0]
        for work in options.work.split(","):
            model = LocalModel.load(options.base, batch_size=options.batch_size)
            if work == "rows":
                requests = sections(model, options.rows, options.new_tokens, "classification")
            else:
                requests = [
                    Request(r.messages, max_new_tokens=min(48, options.new_tokens))
                    for r in sections(model, options.rows, options.new_tokens, "summary")
                ]
            results[work] = compare(model, requests, work == "text", options, Path(scratch))
        after = os.getloadavg()[0]
    results["setting"] = {
        n: getattr(options, n) for n in ("rows", "new_tokens", "rounds", "batch_size")
    }
    results["machine"] = _machine(load) | {"load_after": round(after, 1)}
    text = json.dumps(results, indent=1)
    print(text)
    if options.save:
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
