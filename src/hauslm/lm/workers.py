"""A Ray cluster for the length of a command: one of our own on this machine, or one that runs already.

Without an address a cluster is started on this machine: Ray listens on all its interfaces, so its
connections need a token that is made for this process, and no usage statistics are sent. A cluster
elsewhere is used only if its address is given, and with a permit, since documents go there. Extra `ray`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hauslm.base import egress
from hauslm.base.errors import MissingError, UsageError
from hauslm.base.words import Sentence, say
from hauslm.lm.permit import permit_for
from hauslm.scenario import Scenario

LOOPBACK = "127.0.0.1"
STORE_BYTES = 256 << 20  # shared memory of a cluster of our own; what travels is a few MB
START_VARIABLE = "HAUSLM_RAY_START_S"
START_S = 120.0
QUICK_FAILURES = 3  # that come at once and not because Ray's own half a minute was over


def start_seconds() -> float:
    """Seconds that Ray's processes, and each worker with its model, have to start: `HAUSLM_RAY_START_S`,
    else 120. H845 if that is no number above 0."""
    given = os.environ.get(START_VARIABLE, "")
    try:
        seconds = float(given) if given else START_S
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(
            "H845",
            say("{variable} is '{given}', which is no number of seconds above 0.",
                variable=START_VARIABLE, given=given[:50]),
            next_step=say("Unset it, or give for example {variable}=300.", variable=START_VARIABLE),
        )  # fmt: skip
    return seconds


def load_ray(part: str = "") -> Any:
    """The library (or its `part`, such as "tune"), or H841 that says how to get it."""
    os.environ.update(egress.SWITCHES)
    try:
        ray = importlib.import_module("ray")
        if part:
            return importlib.import_module(f"ray.{part}")
    except ImportError as error:
        raise _no_ray() from error
    return ray


def need_ray() -> None:
    """H841 if the library is not there; it is not loaded yet, since it reads its token then."""
    if importlib.util.find_spec("ray") is None:
        raise _no_ray()


def _no_ray() -> MissingError:
    return MissingError(
        "H841",
        say("The package ray is not installed."),
        next_step=say("pip install 'hauslm[ray]'"),
    )


def use_token() -> None:
    """Connections of a cluster of our own need a token. Ray reads it once, when it is loaded."""
    if os.environ.get("RAY_AUTH_MODE") == "token" and os.environ.get("RAY_AUTH_TOKEN"):
        return
    if "ray" in sys.modules:
        raise MissingError(
            "H841",
            say("Ray was loaded in this process before, without a token for its connections."),
            next_step=say("Start the analysis in a process of its own, or give --ray-address."),
        )
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


# ---------------------------------------------------------------- the cluster


class Cluster:
    """A Ray cluster for the length of a job: one of our own on this machine, or the one at `address`."""

    def __init__(self, scenario: Scenario, address: str = "", cpus: int | None = None) -> None:
        self.address = address
        self._start_s = start_seconds()  # refused before anything is started
        host = address.removeprefix("ray://").rpartition(":")[0]
        if address:
            permit_for(scenario, host)  # H811: the articles may not go there
            if egress.mode() != "open" and host not in (LOOPBACK, "localhost"):
                egress.shut(f"cloud:{host}", kernel=False)
        elif egress.mode() == "strict":
            egress.shut("loopback", kernel=False)
        if not address or host in (LOOPBACK, "localhost"):
            # Else Ray takes this machine's outward address, also where loopback was asked for.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if not address:
            use_token()
        self.ray = load_ray()
        self._folder: Path | None = None
        options: dict[str, Any] = {
            "log_to_driver": False,
            "configure_logging": False,
            "logging_level": "ERROR",
            "namespace": "hauslm",
        }
        if address:
            options |= {"address": address}
            if host in (LOOPBACK, "localhost"):
                options |= {"_node_ip_address": LOOPBACK}
        else:
            self._folder = _own_folder()
            options |= {
                "num_cpus": cpus or os.cpu_count() or 1,
                "include_dashboard": False,
                "_node_ip_address": LOOPBACK,
                "_temp_dir": str(self._folder),
                "object_store_memory": STORE_BYTES,
            }
        self._init(options)

    def _init(self, options: dict[str, Any]) -> None:
        """Ray waits half a minute for its own processes and cannot be told otherwise, which is little on a
        busy machine: a cluster of our own is tried again until `start_seconds` are over."""
        began, quick = time.monotonic(), 0
        while True:
            tried = time.monotonic()
            try:
                self.ray.init(**options)
                return
            except Exception as error:  # whatever Ray says, in its many classes
                with suppress(Exception):
                    self.ray.shutdown()
                quick += time.monotonic() - tried < 10
                over = time.monotonic() - began >= self._start_s or quick >= QUICK_FAILURES
                if not self.address and not over:
                    continue
                self.close()
                raise MissingError(
                    "H841",
                    say("The Ray cluster cannot be used: {reason}", reason=first_line(error)),
                    where=self.address,
                    next_step=self._advice(),
                ) from error

    def _advice(self) -> Sentence:
        if self.address:
            return say("Check the address, and that ray is the same version everywhere.")
        return say(
            "Ray did not start within {seconds:g} seconds: try again when the machine is less busy, or allow more with {variable}.",
            seconds=self._start_s,
            variable=START_VARIABLE,
        )

    @property
    def cpus(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 0))

    @property
    def gpus(self) -> int:
        return int(self.ray.cluster_resources().get("GPU", 0))

    @property
    def nodes(self) -> int:
        return sum(bool(n["Alive"]) for n in self.ray.nodes())

    def close(self) -> None:
        with suppress(Exception):  # it may never have come up
            self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _own_folder() -> Path:
    """A short path for Ray's sockets and logs; those of jobs that were killed are removed."""
    for old in Path(tempfile.gettempdir()).glob("hauslm-ray-*-*"):
        owner = old.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"hauslm-ray-{os.getpid()}-"))


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
