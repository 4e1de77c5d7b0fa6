"""The processes that run in the trap beside the commands: the guard, tried; the server, asked once.

python -m hauslm.prove.trapped guard | serve FOLDER
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base import egress
from hauslm.base.words import language, speaking
from hauslm.prove.stages import NATIVE, SHELL, environment, hauslm
from hauslm.records import Said


def _guard() -> int:
    """Shut the door as the commands do, say what is in force, then try to get out past Python."""
    egress.shut("strict")
    found = {layer.name: Said.of(layer.said).model_dump() for layer in egress.layers()}
    sys.stdout.write(json.dumps(found))
    for argv in ([sys.executable, "-I", "-c", NATIVE], ["bash", "-c", SHELL]):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, check=False, timeout=20)
    return 0


def _serve(folder: Path) -> int:
    """`hauslm serve` on the loopback of the trap: one list of models, one answer, an orderly end."""
    from hauslm.serve.token import VARIABLE

    token, port = secrets.token_urlsafe(32), _free_port()
    process = subprocess.Popen(
        [*hauslm("serve", folder), "--port", str(port)],
        stdin=subprocess.DEVNULL, env=environment() | {VARIABLE: token},
    )  # fmt: skip
    try:
        models = _request(process, port, token, "GET", "/v1/models")
        name = models["data"][-1]["id"]
        message = {"role": "user", "content": "Say one word."}
        asked = {"model": name, "messages": [message], "max_tokens": 4}
        _request(process, port, token, "POST", "/v1/chat/completions", asked)
    finally:
        process.terminate()
        code = process.wait(60)
    return code


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _request(
    process: subprocess.Popen[bytes],
    port: int,
    token: str,
    method: str,
    path: str,
    body: Any = None,
) -> Any:
    """One answer of the server, for which it is given time to load; OSError if there is none."""
    import http.client
    import time

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise OSError(f"the server ended with {process.returncode}") from None
            time.sleep(0.2)
            continue
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"{method} {path}: HTTP {answer.status}")
        return json.loads(text)


def main(argv: Sequence[str]) -> int:
    """See the module."""
    with speaking(language()):
        return _guard() if argv[0] == "guard" else _serve(Path(argv[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
