"""How is a checkpoint written while the run goes on? Copied at the step, written by a thread.

`submit` copies what will change (adapter, optimizer) into buffers of its own and returns; a thread
stages, hashes, fsyncs, renames and reads back, exactly as `seal.Checkpoints.save` does without a thread.
At most one checkpoint is in flight: the next `submit` waits for it, so the buffers are never written
to while they are read. What went wrong in the thread is raised by the next `check`, `submit` or `wait`
in the run. Whoever ends the run (last step, SIGTERM, Ctrl-C, a failure) waits.

A process that is killed while the thread writes leaves what a process killed in `save` leaves: the
older sealed checkpoints and a staged folder that nobody reads.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hauslm.base.errors import MissingError
from hauslm.base.words import say
from hauslm.train import seal, watch

if TYPE_CHECKING:
    import torch

# A disk that has not taken a checkpoint after this long is told, not waited for without end.
PATIENCE_S = 1800.0


class Writer:
    """Seals snapshots in the background. `fixed` names groups whose tensors never change again."""

    def __init__(self, checkpoints: seal.Checkpoints, fixed: Iterable[str] = ()) -> None:
        self.checkpoints = checkpoints
        self.written = 0
        self.held_seconds = (
            0.0  # that the run stood still for: copying, and waiting for the one before
        )
        self.write_seconds = 0.0  # of the thread
        self.last_write_seconds = 0.0
        self._fixed = frozenset(fixed)
        self._buffers: dict[tuple[str, str], torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._step = 0
        self._path: Path | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(self, snapshot: seal.Snapshot) -> None:
        """Copy `snapshot` and begin to write it; raises what the one before failed with."""
        started = time.monotonic()
        self._join()
        copied = self._copied(snapshot)
        self._step = snapshot.step
        self._thread = threading.Thread(
            target=self._write, args=(copied,), name=f"checkpoint-{snapshot.step}", daemon=True
        )
        self._thread.start()
        self.held_seconds += time.monotonic() - started

    def check(self) -> None:
        """Raise what a finished write failed with."""
        if not self.busy:
            self._join()

    def wait(self) -> Path | None:
        """Until nothing is in flight; the newest checkpoint of this writer. Raises its failure."""
        started = time.monotonic()
        self._join()
        self.held_seconds += time.monotonic() - started
        return self._path

    # ------------------------------------------------------------ the thread

    def _write(self, snapshot: seal.Snapshot) -> None:
        started = time.monotonic()
        try:
            watch.all_finite(snapshot.tensors, snapshot.step)
            self._path = self.checkpoints.save(snapshot)
            self.written += 1
        except BaseException as error:  # raised again in the run, whatever it is
            self._error = error
        self.last_write_seconds = time.monotonic() - started
        self.write_seconds += self.last_write_seconds

    def _join(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(PATIENCE_S)
            if thread.is_alive():
                raise MissingError(
                    "H511",
                    say(
                        "The disk has not taken the checkpoint of step {step} for {minutes:.0f} minutes.",
                        step=self._step,
                        minutes=PATIENCE_S / 60,
                    ),
                    where=str(self.checkpoints.folder),
                    next_step=say(
                        "Check this disk; older checkpoints are untouched, --resume uses them."
                    ),
                )
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    # ------------------------------------------------------------ the copy

    def _copied(self, snapshot: seal.Snapshot) -> seal.Snapshot:
        """The values of now, in memory that the run does not write to."""
        groups: dict[str, seal.Tensors] = {}
        for group, tensors in snapshot.tensors.items():
            if group in self._fixed:
                groups[group] = tensors
            else:
                groups[group] = {n: self._buffer((group, n), t) for n, t in tensors.items()}
        return seal.Snapshot(snapshot.step, groups, json.loads(json.dumps(snapshot.state)))

    def _buffer(self, key: tuple[str, str], value: torch.Tensor) -> torch.Tensor:
        """`value` on the CPU, in a buffer that is used again for the next checkpoint."""
        import torch

        value = value.detach()
        kept = self._buffers.get(key)
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype:
            pinned = value.device.type == "cuda"
            kept = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
            self._buffers[key] = kept
        return kept.copy_(value)
