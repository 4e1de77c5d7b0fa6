"""A sweep is real trainings under Ray Tune; what it says is what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from hauslm.records import Sweep, SweepTrial
from hauslm.report.blocks import Writer
from hauslm.report.chapters import sweep as chapter
from hauslm.train import sweep as room
from hauslm.train.sweep import Grid
from tests.train.conftest import Project, corpus_of, make_examples

TRAINING = {
    "max_steps": 16, "seq_len": 64, "micro_batch_size": 2, "gradient_accumulation_steps": 2,
    "learning_rate": 0.003, "precision": "float32", "early_stopping_patience": None,
    "validate_every_steps": 2,
}  # fmt: skip
CHILD = """
import sys
from hauslm.base import egress
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Silent
from hauslm.records import Corpus
from hauslm.scenario import load
from hauslm.train.sweep import Grid, sweep
egress.shut("loopback", kernel=False)

class Telling(Silent):
    def step(self, title, done, total, **figures):
        print("step", figures, flush=True)

folder = ProjectFolder(sys.argv[1])
record = sweep(
    load(folder.file), folder, plan=None, corpus=Corpus.load(folder.record("corpus")),
    grid=Grid((0.03, 1e-6), (2, 4)), parallel=1, progress=Telling(),
)
record.save(folder.records)
print("attempts", egress.attempts())
"""


def learnable(project: Project) -> None:
    """Random documents generalise to nothing: validation is on some of those that are trained on."""
    project.prepare(make_examples(30), make_examples(6))


def run(project: Project) -> tuple[Sweep, str]:
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(project.folder.root)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=400,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return Sweep.load(project.folder.record("sweep")), found.stdout


@pytest.mark.slow
def test_a_sweep_trains_for_real_stops_the_worse_half_and_resumes(project: Project) -> None:
    learnable(project)
    document = {
        "model": {"base": "tiny", "path": "base"}, "training": TRAINING, "adapter": {"r": 4},
    }  # fmt: skip
    project.folder.file.write_text(json.dumps(document))
    corpus_of(project.folder).save(project.folder.records)
    before = project.folder.file.read_bytes()
    record, said = run(project)
    assert "attempts []" in said
    assert len(record.trials) == 5, "two rates, two ranks, and the project's own settings"
    by_name = {t.name: t for t in record.trials}
    best, own = by_name[record.best], by_name[record.own]
    assert (own.learning_rate, own.r) == (0.003, 4)
    assert best.learning_rate != 1e-6, "that rate learns nothing"
    assert best.validation == min(t.validation for t in record.trials if t.validation is not None)
    assert any(t.state == "stopped" and t.steps < 16 for t in record.trials)
    assert by_name[record.best].state == "done" and best.steps == 16
    assert record.offer["adapter"]["r"] == best.r
    assert project.folder.file.read_bytes() == before
    # A trial is the training of this house: alone it gives the same figures.
    alone = project.run(TRAINING | {"learning_rate": best.learning_rate}, {"r": best.r})
    validations = {r["step"]: r["validation"] for r in alone.history if "validation" in r}
    for step, loss in best.history:
        assert validations[step] == pytest.approx(loss, abs=1e-4)
    # Started again after one trial was lost: only that one is trained.
    lost = project.folder.work / "sweep" / best.name / "trial.json"
    kept = project.folder.work / "sweep" / own.name / "trial.json"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    again, _ = run(project)
    assert lost.is_file() and kept.stat().st_mtime_ns == stamp
    assert again.best == record.best
    assert {t.name: t.validation for t in again.trials if t.state == "done"}[again.best] == (
        pytest.approx(best.validation, abs=1e-5)
    )


OWN: dict[str, Any] = {"learning_rate": 3e-4, "r": 16, "target_modules": "all-linear"}


def test_the_grid_holds_the_projects_own_settings_once() -> None:
    found = room._combinations(Grid(), OWN)
    assert found[0] == OWN and found.count(OWN) == 1 and len(found) == 9
    found = room._combinations(Grid((1e-3,), (4,), ("q_proj, v_proj", "all-linear")), OWN)
    assert [f["target_modules"] for f in found] == [
        "all-linear",
        ["q_proj", "v_proj"],
        "all-linear",
    ]


def trial(name: str, loss: float | None, state: Any = "done", rate: float = 1e-3) -> SweepTrial:
    history = () if loss is None else ((2, loss + 1), (4, loss))
    return SweepTrial(name=name, learning_rate=rate, r=8, target_modules="all-linear", state=state,
                      validation=loss, best_step=4, steps=4, history=history)  # fmt: skip


def test_the_record_ranks_and_offers_and_the_page_shows_it() -> None:
    trials = [trial("own", 2.0), trial("good", 1.5, rate=3e-3), trial("bad", None, "failed"),
              trial("cut", 2.4, "stopped")]  # fmt: skip
    record = room._record(trials, OWN, 4, 2)
    assert [t.name for t in record.trials] == ["good", "own", "cut", "bad"]
    assert record.gain == pytest.approx(0.5) and record.best == "good"
    assert record.offer["training"] == {"learning_rate": 3e-3}
    for language in ("en", "de"):
        w = Writer(language)
        chapter.write(w, record)
        text = str(w.blocks)
        assert "0.003" in text and "<svg" in text and "learning_rate: 0.003" in text
    same = room._record([trial("own", 1.0), trial("other", 1.5)], OWN, 4, 2)
    assert same.best == same.own
    assert any("own settings are the best" in n.text for n in same.notices)


def test_a_trial_trains_tells_each_validation_and_is_only_retold_afterwards(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray: what Tune would be told, to the end and where it stops a trial."""
    told: list[tuple[int, float]] = []
    monkeypatch.setattr(room, "_report", lambda step, loss: told.append((step, loss)))
    learnable(project)
    scenario = project.scenario(TRAINING | {"max_steps": 8}, {"r": 4})

    def described(rate: float) -> dict[str, Any]:
        values = OWN | {"learning_rate": rate, "r": 2}
        return room._described(
            scenario, project.folder, None, corpus_of(project.folder), values, 8, 2
        )

    one = described(0.01)
    room.trial({"trial": json.dumps(one)})
    assert [s for s, _ in told] == [2, 4, 6, 8] and told[-1][1] < told[0][1]
    done = room._outcome(one)
    assert (done.state, done.steps, done.r) == ("done", 8, 2)
    assert done.history == tuple(told)
    before, told[:] = list(told), []
    room.trial({"trial": json.dumps(one)})
    assert told == before, "nothing is trained again"

    def stops(step: int, loss: float) -> None:
        if step >= 4:
            raise SystemExit(0)

    monkeypatch.setattr(room, "_report", stops)
    monkeypatch.setattr("hauslm.train.meter.SYNC_EVERY_S", 0.0)  # steps here take milliseconds
    two = described(0.02)
    assert two["name"] != one["name"]
    with pytest.raises(SystemExit):
        room.trial({"trial": json.dumps(two)})
    stopped = room._outcome(two)
    assert stopped.state == "stopped" and 4 <= stopped.steps < 8
