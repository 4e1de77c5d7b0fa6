"""Would the tests notice? Each line that keeps a promise is taken out of a copy; a test must then fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TESTS = tuple(f"tests/train/test_{name}.py" for name in ("seal", "writer", "faults_table"))
# The quick ones that look at checkpoints; a mutation may name more.
CHOSEN = "dying_at or power_loss or damaged_file or manifest_is_seen or lies or promise_is_kept and (F2 or F3)"


@dataclass(frozen=True)
class Mutation:
    """In `file` (below src/hauslm) `old` becomes `new`."""

    what: str
    file: str
    old: str
    new: str
    tests: str = CHOSEN


SEAL, WRITER = "train/seal.py", "train/writer.py"
MUTATIONS: tuple[Mutation, ...] = (
    Mutation("the fsync of each file", SEAL, "        os.fsync(descriptor)\n", ""),
    Mutation("the fsync of the staged folder", SEAL, "            fsync_folder(staged)\n", ""),
    Mutation(
        "the fsync of the folder after the rename",
        SEAL,
        "            staged.rename(final)\n            fsync_folder(self.folder)\n",
        "            staged.rename(final)\n",
    ),
    Mutation(
        "the rename: written in place",
        SEAL,
        '        staged = self.folder / f".{final.name}.{secrets.token_hex(4)}.tmp"\n',
        "        staged = final\n",
    ),
    Mutation(
        "the hash check of each file", SEAL, 'if found != expected["sha256"]:', "if found is None:"
    ),
    Mutation("the hash check of the manifest", SEAL, "if digest != claimed:", "if digest is None:"),
    Mutation(
        "reading back after the save",
        SEAL,
        "            verify(final)\n        except",
        "            pass\n        except",
    ),
    Mutation("keeping two: one is kept", SEAL, "self.all()[: -self.keep]", "self.all()[:-1]"),
    Mutation(
        "the writer's own copy of the values",
        WRITER,
        "groups[group] = {n: self._buffer((group, n), t) for n, t in tensors.items()}",
        "groups[group] = tensors",
    ),
    Mutation(
        "raising in the run what failed in the writer",
        WRITER,
        "            raise error\n",
        "            pass\n",
        "promise_is_kept and F4",
    ),
    Mutation(
        "waiting for the writer at the end of a run",
        "train/leg.py",
        "            self.trainer.train()\n            self.writer.wait()\n",
        "            self.trainer.train()\n",
        "last_checkpoint",
    ),
    Mutation(
        "the check for values that are not finite",
        WRITER,
        "            watch.all_finite(snapshot.tensors, snapshot.step)\n",
        "",
        "promise_is_kept and F7",
    ),
    Mutation(
        "the comparison of settings, examples and base",
        SEAL,
        "    if changed and not accept_change:",
        "    if False:",
        "promise_is_kept and (F9 or F10 or F11)",
    ),
    Mutation(
        "the lock",
        "base/files.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "promise_is_kept and F13",
    ),
)


def first_failure(mutation: Mutation | None) -> str:
    """The first test that fails under the mutation ('' if none does: the mutant survives)."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            path = source / "hauslm" / mutation.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutation.old) != 1:
                raise AssertionError(f"{mutation.what}: stands {text.count(mutation.old)} times")
            path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        chosen = mutation.tests if mutation else CHOSEN
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS, "-k", chosen],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(source), "CAMPAIGN_SOURCE": str(source)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )  # fmt: skip
    if done.returncode == 0:
        return ""
    found = re.search(r"^FAILED \S+?::(\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise AssertionError(done.stdout[-2000:] + done.stderr[-2000:])
    return found[1]
