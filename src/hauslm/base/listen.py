"""Where may a server listen? On this machine; elsewhere only if asked for by name, and encrypted.

`serve` and `web` answer whoever holds their random token. On 127.0.0.1 that is enough. Any other address
is reached over a wire, where a token and documents can be read on the way, so three things are needed:
`--allow-network` (nobody opens a port by a slip), the token (never optional), and TLS. The names under
which such a server may be called are those of its certificate (against DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import Sentence, say

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate and its key (PEM files that were looked at), and the names it is for."""

    cert: Path
    key: Path
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """An address to bind; `names` are the host names under which requests may come."""

    host: str
    tls: Tls | None
    names: tuple[str, ...]

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    def url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Is it this machine only? `host` without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def place(
    host: str,
    *,
    allow_network: bool = False,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Place:
    """`host` as an address to bind, checked before anything listens.

    H112 where another address than this machine's lacks `--allow-network` or TLS, or is no address;
    H113 where certificate and key do not make a pair; H413 where others can read the key.
    """
    name = host.strip().removeprefix("[").removesuffix("]")
    name = "127.0.0.1" if name.lower() == "localhost" else name
    local = is_loopback(name)
    if not local:
        _refuse_open(name, allow_network, tls_cert is not None or tls_key is not None)
    tls = _tls(tls_cert, tls_key)
    if local:
        own = f"[{name}]" if ":" in name else name
        return Place(name, tls, (*LOCAL_NAMES, own))
    assert tls is not None  # noqa: S101 - refused above
    return Place(name, tls, tls.names)


def _refuse_open(host: str, allow_network: bool, tls: bool) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(
            "H112",
            say("'{host}' is no address of this machine.", host=host),
            where="--host",
            next_step=say("Give an IP address, or 127.0.0.1 for this machine only."),
        ) from error
    missing = [n for n, given in (("--allow-network", allow_network), ("TLS", tls)) if not given]
    if missing:
        raise UsageError(
            "H112",
            say(
                "{host} can be reached from other machines; that needs --allow-network, TLS and the "
                "token. Missing: {missing}.",
                host=host,
                missing=", ".join(missing),
            ),
            where="--host",
            next_step=say(
                "Stay with 127.0.0.1 and use ssh -L from afar, or add --allow-network, --tls-cert and "
                "--tls-key."
            ),
        )


def _tls(cert: Path | None, key: Path | None) -> Tls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise _no_pair(say("--tls-cert and --tls-key belong together"), "--tls-cert")
    for path in (cert, key):
        if not path.is_file():
            raise _no_pair(say("there is no file {path}", path=str(path)), str(path))
    refuse_open_secret(key)

    import ssl

    def ask() -> str:
        raise ValueError("encrypted")  # never a prompt: a server starts without a person

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, ask)
    except ValueError as error:
        why = say("the key is protected by a password; keep it without one in a file of mode 0600")
        raise _no_pair(why, str(key)) from error
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise _no_pair(
            say("they cannot be loaded ({reason})", reason=str(reason)), str(cert)
        ) from error
    return Tls(cert.resolve(), key.resolve(), _names(cert))


def _names(cert: Path) -> tuple[str, ...]:
    """The host names and addresses of the certificate's subjectAltName, as a Host header has them."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise _no_pair(say("the certificate names no host (subjectAltName)"), str(cert)) from error
    addresses = [
        f"[{a}]" if a.version == 6 else str(a) for a in names.get_values_for_type(x509.IPAddress)
    ]
    # A wildcard stands for any name; the list of allowed ones is exact.
    plain = [n.lower() for n in names.get_values_for_type(x509.DNSName) if "*" not in n]
    if not addresses and not plain:
        raise _no_pair(say("the certificate names no host (subjectAltName)"), str(cert))
    return (*plain, *addresses)


def _no_pair(why: Sentence, where: str) -> UsageError:
    return UsageError(
        "H113",
        say("Certificate and key cannot be used: {why}.", why=why),
        where=where,
        next_step=say(
            "Give the PEM files of one pair, with the server's names in the certificate."
        ),
    )


def refuse_open_secret(path: Path) -> None:
    """H413 if a secret file is no ordinary file of this user, or others may read or change it."""
    status = os.stat(path)  # noqa: PTH116 - follows links on purpose: what counts is the file itself
    foreign = status.st_uid not in (os.getuid(), 0)
    if not stat.S_ISREG(status.st_mode) or foreign or status.st_mode & 0o077:
        raise RefusedError(
            "H413",
            say("The secret file can be read or changed by others."),
            where=str(path),
            next_step=say("chmod 600 {path}, and make it your own file.", path=str(path)),
        )
