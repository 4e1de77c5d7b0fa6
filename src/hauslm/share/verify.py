"""May this bundle or adapter folder be loaded? Structure, signature, hashes, schema, tensors, base, licence.

The order is from cheap to dear, and nothing is loaded before all of it passed. Each refusal says which
check failed. A plain PEFT folder has no manifest: it is checked for safety, and the answer says that
its origin is not proven.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, RefusedError
from hauslm.base.words import Sentence, say
from hauslm.lm.checks import adapter_config_problem
from hauslm.share import archive, contents, sign, tensors
from hauslm.share.source import FolderSource, Source, opened, read, sha256
from hauslm.share.trust import Signature, judge

FORMAT = "hauslm-bundle/2"
MANIFEST = "manifest.json"
FOREIGN_SIGNATURE = "model.sig"  # the name that model-signing itself proposes
_MANIFEST_KEYS = {
    "format": str, "name": str, "base": dict, "template_sha256": str, "data_fingerprint": str,
    "rights": dict, "licence": dict, "evaluated": bool, "memorisation_passed": bool,
    "reports": list, "files": dict,
}  # fmt: skip
_PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".so")


def verify(
    path: Path,
    *,
    base: Path | None = None,
    keyring: Path | None = None,
    key: Path | None = None,
    remember: bool = False,
) -> dict[str, Any]:
    """The checks that passed, in order, the manifest and the signature. RefusedError with the reason.

    `base` is the base model's folder; without it, shapes are checked against the adapter's own
    configuration only, and the answer says so. `keyring`: only keys in this file are trusted, and an
    unsigned bundle is refused. `key`: a public key for a signature that does not bring its own.
    `remember`: keep in mind who signed a bundle of this name (trust on first use).
    """
    config = _base_config(base) if base is not None else None
    with opened(path) as source:
        if _is_sealed(source):
            result = _sealed(source, config, base, keyring, key, remember)
        else:
            result = _plain_folder(source, config, keyring, key)
    result["kind"] = "folder" if path.is_dir() else "bundle"
    if base is None:
        result["checks"].append(
            say("widths, layers and hash of the base: not compared, no base model given").text()
        )
    result["path"] = str(path)
    return result


def _base_config(base: Path) -> dict[str, Any]:
    file = base / "config.json"
    if not file.is_file():
        raise DataError(
            "H707", say("This is no base model: config.json is missing."), where=str(base),
            next_step=say("Give the folder of the base model."),
        )  # fmt: skip
    return _json_object(file.read_bytes(), "config.json", file)


def _json_object(raw: bytes, name: str, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise archive.refused("H704", say("{file} is not valid JSON.", file=name), where) from error
    if not isinstance(value, dict):
        raise archive.refused("H704", say("{file} is not a JSON object.", file=name), where)
    return value


def _refuse(code: str, problem: Sentence | None, path: Path) -> None:
    if problem is not None:
        raise archive.refused(code, problem, path)


def _is_sealed(source: Source) -> bool:
    """A bundle, or the folder that one was unpacked to: every file in it is accounted for."""
    return (
        not isinstance(source, FolderSource)
        or sign.SIGNATURE in source.names()
        or (MANIFEST in source.names() and FORMAT.encode() in read(source, MANIFEST)[:65536])
    )


# ---------------------------------------------------------------- bundles


def _sealed(
    source: Source, config: dict[str, Any] | None, base: Path | None,
    keyring: Path | None, key: Path | None, remember: bool,
) -> dict[str, Any]:  # fmt: skip
    path, checks = source.path, []
    checks.append(
        say("structure: {count} entries, nothing hidden", count=len(source.names())).text()
    )
    manifest = _manifest(source)
    digests = {n: sha256(source, n) for n in source.names()}
    signature = _signature(source, digests, sign.SIGNATURE, key)
    judged = judge(manifest["name"], signature, path, keyring=keyring, remember=remember)
    checks.append(judged.said.text())
    _hashes(digests, manifest, path)
    checks.append(say("manifest: complete").text())
    checks.append(say("hashes: every entry is as it was packed, none is unlisted").text())
    checks += _adapter(source, config)
    if base is not None:
        checks.append(_same_base(manifest, base, path).text())
    checks += contents.check(source, manifest, digests)
    return {"checks": checks, "manifest": manifest, "signature": judged.record()}


def _adapter(source: Source, base: dict[str, Any] | None) -> list[str]:
    """The configuration and the tensors, against each other and the base. H705, H712, H713."""
    name = "adapter_config.json"
    config = _json_object(read(source, name), name, source.path)
    _refuse("H712", adapter_config_problem(config), source.path)
    if archive.TENSORS not in source.names():
        raise archive.refused("H705", say("{file} is missing.", file=archive.TENSORS), source.path)
    with source.stream(archive.TENSORS) as stream:
        problem = tensors.problem(stream, source.size(archive.TENSORS), config, base)
    _refuse("H713", problem, source.path)
    return [
        say("configuration: plain LoRA, rank {rank}", rank=config.get("r")).text(),
        say("tensors: complete, right shapes, all finite").text(),
    ]


def _manifest(source: Source) -> dict[str, Any]:
    manifest = _json_object(read(source, MANIFEST), MANIFEST, source.path)
    sound = set(manifest) == set(_MANIFEST_KEYS) and all(
        isinstance(manifest[k], kind) for k, kind in _MANIFEST_KEYS.items()
    )
    if not sound or manifest["format"] != FORMAT:
        raise archive.refused(
            "H708", say("The manifest does not have the form {form}.", form=FORMAT), source.path
        )
    return manifest


def _hashes(digests: dict[str, str], manifest: dict[str, Any], path: Path) -> None:
    listed = manifest["files"]
    present = set(digests) - {MANIFEST, sign.SIGNATURE}
    for name in sorted(present - set(listed)):
        raise archive.refused(
            "H709", say("The entry '{name}' is not in the manifest.", name=name[:80]), path
        )
    for name, expected in sorted(listed.items()):
        if name not in present:
            raise archive.refused("H705", say("{file} is missing.", file=str(name)[:80]), path)
        if digests[name] != expected:
            raise archive.refused(
                "H706", say("{file} does not have the hash of the manifest.", file=name), path
            )


def _same_base(manifest: dict[str, Any], base: Path, path: Path) -> Sentence:
    from hauslm.catalog.local import weights_sha256

    if not any(base.glob("*.safetensors")):
        return say("base: widths and layers fit; no weights there, so their hash was not compared")
    wanted = manifest["base"].get("sha256", "")
    found = weights_sha256(base)
    tokens = manifest["base"].get("added_tokens") or []
    if wanted != found and tokens:
        return _same_longer_base(str(wanted), base, tokens, path)
    if wanted != found:
        raise archive.refused(
            "H717",
            say(
                "The adapter was trained on other base weights (expected {old}, found {new}).",
                old=str(wanted)[:12] or "–",
                new=found[:12],
            ),
            path,
        )
    return say("base: the weights that the adapter was trained on")


def _same_longer_base(wanted: str, base: Path, tokens: Any, path: Path) -> Sentence:
    """The adapter learned on the base with added tokens: made again from this base, is it the same?"""
    import tempfile

    from hauslm.catalog.added import extended
    from hauslm.catalog.local import weights_sha256

    if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
        raise archive.refused("H717", say("The manifest names added tokens that are none."), path)
    with tempfile.TemporaryDirectory(prefix="hauslm-verify-") as made:
        found = weights_sha256(extended(base, tokens, Path(made)).path)
    if found != wanted:
        raise archive.refused(
            "H717",
            say(
                "The adapter was trained on other base weights (expected {old}, found {new}).",
                old=wanted[:12],
                new=found[:12],
            ),
            path,
        )
    return say(
        "base: with the {n:,} added tokens of the manifest, the weights that the adapter was trained on",
        n=len(tokens),
    )


# ---------------------------------------------------------------- signatures


def _signature(
    source: Source, digests: dict[str, str], name: str, key: Path | None
) -> Signature | None:
    """Who signed exactly these files; None if nobody did. H748 if a signature does not hold."""
    if name not in digests:
        return None
    try:
        raw = read(source, name)
        pem = key.read_bytes() if key is not None else _public_key(source, sign.hint_of(raw))
        public = sign.public_key(pem)
        signed = sign.verify(raw, public)
    except sign.SignatureProblem as error:
        raise archive.refused("H748", error.what, source.path) from error
    except OSError as error:
        raise DataError(
            "H745", say("This is not a public key in PEM form."), where=str(key),
            next_step=say("Give the .pub file of the signer."),
        ) from error  # fmt: skip
    present = {n: d for n, d in digests.items() if n != name}
    for file in sorted(set(present) ^ set(signed)):
        what = (
            say("'{file}' is not covered by the signature.", file=file[:80])
            if file in present
            else say("'{file}' was signed and is missing.", file=file[:80])
        )
        raise archive.refused("H748", what, source.path)
    for file, digest in sorted(signed.items()):
        if present[file] != digest:
            raise archive.refused(
                "H748", say("'{file}' was changed after signing.", file=file), source.path
            )
    return Signature(sign.fingerprint(public), pem)


def _public_key(source: Source, hint: str) -> bytes:
    """The signer's public key: from the bundle, or one that we know by its fingerprint."""
    from hauslm.share import keys

    if sign.PUBLIC_KEY in source.names():
        return read(source, sign.PUBLIC_KEY)
    for known in keys.keyring():
        if known.fingerprint == hint:
            return known.pem.encode()
    raise sign.SignatureProblem(
        say(
            "The signature is by a key that is not here ({fingerprint}); give it with --key.",
            fingerprint=hint[:16],
        )
    )


# ---------------------------------------------------------------- plain PEFT folders


def _plain_folder(
    source: Source, base: dict[str, Any] | None, keyring: Path | None, key: Path | None
) -> dict[str, Any]:
    """A plain PEFT folder, made by hauslm or elsewhere; signed with model-signing, perhaps."""
    for name in source.names():
        if "/" not in name and Path(name).suffix in _PICKLE:
            raise archive.refused(
                "H716", say("{file} could run code when loaded.", file=name), source.path
            )
    for name in ("adapter_config.json", archive.TENSORS):
        if name not in source.names():
            raise archive.refused("H705", say("{file} is missing.", file=name), source.path)
    signature = None
    if FOREIGN_SIGNATURE in source.names():
        digests = {n: sha256(source, n) for n in source.names()}
        signature = _signature(source, digests, FOREIGN_SIGNATURE, key)
    judged = judge(source.path.resolve().name, signature, source.path, keyring=keyring)
    checks = _adapter(source, base)
    if signature is None:
        checks.append(say("manifest: none, hashes and origin are not proven").text())
    else:
        checks.append(judged.said.text())
    return {"checks": checks, "manifest": None, "signature": judged.record()}


__all__ = ["RefusedError", "verify"]
