"""How does vLLM answer for us? As a process of its own Python, spoken to over loopback HTTP only.

vLLM wants other versions of torch and transformers than we do, so nothing of it is imported: the
launcher writes the command line, starts the process in a group of its own, waits until it answers and
lists every model, and stops it again. The token goes through the environment, where other users of the
machine cannot read it, not through the command line. What it then says is checked with the adapter's
canary (`canary.py`), since vLLM has been seen to give the base an adapter's answers in a mixed batch
(vLLM PR #48421).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hauslm.base import egress
from hauslm.base.errors import HauslmError, MissingError, UsageError
from hauslm.base.words import say
from hauslm.records import Run

MODULE = "vllm.entrypoints.openai.api_server"
HOST = "127.0.0.1"
KEY_VARIABLE = "HAUSLM_VLLM_KEY"  # where `RemoteModel` finds the token while the server runs
START_S = 900.0  # a large model is read from disk and its kernels are compiled
STOP_S = 30.0
POLL_S = 0.2
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank accepts
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Launch:
    """What to start: `python` of vLLM's own environment, the base folder under `name`, adapters by
    name, context in tokens (None: as the model says), rows at once, the chat template's file."""

    python: str
    base: Path
    name: str
    port: int
    adapters: Mapping[str, Path] = field(default_factory=dict)
    max_model_len: int | None = None
    max_num_seqs: int = 64
    chat_template: Path | None = None
    quantisation: str = "none"


def form_of_weights(stated: str, run: Run | None) -> str:
    """model.quantisation, and for 'auto' what the training used: an adapter belongs to that form."""
    if stated != "auto":
        return stated
    return str(run.settings.get("quantisation", "none")) if run is not None else "none"


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with egress.permitted(HOST), socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def command(launch: Launch) -> list[str]:
    """The command line, without the token. H818: no Python named; H819: what vLLM cannot do."""
    if not launch.python:
        raise UsageError(
            "H818",
            say("The engine vllm needs the Python of the environment that vLLM is installed in."),
            where="serving.vllm_python",
            next_step=say("Set serving: vllm_python, for example /opt/vllm/bin/python."),
        )
    if launch.quantisation not in ("none", "nf4"):
        raise UsageError(
            "H819",
            say("Weights in {kind} cannot be given to vLLM as they were trained on.",
                kind=launch.quantisation),
            next_step=say("Serve with the engine transformers, or without quantisation."),
        )  # fmt: skip
    line = [launch.python, "-m", MODULE, "--model", str(launch.base)]
    line += ["--served-model-name", launch.name, "--host", HOST, "--port", str(launch.port)]
    line += ["--max-num-seqs", str(launch.max_num_seqs), "--max-logprobs", "20"]
    line += ["--generation-config", "vllm"]  # our sampling settings, not those of the folder
    if launch.max_model_len is not None:
        line += ["--max-model-len", str(launch.max_model_len)]
    if launch.chat_template is not None:
        line += ["--chat-template", str(launch.chat_template)]
    if launch.quantisation == "nf4":
        line += ["--quantization", "bitsandbytes"]
    if launch.adapters:
        line += ["--enable-lora", "--max-loras", str(len(launch.adapters))]
        line += ["--max-lora-rank", str(_rank(launch.adapters)), "--lora-modules"]
        line += [f"{name}={path}" for name, path in launch.adapters.items()]
    return line


def _rank(adapters: Mapping[str, Path]) -> int:
    """The smallest rank vLLM accepts that holds every adapter."""
    configs = [json.loads((p / "adapter_config.json").read_text()) for p in adapters.values()]
    if any(c.get("trainable_token_indices") for c in configs):
        raise UsageError(
            "H819",
            say("vLLM cannot load an adapter with added tokens beside its base."),
            next_step=say("Serve with the engine transformers, or merge the adapter."),
        )
    ranks = [c["r"] for c in configs]
    fits = [r for r in LORA_RANKS if r >= max(ranks)]
    if not fits:
        raise UsageError(
            "H819",
            say("vLLM takes adapters up to rank {most}; this one has {rank}.",
                most=LORA_RANKS[-1], rank=max(ranks)),
            next_step=say("Serve with the engine transformers, or merge the adapter."),
        )  # fmt: skip
    return fits[0]


@dataclass
class Running:
    """The process, its address and its log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def check(self) -> None:
        """H820 if it has ended of its own accord."""
        if self.process.poll() is not None:
            raise _ended(self)

    def wait(self) -> None:
        """Until it ends, which is always an error here; a signal to us breaks the wait."""
        self.process.wait()
        raise _ended(self)


def _ended(running: Running) -> HauslmError:
    return MissingError(
        "H820",
        say("vLLM has ended (exit status {status}): {reason}",
            status=str(running.process.returncode), reason=_last_words(running.log)),
        where=str(running.log),
        next_step=say("Read the log; often memory, or a version of vLLM that lacks the model."),
    )  # fmt: skip


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "-"


@contextmanager
def launched(launch: Launch, token: str, log: Path, wait_s: float = START_S) -> Iterator[Running]:
    """The server, ready: it answers and lists the base and every adapter. Stopped at the end.

    H818 its Python cannot be started, H820 it ended, H821 it did not become ready or lacks a model.
    """
    line = command(launch)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != KEY_VARIABLE} | QUIET
    before = os.environ.get(KEY_VARIABLE)
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=environment | {"VLLM_API_KEY": token}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MissingError(
                "H818",
                say("vLLM's Python cannot be started ({reason}).",
                    reason=error.strerror or str(error)),
                where=launch.python,
                next_step=say("Set serving: vllm_python, for example /opt/vllm/bin/python."),
            ) from error  # fmt: skip
    os.environ[KEY_VARIABLE] = token
    running = Running(process, f"http://{HOST}:{launch.port}/v1", log)
    try:
        _until_ready(running, launch, token, wait_s)
        yield running
    finally:
        stop(process)
        os.environ.pop(KEY_VARIABLE, None)
        if before is not None:
            os.environ[KEY_VARIABLE] = before


def _until_ready(running: Running, launch: Launch, token: str, wait_s: float) -> None:
    ends = time.monotonic() + wait_s
    while (listed := _models(launch.port, token)) is None:
        running.check()
        if time.monotonic() > ends:
            raise _not_ready(
                running, say("vLLM was not ready within {seconds:g} seconds.", seconds=wait_s)
            )
        time.sleep(POLL_S)
    running.check()  # another server may have answered on this port
    missing = [n for n in (launch.name, *launch.adapters) if n not in listed]
    if missing:
        raise _not_ready(running, say("vLLM does not offer '{name}'.", name=missing[0]))


def _not_ready(running: Running, what: object) -> HauslmError:
    return MissingError(
        "H821",
        what,  # type: ignore[arg-type]
        where=str(running.log),
        next_step=say("Read the log; often memory, or a version of vLLM that lacks the model."),
    )


def _models(port: int, token: str) -> Sequence[str] | None:
    """The names that it lists; None while it is not ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        with egress.permitted(HOST, port):
            for path in ("/health", "/v1/models"):
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
                response = connection.getresponse()
                raw = response.read(1 << 20)
                if response.status != 200:
                    return None
        return [str(m["id"]) for m in json.loads(raw)["data"]]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes], wait_s: float = STOP_S) -> None:
    """End the whole group: kindly, then not. vLLM's workers are its children."""
    for kind, patience in ((signal.SIGTERM, wait_s), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it
