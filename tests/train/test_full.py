"""training.method full: the whole model has a folder of its own, and every later stage knows what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hauslm import flow
from hauslm.base.errors import RefusedError
from tests.train.conftest import Project


def test_the_base_is_never_written_over(project: Project) -> None:
    (project.folder.root / "base").rename(project.folder.trained_model)
    with pytest.raises(RefusedError) as caught:
        project.run({"method": "full"}, model={"path": "trained_model"})
    assert caught.value.code == "H615"


@pytest.mark.slow
def test_the_whole_way_with_a_whole_model(tmp_path: Path) -> None:
    from hauslm.base.progress import Silent
    from hauslm.start import write_demo

    root = write_demo(tmp_path / "p", "en")
    for path in sorted((root / "documents").iterdir())[9:]:
        path.unlink()
    file = root / "hauslm.yaml"
    text = file.read_text(encoding="utf-8")
    for old, new in (
        ("training:\n", "training:\n  method: full\n  max_steps: 3\n  seq_len: 256\n"),
        ("learning_rate: 0.006", "learning_rate: 0.0001"),
        ("evaluation:\n", "evaluation:\n  max_items: 24\n  max_documents: 2\n"),
        ("analysis:\n", "analysis:\n  max_documents: 1\n"),
        ("max_new_tokens: 96", "max_new_tokens: 24"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf-8")
    progress = Silent()
    flow.run(root, progress=progress)
    assert (root / "trained_model" / "model.safetensors").is_file()
    assert not (root / "adapter").exists()
    run = json.loads((root / "records" / "run.json").read_text(encoding="utf-8"))
    analysis = json.loads((root / "records" / "analysis.json").read_text(encoding="utf-8"))
    assert run["adapter"]["path"] == "trained_model"
    assert "trained" in analysis["model"]["model"]  # not the base, silently
    assert analysis["model"]["model_sha256"] != run["base"]["sha256"]
    assert any("No bundle was made" in str(s) for s in progress.sentences)
    assert (root / "report" / "report.html").is_file()
    for refused in (lambda: flow.bundle(root), lambda: flow.export(root, "merge")):
        with pytest.raises(RefusedError) as caught:
            refused()
        assert caught.value.code == "H735"
