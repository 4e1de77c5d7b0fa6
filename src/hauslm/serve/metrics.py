"""What is the server doing? Counters, gauges and histograms in Prometheus' text format 0.0.4.

Written out here because it is forty lines; a client library would bring its own registry, process
collectors and threads. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Every figure of one server. Names carry their unit, as Prometheus asks for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[Labels, float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._counts: dict[str, dict[Labels, list[int]]] = {}

    def counter(self, name: str, about: str) -> None:
        self._help[name] = ("counter", about)
        self._values[name] = {}

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A value that is asked for when the page is."""
        self._help[name] = ("gauge", about)
        self._gauges[name] = read

    def histogram(self, name: str, about: str) -> None:
        """Seconds, in the buckets SECONDS."""
        self._help[name] = ("histogram", about)
        self._values[name] = {}
        self._counts[name] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._values[name][key] = self._values[name].get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            counts = self._counts[name].setdefault(key, [0] * (len(SECONDS) + 1))
            counts[bisect_left(SECONDS, seconds)] += 1
            self._values[name][key] = self._values[name].get(key, 0) + seconds

    def value(self, name: str, **labels: str) -> float:
        with self._lock:
            return self._values[name].get(tuple(sorted(labels.items())), 0)

    def page(self) -> str:
        with self._lock:
            values = {name: dict(rows) for name, rows in self._values.items()}
            counts = {n: {k: list(c) for k, c in rows.items()} for n, rows in self._counts.items()}
        lines: list[str] = []
        for name, (kind, about) in self._help.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            if kind == "gauge":
                lines.append(f"{name} {_number(self._gauges[name]())}")
            elif kind == "counter":
                lines += [f"{name}{_labels(k)} {_number(v)}" for k, v in values[name].items()]
            else:
                for key, row in counts[name].items():
                    lines += _histogram(name, key, row, values[name][key])
        return "\n".join(lines) + "\n"


def _histogram(name: str, key: Labels, counts: list[int], total: float) -> list[str]:
    lines, below = [], 0
    for bound, count in zip((*SECONDS, float("inf")), counts, strict=True):
        below += count
        edge = "+Inf" if bound == float("inf") else _number(bound)
        lines.append(f"{name}_bucket{_labels((*key, ('le', edge)))} {below}")
    return [
        *lines,
        f"{name}_sum{_labels(key)} {_number(total)}",
        f"{name}_count{_labels(key)} {below}",
    ]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _labels(key: Labels | Mapping[str, str]) -> str:
    pairs = key if isinstance(key, tuple) else tuple(key.items())
    if not pairs:
        return ""
    return "{" + ",".join(f'{k}="{_escaped(v)}"' for k, v in pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def server_metrics() -> Metrics:
    """The figures that `engine` and `guard` write."""
    metrics = Metrics()
    metrics.counter("hauslm_http_requests_total", "Requests by route and status.")
    metrics.histogram(
        "hauslm_http_request_seconds", "Seconds from request to the end of the answer."
    )
    metrics.counter("hauslm_prompt_tokens_total", "Tokens read, by model.")
    metrics.counter("hauslm_completion_tokens_total", "Tokens written, by model.")
    metrics.counter("hauslm_answers_total", "Answers by how they ended.")
    metrics.counter("hauslm_refused_full_total", "Requests refused because the queue was full.")
    metrics.counter("hauslm_steps_total", "Steps of the running batch.")
    metrics.counter("hauslm_step_rows_total", "Rows summed over steps; by steps: the mean batch.")
    metrics.histogram("hauslm_queue_seconds", "Seconds that an answer waited for a place.")
    metrics.histogram("hauslm_first_token_seconds", "Seconds from request to its first token.")
    return metrics
