"""What do other tools answer to the same question? Their published methods, computed here.

* accelerate: `estimate-memory`, "Training using Adam", by the package's own functions (its look-up at the
  Hub is left out). Knows the model only.
* gpu_poor: a web page; its method as published (github.com/RahulSChand/gpu_poor, README and src/App.js,
  2024-12): parameters with full attention heads, 16-bit activations with eager scores, 15 per cent of
  them with checkpointing, LoRA fixed at rank 8, 650 MiB on top. Written anew from that description.
* DeepSpeed: `estimate_zero2/zero3_model_states_mem_needs` without offload, as its documentation states
  the sums (deepspeed.readthedocs.io, memory): states of full fine-tuning, no activations. It counts every
  parameter of the model, frozen or not.
"""

from __future__ import annotations

import math

from hauslm.catalog.schema import Architecture
from hauslm.estimate.configs import config_of
from hauslm.estimate.memory import GIB
from hauslm.estimate.setup import TrainingSetup
from hauslm.estimate.shape import counts, linears

MIB = float(1 << 20)


def accelerate_gib(shape: Architecture) -> float:
    """The largest figure of accelerate's "Training using Adam" for the model in 16 bit."""
    import torch
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = config_of(shape)
    made = CONFIG_MAPPING[config.pop("model_type")](**config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    total, _ = calculate_maximum_sizes(model)
    return float(max(estimate_training_usage(total, "float16").values())) / GIB


def gpu_poor_gib(s: TrainingSetup) -> float:
    """gpu_poor's total for training with Adam. It asks for model, method, length, batch, checkpointing."""
    a = s.architecture
    h, f, layers, n = a.hidden_size, a.intermediate_size, a.n_layers, s.seq_len
    parameters = 2 * a.vocab_size * h + layers * (4 * h * h + 3 * f * h)
    weights = 2.0 * parameters
    if s.method == "qlora":
        weights = weights / 4 - 2 * parameters / 64 + 0.06 * weights
        adapter = layers * 8 * h * 0.5 * 4 * 3
        # its extra for 4-bit training grows with the root of the length
        extra = 0.75 * layers * (15 * h + 6 * f) * 50 * math.sqrt(max(1.0, n / 50))
        states = adapter + extra * s.micro_batch_size
    elif s.method == "lora":
        states = layers * 8 * h * 2 * 4 * 3 * 2.0
    else:
        states = 3 * weights
    width = 2.0
    attention = 8 * n * h * width + n * n * a.n_heads * (2 * width + 4)
    mlp = 2 * n * h * width + 6 * n * f * width
    norms = 8 * n + 6 * n * h * width
    kept = s.micro_batch_size * layers * (attention + mlp + norms)
    if s.checkpointed_layers:
        kept *= 0.15
    return (weights + states + kept + 650 * MIB) / GIB


def deepspeed_gib(shape: Architecture, gpus: int, stage: int) -> float:
    """ZeRO-2: 4 P + 16 P / GPUs bytes; ZeRO-3: 4 x the largest layer + 18 P / GPUs."""
    total = counts(shape).total
    if stage == 2:
        return (4 * total + 16 * total / gpus) / GIB
    largest = max(shape.vocab_size * shape.hidden_size, *(x.n_in * x.n_out for x in linears(shape)))
    return (4 * largest + 18 * total / gpus) / GIB
