"""Who made these files? A signature over the sha256 of every one, in the OpenSSF model-signing format.

What is written is what `model_signing sign key` writes: a sigstore bundle v0.3 (JSON) around a DSSE
envelope around an in-toto statement v1 whose predicate lists every file; `model_signing verify key`
accepts it, and its signatures are accepted here. Two things differ on purpose. ECDSA is made
deterministic (RFC 6979), so the same files and the same key give the same bytes. And the reader is
strict: every byte of the signature file is accounted for, and a file that the signature does not list
is refused, `.git` and `ignore_paths` included (that package passes over both).

Formats: github.com/sigstore/model-transparency (1.1), github.com/secure-systems-lab/dsse/protocol.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hauslm.base.words import Sentence, say

SIGNATURE = "hauslm.sig"
PUBLIC_KEY = "signer.pub"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_SIGNATURE_BYTES = 4 << 20
MAX_SIGNED_FILES = 4096
# What the curve calls for, as sigstore's key details say (PKIX_ECDSA_P256_SHA_256 and so on).
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


class SignatureProblem(Exception):
    """Why a signature does not hold, as a sentence for the reader."""

    def __init__(self, what: Sentence) -> None:
        super().__init__(what.text("en"))
        self.what = what


def pem_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 (hex) of the public key's PEM text: the `hint` of the format, so both tools agree."""
    return hashlib.sha256(pem_of(key)).hexdigest()


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a PEM text; SignatureProblem if it is not an elliptic-curve key of the format."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnicodeError) as error:
        raise SignatureProblem(say("This is not a public key in PEM form.")) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise SignatureProblem(say("The key is not of a supported kind (ECDSA P-256, 384, 521)."))
    return key


# ---------------------------------------------------------------- signing


def sign(files: Mapping[str, str], name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The signature file over `files` (name -> sha256 in hex). Same input and key: same bytes."""
    payload = json.dumps(_statement(files, name), ensure_ascii=False, indent=2).encode()
    algorithm = _HASHES[key.curve.name]()
    made = key.sign(_pae(payload), ec.ECDSA(algorithm, deterministic_signing=True))
    return _compact(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": fingerprint(key.public_key())},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
            },
        }
    )


def _statement(files: Mapping[str, str], name: str) -> dict[str, Any]:
    ordered = sorted(files)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(files[n] for n in ordered)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": [{"name": n, "digest": files[n], "algorithm": "sha256"} for n in ordered],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
        },
    }


def _root(digests: Any) -> str:
    """The subject's digest: sha256 over the raw digests of the files in order."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# ---------------------------------------------------------------- reading


def hint_of(raw: bytes) -> str:
    """The fingerprint of the key that is said to have signed; nothing is proven yet."""
    return _parts(raw)[0]


def verify(raw: bytes, key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """File name -> sha256 as signed with `key`. SignatureProblem if anything is not as it should be."""
    hint, payload, made = _parts(raw)
    if hint != fingerprint(key):
        raise SignatureProblem(say("The signature was made with another key."))
    try:
        key.verify(made, _pae(payload), ec.ECDSA(_HASHES[key.curve.name]()))
    except InvalidSignature as error:
        raise SignatureProblem(say("The signature does not hold.")) from error
    return _files_of(payload)


def _parts(raw: bytes) -> tuple[str, bytes, bytes]:
    """(hint, payload, signature) of a signature file in which every byte is accounted for."""
    broken = SignatureProblem(say("The signature file does not have the form of the standard."))
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise broken
    try:
        value = json.loads(raw)
        material, envelope = value["verificationMaterial"], value["dsseEnvelope"]
        hint, (signature,) = material["publicKey"]["hint"], envelope["signatures"]
        wanted = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": envelope["payload"],
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": signature["sig"], "keyid": ""}],
            },
        }
        payload, made = _base64(envelope["payload"]), _base64(signature["sig"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise broken from error
    # Equal as values, and no other spelling of them: no room for a hidden byte.
    if value != wanted or _compact(value) != raw or not isinstance(hint, str):
        raise broken
    return hint, payload, made


def _base64(text: str) -> bytes:
    """Strict base64: one text for one value (ValueError otherwise)."""
    raw = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(raw).decode() != text:
        raise binascii.Error("not canonical")
    return raw


def _files_of(payload: bytes) -> dict[str, str]:
    broken = SignatureProblem(say("What was signed is not a list of files."))
    try:
        statement = json.loads(payload)
        (subject,) = statement["subject"]
        rows = statement["predicate"]["resources"]
        method = statement["predicate"]["serialization"]
        sound = (
            statement["_type"] == STATEMENT_TYPE
            and statement["predicateType"] == PREDICATE_TYPE
            and (method["method"], method["hash_type"]) == ("files", "sha256")
            and all(set(r) == {"name", "digest", "algorithm"} for r in rows)
            and all(r["algorithm"] == "sha256" for r in rows)
            and all(isinstance(r["name"], str) for r in rows)
            and subject["digest"] == {"sha256": _root(r["digest"] for r in rows)}
        )
        files = {r["name"]: r["digest"] for r in rows}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise broken from error
    if not sound or not 0 < len(rows) == len(files) <= MAX_SIGNED_FILES:
        raise broken
    return files
