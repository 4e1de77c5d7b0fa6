"""How do several processes train one adapter? Each takes its rows of the same step; gradients are summed.

A step is what it is on one device: the same sequences, rows, dropout streams and token-weighted loss.
Rank r of w takes rows r, r+w, ...; so the result differs from one process only by the order of float
additions, and a checkpoint knows nothing about ranks: 2 processes resume what 1 began, and the other
way round. Rank 0 alone writes. Two strategies:

``ddp``   torch's DistributedDataParallel around the loss: every rank holds the base.
``fsdp``  FSDP2 (`fully_shard`) per decoder layer: the frozen base is spread over the ranks; embeddings,
          head and adapter stay whole on each, so checkpoints are the same files.

World size, wrapped modules and equal values are asserted, not assumed: a launcher that quietly runs one
process is a known trap. Who starts the processes: `cluster.py`. Each process hides torchrun's variables
from transformers and accelerate after joining, or they would wrap and shard a second time.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hauslm.base.errors import HauslmError, Interrupted, MissingError, RefusedError
from hauslm.base.progress import Silent
from hauslm.base.words import Sentence, say
from hauslm.train import seal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hauslm.train.batches import Row

TIMEOUT = datetime.timedelta(minutes=15)  # a rank that says nothing for so long is lost
HIDDEN = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


class RankLost(Exception):
    """Another process of this run is gone or silent."""


@dataclass
class Ranks:
    """This process among those of the run. One process alone: rank 0 of 1, and nothing is sent."""

    rank: int = 0
    world: int = 1
    backend: str = "none"
    strategy: str = "ddp"
    facts: dict[str, Any] = field(default_factory=dict)
    compute: Any = None
    wrapped: Any = None  # the module that computes a row's loss, and sums gradients over the ranks

    @property
    def several(self) -> bool:
        return self.world > 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    # ------------------------------------------------------------ talking

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if not self.several:
            return list(values)
        import torch
        import torch.distributed as dist

        device = "cuda" if self.backend == "nccl" else "cpu"
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        with _lost():
            dist.all_reduce(total)
        return [float(v) for v in total.tolist()]

    def any(self, flag: bool) -> bool:
        return self.sum([float(flag)])[0] > 0 if self.several else flag

    def barrier(self) -> None:
        self.sum([0.0])

    def must_agree(self, what: Sentence, digest: str) -> None:
        """RefusedError H656 unless `digest` (hex) is the same on all ranks."""
        if not self.several:
            return
        parts = [int(digest[i : i + 8], 16) for i in range(0, 64, 8)]
        mean = [total / self.world for total in self.sum(parts)]
        squares = self.sum([(p - m) ** 2 for p, m in zip(parts, mean, strict=True)])
        if any(squares):
            raise RefusedError(
                "H656",
                say("The processes of this run do not agree: {what} differs.", what=what),
                next_step=say(
                    "Give all nodes the same project folder, versions and hardware, and start again."
                ),
            )

    # ------------------------------------------------------------ the model

    def wrap(self, compute: Any) -> None:
        """Put the model under DDP or FSDP2, and look whether it is really there (H654)."""
        self.compute = compute
        if not self.several:
            return
        from torch.nn.parallel import DistributedDataParallel

        if self.strategy == "fsdp":
            self.wrapped = _module(compute)
            self.facts["wrapped"] = _shard(compute, self)
        else:
            # Equal values are compared, not sent: the base may be 4-bit and tens of GB.
            self.wrapped = DistributedDataParallel(_module(compute), init_sync=False)
            self.facts["wrapped"] = ["DistributedDataParallel"]
        _assert_wrapped(self)

    def share(self, rows: Sequence[Any]) -> list[tuple[int, Any, bool]]:
        """(place, row, counts) of this rank. Every rank gets as many, so that each meets each other in
        the same collectives: where there are too few, a row is repeated and does not count."""
        most = -(-len(rows) // self.world)
        mine = [(i, rows[i], True) for i in range(self.rank, len(rows), self.world)]
        return mine + [(0, rows[0], False)] * (most - len(mine))

    def backward(self, rows: Sequence[tuple[Row, float, int]]) -> torch.Tensor:
        """Loss and gradient of (row, weight, dropout seed): the weighted sum over all ranks' rows
        has its gradient on every rank afterwards. Returns this rank's part of the loss."""
        import torch

        total = torch.zeros((), dtype=torch.float32, device=self.compute.device)
        with _lost():
            for number, (row, weight, seed) in enumerate(rows, 1):
                torch.manual_seed(seed)
                with self._quiet(number < len(rows)):
                    # DDP averages; the sum is wanted.
                    part = self.wrapped(row) * (weight * self._averaged)
                    part.backward()
                total += part.detach() / self._averaged
            if self.strategy == "fsdp":
                self._sum_gradients()
        return total

    @property
    def _averaged(self) -> int:
        return self.world if self.strategy == "ddp" else 1

    @contextmanager
    def _quiet(self, more_to_come: bool) -> Iterator[None]:
        """Gradients travel once for each step, with its last row."""
        if more_to_come and self.strategy == "ddp":
            with self.wrapped.no_sync():
                yield
        else:
            yield

    def _sum_gradients(self) -> None:
        """FSDP2 leaves the adapter whole; its gradients are summed here, as one message."""
        import torch
        import torch.distributed as dist

        parameters = [p for p in self.compute.model.parameters() if p.requires_grad]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1).float() for p in parameters])
        dist.all_reduce(flat)
        start = 0
        for p in parameters:
            p.grad.copy_(flat[start : start + p.numel()].view_as(p))
            start += p.numel()

    def plain(self) -> dict[str, Any]:
        """For the record; empty for one process."""
        if not self.several:
            return {}
        return {
            "processes": self.world, "backend": self.backend, "strategy": self.strategy, **self.facts,
        }  # fmt: skip


ALONE = Ranks()


@contextmanager
def _lost() -> Iterator[None]:
    """A broken or silent connection to another rank is `RankLost`; every other error stays itself."""
    from hauslm.train import watch

    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        signs = ("connection", "gloo", "nccl", "timed out", "socket", "peer", "process group")
        if watch.is_out_of_memory(error) or not any(s in text for s in signs):
            raise
        raise RankLost(str(error).splitlines()[0][:300]) from error


def lost(error: RankLost, where: str) -> Interrupted:
    return Interrupted(
        "H655",
        say("A process of this run was lost: {reason}", reason=str(error)),
        where=where,
        next_step=say(
            "The same command goes on from the newest sealed checkpoint, also with fewer processes."
        ),
    )


# ---------------------------------------------------------------- the model's wrapping


def _module(compute: Any) -> nn.Module:
    """The loss of a row as a module, so that wrappers see one forward pass."""
    from torch import nn

    class RowLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = compute.model

        def forward(self, row: Row) -> torch.Tensor:
            value: torch.Tensor = compute.loss(row)
            return value

    return RowLoss()


def _layers(compute: Any) -> list[Any]:
    layers = getattr(compute.decoder, "layers", None)
    return list(layers) if layers is not None else []


def _shard(compute: Any, ranks: Ranks) -> list[str]:
    """FSDP2 over the decoder's layers; what learns, the embeddings and the head stay whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    settings, layers = compute.settings, _layers(compute)
    stored = settings.quantisation
    if stored == "none" and settings.base_precision != "full":
        stored = settings.base_precision
    if settings.method == "full" or stored != "none" or not layers:
        raise RefusedError(
            "H658",
            say(
                "FSDP shards a frozen base of full precision with decoder layers; method {method}, quantisation {quantisation} is not that.",
                method=settings.method,
                quantisation=stored,
            ),
            next_step=say("Use --strategy ddp."),
        )
    mesh = init_device_mesh("cuda" if ranks.backend == "nccl" else "cpu", (ranks.world,))
    for layer in layers:
        learns = {p for p in layer.parameters() if p.requires_grad}
        # Sharded again after each pass, each layer for itself: what is looked at is the shard.
        fully_shard(layer, mesh=mesh, ignored_params=learns, reshard_after_forward=True)
    return [type(layer).__name__ for layer in layers]


def _assert_wrapped(ranks: Ranks) -> None:
    """World size as asked, every layer sharded or the whole under DDP: looked at, not believed."""
    import torch.distributed as dist

    wrong: list[str] = []
    if dist.get_world_size() != ranks.world:
        wrong.append(f"world size {dist.get_world_size()} != {ranks.world}")
    if ranks.strategy == "ddp":
        if type(ranks.wrapped).__name__ != "DistributedDataParallel":
            wrong.append(f"{type(ranks.wrapped).__name__} is not DistributedDataParallel")
    else:
        wrong += _not_sharded(ranks)
    if wrong:
        raise RefusedError(
            "H654",
            say("The training is not distributed as asked: {reason}.", reason="; ".join(wrong)),
            next_step=say("This is a defect of hauslm or its libraries; please report it."),
        )


def _not_sharded(ranks: Ranks) -> list[str]:
    from torch.distributed.tensor import DTensor

    wrong = []
    for number, layer in enumerate(_layers(ranks.compute)):
        frozen = [p for p in layer.parameters() if not p.requires_grad]
        if not frozen or not all(isinstance(p, DTensor) for p in frozen):
            wrong.append(f"layer {number} is not sharded")
        elif sum(p.to_local().numel() for p in frozen) >= sum(p.numel() for p in frozen):
            wrong.append(f"layer {number} is whole on one rank")
    return wrong


# ---------------------------------------------------------------- joining


def join(strategy: str, facts: dict[str, Any]) -> Ranks:
    """Become a rank: by torchrun's variables. H654 if they are not there or not as asked."""
    import torch
    import torch.distributed as dist

    asked = int(facts["asked"])
    values = {name: os.environ.get(name, "") for name in HIDDEN}
    world, rank = int(values["WORLD_SIZE"] or 1), int(values["RANK"] or 0)
    if world != asked:
        raise RefusedError(
            "H654",
            say("{asked} processes were asked for, but {world} came.", asked=asked, world=world),
            next_step=say("Start the same command on every node, with its own --node-rank."),
        )
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        # One device for each process, so that nothing below thinks of DataParallel.
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        local = int(values["LOCAL_RANK"] or 0)
        devices = shown.split(",") if shown else [str(i) for i in range(torch.cuda.device_count())]
        if local >= len(devices):
            raise MissingError(
                "H653",
                say("This node has {count} GPUs, too few for --nproc.", count=len(devices)),
                next_step=say("Ask for at most {count} processes.", count=len(devices)),
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local]  # CUDA is not initialised yet
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise lost(RankLost(str(error).splitlines()[0][:300]), "") from error
    for name in HIDDEN:
        os.environ.pop(name, None)
    return Ranks(rank, world, backend, strategy, facts)


# ---------------------------------------------------------------- reading on ranks that do not write


class ReadOnly(seal.Checkpoints):
    """The checkpoints as a rank sees them that writes none."""

    def __init__(self, folder: Path, identity: seal.Identity) -> None:
        self.folder, self.identity = folder, identity
        self.versions, self.keep, self.parent = {}, 2, ""

    def save(self, snapshot: seal.Snapshot) -> Path:
        return self.folder / f"step-{snapshot.step:06d}"

    def set_aside(self) -> None:
        return


def digest_of(values: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(values).encode()).hexdigest()


# ---------------------------------------------------------------- one rank as a process


def main(argv: list[str] | None = None) -> int:
    """One rank of `hauslm train`; started by torchrun, see cluster.py."""
    from hauslm.base import egress, words
    from hauslm.train import threads

    parser = argparse.ArgumentParser(prog="python -m hauslm.train.distributed")
    parser.add_argument("project")
    parser.add_argument("--asked", type=int, required=True)
    parser.add_argument("--strategy", choices=("ddp", "fsdp"), default="ddp")
    parser.add_argument("--rendezvous", default="")
    parser.add_argument("--network", default="loopback")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--accept-change", action="store_true")
    parser.add_argument("--language", default="en")
    options = parser.parse_args(argv)
    threads.settle()
    # The kernel's filter refuses every connect; ranks must reach each other. The hook stays on.
    egress.shut(options.network, kernel=False)
    words.use_language(options.language)
    try:
        return _rank(options)
    except HauslmError as error:
        sys.stderr.write(error.text() + "\n")
        return error.exit_code
    except Exception:
        traceback.print_exc()  # standard error is logs/train.log here
        return 70


def _rank(options: argparse.Namespace) -> int:
    from hauslm.base.files import ProjectFolder
    from hauslm.records import Corpus, Plan
    from hauslm.scenario import load
    from hauslm.train.loop import train

    facts = {
        "asked": options.asked, "nodes": options.nodes, "rendezvous": options.rendezvous,
        "network": options.network,
    }  # fmt: skip
    ranks = join(options.strategy, facts)
    folder = ProjectFolder(options.project)
    plan = folder.record("plan")
    train(
        load(folder.file),
        folder,
        plan=Plan.load(plan) if plan.is_file() else None,
        corpus=Corpus.load(folder.record("corpus")),
        resume=not options.fresh,
        accept_change=options.accept_change,
        progress=Silent(),
        ranks=ranks,
    )
    import torch.distributed as dist

    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    # By its own name: as __main__ this module's RankLost would be another class than the one leg.py knows.
    from hauslm.train.distributed import main as named

    sys.exit(named())
