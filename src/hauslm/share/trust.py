"""Do we know who signed this? The team's keyring, else trust on first use; never silently less.

A signature that holds proves that whoever has the key made these files. Whose key it is, the machine
cannot know: it is in the keyring, or it is remembered on first sight with its fingerprint for a person
to compare. From then on a bundle of that name with another key, or with none, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import Sentence, say
from hauslm.share import keys


@dataclass(frozen=True)
class Signature:
    """A signature that holds: the key's fingerprint (sha256 of its PEM text) and PEM text."""

    fingerprint: str
    pem: bytes


@dataclass(frozen=True)
class Judged:
    """`state`: none (unsigned), trusted (in the keyring), first_use, known (seen before)."""

    state: str
    said: Sentence
    signer: str = ""
    fingerprint: str = ""

    def record(self) -> dict[str, Any]:
        return {"state": self.state, "signer": self.signer, "fingerprint": self.fingerprint}


def judge(
    name: str,
    signature: Signature | None,
    path: Path,
    *,
    keyring: Path | None = None,
    remember: bool = False,
) -> Judged:
    """Whether the signer of the bundle `name` is one we know. H749 if it is another than before."""
    pinned = keys.pinned(name)
    if signature is None:
        if keyring is not None or pinned:
            raise _refused(say("The bundle is not signed, and a signature is expected here."), path)
        return Judged("none", say("signature: none, the origin is not proven"))
    mark = signature.fingerprint
    trusted = next((k for k in keys.keyring(keyring) if k.fingerprint == mark), None)
    if trusted is None and keyring is not None:
        raise _refused(
            say("The signer ({fingerprint}) is not in the keyring.", fingerprint=mark[:16]), path
        )
    if trusted is not None:
        said = say(
            "signature: holds, by {name} (key {fingerprint})",
            name=trusted.name,
            fingerprint=mark[:16],
        )
        return Judged("trusted", said, trusted.name, mark)
    if pinned and pinned != mark:
        raise _refused(
            say(
                "A bundle of this name was signed by another key before ({old}, now {new}).",
                old=pinned[:16],
                new=mark[:16],
            ),
            path,
        )
    if pinned:
        return Judged(
            "known",
            say("signature: holds, same key as before ({fingerprint})", fingerprint=mark[:16]),
            fingerprint=mark,
        )
    if remember:
        keys.pin(name, mark)
    return Judged(
        "first_use",
        say(
            "signature: holds, by a key seen for the first time; compare with the sender: {fingerprint}",
            fingerprint=mark,
        ),
        fingerprint=mark,
    )


def _refused(what: Sentence, path: Path) -> RefusedError:
    return RefusedError(
        "H749",
        what,
        where=str(path),
        next_step=say(
            "Ask the sender in person for the fingerprint; hauslm keys trust NAME FILE accepts a key."
        ),
    )
