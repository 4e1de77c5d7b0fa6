"""How do the processes of a distributed run start, and what do they leave behind? torchrun, watched.

`run` starts `torch.distributed.run` as a child without a shell, with a configuration of our own on its
command line, shows the run to the reader while it goes (the files of process.py) and turns its end into
a record or an error of the family. One node meets at 127.0.0.1; several nodes run the same command with
their own --node-rank and meet at --master. Node 0 alone holds the
project's lock, writes and files the record; the others read the project folder, the same one or a copy
(that all read the same is compared, H656), and leave nothing but a log.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hauslm.base import egress, words
from hauslm.base.errors import HauslmError, Interrupted, MissingError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.records import Run
from hauslm.train import launch, threads
from hauslm.train.process import RECORD, claim, status

LOOPBACK = "127.0.0.1"
END_WITHIN_S = 90.0  # torchrun gives its children 30 s after SIGTERM


@dataclass(frozen=True)
class Shape:
    """How many processes, where, and how they share the model."""

    processes: int  # on this node
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str = ""  # host:port of node 0; empty: this machine alone
    strategy: str = "ddp"

    @property
    def world(self) -> int:
        return self.processes * self.nodes

    @property
    def here(self) -> bool:
        """Do all processes meet on this machine?"""
        return not self.rendezvous or self.rendezvous.startswith(LOOPBACK)

    def checked(self) -> Shape:
        """H653 if the numbers contradict each other."""
        wrong = None
        if self.nodes > 1 and not self.rendezvous:
            wrong = say("Several nodes need --master HOST:PORT, the address of node 0.")
        elif not 0 <= self.node_rank < self.nodes:
            wrong = say("--node-rank must lie between 0 and --nnodes minus 1.")
        elif self.rendezvous and not self.rendezvous.rpartition(":")[2].isdigit():
            wrong = say("--master is HOST:PORT, for instance node0:29400.")
        if wrong is not None:
            raise UsageError("H653", wrong, where="--master")
        return self


def run(
    folder: ProjectFolder,
    shape: Shape,
    *,
    resume: bool,
    accept_change: bool,
    progress: Progress,
) -> Run:
    """Train with several processes; the record that rank 0 filed. H653, H655, and the ranks' own."""
    shape = shape.checked()
    address = shape.rendezvous or f"{LOOPBACK}:{_free_port()}"
    network = _network(shape, address)
    progress.say(
        say(
            "{count} processes meet at {address}; for that this command runs without the kernel's filter, the audit hook is in mode {mode}.",
            count=shape.world,
            address=address,
            mode=network,
        )
    )
    (folder.work / "train" / RECORD).unlink(missing_ok=True)
    command = _command(folder, shape, address, network, resume, accept_change)
    child = _start(folder, shape, command, "train.log")
    claim(folder, child.pid)
    _watch(folder, child, progress)
    return _outcome(folder, shape)


def join(
    folder: ProjectFolder, shape: Shape, *, resume: bool, accept_change: bool, progress: Progress
) -> None:
    """The processes of a node other than 0, until they end. Interrupted H655 if that is not well."""
    shape = shape.checked()
    network = _network(shape, shape.rendezvous)
    progress.say(
        say(
            "{count} processes of node {rank} meet the others at {address}; for that this command runs without the kernel's filter, the audit hook is in mode {mode}.",
            count=shape.processes,
            rank=shape.node_rank,
            address=shape.rendezvous,
            mode=network,
        )
    )
    command = _command(folder, shape, shape.rendezvous, network, resume, accept_change)
    log = f"train-node{shape.node_rank}.log"
    child = _start(folder, shape, command, log)
    try:
        child.wait()
    except KeyboardInterrupt:
        _end(child)
    if child.returncode:
        raise Interrupted(
            "H655",
            say("The processes of node {rank} ended early.", rank=shape.node_rank),
            where=folder.relative(folder.logs / log),
            next_step=say("Node 0 says why; the same commands go on from its newest checkpoint."),
        )


def _start(
    folder: ProjectFolder, shape: Shape, command: list[str], log: str
) -> subprocess.Popen[bytes]:
    folder.logs.mkdir(parents=True, exist_ok=True)
    with (folder.logs / log).open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C reaches the ranks once, through us
            env=_environment(shape),
        )


def _free_port() -> int:
    """A port that is free now on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _network(shape: Shape, address: str) -> str:
    """The guard's mode in the ranks: this machine alone, or also node 0."""
    if shape.here:
        return "loopback"
    return f"cloud:{address.rpartition(':')[0]}"


def _command(
    folder: ProjectFolder,
    shape: Shape,
    address: str,
    network: str,
    resume: bool,
    accept_change: bool,
) -> list[str]:
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nnodes", str(shape.nodes), "--node-rank", str(shape.node_rank)]
    command += ["--nproc-per-node", str(shape.processes), "--max-restarts", "0"]
    # A fixed meeting point: no look-up of this machine's own name, which would ask a name server.
    command += ["--rdzv-backend", "static", "--master-addr", host, "--master-port", port]
    if shape.here:
        command += ["--local-addr", LOOPBACK]
    command += ["-m", "hauslm.train.distributed", str(folder.root), "--asked", str(shape.world)]
    command += ["--strategy", shape.strategy, "--nodes", str(shape.nodes)]
    command += ["--rendezvous", address, "--network", network, "--language", words.language()]
    command += [] if resume else ["--fresh"]
    command += ["--accept-change"] if accept_change else []
    return command


def _environment(shape: Shape) -> dict[str, str]:
    cores = max(1, (os.cpu_count() or 1) // shape.processes)
    own = {"OMP_NUM_THREADS": str(cores), **threads.WAITING, **os.environ, **egress.SWITCHES}
    if shape.here:
        own |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return own


def _watch(folder: ProjectFolder, child: subprocess.Popen[bytes], progress: Progress) -> None:
    """Show the run until the processes are gone; Ctrl-C and SIGTERM are passed on, once."""
    try:
        launch.follow(folder, progress)
        child.wait(END_WITHIN_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        _end(child)
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(END_WITHIN_S)


def _outcome(folder: ProjectFolder, shape: Shape) -> Run:
    found = status(folder)
    path = folder.work / "train" / RECORD
    if found.state == "done" and path.is_file():
        return Run.load(path)
    log = folder.relative(folder.logs / "train.log")
    if found.state in ("interrupted", "failed") and found.message:
        kinds: dict[int | None, type[HauslmError]] = {75: Interrupted, 4: RefusedError}
        kind: Any = kinds.get(found.exit_code, MissingError)
        raise kind(
            "H655",
            say("The distributed run ended: {message}", message=found.message),
            where=log,
        )
    raise Interrupted(
        "H655",
        say("The processes of this run are gone without a word; checkpoints are untouched."),
        where=log,
        next_step=say(
            "The same command goes on from the newest sealed checkpoint, also with fewer processes."
        ),
    )
