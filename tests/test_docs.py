"""Is the documentation true? Commands in it exist and run, error codes are listed, languages agree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hauslm.cli.entry import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", ROOT / "README.de.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```sh( slow)?(?: exit=(\d+))?\n(.*?)```", re.DOTALL)
CODE = re.compile(r"H\d{3}")


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.name)
def test_every_hauslm_command_in_the_docs_exists_with_its_options(page: Path) -> None:
    import importlib

    import click

    text = page.read_text(encoding="utf-8")
    calls = re.findall(r"(?:^|`|\s)hauslm ([a-z-]+)([^`\n#]*)", text, re.MULTILINE)
    for name, rest in calls:
        if name not in COMMANDS:
            continue  # prose: "hauslm is ..."
        command = getattr(
            importlib.import_module(f"hauslm.cli.{COMMANDS[name][0]}"), name.replace("-", "_")
        )
        known = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        for option in re.findall(r"(?<!\S)(--[a-z-]+|-C)", rest):
            assert option in known, f"{page.name}: hauslm {name} has no {option}"


def test_every_command_stands_in_both_readmes() -> None:
    for name in ("README.md", "README.de.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for command in COMMANDS:
            assert re.search(rf"`(hauslm )?{command}`", text), f"{name} does not list {command}"


@pytest.mark.parametrize("page", ["lab.md", "lab.de.md"])
def test_the_lab_pages_run_as_they_stand(page: str, tmp_path: Path) -> None:
    """The fast commands of the page, in order, in one folder; `slow` ones run with make test-all."""
    folder = tmp_path
    for slow, expected, body in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if slow:
            continue
        for line in body.strip().splitlines():
            if line.startswith("mkdir"):
                folder = tmp_path / "lab"
                folder.mkdir()
                continue
            done = subprocess.run(
                [sys.executable, "-m", *line.split()],
                cwd=folder,
                capture_output=True,
                text=True,
                env=os.environ | {"LANGUAGE": "en"},
                timeout=300,
                check=False,
            )
            assert done.returncode == int(expected or 0), f"{line}\n{done.stdout}\n{done.stderr}"
    assert (folder / "report" / "lab.md").is_file()
    assert (folder / "report" / "lora_training.py").is_file()


def _codes() -> dict[str, set[str]]:
    """Code -> rooms that raise it: a call with the code and, after it, what happened."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "hauslm").rglob("*.py"):
        room = path.relative_to(ROOT / "src" / "hauslm").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for argument in node.args[:-1] if isinstance(node, ast.Call) else ():
                value = argument.value if isinstance(argument, ast.Constant) else ""
                if isinstance(value, str) and CODE.fullmatch(value):
                    found.setdefault(value, set()).add(room)
    return found


def test_every_error_code_is_listed_and_belongs_to_one_room() -> None:
    listed = set(
        re.findall(r"\| (H\d{3}) \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    )
    codes = _codes()
    assert set(codes) <= listed, f"run scripts/errors.py: {sorted(set(codes) - listed)}"
    shared = {c: sorted(rooms) for c, rooms in codes.items() if len(rooms) > 1}
    assert shared == {}, "one code, one meaning"


def test_the_server_page_names_tests_that_exist_and_shows_the_measured_figures() -> None:
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "serve").glob("*.py"))
    named = re.findall(r"\| `(test_\w+)` \|", text)
    assert len(named) > 15
    for name in named:
        assert f"def {name}(" in tests, name
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "server_page.py"), "check"], check=False
    )
    assert done.returncode == 0, "run: python scripts/server_page.py"
