"""The launcher for vLLM, against a stand-in process with the same command line and our own server."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import httpx
import pytest

from hauslm.base.errors import HauslmError, MissingError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, write_json
from hauslm.lm import vllm
from hauslm.lm.canary import make_canary
from hauslm.lm.local import LocalModel
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.serve.vllm import check

TOKEN = "v" * 43
STAND_IN = Path(__file__).parent / "vllm_stand_in.py"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called vllm whose api_server is the stand-in, first on the child's path."""
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    shutil.copy(STAND_IN, package / "api_server.py")
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    return package


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def launch_of(base: Path, adapters: dict[str, Path], **more: object) -> vllm.Launch:
    template = base / "chat_template.jinja"
    return vllm.Launch(
        sys.executable, base, "tiny", free_port(), adapters, chat_template=template, **more
    )  # type: ignore[arg-type]


def test_the_command_line(tiny_base: Path, adapters: dict[str, Path]) -> None:
    line = vllm.command(launch_of(tiny_base, adapters, max_model_len=512))
    assert line[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--max-lora-rank") + 1] == "8"
    assert line[line.index("--max-model-len") + 1] == "512"
    assert line[line.index("--lora-modules") + 1 :] == [f"{n}={p}" for n, p in adapters.items()]
    assert "--enable-lora" not in vllm.command(launch_of(tiny_base, {}))
    assert not any("key" in part for part in line)


@pytest.mark.parametrize(
    ("stated", "trained", "form"),
    [
        ("auto", "nf4", "nf4"),
        ("auto", None, "none"),
        ("none", "nf4", "none"),
        ("int8", None, "int8"),
    ],
)
def test_the_form_of_the_weights_is_the_stated_one_else_the_trainings(
    stated: str, trained: str | None, form: str
) -> None:
    run = None if trained is None else Run.model_construct(settings={"quantisation": trained})
    assert vllm.form_of_weights(stated, run) == form


def test_what_vllm_cannot_do_is_refused(tiny_base: Path) -> None:
    with pytest.raises(UsageError, match="H818"):
        vllm.command(vllm.Launch("", tiny_base, "tiny", 1))
    with pytest.raises(UsageError, match="H819"):
        vllm.command(launch_of(tiny_base, {}, quantisation="int8"))
    with (
        pytest.raises(MissingError, match="H818"),
        vllm.launched(vllm.Launch("/nowhere/python", tiny_base, "t", 1), TOKEN, tiny_base / "log"),
    ):
        pass


def test_it_is_launched_checked_and_stopped(
    stand_in: Path, tmp_path: Path, tiny_base: Path, adapters: dict[str, Path], tiny: LocalModel
) -> None:
    folder = ProjectFolder(tmp_path / "project")
    launch = launch_of(tiny_base, {"one": adapters["one"]})
    folder.adapter.mkdir(parents=True)
    write_json(folder.adapter / "canary.json", make_canary(tiny, "one"))  # made by transformers
    with vllm.launched(launch, TOKEN, tmp_path / "vllm.log", 90) as running:
        check(Scenario(), folder, launch, running)
        assert TOKEN not in Path(f"/proc/{running.process.pid}/cmdline").read_text()
        assert httpx.get(f"{running.url}/models").status_code == 401
        write_json(folder.adapter / "canary.json", make_canary(tiny, "two"))
        with pytest.raises(RefusedError, match="H834"):
            check(Scenario(), folder, launch, running)
    assert running.process.poll() is not None
    assert vllm.KEY_VARIABLE not in os.environ


def test_a_server_that_answers_with_the_base_is_noticed(
    stand_in: Path, tmp_path: Path, tiny_base: Path, adapters: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STAND_IN_SERVES_THE_BASE", "1")
    launch = launch_of(tiny_base, {"one": adapters["one"]})
    with (
        vllm.launched(launch, TOKEN, tmp_path / "vllm.log", 90) as running,
        pytest.raises(RefusedError, match="H833"),
    ):
        check(Scenario(), ProjectFolder(tmp_path / "project"), launch, running)


def test_a_process_that_dies_is_told_with_its_last_words(
    stand_in: Path, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_DIES", "1")
    with (
        pytest.raises(HauslmError, match=r"out of memory, says the stand-in.*H820"),
        vllm.launched(launch_of(tiny_base, {}), TOKEN, tmp_path / "vllm.log", 60),
    ):
        pass
