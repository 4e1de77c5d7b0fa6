"""Planted secrets: wherever they come from and whatever fails, they stand in nothing that is written or shown."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from hauslm.base import secret
from hauslm.base.errors import HauslmError
from hauslm.lm.interface import Message, Request
from hauslm.lm.permit import permit_for
from hauslm.lm.remote import RemoteModel
from hauslm.scenario import Scenario

CANARIES = {
    "HF_TOKEN": "hf_CANARYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "OPENAI_API_KEY": "sk-CANARYbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "HAUSLM_API_KEY": "sk-CANARYcccccccccccccccccccccccccccccccc",
    "HAUSLM_TOKEN": "CANARYdddddddddddddddddddddddddddddddddddddd",
    "HAUSLM_KEY_PASSPHRASE": "CANARYeeeeeeeeeeeeeeeeeee",
    "AWS_SECRET_ACCESS_KEY": "CANARYffffffffffffffffffffffff",
}
MARK = "CANARY"


def hauslm(
    *arguments: str, before: str = "pass", watch: bool = False, **environment: str
) -> tuple[int, str]:
    """Exit code and all output of a command; with `watch`, also the arguments of all its processes."""
    code = f"import sys, os; {before}; from hauslm.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | CANARIES | {"LANGUAGE": "en"} | environment,
    )  # fmt: skip
    seen: set[str] = set()
    ended = threading.Event()
    watcher = threading.Thread(target=_arguments_of_session, args=(process.pid, seen, ended))
    if watch:
        watcher.start()
    output, _ = process.communicate(timeout=600)
    ended.set()
    if watch:
        watcher.join()
        assert seen, "no process was looked at"
    return process.returncode, output + "\n".join(seen)


def _arguments_of_session(session: int, seen: set[str], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) == session:
                        seen.add((entry / "cmdline").read_text().replace("\0", " "))
                except (OSError, ProcessLookupError):
                    continue


def written(root: Path) -> list[Path]:
    """Files below `root` that hold a canary, or are named after one."""
    mark = MARK.encode()
    return [
        p for p in root.rglob("*") if MARK in p.name or (p.is_file() and mark in p.read_bytes())
    ]


def test_stages_and_their_failures_show_no_secret(tmp_path: Path) -> None:
    code, output = hauslm("demo", "-C", str(tmp_path), "--until", "prepare", watch=True)
    assert code == 0, output
    shown = [output]
    shown.append(hauslm("check", "-C", str(tmp_path))[1])
    shown.append(hauslm("report", "-C", str(tmp_path))[1])
    crash = "import hauslm.flow as f; f.summary = lambda r: 1 / 0 if not os.environ else (_ for _ in ()).throw(RuntimeError('key ' + os.environ['HAUSLM_API_KEY']))"
    code, output = hauslm("compare", "-C", str(tmp_path), before=crash)
    assert code == 70 and "H900" in output and "***" in output
    shown.append(output)
    (tmp_path / "hauslm.yaml").write_text("name: [", encoding="utf-8")
    code, output = hauslm("prepare", "-C", str(tmp_path))
    assert code == 2
    shown.append(output)
    assert not any(MARK in text for text in shown)
    assert written(tmp_path) == []
    assert list((tmp_path / "logs").glob("error-*.log")), "the crash left its log"


@pytest.mark.slow
def test_the_whole_way_shows_no_secret(tmp_path: Path) -> None:
    code, output = hauslm("demo", "-C", str(tmp_path), watch=True)
    assert code == 0, output
    assert MARK not in output and written(tmp_path) == []


# ---------------------------------------------------------------- the key of an endpoint


class Echo(http.server.BaseHTTPRequestHandler):
    """An endpoint that repeats the key it was given, as some do."""

    got: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        given = self.headers.get("Authorization", "")
        self.got.append(given)
        body = json.dumps({"error": {"message": f"bad key {given}"}}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Echo.got.clear()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def refusal(url: str) -> str:
    permit = permit_for(Scenario(), "127.0.0.1")
    model = RemoteModel(url, {"m": "m"}, permit, context_length=64, attempts=1)
    with pytest.raises(HauslmError) as caught:
        model.generate([Request((Message("user", "x"),), max_new_tokens=4, adapter="m")])
    return str(caught.value)


@pytest.mark.parametrize("source", ["environment", "file", "keyring"])
def test_the_key_is_used_from_each_source_and_told_nowhere(
    endpoint: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = CANARIES["HAUSLM_API_KEY"]
    monkeypatch.delenv("HAUSLM_API_KEY", raising=False)
    if source == "environment":
        monkeypatch.setenv("HAUSLM_API_KEY", key)
    elif source == "file":
        file = tmp_path / "key"
        file.write_text(key + "\n")
        file.chmod(0o600)
        monkeypatch.setenv("HAUSLM_API_KEY_FILE", str(file))
    else:  # a keyring as the package offers it, kept in memory
        module = tmp_path / "keyring.py"
        module.write_text(
            f"def get_password(service, name):\n    return {key!r} if service == 'hauslm' else None\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "keyring", raising=False)
    text = refusal(endpoint)
    sys.modules.pop("keyring", None)
    assert Echo.got == [f"Bearer {key}"]
    assert "401" in text and MARK not in text


@pytest.mark.parametrize("value", ["sk-CANARY with blank", "sk-CANARY\r\nX: y", "sk-CANARYé"])
def test_a_key_that_would_break_the_header_is_refused_without_being_repeated(
    endpoint: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAUSLM_API_KEY", value)
    text = refusal(endpoint)
    assert "H114" in text and MARK not in text and Echo.got == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_may_read_is_refused(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("sk-CANARY")
    file.chmod(mode)
    monkeypatch.setenv("X_KEY_FILE", str(file))
    with pytest.raises(HauslmError) as caught:
        secret.find("X_KEY")
    assert caught.value.code == "H413" and MARK not in str(caught.value)
    monkeypatch.setenv("X_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(HauslmError, match="H553"):
        secret.find("X_KEY")


def test_no_secret_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X_KEY", raising=False)
    assert secret.find("X_KEY") == ""


def test_text_for_a_log_loses_what_is_called_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MONKEY", "harmless-word")
    text = " ".join(CANARIES.values()) + " harmless-word"
    assert secret.redact(text) == " ".join(["***"] * len(CANARIES)) + " harmless-word"


def test_no_option_takes_a_secret() -> None:
    """What stands in an argument, every user of the machine can read."""
    import click

    from hauslm.cli.entry import COMMANDS, group

    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if getattr(parameter, "is_flag", False):
                continue  # takes no value: `keys --passphrase` asks for one at the terminal
            names = " ".join(parameter.opts)
            for word in ("token", "secret", "password", "passphrase", "api-key"):
                assert word not in names.replace("tokens", ""), f"{name} {names}"


def test_a_server_does_not_tell_its_token(tmp_path: Path) -> None:
    from hauslm.serve.token import token_for

    token, file = token_for(tmp_path)
    assert file is not None and file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() == token and time.time() > 0
