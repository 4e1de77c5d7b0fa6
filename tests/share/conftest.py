"""What the share tests build on: keys of their own, a small project with an adapter, its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.files import ProjectFolder
from hauslm.scenario import Scenario
from hauslm.share.bundle import bundle
from tests.share.making import SECRET, adapter, records


@pytest.fixture(autouse=True)
def _own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAUSLM_KEYS", str(tmp_path / "keys"))
    monkeypatch.delenv("HAUSLM_KEY_PASSPHRASE", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> ProjectFolder:
    folder = ProjectFolder(tmp_path / "p")
    adapter(folder.adapter)
    (folder.adapter / "trainer.log").write_text(SECRET)
    return folder


@pytest.fixture
def packed(project: ProjectFolder) -> Path:
    run, corpus = records(project)
    record = bundle(Scenario(name="terms"), project, run=run, corpus=corpus, evaluation=None)
    return project.root / record.path
