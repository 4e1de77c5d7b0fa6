"""Another address than this machine's: only with --allow-network, TLS and the token, all three."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hauslm.base import listen
from hauslm.base.errors import HauslmError

NAMES = (x509.DNSName("team.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def certificate(
    folder: Path, names: tuple[x509.GeneralName, ...] = NAMES, password: bytes | None = None
) -> tuple[Path, Path]:
    """A self-signed certificate and its key (0600) as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "team")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    cert, key_file = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kind: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)
    )
    key_file.chmod(0o600)
    return cert, key_file


def code(**options: object) -> tuple[str, int, str]:
    with pytest.raises(HauslmError) as caught:
        listen.place(**options)  # type: ignore[arg-type]
    return caught.value.code, caught.value.exit_code, str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]", "127.0.0.2"]
)
def test_this_machine_needs_nothing(host: str) -> None:
    at = listen.place(host)
    assert at.tls is None and at.scheme == "http" and "localhost" in at.names
    assert listen.is_loopback(at.host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "2001:db8::7"])  # noqa: S104
def test_the_network_needs_all_of_it(host: str, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    both = {"tls_cert": cert, "tls_key": key}
    for options, missing in (
        ({}, "Missing: --allow-network, TLS."),
        ({"allow_network": True}, "Missing: TLS."),
        (both, "Missing: --allow-network."),
    ):
        found, exit_code, text = code(host=host, **options)
        assert (found, exit_code) == ("H112", 2) and missing in text
    at = listen.place(host, allow_network=True, **both)
    assert at.scheme == "https" and at.names == ("team.example", "127.0.0.1")


@pytest.mark.parametrize("host", ["", "lab.example", "localhost.x", "1.2.3"])
def test_names_are_no_addresses(host: str) -> None:
    assert code(host=host, allow_network=True)[:2] == ("H112", 2)


def test_files_that_make_no_pair_are_told(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "b").mkdir()
    other, foreign = certificate(tmp_path / "b")
    assert code(host="127.0.0.1", tls_cert=cert)[0] == "H113"
    assert code(host="127.0.0.1", tls_key=key)[0] == "H113"
    assert code(host="127.0.0.1", tls_cert=cert, tls_key=foreign)[:2] == ("H113", 2)
    assert code(host="127.0.0.1", tls_cert=tmp_path / "no", tls_key=key)[0] == "H113"
    other.write_text("no certificate")
    assert code(host="127.0.0.1", tls_cert=other, tls_key=foreign)[0] == "H113"
    cert, key = certificate(tmp_path, password=b"secret-phrase")
    found, _, text = code(host="127.0.0.1", tls_cert=cert, tls_key=key)
    assert found == "H113" and "password" in text
    cert, key = certificate(tmp_path, names=())
    assert "subjectAltName" in code(host="127.0.0.1", tls_cert=cert, tls_key=key)[2]
    cert, key = certificate(tmp_path, names=(x509.DNSName("*.example"),))
    assert "subjectAltName" in code(host="127.0.0.1", tls_cert=cert, tls_key=key)[2]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    cert, key = certificate(tmp_path)
    key.chmod(mode)
    assert code(host="127.0.0.1", tls_cert=cert, tls_key=key)[:2] == ("H413", 4)


# ---------------------------------------------------------------- the two servers, for real


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("command", ["serve", "web"])
@pytest.mark.parametrize(
    "options", [[], ["--allow-network"], ["--tls-cert", "c", "--tls-key", "k"]]
)
def test_the_commands_refuse_an_open_port_with_a_sentence(
    tmp_path: Path, command: str, options: list[str]
) -> None:
    (tmp_path / "hauslm.yaml").write_text("name: team\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hauslm", command, "-C", str(tmp_path), "--host", "0.0.0.0", *options],  # noqa: S104
        capture_output=True, text=True, check=False, env=os.environ | {"LANGUAGE": "en"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and "H112" in done.stderr and "Traceback" not in done.stderr


def test_the_pages_on_every_address_over_tls(tmp_path: Path) -> None:
    """0.0.0.0 inside this test machine; asked on its loopback address, as the certificate names it."""
    cert, key = certificate(tmp_path)
    (tmp_path / "hauslm.yaml").write_text("name: team\n", encoding="utf-8")
    port = free_port()
    argv = [
        sys.executable, "-m", "hauslm", "web", "-C", str(tmp_path), "--port", str(port),
        "--host", "0.0.0.0", "--allow-network", "--tls-cert", str(cert), "--tls-key", str(key),  # noqa: S104
    ]  # fmt: skip
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, env=os.environ | {"LANGUAGE": "en"}
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            assert f"https://0.0.0.0:{port}/?token=" in line and "encrypted" in line
            token = line.split("token=")[1].split()[0]
            context = ssl.create_default_context(cafile=str(cert))

            def ask(path: str, **headers: str) -> http.client.HTTPResponse:
                for _ in range(100):
                    try:
                        made = http.client.HTTPSConnection(
                            "127.0.0.1", port, timeout=20, context=context
                        )
                        made.request("GET", path, headers=headers)
                        return made.getresponse()
                    except ConnectionRefusedError:
                        time.sleep(0.1)
                raise AssertionError("no answer")

            assert ask("/").status == 401
            assert ask("/", Host=f"localhost:{port}").status == 421, "not in the certificate"
            opened = ask(f"/?token={token}")
            cookie = opened.headers["set-cookie"]
            assert opened.status == 303 and "Secure" in cookie and "HttpOnly" in cookie
            assert ask("/", Cookie=cookie.split(";")[0], Host=f"team.example:{port}").status == 200
            plain = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            with pytest.raises((http.client.HTTPException, OSError)):
                plain.request("GET", "/")
                plain.getresponse()
        finally:
            process.terminate()
            process.wait(30)


def test_the_server_answers_over_tls_to_the_token_only(tmp_path: Path) -> None:
    import threading

    from hauslm.lm.echo import EchoModel
    from hauslm.serve.app import create_app
    from hauslm.serve.start import listening, server_for

    cert, key = certificate(tmp_path)
    at = listen.place("0.0.0.0", allow_network=True, tls_cert=cert, tls_key=key)  # noqa: S104
    with listening(at.host, 0) as listener:
        port = listener.getsockname()[1]
        app = create_app(EchoModel(["a"]), token="t" * 43, host_names=at.names)
        server = server_for(app, at.tls)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            for _ in range(1000):
                if server.started:
                    break
                time.sleep(0.01)
            context = ssl.create_default_context(cafile=str(cert))
            for headers, status in (
                ({"Authorization": "Bearer " + "t" * 43}, 200),
                ({}, 401),
                ({"Authorization": "Bearer " + "t" * 43, "Host": "evil.example"}, 421),
                (
                    {"Authorization": "Bearer " + "t" * 43, "Origin": f"http://127.0.0.1:{port}"},
                    403,
                ),
                (
                    {"Authorization": "Bearer " + "t" * 43, "Origin": f"https://127.0.0.1:{port}"},
                    200,
                ),
            ):
                made = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
                made.request("GET", "/v1/models", headers=headers)
                assert made.getresponse().status == status
                made.close()
        finally:
            server.should_exit = True
            thread.join(20)
