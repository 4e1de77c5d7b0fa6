"""docs/share.md is true: its commands run, in order, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "share.md"
BLOCK = re.compile(r"```sh( slow)?\n(.*?)```", re.DOTALL)


def _run(folder: Path, *, slow: bool) -> None:
    for marked, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if marked and not slow:
            continue
        for line in body.strip().splitlines():
            done = subprocess.run(
                [sys.executable, "-m", *line.split()], cwd=folder, capture_output=True, text=True,
                env=os.environ | {"LANGUAGE": "en"}, timeout=1200, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_the_quick_commands_run(tmp_path: Path) -> None:
    _run(tmp_path, slow=False)
    assert (tmp_path / "keyring.json").is_file()


@pytest.mark.slow
def test_the_whole_page_runs(tmp_path: Path) -> None:
    _run(tmp_path, slow=True)
    assert (tmp_path / "demo" / "adapters" / "both" / "adapter_model.safetensors").is_file()
