"""What a stage reads is hashed, whatever the names and links in the documents' folder."""

from __future__ import annotations

import os
from pathlib import Path

from hauslm.flow.stages import STAGES, Project, expected_inputs


def test_odd_file_names_and_links_do_not_stop_the_state_of_a_stage(tmp_path: Path) -> None:
    (tmp_path / "hauslm.yaml").write_text("name: odd\n", encoding="utf-8")
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "itself.txt").symlink_to("itself.txt")

    def inputs() -> str:
        return expected_inputs(Project.load(tmp_path), STAGES["prepare"])["documents"]

    before = inputs()
    with open(os.fsencode(folder) + b"/b\xffd.txt", "wb") as stream:  # noqa: PTH123 - bytes
        stream.write(b"text")
    after = inputs()
    assert before != after
    assert inputs() == after  # also where the hash comes from the cache


def test_changed_files_of_the_harness_make_the_evaluation_outdated(tmp_path: Path) -> None:
    text = "name: terms\nevaluation:\n  lm_eval: {tasks: [colours], include_path: tasks}\n"
    (tmp_path / "hauslm.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "tasks" / "data").mkdir(parents=True)
    seen = []
    for name, content in (("colours.yaml", "a"), ("data/test.jsonl", "{}"), ("colours.yaml", "b")):
        (tmp_path / "tasks" / name).write_text(content, encoding="utf-8")
        seen.append(expected_inputs(Project.load(tmp_path), STAGES["evaluate"])["lm_eval"])
    assert len(set(seen)) == 3
    plain = "name: terms\n"
    (tmp_path / "hauslm.yaml").write_text(plain, encoding="utf-8")
    assert "lm_eval" not in expected_inputs(Project.load(tmp_path), STAGES["evaluate"])


def test_a_changed_glossary_makes_the_evaluation_outdated(tmp_path: Path) -> None:
    text = "name: terms\nevaluation:\n  glossary: g.yaml\n"
    (tmp_path / "hauslm.yaml").write_text(text, encoding="utf-8")
    glossary = tmp_path / "g.yaml"
    seen = []
    for content in ("[gusset]\n", "[gusset, gore]\n"):
        glossary.write_text(content, encoding="utf-8")
        seen.append(expected_inputs(Project.load(tmp_path), STAGES["evaluate"])["glossary"])
    assert seen[0] != seen[1]
