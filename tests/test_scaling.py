"""docs/scaling.md: its tables are what the planner says now, its cluster files can be read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "cluster"
# Options of sbatch that the examples may use (https://slurm.schedmd.com/sbatch.html).
SBATCH = {
    "array", "cpus-per-task", "gpus-per-node", "gpus-per-task", "job-name", "mem", "nodes", "ntasks",
    "ntasks-per-node", "output", "requeue", "signal", "time",
}  # fmt: skip
# Fields of a SkyPilot task (https://docs.skypilot.co/en/latest/reference/yaml-spec.html).
SKY = {"name", "resources", "num_nodes", "envs", "file_mounts", "setup", "run"}
SKY_RESOURCES = {"accelerators", "use_spot", "disk_size"}


def test_the_tables_are_what_the_planner_says() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "scaling.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sbatch")), ids=lambda p: p.name)
def test_slurm_files_are_shell_and_their_options_exist(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE)
    assert len(lines) == text.count("#SBATCH") >= 6
    assert {name for name, _ in lines} <= SBATCH
    assert text.index("#SBATCH") < text.index("set -euo pipefail"), "later ones are not read"
    _known_options(text)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_skypilot_files_have_known_fields_and_shell(path: Path) -> None:
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(task) <= SKY and set(task["resources"]) <= SKY_RESOURCES
    assert isinstance(task["num_nodes"], int) and "run" in task
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    _known_options(task["run"])


def _known_options(text: str) -> None:
    """Every hauslm command line in the file exists with its options."""
    import importlib

    import click

    from hauslm.cli.entry import COMMANDS

    calls = re.findall(r"hauslm (analyse|train|prepare)((?:[^\n]|\\\n)*)", text)
    assert calls
    for name, rest in calls:
        module = importlib.import_module(f"hauslm.cli.{COMMANDS[name][0]}")
        known = {
            o for p in getattr(module, name).params if isinstance(p, click.Option) for o in p.opts
        }
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest):
            assert option in known, f"hauslm {name} has no {option}"


@pytest.mark.parametrize("page", ["scaling.md", "scaling.de.md"])
def test_every_price_says_where_and_when(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    prices = [line for line in text.splitlines() if line.startswith("- ") and "EUR/h (http" in line]
    assert len(prices) == 3
    for line in prices:
        assert re.search(r"\(https://\S+, \d{4}-\d\d-\d\d; ", line), line
        assert page == "scaling.md" or "price list" not in line
