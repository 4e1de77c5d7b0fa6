"""Is the base model found where it lies, and is it said plainly when it does not?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.catalog import local
from hauslm.catalog.local import BaseFolder, find_base, usable_folders, weights_sha256
from hauslm.embedded import MODEL

CONFIG = {"model_type": "llama", "hidden_size": 64}
SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


def model_folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "model.safetensors").write_bytes(weights)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache of its own."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def cached(cache: Path, hf_id: str, *commits: str, main: str | None = None) -> Path:
    """A repository in the cache as huggingface_hub lays it out: blobs, refs, snapshots of links."""
    repository = cache / ("models--" + hf_id.replace("/", "--"))
    blob = repository / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    for commit in commits:
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(CONFIG))
        (snapshot / "model.safetensors").symlink_to(blob)
    (repository / "refs").mkdir()
    if main:
        (repository / "refs" / "main").write_text(main)
    return repository


def test_the_embedded_model(tmp_path: Path) -> None:
    if not (MODEL / "config.json").is_file():
        pytest.skip("the embedded model is not built in this checkout")
    found = find_base("embedded", None, None, tmp_path)
    assert (found.path, found.source, found.catalog_id) == (MODEL, "embedded", None)


def test_a_missing_embedded_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "EMBEDDED_MODEL", tmp_path / "nowhere")
    with pytest.raises(MissingError) as error:
        find_base("embedded", None, None, tmp_path)
    assert error.value.code == "H530"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_folder(tmp_path: Path, absolute: bool) -> None:
    folder = model_folder(tmp_path / "bases" / "mine")
    found = find_base(str(folder) if absolute else "bases/mine", None, None, tmp_path)
    assert found == BaseFolder(found.id, folder, CONFIG, None, "path")


def test_a_path_overrides_and_keeps_the_catalog_id(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "elsewhere")
    found = find_base("llama-3.1-8b", "elsewhere", "v1", tmp_path)
    assert (found.path, found.catalog_id, found.source) == (folder, "llama-3.1-8b", "path")
    assert "v1" in str(found.notes[0])  # a folder does not tell its revision
    with pytest.raises(MissingError):
        find_base("llama-3.1-8b", "not-there", None, tmp_path)


def test_the_project_comes_before_the_cache(tmp_path: Path, cache: Path) -> None:
    cached(cache, "meta-llama/Llama-3.1-8B", SHA, main=SHA)
    assert find_base("llama-3.1-8b", None, None, tmp_path).source == "hf-cache"
    folder = model_folder(tmp_path / "models" / "llama-3.1-8b")
    found = find_base("llama-3.1-8b", None, None, tmp_path)
    assert (found.path, found.source) == (folder, "project")


def test_the_revision_is_honoured(tmp_path: Path, cache: Path) -> None:
    repository = cached(cache, "meta-llama/Llama-3.1-8B", SHA, OTHER, main=OTHER)
    (repository / "refs" / "v2").write_text(SHA)

    def commit(revision: str | None) -> str | None:
        return find_base("llama-3.1-8b", None, revision, tmp_path).revision

    assert commit(None) == OTHER
    assert commit("v2") == commit(SHA) == commit(SHA[:8]) == SHA
    for wrong in ("v3", "0123", "../../refs/main", "/etc/passwd"):
        with pytest.raises(MissingError, match="not in the cache"):
            commit(wrong)


def test_without_main_several_snapshots_are_not_chosen_from(tmp_path: Path, cache: Path) -> None:
    cached(cache, "meta-llama/Llama-3.1-8B", SHA, OTHER)
    with pytest.raises(MissingError, match=r"model\.revision"):
        find_base("llama-3.1-8b", None, None, tmp_path)


def test_a_hugging_face_name(tmp_path: Path, cache: Path) -> None:
    cached(cache, "meta-llama/Llama-3.1-8B", SHA)
    assert find_base("meta-llama/llama-3.1-8b", None, None, tmp_path).catalog_id == "llama-3.1-8b"
    cached(cache, "some/model", SHA)
    found = find_base("some/model", None, None, tmp_path)
    assert (found.catalog_id, found.source) == (None, "hf-cache")


@pytest.mark.parametrize("name", ["HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_is_where_huggingface_hub_looks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv(name, str(tmp_path))
    inner = tmp_path / "hub" if name == "HF_HOME" else tmp_path / "huggingface" / "hub"
    assert local.hub_cache() == inner


def test_what_is_missing_is_said_with_the_next_step(tmp_path: Path, cache: Path) -> None:
    model_folder(tmp_path / "models" / "qwen3-4b")
    cached(cache, "some/model", SHA)
    with pytest.raises(MissingError) as error:
        find_base("llama-3.1-8b", None, "v9", tmp_path)
    told = str(error.value)
    assert error.value.code == "H530"
    assert "hf download meta-llama/Llama-3.1-8B --revision v9" in told
    assert str(tmp_path / "models" / "llama-3.1-8b") in told
    assert "qwen3-4b" in told and "some/model" in told
    assert usable_folders(tmp_path)[-2:] == ["qwen3-4b", "some/model"]


@pytest.mark.parametrize(
    ("base", "code"), [("lama-3.1-8b", "H120"), ("gpt-5", "H121"), ("./nowhere", "H530")]
)
def test_a_name_that_cannot_be_a_base(base: str, code: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, MissingError)) as error:
        find_base(base, None, None, tmp_path)
    assert error.value.code == code


def test_an_incomplete_folder_is_not_used(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "models" / "qwen3-4b")
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001.safetensors").write_bytes(b"x")
    with pytest.raises(MissingError, match="model-00002"):
        find_base("qwen3-4b", None, None, tmp_path)
    assert "qwen3-4b" not in usable_folders(tmp_path)
    assert find_base("qwen3-4b", None, None, tmp_path, need_weights=False).path == folder
    (folder / "model-00002.safetensors").write_bytes(b"x")
    assert find_base("qwen3-4b", None, None, tmp_path).path == folder


def test_a_dangling_snapshot_is_incomplete(tmp_path: Path, cache: Path) -> None:
    repository = cached(cache, "meta-llama/Llama-3.1-8B", SHA, main=SHA)
    (repository / "blobs" / "abc").unlink()
    with pytest.raises(MissingError, match="incomplete"):
        find_base("llama-3.1-8b", None, None, tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"weight_map": {"a": 5}}', '{"weight_map": {"a": "../x"}}']
)
def test_a_strange_index_is_incomplete(text: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "models" / "qwen3-4b")
    (folder / "model.safetensors.index.json").write_text(text)
    assert local.missing_weights(folder)


def test_a_folder_with_code_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "models" / "qwen3-4b")
    (folder / "modeling_evil.py").write_text("")
    with pytest.raises(RefusedError) as error:
        find_base("qwen3-4b", None, None, tmp_path)
    assert error.value.code == "H441"


def test_weights_have_one_hash_over_names_and_contents(tmp_path: Path) -> None:
    one = weights_sha256(model_folder(tmp_path / "a"))
    assert one == weights_sha256(model_folder(tmp_path / "b"))
    assert one != weights_sha256(model_folder(tmp_path / "c", b"other"))
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "renamed.safetensors")
    assert one != weights_sha256(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(MissingError):
        weights_sha256(tmp_path / "a")


def test_file_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, memory = model_folder(tmp_path / "a"), tmp_path / "work" / "hashes.json"
    hashed: list[str] = []
    real = local.sha256_file

    def spy(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(local, "sha256_file", spy)
    first = weights_sha256(folder, memory)
    assert weights_sha256(folder, memory) == first
    assert len(hashed) == 1
    weights = folder / "model.safetensors"
    weights.write_bytes(b"changed")
    os.utime(weights, ns=(1, 2))
    assert weights_sha256(folder, memory) != first
    assert len(hashed) == 2
    memory.write_text("{broken")
    weights_sha256(folder, memory)
    assert len(hashed) == 3
