"""Is the documentation true? Commands in it exist and run, error codes are listed, languages agree."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hauslm.cli.entry import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", ROOT / "README.de.md", *sorted((ROOT / "docs").rglob("*.md"))]
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


# ---------------------------------------------------------------- how-to and explanation

GUIDES = sorted(
    [*(ROOT / "docs" / "howto").glob("*.md"), *(ROOT / "docs" / "explain").glob("*.md")]
)
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, what is said behind it, text) of every fenced block."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(a, b.strip(), c) for a, b, c in found]


def _run(line: str, folder: Path, code: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"LANGUAGE": "en"}, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"


@contextlib.contextmanager
def _server(line: str, folder: Path) -> Iterator[None]:
    """`hauslm serve` of a page, while the blocks after it run; it ends on SIGTERM as it promises."""
    port = int(re.search(r"--port (\d+)", line)[1])  # type: ignore[index]
    process = subprocess.Popen([sys.executable, "-m", *shlex.split(line)], cwd=folder)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _follow(page: Path, folder: Path, *, slow: bool) -> int:
    """Do what the page says, in its order, in an empty folder; the number of things done."""
    done = 0
    with contextlib.ExitStack() as stack:
        for language, said, body in _blocks(page):
            if "slow" in said.split() and not slow:
                continue
            named = re.search(r"file=(\S+)", said)
            if named:
                (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / named[1]).write_text(body, encoding="utf-8")
            elif language == "sh" and said == "serve":
                stack.enter_context(_server(body.strip(), folder))
            elif language == "sh":
                code = re.search(r"exit=(\d+)", said)
                lines = body.strip().splitlines()
                for number, line in enumerate(lines, 1):
                    _run(line, folder, int(code[1]) if code and number == len(lines) else 0)
            elif language == "python" and "run" in said:
                (folder / "block.py").write_text(body, encoding="utf-8")
                _run_python(folder)
            else:
                continue
            done += 1
    return done


def _run_python(folder: Path) -> None:
    run = subprocess.run([sys.executable, "block.py"], cwd=folder, capture_output=True, text=True,
                         timeout=300, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr


# Its server loads a model and ends in good order: half a minute on two busy cores.
SLOW_GUIDES = {"replace-cloud-api.md"}
ENGLISH = [
    pytest.param(p, marks=pytest.mark.slow if p.name in SLOW_GUIDES else ())
    for p in GUIDES
    if not p.name.endswith(".de.md")
]


@pytest.mark.parametrize("page", ENGLISH, ids=lambda p: p.stem)
def test_a_guide_does_as_it_says(page: Path, tmp_path: Path) -> None:
    slow = [said for _, said, _ in _blocks(page) if "slow" in said.split()]
    assert _follow(page, tmp_path, slow=False) or slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in GUIDES if p.name.endswith(".de.md")], ids=lambda p: p.stem
)
def test_a_german_guide_does_as_it_says(page: Path, tmp_path: Path) -> None:
    assert _follow(page, tmp_path, slow=True)


TWO_LANGUAGES = [p for p in DOCS if p.name.endswith(".de.md") and p.name not in ("README.de.md", "errors.de.md")]  # fmt: skip


@pytest.mark.parametrize("page", TWO_LANGUAGES, ids=lambda p: p.name)
def test_both_languages_show_the_same_commands(page: Path) -> None:
    """Prose is written twice, what is typed is one: commands, their exit codes and their order."""
    sister = page.with_name(page.name.replace(".de.md", ".md"))
    mine, other = (
        [(said, re.sub(r" --language de$", "", body, flags=re.MULTILINE))
         for language, said, body in _blocks(p) if language == "sh"]
        for p in (page, sister)
    )  # fmt: skip
    assert mine == other
    links = [re.sub(r"(\.de)?\.(md|svg|png)", r".\2", x)
             for x in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))]  # fmt: skip
    same = [re.sub(r"(\.de)?\.(md|svg|png)", r".\2", x)
            for x in re.findall(r"\]\(([^)#]+)", sister.read_text(encoding="utf-8"))]  # fmt: skip
    assert sorted(set(links)) == sorted(set(same))


def test_the_job_file_requeues_an_interrupted_training(tmp_path: Path) -> None:
    """The job of the cluster page under bash, with a stand-in for Slurm and for the training."""
    page = ROOT / "docs" / "howto" / "cluster.md"
    script = next(body for _, said, body in _blocks(page) if said == "file=train.sbatch")
    (tmp_path / "train.sbatch").write_text(script)
    for name, text in (
        ("hauslm", "trap 'exit 75' TERM\ntouch started\nwhile :; do sleep 0.1; done\n"),
        ("scontrol", 'echo "$@" > requeued\n'),
    ):
        (tmp_path / name).write_text("#!/bin/bash\n" + text)
        (tmp_path / name).chmod(0o755)
    process = subprocess.Popen(
        ["bash", "train.sbatch"], cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"},
    )  # fmt: skip
    for _ in range(100):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 42\n"


def test_the_manual_builds_in_both_languages_without_a_warning_or_a_foreign_file(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "build", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for language in ("en", "de"):
        page = (tmp_path / "html" / language / "explain" / "lora.html").read_text(encoding="utf-8")
        assert "<svg" in page and f'lang="{language}"' in page
        commands = (tmp_path / "html" / language / "reference" / "cli.html").read_text("utf-8")
        assert all(f"hauslm {c}" in commands for c in COMMANDS)


def test_the_manual_check_sees_a_foreign_script(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "a.html").write_text('<a href="https://x.org">x</a><script src="//cdn.x/y.js">')
    (tmp_path / "a.css").write_text("@font-face{src:url(https://fonts.x/a.woff2)}")
    assert len(script.foreign(tmp_path)) == 2


def test_the_error_pages_are_what_the_script_writes() -> None:
    for ending in ("", ".de"):
        listed = (ROOT / "docs" / f"errors{ending}.md").read_text(encoding="utf-8")
        assert set(_codes()) <= set(re.findall(r"\| (H\d{3}) \|", listed))


@functools.lru_cache(maxsize=1)
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
