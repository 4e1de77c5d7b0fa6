"""From a project folder to a listening server: address, token, hashes, self-check, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from hauslm.base.errors import HauslmError, MissingError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, sha256_file, write_json
from hauslm.base.progress import Silent
from hauslm.base.quantity import measured
from hauslm.catalog.local import weights_sha256
from hauslm.lm.canary import make_canary
from hauslm.lm.interface import Reply, Request
from hauslm.lm.local import LocalModel
from hauslm.records import AdapterFile, Loss, Run
from hauslm.scenario import Scenario
from hauslm.serve import selfcheck, start
from hauslm.serve.app import serve
from hauslm.serve.token import VARIABLE, token_for

# ---------------------------------------------------------------- address


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",  # noqa: S104
        "::",
        "192.168.1.5",
        "lab.example",
        "",
        "localhost.x",
    ],
)
def test_everything_else_is_refused_before_anything_is_loaded(host: str, tmp_path: Path) -> None:
    scenario = Scenario.model_validate({"serving": {"host": host}})
    with pytest.raises(UsageError) as caught:
        serve(scenario, ProjectFolder(tmp_path), run=None)
    assert caught.value.code == "H112" and caught.value.exit_code == 2
    assert not (tmp_path / "work").exists()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with start.listening("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(MissingError) as caught:
            serve(Scenario(), ProjectFolder(tmp_path), run=None, port=first.getsockname()[1])
    assert caught.value.code == "H851"


# ---------------------------------------------------------------- token


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_token_is_random_private_and_kept(tmp_path: Path) -> None:
    token, path = token_for(tmp_path / "work")
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 43  # 256 bits in base64
    assert token_for(tmp_path / "work") == (token, path)
    assert token_for(tmp_path / "other")[0] != token


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    _, path = token_for(tmp_path)
    assert path is not None
    path.chmod(0o644)
    with pytest.raises(RefusedError) as caught:
        token_for(tmp_path)
    assert caught.value.code == "H857"
    path.unlink()
    (tmp_path / "elsewhere").write_text("x" * 43)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        token_for(tmp_path)
    path.unlink()
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(RefusedError):
        token_for(tmp_path)


def test_the_environment_may_give_a_long_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "e" * 32)
    assert token_for(tmp_path) == ("e" * 32, None)
    assert not list(tmp_path.iterdir())
    for weak in ("", "short", "with blank " * 5, "ä" * 40):
        monkeypatch.setenv(VARIABLE, weak)
        with pytest.raises(UsageError) as caught:
            token_for(tmp_path)
        assert caught.value.code == "H852" and (not weak or weak not in str(caught.value))


# ---------------------------------------------------------------- the right files


def run_for(folder: ProjectFolder, base: Path, **more: Any) -> Run:
    none = measured(0.0, "tokens/s", "2026-01-01", "test")
    return Run(
        adapter=AdapterFile(
            path="adapter",
            sha256=sha256_file(folder.adapter / "adapter_model.safetensors"),
            parameters=1,
        ),
        base={"id": "tiny", "path": str(base), "sha256": weights_sha256(base)},
        method="lora",
        steps=1,
        epochs=1,
        tokens=1,
        tokens_per_second=none,
        peak_memory_gib=none,
        seconds=1,
        loss=Loss(first=1, last=1),
        determinism="bitwise",
        **more,
    )


@pytest.fixture
def project(tmp_path: Path, tiny_base: Path, adapters: dict[str, Path]) -> ProjectFolder:
    folder = ProjectFolder(tmp_path / "project")
    shutil.copytree(adapters["one"], folder.adapter)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(tiny_base / name, folder.adapter / name)
    return folder


@pytest.fixture
def scenario(tiny_base: Path) -> Scenario:
    return Scenario.model_validate({"name": "Sleep Lab", "model": {"base": str(tiny_base)}})


def test_base_and_adapter_are_loaded_under_their_names(
    project: ProjectFolder, scenario: Scenario, tiny_base: Path
) -> None:
    model, fingerprint = start.load(scenario, project, run_for(project, tiny_base), Silent())
    assert model.adapters() == ("sleep-lab",) and fingerprint.startswith("hauslm-")
    progress = Silent()
    alone, _ = start.load(scenario, project, None, progress)
    assert alone.adapters() == ()
    assert any("alone" in str(s) for s in progress.sentences)


def damaged(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_other_files_than_those_of_the_training_are_refused(
    project: ProjectFolder, scenario: Scenario, tiny_base: Path, tmp_path: Path
) -> None:
    run = run_for(project, tiny_base)
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)

    def code(chosen: Path = tiny_base) -> str:
        changed = Scenario.model_validate({"model": {"base": str(chosen)}})
        with pytest.raises(RefusedError) as caught:
            start.load(changed, project, run, Silent())
        return caught.value.code

    damaged(other / "model.safetensors")
    assert code(other) == "H854"
    shutil.copy(tiny_base / "model.safetensors", other)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert code(other) == "H855"
    (other / "chat_template.jinja").unlink()
    assert code(other) == "H855"
    damaged(project.adapter / "adapter_model.safetensors")
    assert code() == "H853"
    (project.adapter / "adapter_model.safetensors").unlink()
    assert code() == "H853"


def spoiled(canary: dict[str, Any]) -> dict[str, Any]:
    """The canary of an adapter that answered a little differently when it was made."""
    copy: dict[str, Any] = json.loads(json.dumps(canary))
    copy["prompts"][1]["adapter"][0][2] -= 0.5
    return copy


def test_an_adapter_that_does_not_answer_as_recorded_is_not_served(
    project: ProjectFolder, scenario: Scenario, tiny_base: Path
) -> None:
    run = run_for(project, tiny_base)
    model, _ = start.load(scenario, project, run, Silent())
    canary = make_canary(model, "sleep-lab")
    write_json(project.adapter / "canary.json", canary)
    start.load(scenario, project, run, Silent())
    write_json(project.adapter / "canary.json", spoiled(canary))
    with pytest.raises(RefusedError) as caught:
        start.load(scenario, project, run, Silent())
    assert caught.value.code == "H834" and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("project_name", "expected"),
    [
        ("Sleep Lab", "sleep-lab"),
        ("embedded", "embedded-adapter"),
        ("base", "base-adapter"),
        ("___", "team"),
    ],
)
def test_the_adapter_is_called_as_the_project(project_name: str, expected: str) -> None:
    assert start.adapter_name(project_name, "embedded") == expected


# ---------------------------------------------------------------- the self-check


def test_the_self_check_passes_on_a_sound_model(tiny: LocalModel) -> None:
    selfcheck.check(tiny)
    selfcheck.check(tiny, only="two")


def test_an_adapter_that_changes_nothing_is_refused(
    tiny_base: Path, tmp_path: Path, make_adapter: Callable[..., Path]
) -> None:
    model = LocalModel.load(
        tiny_base, {"inert": make_adapter(tiny_base, tmp_path / "i", 1, strength=0.0)}
    )
    with pytest.raises(RefusedError) as caught:
        selfcheck.check(model)
    assert caught.value.code == "H856"


class Confused:
    """In a batch of several it gives the base the answer of an adapter, as vLLM #48421 did."""

    def __init__(self, model: LocalModel, wrong: dict[str, str]) -> None:
        self._model = model
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        from dataclasses import replace

        if len(requests) > 1:
            requests = [replace(r, adapter=self._wrong.get(r.adapter, r.adapter)) for r in requests]
        return self._model.generate(requests)


@pytest.mark.parametrize("wrong", [{"base": "one"}, {"one": "two"}, {"two": "base"}])
def test_adapters_mixed_up_in_a_batch_are_noticed(tiny: LocalModel, wrong: dict[str, str]) -> None:
    model: Any = Confused(tiny, wrong)
    with pytest.raises(RefusedError) as caught:
        selfcheck.check(model)
    assert caught.value.code == "H856" and next(iter(wrong)) in str(caught.value)


# ---------------------------------------------------------------- the whole of it

SCRIPT = """
import sys
from pathlib import Path
from hauslm.base import egress
egress.shut("loopback")
from hauslm.base.files import ProjectFolder
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.serve.app import serve

class Loud:
    def say(self, sentence): print(str(sentence), file=sys.stderr, flush=True)
    def step(self, *a, **k): pass

folder = ProjectFolder(sys.argv[1])
scenario = Scenario.model_validate({"name": "team", "model": {"base": sys.argv[2]}})
serve(scenario, folder, run=Run.load(folder.record("run")), port=0, progress=Loud())
print("returned", file=sys.stderr)
"""


def test_serve_listens_answers_and_returns_on_sigterm(
    project: ProjectFolder, tiny_base: Path, tmp_path: Path
) -> None:
    project.records.mkdir(parents=True)
    run_for(project, tiny_base).save(project.records)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | {"LANGUAGE": "en"}
    errors = (tmp_path / "stderr").open("w+")
    process = subprocess.Popen(
        [sys.executable, str(script), str(project.root), str(tiny_base)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )
    try:
        url = ""
        ends = time.monotonic() + 60
        while not url and time.monotonic() < ends and process.poll() is None:
            time.sleep(0.1)
            said = (tmp_path / "stderr").read_text()
            if "serve.token" in said:
                url = said.split("API: ")[1].split("\n")[0]
        assert url, (tmp_path / "stderr").read_text()
        token = (project.work / "serve.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        client = httpx.Client(timeout=60)  # it listens before it answers
        names = [m["id"] for m in client.get(f"{url}/models", headers=headers).json()["data"]]
        assert names == [tiny_base.name, "team"]
        asked = {"model": "team", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
        assert (
            client.post(f"{url}/chat/completions", json=asked, headers=headers).status_code == 200
        )
        assert client.get(f"{url}/models").status_code == 401
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        out, _ = process.communicate()
    said = (tmp_path / "stderr").read_text()
    assert out == "" and said.strip().endswith("returned")
    assert token not in said
    assert not any(token in p.read_text() for p in project.logs.glob("*"))


def test_errors_of_the_start_are_one_family(tmp_path: Path) -> None:
    scenario = Scenario.model_validate({"model": {"base": "no-such-model"}})
    with pytest.raises(HauslmError):
        serve(scenario, ProjectFolder(tmp_path), run=None, port=0)
