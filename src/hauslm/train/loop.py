"""One training run, read from top to bottom: `train`.

Prepared examples, the base and the settings go in; a plain PEFT folder and a `Run` record come out. The
run is a function of (settings, data, base): on a CPU, however often it is killed and resumed, the adapter
is bit for bit the same. What a step does stands in `batches.py` and `trainer.py`, what is kept between
steps in `leg.py`.
"""

from __future__ import annotations

from hauslm.base.files import ProjectFolder, disk_trouble, lock
from hauslm.base.progress import Progress
from hauslm.records import Corpus, Plan, Run
from hauslm.scenario import Scenario
from hauslm.train import distributed, process, signals, threads


def train(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    plan: Plan | None,
    corpus: Corpus,
    resume: bool = False,
    progress: Progress,
    accept_change: bool = False,
    ranks: distributed.Ranks = distributed.ALONE,
    profiled: bool = False,
) -> Run:
    """Train the adapter of `scenario` on the prepared examples in `folder`.

    `resume` continues from the newest sound checkpoint of this very run, if there is one;
    `accept_change` starts another run from its adapter when data, settings or base have changed.
    `profiled`: where the time of the first steps goes is written to work/train/profile (profile.py).
    `ranks` is this process among several (distributed.py); rank 0 alone writes.
    SIGTERM and Ctrl-C seal a checkpoint and raise `Interrupted` (75).

    Errors: H60x settings, H61x checkpoints, H62x packing, H63x learning, H64x memory, H330 examples,
    H410 a second run in this folder, H510 the disk, H53x the base.
    """
    threads.settle()
    # `told` says how it ended after the lock is free: whoever reads that may start the next run at once.
    with (
        process.Told(folder, progress) as told,
        disk_trouble(folder.root),
        lock(folder.work / "train", "train" if ranks.first else f"train-{ranks.rank}"),
        signals.listening(folder.logs / "train.log") as stop,
    ):
        if ranks.first:
            told.begin()
        from hauslm.lm.quiet import quiet
        from hauslm.train import inputs, record
        from hauslm.train.leg import Leg

        with quiet():
            # 1. What goes in: examples, base, settings, and the identity they make.
            notices = inputs.Notices(told)
            given = inputs.read(scenario, folder, plan, corpus, notices)
            leg = Leg(given, folder, notices, told, stop, ranks)
            leg.profiled = profiled

            # 2. Where to begin: at step 0 or at the newest sound checkpoint.
            leg.find_checkpoint(resume, accept_change)

            # 3. The base with its adapter, in memory.
            leg.build()

            # 4. Look before you spend: packing leaks nothing, the values make sense, the first loss.
            leg.look()

            # 5. Learn: transformers' Trainer, one optimizer step after the other.
            leg.learn()

            # 6. The best adapter as a plain PEFT folder, and the record.
            digest = leg.write_adapter()
            run = record.record_of(leg, digest)
            return told.done(run) if ranks.first else run
