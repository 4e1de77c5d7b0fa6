"""Do threads that share one model ever get each other's adapter?"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hauslm.lm.interface import BASE, Message, Request
from hauslm.lm.local import LocalModel

NAMES = (BASE, "one", "two")


def ask(number: int, adapter: str) -> Request:
    text = f"Sample {number} was heated. " * (1 + number % 5)
    return Request((Message("user", text),), max_new_tokens=8, adapter=adapter)


@pytest.fixture
def model(tiny_base: Path, adapter_folders: dict[str, Path]) -> LocalModel:
    return LocalModel.load(tiny_base, adapter_folders, batch_size=3)


def test_lanes_give_the_same_answers_as_one(model: LocalModel) -> None:
    asked = [ask(i, NAMES[i % 3]) for i in range(14)]
    model.lanes = 1
    expected = [(r.text, r.usage) for r in model.generate(asked)]
    for lanes in (2, 3, 20):
        model.lanes = lanes
        assert [(r.text, r.usage) for r in model.generate(asked)] == expected
    scores = {lanes: score(model, lanes) for lanes in (1, 3)}
    assert scores[1] == pytest.approx(scores[3])


def score(model: LocalModel, lanes: int) -> list[float]:
    model.lanes = lanes
    return [s.logprob for s in model.score([("a " * i, "b c") for i in range(1, 9)], "one")]


def test_callers_in_many_threads_keep_their_adapters(model: LocalModel) -> None:
    """Single and mixed routes at once, while another adapter comes and goes."""
    expected = {(i, n): model.generate([ask(i, n)])[0].text for i in range(3) for n in NAMES}
    done = threading.Event()

    def caller(seed: int) -> list[Any]:
        wrong = []
        for turn in range(6):
            i, name = (seed + turn) % 3, NAMES[(seed + turn) % 3]
            if turn % 2:
                found = [model.generate([ask(i, name)])[0].text]
                wanted = [expected[i, name]]
            else:
                found = [r.text for r in model.generate([ask(i, n) for n in NAMES])]
                wanted = [expected[i, n] for n in NAMES]
            wrong += [(seed, turn)] if found != wanted else []
        return wrong

    def changing(folder: Path) -> None:
        while not done.is_set():
            model.load_adapter("guest", folder)
            model.unload_adapter("guest")

    folder = model.folder.parent
    guest = next(p.parent for p in folder.rglob("adapter_config.json"))
    with ThreadPoolExecutor(5) as pool:
        visitor = pool.submit(changing, guest)
        wrong = list(pool.map(caller, range(4)))
        done.set()
        visitor.result(timeout=60)
    assert wrong == [[], [], [], []]
    assert model.adapters() == ("one", "two")
