"""No plan in a test may be recalibrated by what this computer's user once measured."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_machine_profile(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
