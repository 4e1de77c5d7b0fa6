"""Signatures: the same bytes twice, understood by model-signing and it by us, and no byte unaccounted for."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hauslm.base.errors import HauslmError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder, sha256_bytes
from hauslm.scenario import Scenario
from hauslm.share import archive, keyring, keys, sign
from hauslm.share.bundle import bundle, unpack
from hauslm.share.verify import verify
from tests.share.making import adapter, records


@pytest.fixture
def signed(project: ProjectFolder) -> Path:
    if not (keys.folder() / "default.key").exists():
        keys.new()
    run, corpus = records(project)
    record = bundle(
        Scenario(name="terms"), project, run=run, corpus=corpus, evaluation=None, sign="default"
    )
    assert record.signature["kind"] == "openssf"
    return project.root / record.path


def test_the_private_key_is_for_its_owner_alone_and_no_part_of_the_bundle(signed: Path) -> None:
    private = keys.folder() / "default.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in signed.read_bytes()
    private.chmod(0o640)
    with pytest.raises(RefusedError, match="H743"):
        keys.load()


def test_a_key_is_never_overwritten_and_a_passphrase_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys.new("team", passphrase="correct horse")
    with pytest.raises(UsageError, match="H741"):
        keys.new("team")
    assert keys.is_encrypted("team")
    for wrong in (None, "battery"):
        with pytest.raises(RefusedError, match="H744"):
            keys.load("team", wrong)
    assert keys.load("team", "correct horse").curve.name == "secp256r1"
    monkeypatch.setenv("HAUSLM_KEY_PASSPHRASE", "correct horse")
    assert keys.load("team").curve.name == "secp256r1"


def test_a_signed_bundle_is_the_same_bytes_twice(project: ProjectFolder, signed: Path) -> None:
    """ECDSA is deterministic here (RFC 6979), so not even the signature differs."""
    first = signed.read_bytes()
    run, corpus = records(project)
    again = {"run": run, "corpus": corpus, "evaluation": None}
    bundle(Scenario(name="terms"), project, sign="default", **again)
    assert signed.read_bytes() == first
    assert verify(signed)["signature"] == {
        "state": "trusted", "signer": "default", "fingerprint": keys.keyring()[0].fingerprint,
    }  # fmt: skip


def _elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on it is the machine of somebody who has never seen our key."""
    monkeypatch.setenv("HAUSLM_KEYS", str(folder))


def _by_another(signed: Path, target: Path, *, strip: bool = False) -> Path:
    """The same bundle signed by a second key, or with no signature at all."""
    import zipfile

    with zipfile.ZipFile(signed) as opened:
        entries = {i.filename: opened.read(i) for i in opened.infolist()}
    entries.pop(sign.SIGNATURE)
    manifest = json.loads(entries.pop("manifest.json"))
    if strip:
        entries.pop(sign.PUBLIC_KEY)
    else:
        keys.new("mallory")
        entries[sign.PUBLIC_KEY] = sign.pem_of(keys.load("mallory").public_key())
    manifest["files"] = {n: sha256_bytes(b) for n, b in entries.items()}
    entries["manifest.json"] = json.dumps(manifest).encode()
    if not strip:
        hashes = {n: sha256_bytes(b) for n, b in entries.items()}
        entries[sign.SIGNATURE] = sign.sign(hashes, "terms", keys.load("mallory"))
    target.write_bytes(archive.write(entries))
    return target


def test_trust_on_first_use(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _by_another(signed, tmp_path / "other.hlm")
    naked = _by_another(signed, tmp_path / "naked.hlm", strip=True)
    _elsewhere(monkeypatch, tmp_path / "stranger")
    assert verify(naked)["signature"]["state"] == "none"
    assert verify(signed)["signature"]["state"] == "first_use"  # looking alone remembers nothing
    assert verify(signed, remember=True)["signature"]["state"] == "first_use"
    assert verify(signed)["signature"]["state"] == "known"
    for impostor in (other, naked):  # another key, and the signature taken away
        with pytest.raises(RefusedError, match="H749"):
            verify(impostor)
    keyring.answer("trust", name="mallory", file=str(_public(tmp_path, "mallory", monkeypatch)))
    assert verify(other)["signature"]["signer"] == "mallory"


def _public(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    return tmp_path / "keys" / f"{name}.pub"


def test_a_team_keyring_counts_alone(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = tmp_path / "ring.json"
    keyring.answer("export", file=str(ring))
    assert "PRIVATE" not in ring.read_text()
    other = _by_another(signed, tmp_path / "other.hlm")
    naked = _by_another(signed, tmp_path / "naked.hlm", strip=True)
    _elsewhere(monkeypatch, tmp_path / "stranger")
    assert verify(signed, keyring=ring)["signature"]["signer"] == "default"
    for refused in (other, naked):
        with pytest.raises(RefusedError, match="H749"):
            verify(refused, keyring=ring)


def test_trusting_takes_the_key_out_of_a_bundle_and_a_name_stands_for_one_key(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _by_another(signed, tmp_path / "other.hlm")
    _elsewhere(monkeypatch, tmp_path / "stranger")
    row = keyring.answer("trust", name="Anna", file=str(signed))
    assert verify(signed)["signature"]["signer"] == "Anna"
    assert [k["fingerprint"] for k in keyring.answer("list")] == [row["fingerprint"]]
    with pytest.raises(RefusedError, match="H747"):
        keyring.answer("trust", name="Anna", file=str(other))
    assert "PUBLIC KEY" in keyring.answer("show", name="Anna")["public_key"]


FORGED: dict[str, Callable[[dict[str, object]], None]] = {
    "a key of another name": lambda s: s["verificationMaterial"]["publicKey"].update(hint="0" * 64),  # type: ignore[index]
    "a key id": lambda s: s["dsseEnvelope"]["signatures"][0].update(keyid="x"),  # type: ignore[index]
    "a log entry": lambda s: s["verificationMaterial"].update(tlogEntries=[{}]),  # type: ignore[attr-defined]
    "two signatures": lambda s: s["dsseEnvelope"]["signatures"].append(s["dsseEnvelope"]["signatures"][0]),  # type: ignore[index]
    "no signature": lambda s: s["dsseEnvelope"].update(signatures=[]),  # type: ignore[attr-defined]
    "another payload type": lambda s: s["dsseEnvelope"].update(payloadType="text/plain"),  # type: ignore[attr-defined]
    "another media type": lambda s: s.update(mediaType="application/json"),
    "an extra key": lambda s: s.update(more=1),
    "payload is no base64": lambda s: s["dsseEnvelope"].update(payload="*"),  # type: ignore[attr-defined]
    "payload of others": lambda s: s["dsseEnvelope"].update(payload="e30="),  # type: ignore[attr-defined]
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(FORGED))
def test_forged_signature_files_are_refused(case: str, signed: Path, tmp_path: Path) -> None:
    folder = unpack(signed, tmp_path / "out")
    file = folder / sign.SIGNATURE
    value = json.loads(file.read_bytes())
    FORGED[case](value)
    file.write_bytes(json.dumps(value, separators=(",", ":")).encode())
    with pytest.raises(RefusedError, match="H748"):
        verify(folder)


def test_another_spelling_of_the_same_signature_file_is_refused(
    signed: Path, tmp_path: Path
) -> None:
    folder = unpack(signed, tmp_path / "out")
    file = folder / sign.SIGNATURE
    file.write_bytes(json.dumps(json.loads(file.read_bytes()), indent=1).encode())
    with pytest.raises(RefusedError, match="H748"):
        verify(folder)


@pytest.mark.parametrize("name", [".gitignore", ".git/evil.txt", "more.txt"])
def test_a_file_that_the_signature_does_not_list_is_refused(
    name: str, signed: Path, tmp_path: Path
) -> None:
    folder = unpack(signed, tmp_path / "out")
    assert verify(folder)["kind"] == "folder"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(RefusedError, match="H748"):
        verify(folder)


# ---------------------------------------------------------------- the other tool

needs_model_signing = pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None,
    reason="model-signing is not installed (pip install 'hauslm[interop]')",
)


def _model_signing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=dict(os.environ),
    )


@needs_model_signing
def test_what_we_sign_model_signing_verifies(signed: Path, tmp_path: Path) -> None:
    folder = unpack(signed, tmp_path / "out")
    arguments = (
        "verify", "key", str(folder), "--signature", str(folder / sign.SIGNATURE),
        "--public_key", str(keys.folder() / "default.pub"),
    )  # fmt: skip
    assert "succeeded" in _model_signing(*arguments).stdout
    (folder / "README.md").write_text("changed")
    assert _model_signing(*arguments).returncode != 0


@needs_model_signing
def test_what_model_signing_signs_we_verify_and_refuse_what_it_passes_over(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "theirs")
    keys.new()
    done = _model_signing(
        "sign", "key", str(folder), "--signature", str(folder / "model.sig"),
        "--private_key", str(keys.folder() / "default.key"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert verify(folder, key=keys.folder() / "default.pub")["signature"]["state"] == "trusted"
    assert verify(folder)["signature"]["signer"] == "default"  # known by its fingerprint
    keys.new("other")
    with pytest.raises(RefusedError, match="H748"):
        verify(folder, key=keys.folder() / "other.pub")
    (folder / ".gitignore").write_text("planted")
    check = _model_signing(
        "verify", "key", str(folder), "--signature", str(folder / "model.sig"),
        "--public_key", str(keys.folder() / "default.pub"),
    )  # fmt: skip
    assert check.returncode == 0  # model-signing passes over git's files; that is why we do not
    with pytest.raises(RefusedError, match="H748"):
        verify(folder)


# ---------------------------------------------------------------- one byte


def _flips(raw: bytes, positions: range | list[int], target: Path) -> list[int]:
    """Positions at which a changed byte went unnoticed."""
    accepted = []
    for position in positions:
        damaged = bytearray(raw)
        damaged[position] ^= 0x55 if position % 2 else 0x01
        target.write_bytes(damaged)
        try:
            verify(target)
        except HauslmError:
            continue
        accepted.append(position)
    return accepted


def test_flipping_a_byte_is_detected(signed: Path, tmp_path: Path) -> None:
    """Every 61st byte, and every fifth of the signature; all of them in the slow test below."""
    raw = signed.read_bytes()
    begin = raw.index(b'{"mediaType"')
    end = raw.index(b'"keyid":""}]}}', begin) + 14
    positions = [*range(0, len(raw), 61), *range(begin, end, 5)]
    assert _flips(raw, positions, tmp_path / "f.hlm") == []


@pytest.mark.slow
def test_flipping_any_one_byte_is_detected(signed: Path, tmp_path: Path) -> None:
    """Exhaustive: every byte of a small signed bundle."""
    raw = signed.read_bytes()
    assert _flips(raw, range(len(raw)), tmp_path / "f.hlm") == []
