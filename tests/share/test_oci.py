"""An OCI store: the bundle comes back byte for byte, other tags stay, and skopeo reads the layout."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.share import oci
from hauslm.share.bundle import bundle
from hauslm.share.verify import verify
from tests.share.making import records


def layer_of(store: Path, tag: str) -> Path:
    """The bundle under a tag, found as a registry client finds it."""
    index = json.loads((store / "index.json").read_text())
    (entry,) = [m for m in index["manifests"] if m["annotations"][oci.TAG] == tag]
    manifest = json.loads(_blob(store, entry).read_text())
    assert manifest["artifactType"] == oci.TYPE
    (layer,) = manifest["layers"]
    return _blob(store, layer)


def _blob(store: Path, described: dict[str, object]) -> Path:
    kind, digest = str(described["digest"]).split(":")
    path = store / "blobs" / kind / digest
    assert sha256_file(path) == digest
    assert path.stat().st_size == described["size"]
    return path


def test_the_bundle_lies_in_the_store_byte_for_byte(packed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = oci.put(packed, store, "v1")
    assert layer_of(store, "v1").read_bytes() == packed.read_bytes()
    assert verify(layer_of(store, "v1"))["manifest"]["name"] == "terms"
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    again = oci.put(packed, store, "v1")
    assert again["digest"] == first["digest"]
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_tags_stand_beside_each_other(packed: Path, project: ProjectFolder, tmp_path: Path) -> None:
    store, old = tmp_path / "store", packed.read_bytes()
    oci.put(packed, store, "v1")
    run, corpus = records(project)
    other: Run = run.model_copy(update={"steps": 2})
    bundle(Scenario(name="terms"), project, run=other, corpus=corpus, evaluation=None)
    oci.put(packed, store, "v2")
    assert layer_of(store, "v1").read_bytes() == old
    assert layer_of(store, "v2").read_bytes() == packed.read_bytes() != old
    oci.put(packed, store, "v1")  # a tag moves
    assert layer_of(store, "v1") == layer_of(store, "v2")


def test_a_damaged_blob_is_written_again(packed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    oci.put(packed, store, "v1")
    layer_of(store, "v1").write_bytes(b"x")
    oci.put(packed, store, "v1")
    assert layer_of(store, "v1").read_bytes() == packed.read_bytes()


def test_refusals(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="H778"):
        oci.put(packed, tmp_path / "store", "a tag")
    with pytest.raises(DataError, match="H777"):
        oci.put(tmp_path, tmp_path / "store", "v1")
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="H776"):
        oci.put(packed, other, "v1")
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(RefusedError):
        oci.put(packed, tmp_path / "store", "v1")
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_copies_it(packed: Path, tmp_path: Path) -> None:
    oci.put(packed, tmp_path / "store", "v1")
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci:{tmp_path / 'store'}:v1", f"oci:{tmp_path / 'copy'}:v1"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert layer_of(tmp_path / "copy", "v1").read_bytes() == packed.read_bytes()
