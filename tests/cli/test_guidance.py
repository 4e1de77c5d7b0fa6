"""Does the user always know what comes next? Endings, questions, crosses, bars, completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hauslm.base import words
from hauslm.base.words import Sentence, say
from hauslm.cli import common, guidance
from hauslm.cli.entry import COMMANDS
from tests.cli.test_entry import CLEAN, hauslm

# Commands that end by themselves within a second or two, as they are typed in a fresh project.
QUICK = {
    "init": "init --yes",
    "compare": "compare",
    "decide": "decide",
    "plan": "plan",
    "catalog": "catalog gpus rtx-4090",
    "schema": "schema",
    "completion": "completion bash",
    "keys": "keys list",
    "report": "report --format md",
    "adapters": "adapters list",
}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    assert hauslm("init", "--yes", cwd=folder).returncode == 0
    text = (folder / "hauslm.yaml").read_text(encoding="utf-8")
    (folder / "hauslm.yaml").write_text(text.replace("base: mistral-7b-v0.3", "base: embedded"))
    return folder


def test_every_command_has_a_line_that_goes_on_from_it() -> None:
    assert set(guidance.NEXT) == set(COMMANDS)
    for command in COMMANDS:
        step = guidance.next_of(command)
        if isinstance(step, str):
            assert shlex.split(step)[1] in COMMANDS, step
        else:
            assert step.text("de") != step.text("en"), step.template


@pytest.mark.parametrize("command", sorted(QUICK))
def test_a_command_ends_with_what_comes_next(command: str, team: Path, tmp_path: Path) -> None:
    folder = tmp_path if command == "init" else team
    # One language each, to keep the tests quick: every other command in German.
    german = sorted(QUICK).index(command) % 2 == 1
    label = "Weiter: " if german else "Next: "
    done = hauslm(
        *QUICK[command].split(), "--language", "de" if german else "en", cwd=folder,
        HAUSLM_KEYS=str(tmp_path / "k"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith(label), done.stderr
    assert label not in done.stdout


def test_json_and_quiet_are_not_talked_into(team: Path) -> None:
    for flag in ("--json", "--quiet"):
        assert "Next:" not in hauslm("decide", flag, cwd=team).stderr
    json.loads(hauslm("decide", "--json", cwd=team).stdout)


def test_the_next_command_is_for_the_project_that_was_named(tmp_path: Path) -> None:
    folder = tmp_path / "my team"
    done = hauslm("init", "--yes", "-C", str(folder))
    step = done.stderr.rstrip().splitlines()[-1].removeprefix("Next: hauslm ")
    assert hauslm(*shlex.split(step), "--quiet").returncode == 0  # as it stands, from elsewhere


def test_every_cross_of_check_has_its_step_and_the_first_one_comes_next(tmp_path: Path) -> None:
    assert hauslm("init", "--yes", cwd=tmp_path).returncode == 0  # its base model is not here
    done = hauslm("check", cwd=tmp_path)
    assert done.returncode == 5
    rows = json.loads(hauslm("check", "--json", cwd=tmp_path).stdout)
    crosses = [r for r in rows if not r["ok"]]
    assert crosses and all(r["next"] for r in crosses)
    for row in crosses:
        assert f"  → {row['next']}" in done.stdout
    assert "hf download" in done.stderr.splitlines()[-1]
    assert "Angesehen" in hauslm("check", "--language", "de", cwd=tmp_path).stdout


def test_init_asks_eight_questions_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hauslm", "init", "--language", "de"],
        input="500\n" + "\n" * 7, capture_output=True, text=True, cwd=tmp_path, env=CLEAN,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^[1-8]/8  \w.*\.$", done.stderr, re.MULTILINE)) == 8
    assert "documents_per_month: 500" in (tmp_path / "hauslm.yaml").read_text(encoding="utf-8")


def test_plain_lines_tell_what_is_left_after_two_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with words.speaking("de"):
        terminal = common.Terminal(quiet=False)
        terminal.tty = False
        terminal.step(say("Training"), 0, 40)
        now[0] += 1.0
        terminal.step(say("Training"), 1, 40)
        now[0] += 10.0
        terminal.step(say("Training"), 11, 40)
        terminal.step(say("Training"), 40, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  Training 0/40" and lines[-1] == "  Training 40/40"
    assert len(lines) == 3 and "0:00:29" in lines[1]  # 29 of 40 left at one a second


def test_every_figure_beside_a_bar_has_a_name_in_both_languages() -> None:
    for name, figure in common.FIGURES.items():
        sentence = figure(3)
        assert isinstance(sentence, Sentence) and name not in sentence.text("de")


@pytest.mark.skipif(not shutil.which("script"), reason="util-linux's script makes the terminal")
def test_on_a_terminal_a_bar_without_an_end_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "from hauslm.cli.common import Terminal\n"
        "t = Terminal(False)\nassert t.tty\n"
        "t.step('Reading', 1, None)\nt.step('Reading', 7, None)\nt.step('Writing', 2, 4)\nt.close()\n"
    )
    line = shlex.join([sys.executable, "-c", code])
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"], capture_output=True, text=True, cwd=tmp_path,
        env=CLEAN | {"TERM": "xterm", "COLUMNS": "100"}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    assert "Reading" in done.stdout and "2/4" in done.stdout


def _complete(tmp_path: Path, *typed: str) -> list[str]:
    """What bash offers after `typed`, through the script that `hauslm completion bash` prints."""
    binary = tmp_path / "hauslm"
    binary.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m hauslm "$@"\n')
    binary.chmod(0o755)
    line = shlex.join(typed)
    script = (
        f'eval "$(hauslm completion bash --quiet)"\nCOMP_WORDS=({line})\n'
        f"COMP_CWORD={len(typed) - 1}\n"
        "complete -p hauslm >/dev/null || exit 9\n_hauslm_completion hauslm\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True,
        cwd=tmp_path, env=CLEAN | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_really_completes_commands_options_and_choices(tmp_path: Path) -> None:
    assert _complete(tmp_path, "hauslm", "ev") == ["evaluate"]
    assert _complete(tmp_path, "hauslm", "plan", "--meth") == ["--method"]
    assert _complete(tmp_path, "hauslm", "plan", "--method", "q") == ["qlora"]


def test_completion_for_a_shell_that_is_absent_is_a_sentence(tmp_path: Path) -> None:
    done = hauslm("completion", "fish", PATH=str(tmp_path))
    assert done.returncode == 5 and "H105" in done.stderr and "Traceback" not in done.stderr
