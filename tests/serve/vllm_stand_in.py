"""A small process with vLLM's command line: our own server behind it. vLLM itself is not run here."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
for name in ("--model", "--served-model-name", "--host", "--chat-template", "--generation-config"):
    parser.add_argument(name)
for name in ("--port", "--max-num-seqs", "--max-logprobs", "--max-model-len"):
    parser.add_argument(name, type=int)
parser.add_argument("--max-loras", type=int)
parser.add_argument("--max-lora-rank", type=int)
parser.add_argument("--enable-lora", action="store_true")
parser.add_argument("--lora-modules", nargs="*", default=[])


class WithHealth:
    """Adds /health, which vLLM has."""

    def __init__(self, app: Any) -> None:
        self.app, self.state = app, app.state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/health":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, send)


def main() -> None:
    options = parser.parse_args()
    if os.environ.get("STAND_IN_DIES"):
        raise SystemExit("out of memory, says the stand-in")
    from hauslm.lm.local import LocalModel
    from hauslm.serve.app import create_app
    from hauslm.serve.start import listening, server_for

    assert os.environ["HF_HUB_OFFLINE"] == "1" and Path(options.chat_template).is_file()
    adapters = {n: Path(p) for n, _, p in (m.partition("=") for m in options.lora_modules)}
    if os.environ.get("STAND_IN_SERVES_THE_BASE"):  # the fault that the canary is for
        model = LocalModel.load(Path(options.model), adapters, name=options.served_model_name)
        route = model._adapters.routed
        model._adapters.routed = lambda names: route(["base"] * len(names))  # type: ignore[method-assign]
    else:
        model = LocalModel.load(Path(options.model), adapters, name=options.served_model_name)
    app = create_app(model, token=os.environ["VLLM_API_KEY"], max_queue=256)
    with listening(options.host, options.port) as listener:
        server_for(WithHealth(app)).run(sockets=[listener])


if __name__ == "__main__":
    main()
