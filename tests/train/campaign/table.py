"""The fault catalogue as a table: id, fault, promise, and the function that causes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.train.campaign import trials
from tests.train.campaign.lab import Lab


@dataclass(frozen=True)
class Fault:
    """`cause` is None where there is nothing to cause yet; `limits` says what the trials do not show."""

    fault: str
    promise: str
    cause: Callable[[Lab, bool], trials.Trials] | None
    mounts: bool = False  # needs a user and mount namespace
    limits: str = ""


SAME = "nothing is lost but the steps since the last sealed checkpoint; the adapter is bit for bit the same"
FAULTS: dict[str, Fault] = {
    "F1": Fault("SIGKILL at a random moment", SAME, trials.f1_killed_anywhere),
    "F2": Fault(
        "SIGKILL at every single write, fsync, rename, mkdir and removal",
        "the checkpoint before or the new one, never half of one; the adapter is bit for bit the same",
        trials.f2_killed_at_every_call,
        limits="Python's own calls; the files of the final adapter are written by safetensors, and the calls around them count",
    ),
    "F3": Fault(
        "power cut after every operation of a save, un-fsynced data dropped, torn or reordered",
        "the checkpoint before or the new one; once the save has returned, the new one",
        trials.f3_power_cut,
        limits="a model of a file system, not a machine whose plug is pulled; a disk that lies about fsync is beyond it",
    ),
    "F4": Fault(
        "disk full, quota, input/output error",
        "one sentence and exit code 5; older checkpoints sound; with room again, the same adapter",
        trials.f4_the_disk_is_full,
        mounts=True,
    ),
    "F5": Fault(
        "SIGTERM and Ctrl-C, once and several times",
        "the step is sealed, exit code 75, further signals are harmless; the same adapter",
        trials.f5_asked_to_stop,
    ),
    "F6": Fault(
        "out of memory",
        "half the micro-batch at the same batch per step, said in the record, marked statistical",
        trials.f6_out_of_memory,
        limits="on the CPU; CUDA's error is recognised by its type, not caused here",
    ),
    "F7": Fault(
        "NaN or infinity in loss, gradient or adapter",
        "stopped, no such adapter written or sealed; the last good checkpoint goes on to the same adapter",
        trials.f7_not_a_number,
    ),
    "F8": Fault(
        "a file of the newest checkpoint cut, emptied, lengthened, deleted, one bit flipped",
        "seen and named, the older checkpoint used; the same adapter",
        trials.f8_damaged_checkpoint,
    ),
    "F9": Fault(
        "the examples changed, reordered, more, fewer",
        "refused with the difference; --accept-change starts another run from that adapter and says so",
        trials.f9_other_examples,
    ),
    "F10": Fault(
        "a setting, seed, adapter or batch changed",
        "refused, each difference named",
        trials.f10_other_settings,
    ),
    "F11": Fault(
        "other base weights under the same name, one bit of them",
        "refused",
        trials.f11_other_base,
    ),
    "F12": Fault(
        "other library versions",
        "told, and the result is no longer called bitwise",
        trials.f12_other_versions,
    ),
    "F13": Fault(
        "two runs in one folder; a stale lock",
        "the second is refused; a killed run leaves no lock behind",
        trials.f13_two_runs,
    ),
    "F14": Fault(
        "a data worker dies or hangs",
        "a sentence within the time limit",
        trials.f14_dead_or_hung_reader,
        limits="training reads its examples in its own process and has no worker; shown here for the process that reads PDFs",
    ),
    "F15": Fault(
        "clock jumps, full inode table, read-only mount",
        "one sentence and exit code 5, or no effect at all; the same adapter afterwards",
        trials.f15_clock_inodes_read_only,
        mounts=True,
    ),
    "F16": Fault(
        "a rank of a run with several processes is lost (SIGKILL)",
        "all ranks end within a minute with exit code 75; the run goes on from the last sealed checkpoint",
        trials.f16_lost_rank,
        limits="two processes of one machine (gloo); neither NCCL nor several machines",
    ),
    "F17": Fault(
        "SIGKILL at every write, fsync and rename of an analysis",
        "resumed, every article stands in the result exactly once",
        trials.f17_analysis_killed,
    ),
    "F18": Fault(
        "SIGKILL at every write, fsync and rename of packing a bundle",
        "the bundle is complete or not there",
        trials.f18_bundle_killed,
    ),
}
