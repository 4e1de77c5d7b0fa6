"""Whose keys do we hold, and whose do we trust? The team's signing keys, kept outside every bundle.

The folder (`HAUSLM_KEYS`, else `~/.config/hauslm/keys`) holds `NAME.key` (private, mode 0600, encrypted
if a passphrase was given), `NAME.pub`, `keyring.json` (the keys we trust, by name) and `pins.json`
(trust on first use: which key signed a bundle of that name before). A passphrase comes from the
variable `HAUSLM_KEY_PASSPHRASE` or a prompt, never from the command line, which others can read.
A keyring file can be handed round in the team; it holds public keys alone.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauslm.base.errors import DataError, RefusedError, UsageError
from hauslm.base.files import read_json, write_json, write_sealed
from hauslm.base.words import say
from hauslm.share import sign

FOLDER_VARIABLE = "HAUSLM_KEYS"
PASSPHRASE_VARIABLE = "HAUSLM_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}\Z")


@dataclass(frozen=True)
class Known:
    """A public key under a name. `own`: the private half lies here too."""

    name: str
    fingerprint: str
    pem: str
    own: bool = False

    def row(self) -> dict[str, Any]:
        return {"name": self.name, "fingerprint": self.fingerprint, "own": self.own}


def folder() -> Path:
    """Where keys lie on this machine."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "hauslm" / "keys"


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise UsageError(
            "H740",
            say("'{name}' is not a possible name of a key.", name=name[:80]),
            next_step=say("Use letters, digits, spaces and the signs . _ @ -"),
        )
    return name


# ---------------------------------------------------------------- our own keys


def new(name: str = DEFAULT, passphrase: str | None = None) -> Known:
    """Make a key pair (ECDSA P-256). H741 if there is one of that name: it is never overwritten."""
    path = folder() / f"{_checked(name)}.key"
    if path.exists():
        raise UsageError(
            "H741",
            say("There is a key called '{name}' already.", name=name),
            where=str(path),
            next_step=say("Choose another name; a key that signed something must be kept."),
        )
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_sealed(path, pem, mode=0o600)
    public = sign.pem_of(key.public_key())
    write_sealed(path.with_suffix(".pub"), public)
    return Known(name, sign.fingerprint(key.public_key()), public.decode(), own=True)


def is_encrypted(name: str = DEFAULT) -> bool:
    """Does the private key ask for a passphrase?"""
    return b"ENCRYPTED" in _private_file(name).read_bytes()[:80]


def load(name: str = DEFAULT, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    """The private key. H742 missing, H743 others may read it, H744 wrong passphrase."""
    path = _private_file(name)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise RefusedError(
            "H743",
            say("Others on this machine may read the private key (mode {mode}).", mode=f"{mode:o}"),
            where=str(path),
            next_step=say("Run: {command}", command=f"chmod 600 {path}"),
        )
    secret = passphrase if passphrase is not None else os.environ.get(PASSPHRASE_VARIABLE)
    if not is_encrypted(name):
        secret = None  # a passphrase meant for another key is no reason to fail
    try:
        key = serialization.load_pem_private_key(
            path.read_bytes(), secret.encode() if secret else None
        )
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("not an elliptic-curve key")
    except (ValueError, TypeError) as error:
        raise RefusedError(
            "H744",
            say("The private key cannot be read: wrong or missing passphrase, or damaged."),
            where=str(path),
            next_step=say("Set {variable}, or answer the prompt.", variable=PASSPHRASE_VARIABLE),
        ) from error
    return key


def _private_file(name: str) -> Path:
    path = folder() / f"{_checked(name)}.key"
    if not path.is_file():
        raise UsageError(
            "H742",
            say("There is no key called '{name}' here.", name=name),
            where=str(folder()),
            next_step=say("Make one: hauslm keys new {name}", name=name),
        )
    return path


# ---------------------------------------------------------------- keys of others


def _own() -> list[Known]:
    return [
        Known(p.stem, sign.fingerprint(key), sign.pem_of(key).decode(), own=True)
        for p in sorted(folder().glob("*.pub"))
        for key in [_public(p.read_bytes(), p)]
    ]


def _public(pem: bytes, where: Path) -> ec.EllipticCurvePublicKey:
    try:
        return sign.public_key(pem)
    except sign.SignatureProblem as error:
        raise DataError(
            "H745", error.what, where=str(where), next_step=say("Give the .pub file of the signer.")
        ) from error


def keyring(file: Path | None = None) -> list[Known]:
    """The keys that are trusted: of `file` alone if given, else of this machine (our own included)."""
    if file is not None:
        return _read_keyring(file)
    own, path = _own(), folder() / "keyring.json"
    others = _read_keyring(path) if path.is_file() else []
    mine = {k.fingerprint for k in own}
    return own + [k for k in others if k.fingerprint not in mine]


def _read_keyring(file: Path) -> list[Known]:
    if not file.is_file():
        raise DataError(
            "H746", say("There is no such keyring file."), where=str(file),
            next_step=say("hauslm keys export FILE writes one."),
        )  # fmt: skip
    value = read_json(file)
    rows = value.get("keys") if isinstance(value, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or not {"name", "pem"} <= set(row):
            raise DataError(
                "H746", say("This is not a keyring file."), where=str(file),
                next_step=say("hauslm keys export FILE writes one."),
            )  # fmt: skip
        key = _public(str(row["pem"]).encode(), file)
        found.append(Known(str(row["name"]), sign.fingerprint(key), sign.pem_of(key).decode()))
    return found


def trust(name: str, pem: bytes, where: Path) -> Known:
    """Add a public key to this machine's keyring. H747 if the name stands for another key."""
    key = _public(pem, where)
    known = Known(_checked(name), sign.fingerprint(key), sign.pem_of(key).decode())
    present = keyring()
    for other in present:
        if other.name == name and other.fingerprint != known.fingerprint:
            raise RefusedError(
                "H747",
                say(
                    "'{name}' stands for another key already ({fingerprint}).",
                    name=name,
                    fingerprint=other.fingerprint[:16],
                ),
                where=str(where),
                next_step=say("Ask the signer in person which key is right, then choose a name."),
            )
    path = folder() / "keyring.json"
    rows = [k for k in (_read_keyring(path) if path.is_file() else []) if k.name != name]
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(path, _keyring_file([*rows, known]))
    return known


def export(file: Path) -> list[Known]:
    """Write a keyring file for the team: every trusted key, our own included, public halves only."""
    present = keyring()
    write_json(file, _keyring_file(present))
    return present


def _keyring_file(keys: list[Known]) -> dict[str, Any]:
    return {"keys": [{"name": k.name, "fingerprint": k.fingerprint, "pem": k.pem} for k in keys]}


# ---------------------------------------------------------------- trust on first use


def pinned(bundle_name: str) -> str:
    """Fingerprint of the key that signed a bundle of this name when it was first seen; '' if none."""
    path = folder() / "pins.json"
    if not path.is_file():
        return ""
    pins = read_json(path)
    value = pins.get(bundle_name, "") if isinstance(pins, dict) else ""
    return str(value)


def pin(bundle_name: str, fingerprint: str) -> None:
    """Remember who signed a bundle of this name."""
    path = folder() / "pins.json"
    pins = read_json(path) if path.is_file() else {}
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(path, dict(pins) | {bundle_name: fingerprint})


__all__ = [
    "Known",
    "export",
    "folder",
    "is_encrypted",
    "keyring",
    "load",
    "new",
    "pin",
    "pinned",
    "trust",
]
