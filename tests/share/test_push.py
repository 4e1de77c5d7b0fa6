"""Pushing: a folder that verifies again; a hub only with permit, memorisation test and rights."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.scenario import Scenario
from hauslm.share import push
from hauslm.share.bundle import bundle
from hauslm.share.verify import verify
from tests.share.making import records
from tests.share.test_contents import evaluation

OPEN = Scenario.model_validate({"name": "terms", "scenario": {"data": {"may_leave": "no"}}})


@pytest.fixture
def good(project: ProjectFolder) -> Path:
    run, corpus = records(project)
    record = bundle(
        Scenario(name="terms"), project, run=run, corpus=corpus, evaluation=evaluation()
    )
    return project.root / record.path


def test_a_folder_gets_the_files_and_they_verify_there(good: Path, tmp_path: Path) -> None:
    result = push.to_folder(good, tmp_path / "shelf" / "terms")
    assert verify(tmp_path / "shelf" / "terms")["manifest"]["name"] == "terms"
    assert "manifest.json" in result["files"]
    with pytest.raises(UsageError, match="H734"):
        push.to_folder(good, tmp_path / "shelf" / "terms")


def test_a_damaged_bundle_goes_nowhere(good: Path, tmp_path: Path) -> None:
    good.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(RefusedError):
        push.to_folder(good, tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


class _Hub(BaseHTTPRequestHandler):
    """What the hub's own client asks for when it commits small files (its public HTTP interface)."""

    files: dict[str, bytes]
    tokens: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).tokens.append(self.headers.get("Authorization", ""))
        where = f"http://{self.headers['Host']}"
        if self.path.endswith("/repos/create"):
            return self._answer({"url": f"{where}/team/terms"})
        if self.path.endswith("/validate-yaml"):  # the model card's front matter
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            rows = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": rows})
        if "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    type(self).files[row["value"]["path"]] = base64.b64decode(
                        row["value"]["content"]
                    )
            return self._answer(
                {
                    "commitUrl": f"{where}/team/terms/commit/1",
                    "commitOid": "1" * 40,
                    "hookOutput": "",
                }
            )
        return self._answer({}, 404)

    def do_GET(self) -> None:
        self._answer({"id": "team/terms", "sha": "0" * 40, "siblings": []})

    def _answer(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    _Hub.files, _Hub.tokens = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_hub_of_ones_own_gets_every_file_as_it_is(
    good: Path, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client of huggingface_hub against a small server on this machine."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    push.to_hub(OPEN, good, "team/terms", endpoint=hub)
    folder = tmp_path / "received"
    folder.mkdir()
    for name, data in _Hub.files.items():
        (folder / name).write_bytes(data)
    assert verify(folder)["manifest"]["name"] == "terms"
    assert "Bearer hf_secret" in _Hub.tokens


def test_a_hub_that_does_not_answer_is_told_without_the_token(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(MissingError, match="H764") as caught:
        push.to_hub(OPEN, good, "team/terms", endpoint="http://127.0.0.1:9")
    assert "hf_secret" not in str(caught.value)


def test_nothing_goes_out_without_a_permit(good: Path) -> None:
    with pytest.raises(RefusedError, match="H811"):
        push.to_hub(OPEN, good, "team/terms", endpoint="https://huggingface.co")
    with pytest.raises(RefusedError, match="H811"):
        push.to_hub(
            OPEN, good, "team/terms", endpoint="http://127.0.0.1:9", storage_hosts=("x.example",)
        )


def test_an_adapter_that_was_not_tested_for_memorisation_stays(packed: Path, hub: str) -> None:
    with pytest.raises(RefusedError, match="H761"):
        push.to_hub(OPEN, packed, "team/terms", endpoint=hub)
    assert _Hub.files == {}


def test_closed_documents_need_the_rights_cleared(project: ProjectFolder, hub: str) -> None:
    run, corpus = records(project)
    closed = corpus.model_copy(update={"rights": {"open": 1, "subscription": 4}})
    record = bundle(
        Scenario(name="terms"), project, run=run, corpus=closed, evaluation=evaluation()
    )
    with pytest.raises(RefusedError, match="H762"):
        push.to_hub(OPEN, project.root / record.path, "team/terms", endpoint=hub)


def test_a_repository_has_an_owner(good: Path) -> None:
    with pytest.raises(UsageError, match="H760"):
        push.to_hub(OPEN, good, "terms")
