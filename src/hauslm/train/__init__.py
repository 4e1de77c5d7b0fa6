"""Train: from prepared examples to an adapter. `loop.train` is the page to read first.

    loop.py      the run, top to bottom          settings.py  which values hold, and why
    batches.py   what one optimizer step eats    presets.py   values with evidence, advice
    model.py     base, adapter, saving           adapters/    one file for each LoRA variant
    attention.py loss.py lean.py                 the three places where the time goes
    trainer.py   transformers' Trainer, ours     proof.py     packed = unpacked, shown before each run
    seal.py      checkpoints nobody can half-write            watch.py     silent failures made loud
    meter.py     metrics.jsonl, memory, energy   launch.py    the run as a process of its own

Nothing here imports torch before it is called: modules that need it are imported inside functions.
"""
