"""The whole way at small size, on the real rooms: records, what reruns, what the adapter is worth elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hauslm import embedded, flow
from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.records import RECORDS, Run

STAGES = [s.record for s in flow.STAGES.values()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo project cut down to a few steps and items, run to its end once."""
    root = tmp_path_factory.mktemp("flow") / "p"
    from hauslm.start import write_demo

    write_demo(root, "en")
    for path in sorted((root / "documents").iterdir())[9:]:
        path.unlink()
    kept = {p.stem for p in (root / "documents").iterdir()}
    tasks = root / "tasks" / "roles.jsonl"
    rows = [
        line
        for line in tasks.read_text(encoding="utf-8").splitlines()
        if json.loads(line)["document"] in kept
    ]
    tasks.write_text("\n".join(rows) + "\n", encoding="utf-8")
    file = root / "hauslm.yaml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("training:\n", "training:\n  max_steps: 4\n  seq_len: 256\n")
    text = text.replace("evaluation:\n", "evaluation:\n  max_items: 24\n  max_documents: 2\n")
    text = text.replace("analysis:\n", "analysis:\n  max_documents: 1\n")
    text = text.replace("max_new_tokens: 96", "max_new_tokens: 48")
    file.write_text(text, encoding="utf-8")
    flow.run(root)
    return root


def _stamps(root: Path) -> dict[str, str]:
    return {r: json.loads((root / "records" / f"{r}.json").read_text())["inputs"].__repr__() + str((root / "records" / f"{r}.json").stat().st_mtime_ns) for r in STAGES}  # fmt: skip


def test_every_stage_left_a_sound_record_that_names_its_inputs(project: Path) -> None:
    for name in STAGES:
        record = RECORDS[name].load(project / "records" / f"{name}.json")
        assert record.inputs and record.hauslm_version and record.schema_version == 1
        assert all(len(v) == 64 for v in record.inputs.values()), record.inputs
    assert (project / "report" / "report.html").is_file()


def test_nothing_reruns_when_nothing_changed(project: Path) -> None:
    before = _stamps(project)
    flow.run(project)
    assert _stamps(project) == before


@pytest.mark.parametrize(
    ("deleted", "rerun"),
    [
        ("comparison", {"comparison"}),
        ("analysis", {"analysis"}),
        ("evaluation", {"evaluation", "bundle", "analysis"}),
    ],
)
def test_a_deleted_record_reruns_its_stage_and_those_after_it(
    project: Path, deleted: str, rerun: set[str]
) -> None:
    before = _stamps(project)
    (project / "records" / f"{deleted}.json").unlink()
    flow.run(project)
    after = _stamps(project)
    assert {r for r in STAGES if after[r] != before[r]} == rerun


def test_a_changed_section_outdates_the_stages_that_read_it(project: Path) -> None:
    file = project / "hauslm.yaml"
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(text.replace("max_items: 24", "max_items: 23"), encoding="utf-8")
        states = {s.record: flow.state(flow.Project.load(project), s) for s in flow.STAGES.values()}
    finally:
        file.write_text(text, encoding="utf-8")
    assert {r for r, s in states.items() if s == "outdated"} == {"evaluation"}


def test_a_changed_document_outdates_what_was_made_from_it(project: Path) -> None:
    document = sorted((project / "documents").iterdir())[0]
    text = document.read_bytes()
    try:
        document.write_bytes(text + b"\nOne more sentence.\n")
        stage = flow.STAGES["prepare"]
        assert flow.state(flow.Project.load(project), stage) == "outdated"
    finally:
        document.write_bytes(text)


def test_a_damaged_record_is_told_and_counts_as_outdated(project: Path) -> None:
    path = project / "records" / "plan.json"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text[:100], encoding="utf-8")
        loaded = flow.Project.load(project)
        assert flow.state(loaded, flow.STAGES["plan"]) == "outdated"
        with pytest.raises(DataError, match="H310"):
            flow.load_record(loaded, "plan")
    finally:
        path.write_text(text, encoding="utf-8")


def test_what_does_not_fit_by_the_plan_is_refused_before_training(project: Path) -> None:
    path = project / "records" / "plan.json"
    text = path.read_text(encoding="utf-8")
    plan = json.loads(text)
    first = next(iter(plan["fits"]))
    try:
        path.write_text(
            json.dumps(plan | {"fits": plan["fits"] | {first: False}}), encoding="utf-8"
        )
        with pytest.raises(RefusedError, match="H420"):
            flow.run_stage(flow.Project.load(project), "train", prerequisites=False)
    finally:
        path.write_text(text, encoding="utf-8")


def test_the_adapter_loads_without_hauslm_and_changes_the_base(project: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = Run.load(project / "records" / "run.json")
    base = AutoModelForCausalLM.from_pretrained(embedded.MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(project / run.adapter.path)
    tokens = tokenizer("The bellows leather", return_tensors="pt")
    with torch.no_grad():
        before = base(**tokens).logits
        model = PeftModel.from_pretrained(base, project / run.adapter.path)
        after = model(**tokens).logits
    assert not torch.equal(before, after)


def test_the_python_functions_return_the_records(project: Path) -> None:
    import hauslm

    assert hauslm.decide(project).verdict.option
    assert hauslm.compare(project).rows
    loose = hauslm.load_scenario(project / "hauslm.yaml")
    assert hauslm.decide(loose).verdict.option
    with pytest.raises(UsageError, match="H102"):
        hauslm.train(loose)


def test_unknown_stage_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="evaluate"):
        flow.stage_named("evalute")


@pytest.mark.parametrize("stage", ["decide", "compare"])
def test_a_misspelt_base_model_is_refused_with_the_nearest_names(
    tmp_path: Path, stage: str
) -> None:
    (tmp_path / "hauslm.yaml").write_text("model: {base: mistrl-7b-v0.3}\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        flow.run_stage(flow.Project.load(tmp_path), stage)
    assert caught.value.code == "H120"
    assert "mistral-7b-v0.3" in str(caught.value.next_step)


def test_articles_alone_are_analysed_by_the_base_without_any_training(tmp_path: Path) -> None:
    """A project that names articles and has nothing to train on stopped at H301."""
    import json

    from hauslm import flow
    from hauslm.embedded import MODEL

    (tmp_path / "a.md").write_text(
        "# Leather\n\nThe old leather shrank at 41 degrees on average.\n"
    )
    section = {"paths": ["a.md"], "template": "classification", "labels": ["methods", "results"]}
    document = {"model": {"base": "embedded", "path": str(MODEL)}, "analysis": section}
    (tmp_path / "hauslm.yaml").write_text(json.dumps(document))
    record = flow.analyse(tmp_path)
    assert (record.documents, record.failed) == (1, ())
    assert record.model["adapter"] == ""
    assert not (tmp_path / "records" / "decision.json").exists()
    again = flow.analyse(tmp_path, part="1/1")
    assert again.resumed and again.output.sha256 == record.output.sha256
