"""Train: from prepared examples to an adapter. `loop.train` is the page to read first.

    loop.py       the run, top to bottom             leg.py       what lives between its steps
    inputs.py     examples, base, identity           settings.py  which values hold, and why
    batches.py    what one optimizer step eats       presets.py   values with evidence, advice
    model.py      base, adapter, saving              adapters/    one file for each LoRA variant
    attention.py  loss.py  lean.py                   the three places where the time goes
    trainer.py    transformers' Trainer, our way     proof.py     packed = unpacked, shown each time
    seal.py       checkpoints never half-written     watch.py     silent failures made loud
    meter.py      metrics.jsonl, memory, energy      record.py    the record of the run
    writer.py     written beside the run             reporters.py TensorBoard, MLflow, Trackio, if asked
    process.py    how it stands, for anybody         launch.py    the run as a process of its own
    eightbit.py   the frozen base in 8 bit           gate.py      whether the base bears that
    whole.py      modules trained whole              kernels.py   Liger, torch.compile: CUDA, if asked
    limit.py      share of what the machine could    profile.py   where the time went, if asked
    signals.py    stop, and a terminal that closes   threads.py   how threads wait

Nothing here imports torch before it is called: modules that need it are imported inside functions.
"""
