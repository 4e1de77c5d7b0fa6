"""How does a bundle lie in an OCI store? One artifact under a tag, in the image layout that registries copy.

The layout is a plain folder (oci-layout, index.json, blobs/sha256/...): it needs no network and no
registry, and `skopeo copy oci:DIR:TAG docker://HOST/NAME:TAG` or `oras copy --from-oci-layout` brings it to one.
The bundle is one layer, byte for byte, so that what comes back verifies. The same bundle gives the
same blobs; other tags of the store stay.

Source: OCI image-spec v1.1, image-layout.md, manifest.md ("Guidelines for artifact usage").
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, UsageError
from hauslm.base.files import canonical_json, sha256_file, write_sealed
from hauslm.base.words import say
from hauslm.share.verify import verify

TYPE = "application/vnd.hauslm.bundle.v2"
LAYER = "application/vnd.hauslm.bundle.v2+zip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
TAG = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
_TAG = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z"
)  # distribution-spec v1.1, "Pulling manifests"


def put(bundle: Path, store: Path, tag: str) -> dict[str, Any]:
    """Put the verified bundle into the layout `store` under `tag`; the folder is made where absent.

    H778: a tag that registries refuse, H776: the folder is something else, H777: a folder instead of a file.
    """
    if not _TAG.match(tag):
        raise UsageError(
            "H778",
            say("'{tag}' is not a possible tag.", tag=tag[:80]),
            next_step=say("Use letters, digits and the signs . _ - (at most 128)."),
        )
    if not bundle.is_file():
        raise DataError(
            "H777",
            say("An OCI store takes the bundle as one file."),
            where=str(bundle),
            next_step=say("Name the .hlm file."),
        )
    index = _index(store)
    result = verify(bundle)
    layer = _file_blob(store, bundle) | {"annotations": {TITLE: bundle.name}}
    config = _blob(store, b"{}", EMPTY)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": TYPE,
        "config": config | {"data": "e30="},
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": str(result["manifest"]["name"]),
            "org.opencontainers.image.base.name": str(result["manifest"]["base"]["id"]),
        },
    }
    described = _blob(store, canonical_json(manifest), MANIFEST) | {
        "artifactType": TYPE,
        "annotations": {TAG: tag},
    }
    kept = [m for m in index["manifests"] if m.get("annotations", {}).get(TAG) != tag]
    index["manifests"] = [*kept, described]
    if not (store / "oci-layout").is_file():
        write_sealed(store / "oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"}))
    write_sealed(store / "index.json", canonical_json(index))  # last: what it names is there
    return {
        "path": str(store),
        "tag": tag,
        "digest": described["digest"],
        "checks": result["checks"],
        "notes": [
            say(
                "To a registry: {command}",
                command=f"skopeo copy oci:{store}:{tag} docker://HOST/NAME:{tag}",
            ).text()
        ],
    }


def _index(store: Path) -> dict[str, Any]:
    """The store's index; a new one for an empty or absent folder."""
    path = store / "index.json"
    if not store.exists() or (store.is_dir() and not any(store.iterdir())):
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        layout = json.loads((store / "oci-layout").read_text(encoding="utf-8"))
        if layout["imageLayoutVersion"] != "1.0.0" or not isinstance(value["manifests"], list):
            raise ValueError("another layout")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "H776",
            say("This folder is no OCI image layout."),
            where=str(store),
            next_step=say("Name another folder, or empty this one."),
        ) from error
    found: dict[str, Any] = value
    return found


def _blob(store: Path, data: bytes, media_type: str) -> dict[str, Any]:
    """A blob and its descriptor."""
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    path = store / "blobs" / "sha256" / digest
    if not path.is_file():
        write_sealed(path, data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _file_blob(store: Path, file: Path) -> dict[str, Any]:
    """The bundle as a blob; an equal one that lies there already is checked, not trusted."""
    import shutil

    digest = sha256_file(file)
    path = store / "blobs" / "sha256" / digest
    if not path.is_file() or sha256_file(path) != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{digest}.new")
        shutil.copyfile(file, staged)
        staged.replace(path)
    return {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": file.stat().st_size}
