"""The head of a request is bounded, however it is cut into segments; bodies are not touched by that."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from hauslm.serve.http import MOST_HEAD_BYTES
from tests.serve.conftest import TOKEN, Live

AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()


def connected(live: Live) -> socket.socket:
    parts = urlsplit(live.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            break
        data += piece
    return data


@pytest.mark.parametrize("endless", [b"X-A: " + b"a" * 999, b"X-A: a\r\n" * 100, b"a" * 999])
def test_an_endless_head_is_refused(live: Live, endless: bytes) -> None:
    """One header without an end, headers without an end, a path without an end."""
    with connected(live) as connection:
        connection.sendall(b"GET /healthz" if endless[:1] == b"a" else b"GET /healthz HTTP/1.1\r\n")
        sent, refused = 0, False
        try:
            while sent < 50 * MOST_HEAD_BYTES:
                connection.sendall(endless)
                sent += len(endless)
        except OSError:  # closed by the server, as asked for
            refused = True
        assert refused or answer(connection).startswith(b"HTTP/1.1 400")
        assert sent < 50 * MOST_HEAD_BYTES
    with connected(live) as connection:  # and the server goes on
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + AUTH + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200")


def test_a_head_in_single_bytes_passes(live: Live) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + AUTH + b"\r\n"
    with connected(live) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head:
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        assert answer(connection).startswith(b"HTTP/1.1 200")


def test_a_large_body_is_no_head(live: Live) -> None:
    """More than the bound in the segments of a body, twice on one connection: no 400 of the parser."""
    message = {"role": "user", "content": "a " * (2 * MOST_HEAD_BYTES)}
    body = json.dumps({"model": "none", "messages": [message]}).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + AUTH + f"Content-Length: {len(body)}\r\n\r\n".encode()
    )  # fmt: skip
    for _ in range(2):
        with connected(live) as connection:
            connection.sendall(head[:20])
            time.sleep(0.05)
            connection.sendall(head[20:] + body)
            assert answer(connection).startswith(b"HTTP/1.1 404")  # there is no such model
